"""The soak: its verdicts on known series, and the detection of a leaking server."""

import json
import os
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from lab.base.errors import LabError
from lab.base.messages import decode, encode
from lab.cli.commands.soak import exit_code
from lab.cli.context import COULD_NOT_RUN, DID_NOT_HOLD, HELD
from lab.clients.soak_traffic import REQUESTS, ModelTraffic, Rest, Resting, TrafficCounts, find_workers
from lab.experiments.soak import COUNTS, Clients, Reading, judge, run
from lab.metrics.trend import FEWEST, Trend, after_warm_up
from lab.servers.open import open_backend
from tests.support.servers import Server

MODEL = "asyncio_streams"
SERVED = TrafficCounts(9, 99)


def readings(memory: Sequence[int | None]) -> list[Reading]:
    return [Reading(10.0 * number, value, 26, 1, 0) for number, value in enumerate(memory)]


def test_warm_up_does_not_count_and_a_missing_reading_is_unknown() -> None:
    filling = [10_000_000 + min(number, 10) * 300_000 for number in range(30)]
    assert judge(MODEL, readings(filling), SERVED, 1e6).is_flat
    leaking = [10_000_000 + number * 300_000 for number in range(30)]
    found = judge(MODEL, readings(leaking), SERVED, 1e6)
    assert (found.growth["memory"], found.is_flat) == (Trend.GROWS, False)
    missing = judge(MODEL, readings([*filling[:-1], None]), SERVED, 1e6)
    assert (missing.memory, missing.growth["memory"], missing.is_flat) == (None, Trend.UNKNOWN, False)
    assert not judge(MODEL, readings(filling), replace(SERVED, failures={"no answer": 1}), 1e6).is_flat
    json.dumps(found.as_json())


def test_exit_code_separates_growth_from_inconclusive_series() -> None:
    flat = judge(MODEL, readings([10_000_000] * 30), SERVED, 1e6)
    grown = judge(MODEL, readings([10_000_000 + number * 300_000 for number in range(30)]), SERVED, 1e6)
    short = judge(MODEL, readings([10_000_000] * 3), SERVED, 1e6)
    unserved = judge(MODEL, readings([10_000_000] * 30), replace(SERVED, failures={"no answer": 1}), 1e6)
    found = [exit_code(each) for each in ([flat], [flat, short], [short, grown], [short, unserved, flat])]
    assert found == [HELD, COULD_NOT_RUN, DID_NOT_HOLD, DID_NOT_HOLD]


@pytest.mark.parametrize(
    ("model", "declared", "workers", "few", "many"),
    [
        ("plain_socket", 1, 1, 1, 1),
        ("thread_pool", 64, 8, 7, 7),  # LAB_WORKERS has 8; one of the clients is hostile
        ("asyncio_streams", None, None, 6, 24),
    ],
)
def test_number_of_clients_fits_the_model_and_the_warm_up(
    tmp_path: Path, model: str, declared: int | None, workers: int | None, few: int, many: int
) -> None:
    (tmp_path / "sockets").mkdir()
    with Server(model, tmp_path / "sockets", {"LAB_WORKERS": "8"}) as server:
        names = ("command-tcp", "command-unix", "chargen-tcp")
        addresses = {name: server.address(*name.split("-")) for name in names}
        assert find_workers(addresses, declared) == workers
        traffic = ModelTraffic(model, addresses, workers)
        served = []
        for is_warm_up in (False, True):
            before = traffic.counts.requests
            traffic.visit(warm_up=is_warm_up)
            served.append((traffic.counts.requests - before) // REQUESTS)
    assert served == [few, many]
    assert traffic.counts.failures == {}


def test_two_messages_in_one_read_are_both_handled() -> None:
    command = [sys.executable, "-m", "lab.clients.soak_traffic"]
    environ = {**os.environ, "LAB_TARGETS": "[]"}
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environ) as clients:
        assert clients.stdin is not None
        assert clients.stdout is not None
        clients.stdin.write(f"{encode(Rest())}\n" * 2)
        clients.stdin.flush()
        assert [decode(clients.stdout.readline(), Resting) for _ in range(2)] == [Resting(), Resting()]
        clients.stdin.close()
        assert clients.wait(60) == 0


# Imported by the server at its start: each conversation leaks 64 KiB and a descriptor, every tenth a thread and a
# zombie.
LEAK = """
import sys
if "services.run" in sys.orig_argv:
    import itertools, os, subprocess, threading
    from services.protocol import connection
    kept, number, begin = [], itertools.count(), connection.Connection.__init__
    def leak(self, *arguments, **options):
        begin(self, *arguments, **options)
        kept.append(bytearray(b"x" * 65536))
        kept.append(os.dup(2))
        if next(number) % 10 == 0:
            kept.append(subprocess.Popen(["true"]))
            threading.Thread(target=threading.Event().wait, daemon=True).start()
    connection.Connection.__init__ = leak
"""


def soak(seconds: float = 4.5, every: float = 0.4):
    backend = open_backend("process", f"soak-{os.getpid()}")
    try:
        backend.up([MODEL])
        (found,) = run(backend, [MODEL], seconds=seconds, every=every)
    finally:
        backend.down()
    return found


def test_leaking_server_is_detected(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "sitecustomize.py").write_text(LEAK)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    # Enough readings for an interval, even if they are strongly correlated; more where a busy machine needs more.
    for seconds in (5.0, 10.0, 20.0):
        found = soak(seconds, 0.25)
        if Trend.UNKNOWN not in found.growth.values():
            break
    assert found.growth == dict.fromkeys(["memory", *COUNTS], Trend.GROWS)
    assert found.memory is not None
    assert not found.is_flat


def test_sound_server_leaks_no_descriptor_thread_or_zombie(monkeypatch: pytest.MonkeyPatch) -> None:
    """So short a run shows nothing about memory."""
    warm_ups, go = [], Clients.go

    def note(clients: Clients, *, warm_up: bool) -> None:
        warm_ups.append(warm_up)
        go(clients, warm_up=warm_up)

    monkeypatch.setattr(Clients, "go", note)
    found = soak()
    # Only the warm-up has many clients.
    assert warm_ups == [True] * 4 + [False] * len(after_warm_up(found.readings))
    assert [found.growth[name] for name in COUNTS] == [Trend.FLAT] * 3
    assert not found.visits.failures
    assert found.visits.requests > 100
    assert len(after_warm_up(found.readings)) >= FEWEST


def test_soak_ends_with_a_server_that_exits() -> None:
    backend = open_backend("process", f"soak-{os.getpid()}")
    try:
        backend.up([MODEL])
        with pytest.raises(LabError, match=f"{MODEL} did not serve 5 consecutive visits"):
            run(backend, [MODEL], seconds=2, every=0.4, say=lambda line: backend.faults.kill(MODEL, 9))
    finally:
        backend.down()


# A bug in the shared core. It must be detected even though server and traffic import the same code.
WRONG = """
import sys
if {"services.run", "lab.clients.soak_traffic"} & set(sys.orig_argv):
    from services.protocol import connection
    say = connection.Connection.next_event
    def next_event(self):
        event = say(self)
        if b"+OK" in getattr(event, "data", b""):
            return type(event)(event.data.replace(b"+OK", b"+KO"))
        return event
    connection.Connection.next_event = next_event
"""


def test_bug_in_the_shared_core_is_detected(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "sitecustomize.py").write_text(WRONG)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    assert "a wrong answer of 71231 bytes" in find_failures(1.0, 1.0)


def find_failures(seconds: float, every: float) -> str:
    """Return the failures of a soak, whether it completed or ended at the fifth failure."""
    try:
        return str(soak(seconds, every).visits.failures)
    except LabError as error:
        return str(error)
