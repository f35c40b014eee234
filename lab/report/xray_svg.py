"""An X-ray as a static SVG: lanes on one time axis, and arrows from the lane that holds to those that wait.

A page may have 32 of them, each wide and narrow, in 200 kB: places have one decimal, bars that are too thin for a
pointer share a path, the narrow picture uses the bars and the words of the wide one, and all its marks share a path.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from html import escape

from lab.experiments.xray.analysis import Analysis, Edge, Lane, Mark, Span, State
from lab.experiments.xray.calls import Activity, Stretch
from lab.experiments.xray.sentences import conclude, describe_switches, explain, show_ms
from lab.report.charts.scale import Scale

_LANE, _BAR, _GAP, _TOP, _AXIS = 26, 18, 10, 8, 26
# The row of system calls below a bar: how far below its top the middle is, and what it adds to the lane.
_CALLS, _CALLS_ROOM = 22, 7
_SWITCHES = 21  # how far below the row is that shows when a thread was put on a core, without system calls
_LETTER = 6.2  # the width of a character, in pixels
# The widths of the two pictures of a page; below the third, names stand above the lanes.
WIDE, NARROW, _NARROW = 1000, 360, 600
# A bar is drawn from this width on, and has words for a pointer from that.
_THINNEST, _POINTED = 0.5, 6.0

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

# The same classes for the row of system calls.
CALL_CLASSES = {
    Activity.WAIT: "silent",
    Activity.ACCEPT: "silent",
    Activity.RECEIVE: "reading",
    Activity.SEND: "sending",
    Activity.LOCK: "lock",
    Activity.SLEEP: "sleeping",
    Activity.OTHER: "connecting",
    Activity.RUN: "running",
}

# Colours that stay apart for colour-blind readers (Okabe and Ito), all of them light enough for dark letters. A bar is
# a line as thick as it is high, which takes half the bytes of a rectangle.
STYLE = """
.connecting{stroke:#f0e442}.backlog{stroke:url(#waits)}.silent{stroke:#9aa1ab}.unread{stroke:#e69f00}
.running{stroke:#009e73}.sleeping{stroke:#56b4e9}.computing{stroke:#e0701b}.sending{stroke:#cc79a7}
.reading{stroke:#dcd3e0}.gil,.lock,.core{stroke:url(#needs)}.bars path{stroke-width:18;fill:none}
.bars .silent{stroke-width:4}.bars .thin{stroke-width:5}.bar{fill:#111;font-size:11px}
.bars .on{stroke:var(--ink,#1c1e21);stroke-width:3}
.arrow{fill:none;stroke:var(--bad,#b3261e);stroke-width:1.6}.head{fill:var(--bad,#b3261e)}
.grid{stroke:var(--line,#e3e4e6)}.soft{fill:var(--soft,#5c6370);text-anchor:middle}
.mark{stroke:var(--ink,#1c1e21);stroke-width:1.6;fill:none}text{font:12px system-ui,sans-serif;fill:var(--ink,#1c1e21)}
"""
PATTERNS = (
    '<defs><pattern id="waits" width="6" height="6" patternUnits="userSpaceOnUse" patternTransform="rotate(45)">'
    '<rect width="6" height="6" fill="#f3dcae"/><rect width="3" height="6" fill="#e69f00"/></pattern>'
    '<pattern id="needs" width="6" height="6" patternUnits="userSpaceOnUse" patternTransform="rotate(-45)">'
    '<rect width="6" height="6" fill="#ffd9d5"/><rect width="2" height="6" fill="#b3261e"/></pattern></defs>'
)


@dataclass(frozen=True, slots=True)
class Shared:
    """A picture among others of a page: it has the axis of the first one, and a narrow one the bars of its wide one.

    Args:
        group: the pictures with one axis; the beginning of the names of what they share.
        number: of the model in the group.
    """

    group: str
    number: int

    @property
    def name(self) -> str:
        """Of the wide picture, and the beginning of the names of its lanes."""
        return f"{self.group}{self.number}"


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


def draw(
    analysis: Analysis, *, width: int, end: int, label: int, standalone: bool = False, shared: Shared | None = None
) -> str:
    """Return an SVG element.

    Args:
        width: in pixels; below 600 the names of lanes stand above them.
        end: the end of the time axis, in nanoseconds. Pictures that are compared have the same.
        label: pixels for the names of lanes.
        standalone: whether it is a file of its own, with its style.
        shared: what it shares with other pictures of its page, if any.
    """
    wide = _place(analysis, WIDE, end, label)
    frame = wide if width == WIDE else _place(analysis, width, end, 4 if width < _NARROW else label)
    parts = [*_draw_axis(frame, end, shared)]
    if shared and width < _NARROW:
        parts += _use_bars(shared, wide, frame)
    for number, lane in enumerate(analysis.lanes):
        top = frame.rows[number]
        parts.append(_name_lane(lane, frame, top))
        if not shared or width >= _NARROW:
            name = f"{shared.name}-{number}" if shared else ""
            parts += [f'<g class="bars"{_name(name)}>', *_draw_lane(lane, frame, top), "</g>"]
        parts += _write_words(lane, frame, top)
    parts += _draw_marks(analysis, frame)
    parts += _draw_arrows(analysis, frame)
    height = int(frame.bottom + _AXIS)
    title = f"{analysis.recording.model}: {conclude(analysis)}."
    if not shared:  # a page has the explanation beside the picture
        title = " ".join((title, *explain(analysis)))
    words = f'aria-label="{escape(title)}"'
    if shared:
        words = f'aria-labelledby="{shared.name}"' if width < _NARROW else f'id="{shared.name}" {words}'
    head = f'<svg viewBox="0 0 {width} {height}" role="img" {words}'
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
        height = int(picture.split('"')[1].split()[3])
        title = escape(f"{analysis.recording.model}: {conclude(analysis)}")
        parts.append(f'<text class="title" x="4" y="{top + 18}">{title}</text>')
        parts.append(picture.replace("<svg ", f'<svg x="0" y="{top + 24}" width="{width}" height="{height}" '))
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
        top += _LANE + (_CALLS_ROOM if lane.calls else 0)
    return _Frame(Scale(0, end, label, width - 8), rows, top, width, label)


def _draw_axis(frame: _Frame, end: int, shared: Shared | None) -> Iterator[str]:
    total = end / 1e6
    room = max(2, (frame.width - frame.label) // 60)
    step = next(step for step in (1, 2, 5, 10, 20, 50, 100, 200, 500, 1000, 2000, 5000) if total / step <= room)
    name = f"{shared.group}{'n' if frame.width < _NARROW else 'w'}" if shared else ""
    place = f'transform="translate(0 {_TOP})scale(1 {frame.bottom - _TOP:.0f})"'
    if shared and shared.number:
        yield f'<use href="#{name}-lines" {place}/><use href="#{name}-ticks" y="{frame.bottom + 16:.0f}"/>'
        return
    ticks = [(tick, _show(frame.scale.place(tick * 1e6))) for tick in range(0, int(total) + 1, step)]
    lines = "".join(f"M{x} 0V1" for _, x in ticks)
    texts = [f'<tspan x="{x}">{tick}</tspan>' for tick, x in ticks[1:]]
    first = f'<tspan x="{ticks[0][1]}" text-anchor="start">0 ms</tspan>'
    yield f'<g {place}><path class="grid"{_name(name and f"{name}-lines")} d="{lines}"/></g>'
    yield f'<g transform="translate(0 {frame.bottom + 16:.0f})">'
    yield f'<text class="soft"{_name(name and f"{name}-ticks")}>{first}{"".join(texts)}</text></g>'


def _name(name: str) -> str:
    return f' id="{name}"' if name else ""


def _show(pixels: float) -> str:
    return f"{pixels:.1f}".removesuffix(".0")


def _name_lane(lane: Lane, frame: _Frame, top: float) -> str:
    x, y = (frame.label, top - 2) if frame.label < 10 else (4, top + 14)
    return f'<text x="{x}" y="{y:.0f}">{escape(lane.name)}</text>'


def _use_bars(shared: Shared, wide: _Frame, frame: _Frame) -> Iterator[str]:
    """Give the bars of the wide picture at their places in a narrow frame."""
    stretch = (frame.scale.end - frame.scale.start) / (wide.scale.end - wide.scale.start)
    left = frame.scale.start - wide.scale.start * stretch
    yield f'<g transform="translate({_show(left)} 0)scale({stretch:.4f} 1)">'
    for number, top in frame.rows.items():
        yield f'<use href="#{shared.name}-{number}" y="{_show(top - wide.rows[number])}"/>'
    yield "</g>"


def _draw_lane(lane: Lane, frame: _Frame, top: float) -> Iterator[str]:
    bars = [(CLASSES[span.state][0], span) for span in lane.spans if CLASSES[span.state][0] != "rest"]
    yield from _draw_bars(bars, frame, top + _BAR / 2)
    calls = [(f"{CALL_CLASSES[call.activity]} thin", call) for call in lane.calls]
    yield from _draw_bars(calls, frame, top + _CALLS)
    if lane.switches:
        y = top + _SWITCHES + (_CALLS_ROOM if lane.calls else 0)
        # Whole pixels: from one look to the next there are many.
        places = [(round(frame.scale.place(each.start)), round(frame.scale.place(each.end))) for each in lane.switches]
        yield _make_path("on", "".join(_draw_line(*line, y) for line in _join(places)), describe_switches(lane), frame)


def _draw_marks(analysis: Analysis, frame: _Frame) -> Iterator[str]:
    shapes = [
        "".join(_draw_mark(mark, frame, frame.rows[number]) for mark in lane.marks)
        for number, lane in enumerate(analysis.lanes)
    ]
    if frame.width < _NARROW:
        yield _make_path("mark", "".join(shapes), "", frame)
        return
    for lane, shape in zip(analysis.lanes, shapes, strict=True):
        if shape:
            words = ", ".join(f"{mark.name} at {show_ms(mark.time)}" for mark in lane.marks)
            yield _make_path("mark", shape, words, frame)


def _make_path(name: str, shape: str, words: str, frame: _Frame) -> str:
    """Return a path with words for a pointer.

    A narrow picture is for a screen without one; the page has them below it.
    """
    end = f"><title>{escape(words)}</title></path>" if words and frame.width >= _NARROW else "/>"
    return f'<path class="{name}" d="{shape}"{end}'


def _draw_mark(mark: Mark, frame: _Frame, top: float) -> str:
    x = frame.scale.place(mark.time)
    if mark.name == "sent":
        return f"M{_show(x)} {top - 2:.0f}v{_BAR + 4}"
    if mark.name == "answered":
        return f"M{_show(x)} {top:.0f}l5 {_BAR / 2:.0f}l-5 {_BAR / 2:.0f}"
    return f"M{_show(x - 3)} {top + 6:.0f}l6 6m0 -6l-6 6"


def _draw_bars(bars: Sequence[tuple[str, Span | Stretch]], frame: _Frame, y: float) -> Iterator[str]:
    """Give a path for each bar with words; for those without, one for all that look alike."""
    silent: dict[str, list[tuple[float, float]]] = {}
    for name, span in bars:
        left, right = frame.scale.place(span.start), frame.scale.place(span.end)
        if frame.width < _NARROW or right - left < _POINTED or name == "silent":
            if right - left >= _THINNEST:
                silent.setdefault(name, []).append((left, right))
        else:
            yield _make_path(name, _draw_line(left, right, y), describe(span), frame)
    for name, lines in silent.items():
        yield _make_path(name, "".join(_draw_line(*line, y) for line in _join(lines)), "", frame)


def _draw_line(left: float, right: float, y: float) -> str:
    return f"M{_show(left)} {_show(y)}h{_show(right - left)}"


def _join(lines: Sequence[tuple[float, float]]) -> list[tuple[float, float]]:
    """Join lines with a gap that cannot be seen."""
    found: list[tuple[float, float]] = []
    for left, right in lines:
        if found and left - found[-1][1] < _THINNEST:
            found[-1] = found[-1][0], right
        else:
            found.append((left, right))
    return found


def _write_words(lane: Lane, frame: _Frame, top: float) -> Iterator[str]:
    """Give what the bars are, where they have room for it."""
    for span in lane.spans:
        name, word = CLASSES[span.state]
        left, right = frame.scale.place(span.start), frame.scale.place(span.end)
        text = f"{word} for {span.client}" if word and span.client and name not in ("gil", "lock", "core") else word
        for candidate in (text, word, span.client) if name not in ("silent", "rest") else ():
            if candidate and len(candidate) * _LETTER + 8 < right - left:
                yield f'<text class="bar" x="{_show(left + 4)}" y="{top + 13:.0f}">{escape(candidate)}</text>'
                break


def describe(span: Span | Stretch) -> str:
    """Return a span in words."""
    times = f"{show_ms(span.end - span.start)}, from {show_ms(span.start)}"
    if isinstance(span, Stretch):
        return f"{span.name or span.activity}: {times}"
    return f"{span.state}{f' for {span.client}' if span.client else ''}: {times}"


def _draw_arrows(analysis: Analysis, frame: _Frame) -> Iterator[str]:
    numbers = {lane.key if not lane.is_client else lane.name: number for number, lane in enumerate(analysis.lanes)}
    for order, edge in enumerate(_list_arrows(analysis)):
        if edge.lane not in numbers or edge.waiter not in numbers:
            continue
        start, end = frame.rows[numbers[edge.lane]], frame.rows[numbers[edge.waiter]] + _BAR
        x = frame.scale.place((edge.start + edge.end) / 2) + 7 * (order % 3 - 1)
        what = "shares the GIL with" if edge.via == "GIL" else "holds the thread of"
        words = f"{edge.holder} {what} {edge.waiter}: {show_ms(edge.length)}"
        yield _make_path("arrow", f"M{_show(x)} {start:.0f}V{end + 5:.0f}", words, frame)
        yield _make_path("head", f"M{_show(x - 4)} {end + 7:.0f}h8l-4 -7z", "", frame)


def _list_arrows(analysis: Analysis) -> Sequence[Edge]:
    """Return the longest wait of each client for each other in each state."""
    longest: dict[tuple[str, str, State], Edge] = {}
    for edge in analysis.edges:
        key = (edge.holder, edge.waiter, edge.state)
        if key not in longest or longest[key].length < edge.length:
            longest[key] = edge
    return [edge for edge in longest.values() if edge.state is not State.ENDING]
