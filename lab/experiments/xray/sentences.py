"""Sentences about a recording, made from what it proves."""

from collections.abc import Iterator, Sequence
from itertools import groupby

from lab.experiments.xray.analysis import SHORTEST, Analysis, Edge, Lane, State
from lab.experiments.xray.recording import Recording, Thread

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


def show_times(number: int) -> str:
    """Return how often."""
    return "once" if number == 1 else f"{number} times"


def describe_switches(lane: Lane) -> str:
    """Return how often a thread was put on a core while it was looked at; empty if that is not known."""
    if lane.thread is None or lane.switched is None:
        return ""
    return f"put on a core {show_times(lane.switched)} in {show_ms(lane.thread.end - lane.thread.start)}"


def conclude(analysis: Analysis) -> str:
    """Return who blocks whom in one line: `A blocks B, B blocks C`."""
    if not analysis.recording.processes:
        return "the server has no recorder: only its clients are known"
    links = [
        f"{holder} and {waiter} share the GIL" if via == "GIL" else f"{holder} blocks {waiter}"
        for holder, waiter, via in analysis.chain
    ]
    return ", ".join(links) or "no client waits for another"


def describe_tracing(recording: Recording) -> str:
    """Return what is to be known of the system calls on the time axis; empty if there are none."""
    if not recording.traced:
        return ""
    return (
        "The system calls are from strace, which stops a thread at each: times are longer than without it, and context "
        "switches are more. "
        f"Its clock is aligned with that of the lanes to within {recording.misaligned / 1000:.1f} \u00b5s."
    )


def explain(analysis: Analysis) -> list[str]:
    """Return a sentence for each client that waited for another, or one that says that none did."""
    found = [*_explain_waits(analysis)]
    for client in analysis.recording.clients:
        if client.error:
            found.append(f"{client.name} got no reply: {client.error}.")
    last = analysis.recording.clients[-1]
    if not analysis.edges and analysis.recording.processes and last.answered is not None:
        found.insert(0, f"{last.name} had its reply after {show_ms(last.answered - last.sent[0])}.")
    return found


def _explain_waits(analysis: Analysis) -> Iterator[str]:
    for client in analysis.recording.clients:
        edges = [edge for edge in analysis.edges if edge.waiter == client.name]
        waited = show_ms(analysis.waits[client.name])
        if not edges:
            queued = min(_measure(analysis, client.name, State.CORE), analysis.waits[client.name])
            if queued >= SHORTEST:
                yield f"{client.name} waited {waited} for no client: its thread had no core for {show_ms(queued)}."
            continue
        if all(edge.via == "GIL" for edge in edges):
            holder = edges[0].holder
            yield (
                f"{client.name} waited {waited}: the thread of {holder} computed, and held the GIL."
                f"{_corroborate(analysis, client.name)}{_compare_switches(analysis, edges)}"
            )
            continue
        # Of the same kind, one behind the other: a reply is sent in many pieces.
        groups = groupby((edge for edge in edges if edge.via == "thread"), key=lambda edge: (edge.state, edge.holder))
        steps = ", then ".join(_describe(list(group)) for _, group in groups)
        yield f"{client.name} waited {waited}: {_name_holder(analysis, client.name)} {steps}."


def _describe(edges: Sequence[Edge]) -> str:
    return f"{_VERBS[edges[0].state]} {edges[0].holder} ({show_ms(sum(edge.length for edge in edges))})"


def _name_holder(analysis: Analysis, client: str) -> str:
    lane = analysis.lane_of(client)
    several = len({key[0] for key in analysis.by_lane}) > 1
    if lane in analysis.loops:
        return "the loop of its process" if several else "the loop"
    if len(analysis.by_lane) == 1:
        return "the only thread"
    return "the process that served it" if several else "the thread that served it"


def _corroborate(analysis: Analysis, client: str) -> str:
    seen = _measure(analysis, client, State.GIL)
    return f" The kernel shows {show_ms(seen)} of it as a wait for a lock (futex)." if seen >= SHORTEST else ""


def _compare_switches(analysis: Analysis, edges: Sequence[Edge]) -> str:
    """Return how often the kernel turned to each of two threads while one held the GIL; empty if that is not known."""
    first = edges[0]
    times = [(edge.start, edge.end) for edge in edges if (edge.holder, edge.lane) == (first.holder, first.lane)]
    of_holder, of_waiter = (
        _count_switches(analysis.threads.get(key), times) if key else ""
        for key in (first.lane, analysis.lane_of(first.waiter))
    )
    if not of_holder or not of_waiter:
        return ""
    holder, waiter = first.holder, first.waiter
    return f" Meanwhile the thread of {holder} was put on a core {of_holder}, and that of {waiter} {of_waiter}."


def _count_switches(thread: Thread | None, times: Sequence[tuple[int, int]]) -> str:
    """Return how often a thread was put on a core in these times; empty if nothing is known of it.

    A look that is in part outside of them may have all of its number there, or none.
    """
    if thread is None or thread.switches is None:
        return ""
    least = most = 0
    for each in thread.switches:
        if any(start <= each.start and each.end <= end for start, end in times):
            least += each.number
        if any(each.start < end and start < each.end for start, end in times):
            most += each.number
    if any(end > thread.end for _, end in times):
        return f"at least {show_times(least)}" if least else ""
    return show_times(most) if least == most else f"{least} to {most} times"


def _measure(analysis: Analysis, client: str, state: State) -> int:
    """Return how long the thread of a client was in a state, from when the client sent until it had its reply."""
    found = analysis.clients[client]
    key = analysis.lane_of(client)
    lane = next((each for each in analysis.lanes if each.key == key), None)
    if lane is None or not found.sent:
        return 0
    start, end = found.sent[0], found.answered or found.closed
    return sum(max(0, min(span.end, end) - max(span.start, start)) for span in lane.spans if span.state is state)
