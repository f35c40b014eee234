"""Requests of Locust's web UI: known faults, models of the load, and a limited duration."""

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from datetime import UTC, datetime

import psutil
import pytest

from lab.clients.call import call
from lab.experiments.faults.fault import find_address
from lab.experiments.faults.remote_requests import FaultRequestReader
from lab.load.messages import MOST_FAULT_SECONDS, FaultRequest
from lab.load.timeline import read
from lab.servers.processes import Processes
from tests.faults.conftest import CATALOGUE
from tests.support.fakes import FakeHelper
from tests.support.waiting import wait_until

MODELS = ["asyncio_streams", "plain_socket"]


@pytest.fixture(scope="module")
def lab() -> Iterator[Processes]:
    backend = Processes(f"asked-{os.getpid()}", CATALOGUE)
    backend.up(MODELS)
    yield backend
    backend.down()


@pytest.fixture
def generator() -> FakeHelper:
    return FakeHelper("the load generator")


@pytest.fixture
def requests(lab: Processes, generator: FakeHelper) -> FaultRequestReader:
    return FaultRequestReader(lab, MODELS, generator, print)


def now() -> datetime:
    """Return a time before every later interval; those are in whole milliseconds."""
    begun = datetime.now(UTC)
    time.sleep(0.002)
    return begun


def test_fault_is_injected_into_all_models_and_healed(
    requests: FaultRequestReader,
    lab: Processes,
    generator: FakeHelper,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    begun = now()
    asked = []

    def sleep(seconds: float) -> None:
        asked.append(seconds)
        monkeypatch.undo()
        wait_until(lambda: all(psutil.Process(lab.pid(name)).status() == psutil.STATUS_STOPPED for name in MODELS))

    generator.say("locust says", FaultRequest("pause", (*MODELS, MODELS[0]), 7.0))
    monkeypatch.setattr("lab.experiments.faults.remote_requests.time.sleep", sleep)
    requests.advance()
    assert asked == [7.0]
    assert "healed" in capsys.readouterr().out
    for name in MODELS:
        assert call("command", find_address(lab, name), ["PING"]).value == b"PONG"
    found = read(lab.project, begun)
    assert sorted((fault.model, fault.fault, fault.why_not) for fault in found) == [
        (name, "pause", "") for name in MODELS
    ]
    assert all(fault.end for fault in found)
    # Each request is handled once.
    requests.advance()
    assert len(read(lab.project, begun)) == 2


def test_unsupported_fault_is_shown_with_its_reason(
    requests: FaultRequestReader, lab: Processes, generator: FakeHelper, capsys: pytest.CaptureFixture[str]
) -> None:
    begun = now()
    generator.say(FaultRequest("latency", (MODELS[0],), 60.0))
    requests.advance()
    (fault,) = read(lab.project, begun)
    assert (fault.model, fault.fault, fault.why_not[:16]) == (MODELS[0], "latency", "only a container")
    assert "unknown: only a container" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("request_", "said"),
    [
        (FaultRequest("format the disk", (MODELS[0],), 1.0), "unknown fault"),
        (FaultRequest("kill", (MODELS[0], "prefork"), 1.0), "no fault is injected into prefork"),
        (FaultRequest("pause", (MODELS[0],), 0.0), "not 0 s"),
        (FaultRequest("pause", (MODELS[0],), float("nan")), "not nan s"),
        (FaultRequest("pause", (MODELS[0],), MOST_FAULT_SECONDS + 1), "at most 600 s"),
    ],
)
def test_invalid_request_is_refused(
    requests: FaultRequestReader,
    lab: Processes,
    generator: FakeHelper,
    capsys: pytest.CaptureFixture[str],
    request_: FaultRequest,
    said: str,
) -> None:
    begun = now()
    pids = [lab.pid(name) for name in MODELS]
    generator.say(request_, '{"kind": "FaultRequest" nonsense', "and goes on")
    requests.advance()
    out = capsys.readouterr().out
    assert said in out
    assert "and goes on" in out
    assert read(lab.project, begun) == []
    assert [lab.pid(name) for name in MODELS] == pids


def test_requests_are_ignored_after_the_end(
    requests: FaultRequestReader, lab: Processes, generator: FakeHelper, capsys: pytest.CaptureFixture[str]
) -> None:
    begun = now()
    generator.say(FaultRequest("kill", (MODELS[0],), 1.0), "last words")
    requests.advance(inject=False)
    assert capsys.readouterr().out == "last words\n"
    assert read(lab.project, begun) == []


def inject_now(lab: Processes, *words: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "lab", "--backend", "process", "--project", lab.project, "faults", "--now", *words]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)


def test_now_injects_into_running_models_and_prints_intervals(lab: Processes) -> None:
    begun = now()
    pids = [lab.pid(name) for name in MODELS]
    done = inject_now(lab, "pause", "--duration", "100ms", *MODELS)
    assert done.returncode == 0, done.stderr
    intervals = [json.loads(line) for line in done.stdout.splitlines()]
    assert sorted((interval["model"], interval["fault"]) for interval in intervals) == [
        (name, "pause") for name in MODELS
    ]
    # At the same time: the last injection comes before the first healing.
    assert max(interval["begin_seconds"] for interval in intervals) + 0.1 <= min(
        interval["end_seconds"] for interval in intervals
    )
    assert len(read(lab.project, begun)) == 2
    assert [lab.pid(name) for name in MODELS] == pids
    assert inject_now(lab, "kill", MODELS[0]).returncode == 0
    assert lab.pid(MODELS[0]) != pids[0]
    assert call("command", find_address(lab, MODELS[0]), ["PING"]).value == b"PONG"


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["pause"], "name them"),
        (["latency", MODELS[0]], "only a container has its own network namespace"),
        (["nonsense", MODELS[0]], "'nonsense' is not one of"),
        (["pause", "nonesuch"], "unknown model 'nonesuch'"),
        (["pause", "prefork"], "prefork is not running"),
        (["pause", "--duration", "soon", MODELS[0]], "soon"),
    ],
)
def test_now_names_what_is_wrong(lab: Processes, words: list[str], said: str) -> None:
    begun = now()
    done = inject_now(lab, *words)
    assert done.returncode == 2
    assert said in done.stderr
    assert "Traceback" not in done.stderr
    assert done.stdout == ""
    assert read(lab.project, begun) == []
