"""An X-ray in Chrome's trace format, for chrome://tracing and Perfetto: https://ui.perfetto.dev opens it.

The format: Google's "Trace Event Format"; times and lengths are microseconds.
"""

from collections.abc import Iterator, Sequence
from typing import Any

from lab.experiments.xray.analysis import Analysis, Lane
from lab.experiments.xray.recording import Recording

# From the row of a thread to that of its system calls. Rows are sorted by `sort_index`.
_CALLS = 1000


def make_trace(recordings: Sequence[Recording]) -> dict[str, Any]:
    """Return the trace: a process for each recording, with a thread for each lane, and a flow for each wait."""
    events: list[dict[str, Any]] = []
    for number, recording in enumerate(recordings, 1):
        events += _list_events(Analysis(recording), number)
    return {"displayTimeUnit": "ms", "traceEvents": events}


def _list_events(analysis: Analysis, pid: int) -> Iterator[dict[str, Any]]:
    recording = analysis.recording
    name = f"{recording.model}: {recording.scene}"
    yield {"ph": "M", "name": "process_name", "pid": pid, "tid": 0, "args": {"name": name}}
    rows: dict[Any, int] = {}
    for row, lane in enumerate(analysis.lanes, 1):
        rows[lane.name if lane.is_client else lane.key] = row
        yield {"ph": "M", "name": "thread_name", "pid": pid, "tid": row, "args": {"name": lane.name}}
        yield {"ph": "M", "name": "thread_sort_index", "pid": pid, "tid": row, "args": {"sort_index": 2 * row}}
        for span in lane.spans:
            named = f"{span.state} for {span.client}" if span.client else str(span.state)
            times = {"ts": span.start / 1e3, "dur": (span.end - span.start) / 1e3}
            yield {"ph": "X", "name": named, "cat": "state", "pid": pid, "tid": row, **times}
        if lane.calls:
            yield from _list_calls(lane, pid, row + _CALLS)
        yield from _list_switches(lane, pid)
        for mark in lane.marks:
            yield {"ph": "i", "s": "t", "name": mark.name, "pid": pid, "tid": row, "ts": mark.time / 1e3}
    for number, edge in enumerate(analysis.edges):
        flow = {"cat": "wait", "name": f"{edge.waiter} waits for {edge.holder}", "id": pid * 1000 + number, "pid": pid}
        yield {"ph": "s", **flow, "tid": rows[edge.lane], "ts": edge.start / 1e3}
        yield {"ph": "f", "bp": "e", **flow, "tid": rows[edge.waiter], "ts": edge.end / 1e3}


def _list_switches(lane: Lane, pid: int) -> Iterator[dict[str, Any]]:
    """Give a counter: how often the thread was put on a core from one look to the next."""
    counter = {"ph": "C", "name": f"{lane.name}: put on a core", "pid": pid}
    starts = {each.start for each in lane.switches}
    for each in lane.switches:
        yield {**counter, "ts": each.start / 1e3, "args": {"times": each.number}}
        if each.end not in starts:
            yield {**counter, "ts": each.end / 1e3, "args": {"times": 0}}


def _list_calls(lane: Lane, pid: int, row: int) -> Iterator[dict[str, Any]]:
    name = {"name": f"{lane.name}: system calls"}
    yield {"ph": "M", "name": "thread_name", "pid": pid, "tid": row, "args": name}
    yield {
        "ph": "M",
        "name": "thread_sort_index",
        "pid": pid,
        "tid": row,
        "args": {"sort_index": 2 * (row - _CALLS) + 1},
    }
    for call in lane.calls:
        if call.name:
            times = {"ts": call.start / 1e3, "dur": (call.end - call.start) / 1e3}
            yield {"ph": "X", "name": call.name, "cat": "system call", "pid": pid, "tid": row, **times}
