"""An X-ray as a static SVG: lanes on one time axis, and arrows from the lane that holds to those that wait."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from html import escape

from lab.experiments.xray.analysis import Analysis, Edge, Lane, Span, State
from lab.experiments.xray.sentences import conclude, explain, show_ms
from lab.report.charts.scale import Scale

_LANE, _BAR, _GAP, _TOP, _AXIS = 26, 18, 10, 8, 26
_LETTER = 6.2  # the width of a character, in pixels
_NARROW = 600
_THINNEST = 0.5

# The class of each state, and the word that is written into a bar if it has room for it.
CLASSES = {
    State.CONNECTING: ("connecting", ""),
    State.BACKLOG: ("backlog", "in the backlog"),
    State.CONNECTED: ("silent", ""),
    State.UNREAD: ("unread", "waits"),
    State.SERVED: ("running", ""),
    State.SLEEPING: ("sleeping", "sleeps"),
    State.COMPUTING: ("computing", "computes"),
    State.SENDING: ("sending", "sends"),
    State.READING: ("reading", "waits"),
    State.ENDING: ("silent", ""),
    State.RUNNING: ("running", ""),
    State.GIL: ("gil", "GIL"),
    State.LOCK: ("lock", "lock"),
    State.CORE: ("core", "no core"),
    State.LOOP: ("rest", ""),
    State.IDLE: ("rest", ""),
}

# Colours that stay apart for colour-blind readers (Okabe and Ito), all of them light enough for dark letters.
STYLE = """
.connecting{fill:#f0e442}.backlog{fill:url(#waits)}.silent{fill:#9aa1ab}.unread{fill:#e69f00}.running{fill:#009e73}
.sleeping{fill:#56b4e9}.computing{fill:#e0701b}.sending{fill:#cc79a7}.reading{fill:#dcd3e0}.gil,.lock,.core{fill:url(#needs)}
.rest{fill:none}.bar{fill:#111;font-size:11px}.arrow{fill:none;stroke:var(--bad,#b3261e);stroke-width:1.6}
.head{fill:var(--bad,#b3261e)}.grid{stroke:var(--line,#e3e4e6)}.name{fill:var(--ink,#1c1e21)}
.soft{fill:var(--soft,#5c6370)}.mark{stroke:var(--ink,#1c1e21);stroke-width:1.6;fill:none}
text{font:12px system-ui,sans-serif}
"""
PATTERNS = (
    '<defs><pattern id="waits" width="6" height="6" patternUnits="userSpaceOnUse" patternTransform="rotate(45)">'
    '<rect width="6" height="6" fill="#f3dcae"/><rect width="3" height="6" fill="#e69f00"/></pattern>'
    '<pattern id="needs" width="6" height="6" patternUnits="userSpaceOnUse" patternTransform="rotate(-45)">'
    '<rect width="6" height="6" fill="#ffd9d5"/><rect width="2" height="6" fill="#b3261e"/></pattern></defs>'
)


@dataclass(frozen=True, slots=True)
class _Frame:
    """Where lanes and times are, in pixels."""

    scale: Scale
    rows: dict[int, float]  # the number of a lane -> its top
    bottom: float
    width: int
    label: int


def measure_label(analysis: Analysis) -> int:
    """Return the pixels that the names of lanes need beside a picture."""
    return int(min(22, max(len(lane.name) for lane in analysis.lanes)) * _LETTER) + 20


def draw(analysis: Analysis, *, width: int, end: int, label: int, standalone: bool = False) -> str:
    """Return an SVG element.

    Args:
        width: in pixels; below 600 the names of lanes stand above them.
        end: the end of the time axis, in nanoseconds. Pictures that are compared have the same.
        label: pixels for the names of lanes.
        standalone: whether it is a file of its own, with its style.
    """
    frame = _place(analysis, width, end, 4 if width < _NARROW else label)
    parts = [*_draw_axis(frame, end)]
    for number, lane in enumerate(analysis.lanes):
        parts += _draw_lane(lane, frame, frame.rows[number])
    parts += _draw_arrows(analysis, frame)
    height = int(frame.bottom + _AXIS)
    title = f"{analysis.recording.model}: {conclude(analysis)}. {' '.join(explain(analysis))}"
    head = f'<svg viewBox="0 0 {width} {height}" role="img" aria-label="{escape(title)}"'
    if not standalone:
        return f"{head}>{''.join(parts)}</svg>"
    return _make_file(head, width, height, "".join(parts))


def draw_together(analyses: Sequence[Analysis], *, width: int) -> str:
    """Return a file with several pictures below each other on one time axis, each with its conclusion."""
    end = max(analysis.recording.end for analysis in analyses)
    label = max(measure_label(analysis) for analysis in analyses)
    parts = []
    top = 0
    for analysis in analyses:
        picture = draw(analysis, width=width, end=end, label=label)
        height = int(picture.split('"', 2)[1].split()[3])
        title = escape(f"{analysis.recording.model}: {conclude(analysis)}")
        parts.append(f'<text class="name title" x="4" y="{top + 18}">{title}</text>')
        parts.append(picture.replace("<svg ", f'<svg x="0" y="{top + 24}" width="{width}" height="{height}" ', 1))
        top += height + 34
    words = " ".join(f"{each.recording.model}: {conclude(each)}." for each in analyses)
    head = f'<svg viewBox="0 0 {width} {top}" role="img" aria-label="{escape(words)}"'
    return _make_file(head, width, top, "".join(parts))


def _make_file(head: str, width: int, height: int, content: str) -> str:
    """Return an SVG that needs no style from outside. It is light in a dark page too: text has the colours of ink."""
    return (
        f'{head} xmlns="http://www.w3.org/2000/svg" width="{width}" height="{height}"><style>{STYLE}'
        f".page{{fill:#fff}}.title{{font-weight:600;font-size:14px}}</style>{PATTERNS}"
        f'<rect class="page" width="100%" height="100%"/>{content}</svg>\n'
    )


def _place(analysis: Analysis, width: int, end: int, label: int) -> _Frame:
    is_narrow = width < _NARROW
    rows = {}
    top = float(_TOP)
    for number, lane in enumerate(analysis.lanes):
        if number and analysis.lanes[number - 1].is_client != lane.is_client:
            top += _GAP
        if is_narrow:
            top += 14
        rows[number] = top
        top += _LANE
    return _Frame(Scale(0, end, label, width - 8), rows, top, width, label)


def _draw_axis(frame: _Frame, end: int) -> Iterator[str]:
    total = end / 1e6
    room = max(2, (frame.width - frame.label) // 60)
    step = next(step for step in (1, 2, 5, 10, 20, 50, 100, 200, 500, 1000, 2000, 5000) if total / step <= room)
    for tick in range(0, int(total) + 1, step):
        x = frame.scale.place(tick * 1e6)
        yield f'<line class="grid" x1="{x:.1f}" x2="{x:.1f}" y1="{_TOP}" y2="{frame.bottom:.0f}"/>'
        text = f"{tick} ms" if tick == 0 else str(tick)
        anchor = "start" if tick == 0 else "middle"
        yield f'<text class="soft" x="{x:.1f}" y="{frame.bottom + 16:.0f}" text-anchor="{anchor}">{text}</text>'


def _draw_lane(lane: Lane, frame: _Frame, top: float) -> Iterator[str]:
    if frame.label < 10:
        yield f'<text class="name" x="{frame.label}" y="{top - 2:.0f}">{escape(lane.name)}</text>'
    else:
        yield f'<text class="name" x="4" y="{top + 14:.0f}">{escape(lane.name)}</text>'
    for span in lane.spans:
        yield from _draw_span(span, frame, top)
    for mark in lane.marks:
        x = frame.scale.place(mark.time)
        title = f"<title>{mark.name} at {show_ms(mark.time)}</title>"
        if mark.name == "sent":
            shape = f"M{x:.1f} {top - 2:.0f}v{_BAR + 4}"
        elif mark.name == "answered":
            shape = f"M{x:.1f} {top:.0f}l5 {_BAR / 2:.0f}l-5 {_BAR / 2:.0f}"
        else:
            shape = f"M{x - 3:.1f} {top + 6:.0f}l6 6m0 -6l-6 6"
        yield f'<path class="mark" d="{shape}">{title}</path>'


def _draw_span(span: Span, frame: _Frame, top: float) -> Iterator[str]:
    name, word = CLASSES[span.state]
    left, right = frame.scale.place(span.start), frame.scale.place(span.end)
    if name == "rest" or right - left < _THINNEST:
        return
    height = 4 if name == "silent" else _BAR
    y = top + (_BAR - height) / 2
    # A narrow picture is for a screen without a pointer; the page has the words below it.
    title = "" if frame.width < _NARROW else f"<title>{escape(describe(span))}</title>"
    bar = f'<rect class="{name}" x="{left:.1f}" y="{y:.0f}" width="{right - left:.1f}" height="{height}"'
    yield f"{bar}>{title}</rect>" if title else f"{bar}/>"
    text = f"{word} for {span.client}" if word and span.client and name not in ("gil", "lock", "core") else word
    for candidate in (text, word, span.client):
        if candidate and len(candidate) * _LETTER + 8 < right - left and name != "silent":
            yield f'<text class="bar" x="{left + 4:.1f}" y="{top + 13:.0f}">{escape(candidate)}</text>'
            return


def describe(span: Span) -> str:
    """Return a span in words."""
    served = f" for {span.client}" if span.client else ""
    return f"{span.state}{served}: {show_ms(span.end - span.start)}, from {show_ms(span.start)}"


def _draw_arrows(analysis: Analysis, frame: _Frame) -> Iterator[str]:
    numbers = {lane.key if not lane.is_client else lane.name: number for number, lane in enumerate(analysis.lanes)}
    for order, edge in enumerate(_list_arrows(analysis)):
        if edge.lane not in numbers or edge.waiter not in numbers:
            continue
        start, end = frame.rows[numbers[edge.lane]], frame.rows[numbers[edge.waiter]] + _BAR
        x = frame.scale.place((edge.start + edge.end) / 2) + 7 * (order % 3 - 1)
        what = "shares the GIL with" if edge.via == "GIL" else "holds the thread of"
        title = f"<title>{edge.holder} {what} {edge.waiter}: {show_ms(edge.length)}</title>"
        yield f'<path class="arrow" d="M{x:.1f} {start:.0f}V{end + 5:.0f}">{title}</path>'
        yield f'<path class="head" d="M{x - 4:.1f} {end + 7:.0f}h8l-4 -7z"/>'


def _list_arrows(analysis: Analysis) -> Sequence[Edge]:
    """Return the longest wait of each client for each other in each state."""
    longest: dict[tuple[str, str, State], Edge] = {}
    for edge in analysis.edges:
        key = (edge.holder, edge.waiter, edge.state)
        if key not in longest or longest[key].length < edge.length:
            longest[key] = edge
    return [edge for edge in longest.values() if edge.state is not State.ENDING]
