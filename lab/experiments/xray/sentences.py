"""Sentences about a recording, made from what it proves."""

from collections.abc import Iterator

from lab.experiments.xray.analysis import SHORTEST, Analysis, Edge, State

_VERBS = {
    State.SLEEPING: "slept for",
    State.COMPUTING: "computed for",
    State.SENDING: "sent to",
    State.READING: "waited for a request of",
    State.ENDING: "waited for the end of",
}


def show_ms(nanoseconds: float) -> str:
    """Return milliseconds with as many digits as can be trusted."""
    value = nanoseconds / 1e6
    return f"{value:.1f} ms" if value < 9.95 else f"{value:.0f} ms"


def conclude(analysis: Analysis) -> str:
    """Return who blocks whom in one line: `A blocks B, B blocks C`."""
    if not analysis.recording.processes:
        return "the server has no recorder: only its clients are known"
    links = [
        f"{holder} and {waiter} share the GIL" if via == "GIL" else f"{holder} blocks {waiter}"
        for holder, waiter, via in analysis.chain
    ]
    return ", ".join(links) or "no client waits for another"


def explain(analysis: Analysis) -> list[str]:
    """Return a sentence for each client that waited for another, or one that says that none did."""
    found = list(_explain_waits(analysis))
    for client in analysis.recording.clients:
        if client.error:
            found.append(f"{client.name} got no reply: {client.error}.")
    if not found and analysis.recording.processes:
        last = analysis.recording.clients[-1]
        took = show_ms((last.answered or last.closed) - last.sent[0]) if last.sent else "no time"
        found.append(f"No client waited for another. {last.name} had its reply after {took}.")
    return found


def _explain_waits(analysis: Analysis) -> Iterator[str]:
    for client in analysis.recording.clients:
        edges = [edge for edge in analysis.edges if edge.waiter == client.name]
        if not edges:
            continue
        waited = show_ms(analysis.waits[client.name])
        if all(edge.via == "GIL" for edge in edges):
            holder = edges[0].holder
            yield f"{client.name} waited {waited}: the thread of {holder} computed, and held the GIL." + _corroborate(
                analysis, client.name
            )
            continue
        steps = ", then ".join(_describe(edge) for edge in edges if edge.via == "thread")
        yield f"{client.name} waited {waited}: {_name_holder(analysis, client.name)} {steps}."


def _describe(edge: Edge) -> str:
    return f"{_VERBS[edge.state]} {edge.holder} ({show_ms(edge.length)})"


def _name_holder(analysis: Analysis, client: str) -> str:
    lane = analysis.lane_of(client)
    several = len({key[0] for key in analysis.by_lane}) > 1
    if lane in analysis.loops:
        return "the loop of its process" if several else "the loop"
    if len(analysis.by_lane) == 1:
        return "the only thread"
    return "the process that served it" if several else "the thread that served it"


def _corroborate(analysis: Analysis, client: str) -> str:
    lane = next((each for each in analysis.lanes if each.key == analysis.lane_of(client)), None)
    seen = sum(span.end - span.start for span in lane.spans if span.state is State.GIL) if lane else 0
    return f" The kernel shows {show_ms(seen)} of it as a wait for a lock (futex)." if seen >= SHORTEST else ""
