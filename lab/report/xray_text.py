"""An X-ray in characters: the lanes of a recording on one time axis, for terminals and for docs/models."""

from collections.abc import Iterable, Mapping, Sequence

from lab.experiments.xray.analysis import Analysis, Lane, Mark, State
from lab.experiments.xray.calls import Activity
from lab.experiments.xray.scenes import SCENES
from lab.experiments.xray.sentences import conclude, describe_tracing, explain

# A character for each state, and for the moments of a client.
CHARACTERS: Mapping[State, str] = {
    State.CONNECTING: "+",
    State.BACKLOG: "_",
    State.CONNECTED: "-",
    State.UNREAD: ".",
    State.SERVED: "=",
    State.SLEEPING: "z",
    State.COMPUTING: "#",
    State.SENDING: "s",
    State.READING: "r",
    State.ENDING: "-",
    State.RUNNING: "=",
    State.GIL: "g",
    State.LOCK: "k",
    State.CORE: "c",
    State.LOOP: " ",
    State.IDLE: " ",
}
# Of the row below a lane.
_CALLS: Mapping[Activity, str] = {
    Activity.WAIT: "e",
    Activity.ACCEPT: "a",
    Activity.RECEIVE: "r",
    Activity.SEND: "s",
    Activity.LOCK: "f",
    Activity.SLEEP: "z",
    Activity.OTHER: "o",
    Activity.RUN: "=",
}
_KERNEL = "  system calls"
_SWITCHED = "*"
_MARKS = {"sent": "<", "answered": ">", "closed": "x"}
_MEANINGS = (
    ("_", "in the backlog: connected, as the client sees it"),
    ("-", "connected and silent; a thread: waits for the close"),
    ("<", "the client sends"),
    (".", "sent, and not read by the server yet"),
    ("z", "the server sleeps for this client"),
    ("#", "the server computes for this client"),
    ("s", "the server waits until this client takes the reply"),
    ("r", "the server waits for a request, or the rest of one"),
    ("g", "waits for the GIL"),
    ("k", "waits for a lock"),
    ("c", "waits for a core"),
    ("=", "runs"),
    (">", "the reply has arrived"),
    ("x", "the client closes"),
    (_SWITCHED, "how many times the kernel put this thread on a core"),
)
_LABEL = 22
# Milliseconds from one tick of the axis to the next.
_STEPS = (1, 2, 5, 10, 20, 50, 100, 200, 500, 1000, 2000, 5000)


def render(analysis: Analysis, width: int) -> str:
    """Return a picture with its sentences, at most `width` columns wide."""
    recording = analysis.recording
    head = f"{recording.model}: {conclude(analysis)}"
    parts = [head, draw(analysis, width), *explain(analysis)]
    parts += [text for text in (describe_tracing(recording),) if text]
    parts += [f"Not recorded: {reason}." for reason in recording.missing]
    return "\n".join(line for part in parts for line in _wrap(part, width))


def draw(analysis: Analysis, width: int) -> str:
    """Return the lanes and the axis."""
    label, columns = _divide(analysis, width)
    end = analysis.recording.end
    lines = []
    for lane in analysis.lanes:
        row = _shorten(lane.name, label) + draw_lane(lane, end, columns) + _show_switches(lane)
        lines.append(row.rstrip())
        if lane.calls:
            lines.append(_shorten(_KERNEL, label) + draw_calls(lane, end, columns).rstrip())
    return "\n".join([*lines, " " * label + _draw_axis(end, columns)])


def _divide(analysis: Analysis, width: int) -> tuple[int, int]:
    """Return how many columns the names have, and the time axis: what is left beside the numbers at its end."""
    names = [lane.name for lane in analysis.lanes] + [_KERNEL for lane in analysis.lanes if lane.calls]
    label = min(_LABEL, max(map(len, names))) + 2
    return label, width - label - max(len(_show_switches(lane)) for lane in analysis.lanes)


def _show_switches(lane: Lane) -> str:
    return "" if lane.switched is None else f" {lane.switched}{_SWITCHED}"


def draw_lane(lane: Lane, end: int, columns: int) -> str:
    """Return a lane as characters, one for each column of the axis."""
    cells = _fill([(span.start, span.end, CHARACTERS[span.state]) for span in lane.spans], end, columns)
    for column, character in _place_marks(lane.marks, end, columns):
        cells[column] = character
    if not lane.is_client:
        _name_clients(lane, cells, end, columns)
    return "".join(cells)


def draw_calls(lane: Lane, end: int, columns: int) -> str:
    """Return what a thread does in the kernel, as characters."""
    return "".join(_fill([(call.start, call.end, _CALLS[call.activity]) for call in lane.calls], end, columns))


def _fill(parts: Sequence[tuple[int, int, str]], end: int, columns: int) -> list[str]:
    """Return the character of each column: that of the parts that fill most of it."""
    return [_choose(parts, end * column // columns, end * (column + 1) // columns) for column in range(columns)]


def _choose(parts: Sequence[tuple[int, int, str]], start: int, end: int) -> str:
    shares: dict[str, int] = {}
    for begin, until, character in parts:
        overlap = min(until, end) - max(begin, start)
        if overlap > 0:
            shares[character] = shares.get(character, 0) + overlap
    return max(shares, key=lambda character: shares[character], default=" ")


def _place_marks(marks: Iterable[Mark], end: int, columns: int) -> list[tuple[int, str]]:
    """Return where the moments of a client go. Of several in one column, the earlier moves to the left."""
    placed: list[tuple[int, str]] = []
    column = columns
    # Reversed only here: of two at the same time, by a coarse clock, the first stays left of the second.
    ordered = sorted(marks, key=lambda mark: mark.time)
    for mark in reversed(ordered):
        column = min(column - 1, mark.time * columns // max(1, end))
        if column >= 0:
            placed.append((column, _MARKS[mark.name]))
    return placed


def _name_clients(lane: Lane, cells: list[str], end: int, columns: int) -> None:
    """Write the client's name over the beginning of what a thread does for it, where there is room."""
    for span in lane.spans:
        first, last = span.start * columns // end, span.end * columns // end
        if span.client and last - first >= 3:
            cells[first] = span.client[0]


def _draw_axis(end: int, columns: int) -> str:
    """Return ticks at whole milliseconds, as many as have room."""
    total = end / 1e6
    # Where there is room for none, only the first tick is drawn.
    step = next((step for step in _STEPS if total / step * 6 <= columns), int(total) + 1)
    cells = [" "] * columns
    for tick in range(0, int(total) + 1, step):
        text = f"|{tick}" + (" ms" if tick == 0 else "")
        column = int(tick / total * columns)
        if column + len(text) <= columns:
            cells[column : column + len(text)] = text
    return "".join(cells).rstrip()


def make_legend(analyses: Iterable[Analysis], width: int) -> str:
    """Return the meaning of each character that the pictures have at this width, a line each."""
    used: set[str] = set()
    calls: set[str] = set()
    for analysis in analyses:
        for lane in analysis.lanes:
            _, columns = _divide(analysis, width)
            used |= {*draw_lane(lane, analysis.recording.end, columns), *_show_switches(lane)[-1:]}
            calls |= {*draw_calls(lane, analysis.recording.end, columns)}
    lines = [f"{character}   {meaning}" for character, meaning in _MEANINGS if character in used]
    lines += [
        f"{character}   in a row of system calls: {activity}"
        for activity, character in _CALLS.items()
        if character in calls
    ]
    return "\n".join(lines)


def describe_scene(name: str) -> str:
    """Return what the clients of a scene do, in one line."""
    return SCENES[name].title if name in SCENES else name


def _shorten(name: str, width: int) -> str:
    return name.ljust(width) if len(name) < width else name[: width - 2] + "… "


def _wrap(text: str, width: int) -> list[str]:
    if "\n" in text:
        return text.split("\n")
    words = text.split()
    lines = [""]
    for word in words:
        if lines[-1] and len(lines[-1]) + 1 + len(word) > width:
            lines.append("  " + word)
        else:
            lines[-1] += (" " if lines[-1] else "") + word
    return lines
