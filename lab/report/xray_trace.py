"""An X-ray in Chrome's trace format, for chrome://tracing and Perfetto: https://ui.perfetto.dev opens it.

The format: Google's "Trace Event Format"; times and lengths are microseconds.
"""

from collections.abc import Iterator, Sequence
from typing import Any

from lab.experiments.xray.analysis import Analysis
from lab.experiments.xray.recording import Recording


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
        yield {"ph": "M", "name": "thread_sort_index", "pid": pid, "tid": row, "args": {"sort_index": row}}
        for span in lane.spans:
            named = f"{span.state} for {span.client}" if span.client else str(span.state)
            times = {"ts": span.start / 1e3, "dur": (span.end - span.start) / 1e3}
            yield {"ph": "X", "name": named, "cat": "state", "pid": pid, "tid": row, **times}
        for mark in lane.marks:
            yield {"ph": "i", "s": "t", "name": mark.name, "pid": pid, "tid": row, "ts": mark.time / 1e3}
    for number, edge in enumerate(analysis.edges):
        flow = {"cat": "wait", "name": f"{edge.waiter} waits for {edge.holder}", "id": pid * 1000 + number, "pid": pid}
        yield {"ph": "s", **flow, "tid": rows[edge.lane], "ts": edge.start / 1e3}
        yield {"ph": "f", "bp": "e", **flow, "tid": rows[edge.waiter], "ts": edge.end / 1e3}
