"""Every model under the X-ray, as a process: what is concluded is what the order of its notes proves.

The rule for each kind of concurrency is written down here a second time, shorter than in the analysis.
"""

import os
from collections.abc import Iterator
from uuid import uuid4

import pytest

from lab.base.environ import ENV_XRAY
from lab.experiments.xray.analysis import SHORTEST, Analysis, Lane, State, is_orderly
from lab.experiments.xray.record import choose_folder, record
from lab.experiments.xray.recording import Recording
from lab.experiments.xray.scenes import SCENES
from lab.servers.backend import choose_models
from lab.servers.catalogue import Catalogue
from lab.servers.processes import Processes
from lab.servers.runtime import runtime_directory
from services.protocol.trace import Kind

# They share a lab of all models.
pytestmark = pytest.mark.xdist_group("xray-models")

CATALOGUE = Catalogue.load()
NAMES = [model.name for model in CATALOGUE.select() if not model.only_in_container and not model.rfc_only]
# Chains of waiting are judged by steps of a scene that take 10 ms and more.
LONG = 2 * SHORTEST


@pytest.fixture(scope="module")
def lab() -> Iterator[Processes]:
    backend = Processes(f"test-{uuid4().hex[:8]}", CATALOGUE)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(ENV_XRAY, choose_folder(backend, runtime_directory(backend.project)))
        try:
            backend.up(choose_models(backend, NAMES))
            yield backend
        finally:
            backend.down()


def find_times(recording: Recording) -> dict[tuple[str, Kind], list[int]]:
    """Return when each kind of note was made for each client."""
    ports = {client.port: client.name for client in recording.clients}
    found: dict[tuple[str, Kind], list[int]] = {}
    for process in recording.processes:
        names = {note.connection: ports.get(note.value, "") for note in process.notes if note.kind is Kind.OPENED}
        for note in process.notes:
            found.setdefault((names.get(note.connection, ""), note.kind), []).append(note.time)
    return found


def find_places(recording: Recording) -> dict[str, tuple[int, int]]:
    """Return the process and thread of each client."""
    ports = {client.port: client.name for client in recording.clients}
    return {
        ports[note.value]: (process.pid, note.thread)
        for process in recording.processes
        for note in process.notes
        if note.kind is Kind.OPENED and note.value in ports
    }


def find_lanes(recording: Recording, analysis: Analysis) -> list[Lane]:
    """Return the lanes of threads that serve clients and that the kernel has shown."""
    places = find_places(recording).values()
    return [lane for lane in analysis.lanes if lane.thread and lane.key in places]


def prove(recording: Recording) -> set[tuple[str, str, str]]:
    """Return who blocked whom in the scene `sleep`, from the order of notes alone."""
    times, places = find_times(recording), find_places(recording)
    sent = {client.name: client.sent[0] for client in recording.clients}
    read = {name: times[name, Kind.RECEIVED][0] for name in sent}
    found = set()
    # On a busy machine the recording ends before a model has noticed that its last client is gone.
    closed = {name: times.get((name, Kind.CLOSE), [recording.end])[0] for name in sent}
    if len(set(places.values())) == 1 and closed["A"] < times["B", Kind.OPENED][0]:
        # One after the other. Who sent while another was served has waited for it, and for it alone if it came first.
        for before, after in (("A", "B"), ("B", "C"), ("A", "C")):
            if min(closed[before], read[after]) - sent[after] >= LONG:
                found.add((before, after, "thread"))
        return found - ({("A", "C", "thread")} if len(found) == 3 else set())
    begin, end = times["B", Kind.COMPUTE][0], times["B", Kind.DIGEST][0]
    due = times["A", Kind.WAIT][0] + 20_000_000
    waits = [(name, sent[name], read[name]) for name in ("A", "C")] + [("A", due, times["A", Kind.SEND][0])]
    for waiter, since, until in waits:
        if min(end, until) - max(begin, since) >= LONG:
            if places["B"] == places[waiter]:
                found.add(("B", waiter, "thread"))
            elif places["B"][0] == places[waiter][0]:
                found.add(("B", waiter, "GIL"))
    return found


@pytest.mark.parametrize("name", NAMES)
def test_conclusion_is_what_the_order_of_events_proves(lab: Processes, name: str) -> None:
    # On a busy machine, a loop may get no core, and a thread of 40 ms may not be seen: not three times.
    for _ in range(3):
        recording = record(lab, name, SCENES["sleep"], os.environ[ENV_XRAY], rounds=1)
        assert not [client.error for client in recording.clients if client.error]
        analysis = Analysis(recording)
        if is_orderly(recording) and find_lanes(recording, analysis):
            break
    proved = prove(recording)
    concluded = set(analysis.chain)
    # A wait of a few switches between threads is none of a model. A loop that gets no core looks as if it read from the
    # client that it served first.
    assert proved <= concluded
    unproved = [
        edge
        for edge in analysis.edges
        if (edge.holder, edge.waiter, edge.via) in concluded - proved
        and (is_orderly(recording) or edge.state is not State.READING)
    ]
    assert all(edge.length < 2 * LONG for edge in unproved), (unproved, proved)
    places = find_places(recording)
    match CATALOGUE[name].concurrency:
        case "one" if is_orderly(recording):
            assert concluded == {("A", "B", "thread"), ("B", "C", "thread")}
        case "process each" | "processes":
            assert len({pid for pid, _ in places.values()}) == 3
            assert not concluded
        case "thread each" | "threads":
            assert len({pid for pid, _ in places.values()}) == 1
            assert len({thread for _, thread in places.values()}) == 3
            assert {via for _, _, via in concluded} <= {"GIL"}
        case "loop":
            assert len(set(places.values())) == 1
            assert {(holder, via) for holder, _, via in concluded} <= {("B", "thread")}
    assert recording.threads, recording.missing
    # Its last moments are not seen if it ends before the next look, but it has begun.
    of_clients = find_lanes(recording, analysis)
    assert of_clients
    assert all(lane.switched for lane in of_clients)
    for lane in analysis.lanes:
        assert sum(span.end - span.start for span in lane.spans) == recording.end
