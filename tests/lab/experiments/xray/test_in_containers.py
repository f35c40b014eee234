"""The X-ray of a model in a container: its notes, its threads, and its system calls, from the helpers beside it."""

from collections.abc import Iterator
from uuid import uuid4

import pytest

from lab.base.environ import ENV_XRAY
from lab.experiments.xray.analysis import Analysis, State
from lab.experiments.xray.count import measure
from lab.experiments.xray.record import choose_folder, record
from lab.experiments.xray.scenes import SCENES
from lab.experiments.xray.sentences import conclude
from lab.servers.catalogue import Catalogue
from lab.servers.docker.containers import Containers
from lab.servers.runtime import runtime_directory

pytestmark = [pytest.mark.docker, pytest.mark.xdist_group("containers")]

MODEL = "plain_socket"


@pytest.fixture(scope="module")
def lab(engine, find_of_project) -> Iterator[Containers]:
    backend = Containers(f"t{uuid4().hex[:8]}", Catalogue.load())
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(ENV_XRAY, find_folder(backend))
        try:
            backend.up([MODEL])
            yield backend
        finally:
            backend.down()
            assert not find_of_project(backend.project)


def find_folder(backend: Containers) -> str:
    return choose_folder(backend, runtime_directory(backend.project))


def test_scene_is_recorded_on_both_sides(lab: Containers) -> None:
    recording = record(lab, MODEL, SCENES["sleep"], find_folder(lab), rounds=2)
    analysis = Analysis(recording)
    assert conclude(analysis) == "A blocks B, B blocks C"
    assert recording.backend == "docker"
    (process,) = recording.processes
    assert {(thread.pid, thread.tid) for thread in recording.threads} == {(process.pid, process.notes[0].thread)}
    (lane,) = [lane for lane in analysis.lanes if not lane.is_client]
    assert {(State.SLEEPING, "A"), (State.COMPUTING, "B")} <= {(span.state, span.client) for span in lane.spans}


def test_system_calls_of_a_scene_are_shown_below_the_thread(lab: Containers) -> None:
    recording = record(lab, MODEL, SCENES["sleep"], find_folder(lab), rounds=1, is_traced=True)
    (process,) = recording.processes
    (traced,) = recording.traced
    assert traced.tid == process.notes[0].thread
    assert {"accept4", "recvfrom", "clock_nanosleep", "sendto"} <= {call.name for call in traced.calls}


def test_system_calls_are_counted_by_a_helper_among_its_processes(lab: Containers) -> None:
    costs, missing = measure(lab, MODEL, find_folder(lab).replace("{model}", MODEL), count=50, rounds=1)
    assert missing == {}
    assert [(cost.exchange, cost.copied) for cost in costs] == [
        ("PING", 13),
        ("echo 1 KiB", 2048),
        ("echo 64 KiB", 2 * 65_536),
    ]
    assert costs[0].calls == {"recvfrom": 1.0, "sendto": 1.0}
    assert costs[0].switches
