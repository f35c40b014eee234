"""The soak: that its test says what it should of series that are known, and that a server which leaks is caught."""

import json
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest

from lab.base.errors import LabError
from lab.cli.commands.soak import exit_code
from lab.cli.context import COULD_NOT_RUN, DID_NOT_HOLD, HELD
from lab.clients.soak_traffic import REQUESTS, Visitor, find_workers
from lab.experiments.soak import COUNTS, Clients, Reading, judge, run
from lab.metrics.trend import FEWEST, Growth, after_warm_up
from lab.servers.open import open_backend
from tests.support.servers import Server

MODEL = "asyncio_streams"
SERVED = {"visits": 9, "requests": 99, "failures": {}}


def readings(memory: Sequence[int | None]) -> list[Reading]:
    return [Reading(10.0 * number, value, 26, 1, 0) for number, value in enumerate(memory)]


def test_the_warm_up_does_not_count_and_a_missing_reading_is_no_pass() -> None:
    filling = [10_000_000 + min(number, 10) * 300_000 for number in range(30)]
    assert judge(MODEL, readings(filling), SERVED, 1e6).is_flat
    leaking = [10_000_000 + number * 300_000 for number in range(30)]
    found = judge(MODEL, readings(leaking), SERVED, 1e6)
    assert (found.growth["memory"], found.is_flat) == (Growth.GROWS, False)
    missing = judge(MODEL, readings([*filling[:-1], None]), SERVED, 1e6)
    assert (missing.memory, missing.growth["memory"], missing.is_flat) == (None, Growth.UNKNOWN, False)
    assert not judge(MODEL, readings(filling), {**SERVED, "failures": {"no answer": 1}}, 1e6).is_flat
    json.dumps(found.as_json())


def test_the_exit_code_tells_what_grows_from_what_takes_longer() -> None:
    flat = judge(MODEL, readings([10_000_000] * 30), SERVED, 1e6)
    grown = judge(MODEL, readings([10_000_000 + number * 300_000 for number in range(30)]), SERVED, 1e6)
    short = judge(MODEL, readings([10_000_000] * 3), SERVED, 1e6)
    unserved = judge(MODEL, readings([10_000_000] * 30), {**SERVED, "failures": {"no answer": 1}}, 1e6)
    found = [exit_code(each) for each in ([flat], [flat, short], [short, grown], [short, unserved, flat])]
    assert found == [HELD, COULD_NOT_RUN, DID_NOT_HOLD, DID_NOT_HOLD]


@pytest.mark.parametrize(
    ("model", "declared", "workers", "few", "crowd"),
    [
        ("plain_socket", 1, 1, 1, 1),
        ("thread_pool", 64, 8, 7, 7),  # as LAB_WORKERS tells it; one of them means no good
        ("asyncio_streams", None, None, 6, 24),
    ],
)
def test_as_many_clients_come_as_a_model_serves_or_a_crowd(
    tmp_path: Path, model: str, declared: int | None, workers: int | None, few: int, crowd: int
) -> None:
    (tmp_path / "sockets").mkdir()
    with Server(model, tmp_path / "sockets", {"LAB_WORKERS": "8"}) as server:
        names = ("command-tcp", "command-unix", "chargen-tcp")
        addresses = {name: server.address(*name.split("-")) for name in names}
        assert find_workers(addresses, declared) == workers
        visitor = Visitor(model, addresses, workers)
        served = []
        for is_crowd in (False, True):
            before = visitor.visits.requests
            visitor.visit(crowd=is_crowd)
            served.append((visitor.visits.requests - before) // REQUESTS)
    assert served == [few, crowd]
    assert visitor.visits.failures == {}


def test_two_words_that_come_at_once_are_both_heard() -> None:
    command = [sys.executable, "-m", "lab.clients.soak_traffic"]
    environ = {**os.environ, "LAB_TARGETS": "[]"}
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environ) as clients:
        assert clients.stdin is not None
        assert clients.stdout is not None
        clients.stdin.write("rest\nrest\n")
        clients.stdin.flush()
        assert [clients.stdout.readline() for _ in range(2)] == ["resting 1\n", "resting 2\n"]
        clients.stdin.close()
        assert clients.wait(60) == 0


# For a server that imports it at its start: every conversation leaves 64 KiB, a descriptor, and now and then a thread
# and a child that nobody waits for.
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


def test_a_server_that_leaks_is_caught(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "sitecustomize.py").write_text(LEAK)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    # As many readings as it takes for an interval, however alike each is to the one before.
    found = soak(5.0, 0.25)
    assert found.growth == dict.fromkeys(["memory", *COUNTS], Growth.GROWS)
    assert found.memory is not None
    assert not found.is_flat


def test_a_server_that_does_not_leak_keeps_no_descriptor_thread_or_zombie(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of its memory so short a run can say nothing."""
    crowds, go = [], Clients.go

    def note(clients: Clients, *, crowd: bool) -> None:
        crowds.append(crowd)
        go(clients, crowd=crowd)

    monkeypatch.setattr(Clients, "go", note)
    found = soak()
    # What counts is read after few clients; the warm-up is a crowd's.
    assert crowds == [True] * 4 + [False] * len(after_warm_up(found.readings))
    assert [found.growth[name] for name in COUNTS] == [Growth.FLAT] * 3
    assert not found.visits["failures"]
    assert found.visits["requests"] > 100
    assert len(after_warm_up(found.readings)) >= FEWEST


def test_a_server_that_ends_ends_the_soak() -> None:
    backend = open_backend("process", f"soak-{os.getpid()}")
    try:
        backend.up([MODEL])
        with pytest.raises(LabError, match=f"{MODEL} has not served 5 visits running"):
            run(backend, [MODEL], seconds=2, every=0.4, say=lambda line: backend.kill(MODEL, 9))
    finally:
        backend.down()


# A fault in the core itself, for all that have it: the server, and whoever would ask the core what is right.
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


def test_a_fault_of_the_core_is_noticed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "sitecustomize.py").write_text(WRONG)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    assert "a wrong answer of 71231 bytes" in failures_of(1.0, 1.0)


def failures_of(seconds: float, every: float) -> str:
    """What a soak says that was wrong, whether it came to its end or was given up at the fifth time."""
    try:
        return str(soak(seconds, every).visits["failures"])
    except LabError as error:
        return str(error)
