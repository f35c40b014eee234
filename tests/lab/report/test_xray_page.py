"""The page of `lab xray`, its pictures and its trace, of made-up recordings."""

import re
from dataclasses import replace
from xml.etree import ElementTree

import pytest

from lab.base.paths import ROOT
from lab.experiments.xray.analysis import Analysis, Edge, Lane, Mark, Span, State
from lab.experiments.xray.calls import Activity, Stretch, list_stretches, sum_up
from lab.experiments.xray.recording import Recording, SystemCall, TracedThread, read_recordings
from lab.experiments.xray.scenes import SCENES
from lab.experiments.xray.sentences import conclude
from lab.report.xray_page import _LEGEND, _list_words, _make_section, render
from lab.report.xray_svg import CLASSES, NARROW, STYLE, Shared, draw, draw_together, measure_label
from lab.report.xray_trace import make_trace
from tests.support.made_up_xray import (
    LOOP,
    LOOP_CLIENTS,
    MS,
    OWN,
    SEQUENTIAL,
    make_kernel,
    make_process,
    make_recording,
    make_switches,
)

SVG = "{http://www.w3.org/2000/svg}"
CHAIN = make_recording([make_process(1, [SEQUENTIAL])])
CALLS = (
    SystemCall(0, 2 * MS, "accept4"),
    SystemCall(2 * MS, 22 * MS, "clock_nanosleep"),
    SystemCall(23 * MS, 24 * MS, "sendto"),
    SystemCall(24 * MS, 33 * MS, "recvfrom"),
)
TRACED = replace(CHAIN, traced=(TracedThread(1, CALLS), TracedThread(2, CALLS)), misaligned=1_240)
(KERNEL,) = make_kernel((0, 35, "recvfrom", 0))
SWITCHED = replace(CHAIN, threads=(replace(KERNEL, switches=make_switches((0, 1, 3), (1, 2, 2), (22, 23, 1))),))
LOOPED = make_recording([make_process(1, [LOOP])], LOOP_CLIENTS)


def parse(recording: Recording, width: int = 1000, end: int = 0) -> ElementTree.Element:
    analysis = Analysis(recording)
    label = measure_label(analysis)
    text = draw(analysis, width=width, end=end or recording.end, label=label, standalone=True)
    root = ElementTree.fromstring(text)  # noqa: S314 - the lab's own
    assert root.get("width") == str(width)
    assert root.get("viewBox") == f"0 0 {width} {root.get('height')}"
    return root


def make_span(start: float, end: float, state: State, client: str = "") -> Span:
    return Span(round(start * MS), round(end * MS), state, client)


def make_edge(way: str, start: float, end: float, state: State, lane: int, via: str = "thread") -> Edge:
    holder, waiter = way.split(" ")
    return Edge(holder, waiter, via, state, round(start * MS), round(end * MS), (1, lane))


def make_picture() -> Analysis:
    """Make 40 ms of two clients and of two threads, of which one has system calls."""
    found = Analysis(CHAIN)
    marks = (Mark(2 * MS, "sent"), Mark(10 * MS, "answered"), Mark(12 * MS, "closed"))
    found.lanes = [
        Lane(
            "A",
            True,
            (
                make_span(0, 0.3, State.BACKLOG),
                make_span(0.3, 10, State.SLEEPING, "A"),
                make_span(10, 20, State.CONNECTED),
                make_span(20, 40, State.IDLE),
            ),
            marks,
        ),
        Lane("B", True, (make_span(0, 40, State.GIL, "B"),)),
        Lane(
            "t<1",
            False,
            (make_span(0, 10, State.COMPUTING, "B"),),
            key=(1, 1),
            calls=(Stretch(0, 5 * MS, Activity.LOCK, "futex"), Stretch(5 * MS, 20 * MS, Activity.RUN)),
        ),
        Lane("t2", False, (), key=(1, 2)),
    ]
    found.edges = [
        # Of a thread that has no lane, and of a client that has none.
        make_edge("C A", 0, 2, State.COMPUTING, 9),
        make_edge("B A", 0, 4, State.COMPUTING, 1),
        # As long as the one before.
        make_edge("B A", 10, 14, State.COMPUTING, 1),
        make_edge("A B", 5, 15, State.SLEEPING, 2, "GIL"),
        make_edge("B A", 20, 30, State.SENDING, 1),
        make_edge("B C", 0, 2, State.COMPUTING, 1),
    ]
    return found


# 20 pixels for each millisecond, from 192 on. The lanes are 26 high, a bar 18; clients and threads are 10 apart, and
# the row of system calls makes its lane 7 higher: they begin at 8, 34, 70 and 103, and end at 129.
WIDE_PICTURE = """
<g transform="translate(0 8)scale(1 121)">
<path class="grid" d="M192 0V1M292 0V1M392 0V1M492 0V1M592 0V1M692 0V1M792 0V1M892 0V1M992 0V1"/></g>
<g transform="translate(0 145)"><text class="soft"><tspan x="192" text-anchor="start">0 ms</tspan>
<tspan x="292">5</tspan><tspan x="392">10</tspan><tspan x="492">15</tspan><tspan x="592">20</tspan>
<tspan x="692">25</tspan><tspan x="792">30</tspan><tspan x="892">35</tspan><tspan x="992">40</tspan></text></g>
<text x="4" y="22">A</text><g class="bars">
<path class="backlog" d="M192 17h6"><title>in the backlog: 0.3 ms, from 0.0 ms</title></path>
<path class="sleeping" d="M198 17h194"><title>sleeping for A: 9.7 ms, from 0.3 ms</title></path>
<path class="silent" d="M392 17h200"/></g>
<text class="bar" x="202" y="21">sleeps for A</text>
<text x="4" y="48">B</text><g class="bars">
<path class="gil" d="M192 43h800"><title>waiting for the GIL for B: 40 ms, from 0.0 ms</title></path></g>
<text class="bar" x="196" y="47">GIL</text>
<text x="4" y="84">t&lt;1</text><g class="bars">
<path class="computing" d="M192 79h200"><title>computing for B: 10 ms, from 0.0 ms</title></path>
<path class="lock thin" d="M192 92h100"><title>futex: 5.0 ms, from 0.0 ms</title></path>
<path class="running thin" d="M292 92h300">
<title>between two calls: it runs, or waits for a core: 15 ms, from 5.0 ms</title></path></g>
<text class="bar" x="196" y="83">computes for B</text>
<text x="4" y="117">t2</text><g class="bars"></g>
<path class="mark" d="M232 6v22M392 8l5 9l-5 9M429 14l6 6m0 -6l-6 6">
<title>sent at 2.0 ms, answered at 10 ms, closed at 12 ms</title></path>
<path class="arrow" d="M232 70V31"><title>B holds the thread of A: 4.0 ms</title></path>
<path class="head" d="M228 33h8l-4 -7z"/>
<path class="arrow" d="M399 103V57"><title>A shares the GIL with B: 10 ms</title></path>
<path class="head" d="M395 59h8l-4 -7z"/>
<path class="arrow" d="M685 70V31"><title>B holds the thread of A: 10 ms</title></path>
<path class="head" d="M681 33h8l-4 -7z"/>
"""

# 8.7 pixels for each millisecond, from 4 on. Names take 14: the lanes begin at 22, 62, 112 and 159, and end at 185.
NARROW_PICTURE = """
<g transform="translate(0 8)scale(1 177)">
<path class="grid" d="M4 0V1M91 0V1M178 0V1M265 0V1M352 0V1"/></g>
<g transform="translate(0 201)"><text class="soft"><tspan x="4" text-anchor="start">0 ms</tspan>
<tspan x="91">10</tspan><tspan x="178">20</tspan><tspan x="265">30</tspan><tspan x="352">40</tspan></text></g>
<text x="4" y="20">A</text><g class="bars">
<path class="backlog" d="M4 31h2.6"/><path class="sleeping" d="M6.6 31h84.4"/><path class="silent" d="M91 31h87"/></g>
<text class="bar" x="10.6" y="35">sleeps for A</text>
<text x="4" y="60">B</text><g class="bars"><path class="gil" d="M4 71h348"/></g>
<text class="bar" x="8" y="75">GIL</text>
<text x="4" y="110">t&lt;1</text><g class="bars">
<path class="computing" d="M4 121h87"/><path class="lock thin" d="M4 134h43.5"/>
<path class="running thin" d="M47.5 134h130.5"/></g>
<text class="bar" x="8" y="125">computes</text>
<text x="4" y="157">t2</text><g class="bars"></g>
<path class="mark" d="M21.4 20v22M91 22l5 9l-5 9M105.4 28l6 6m0 -6l-6 6"/>
<path class="arrow" d="M21.4 112V45"/><path class="head" d="M17.4 47h8l-4 -7z"/>
<path class="arrow" d="M98 159V85"/><path class="head" d="M94 87h8l-4 -7z"/>
<path class="arrow" d="M214.5 112V45"/><path class="head" d="M210.5 47h8l-4 -7z"/>
"""


@pytest.mark.parametrize(("width", "height", "content"), [(1000, 155, WIDE_PICTURE), (360, 211, NARROW_PICTURE)])
def test_picture_has_everything_at_its_place(width: int, height: int, content: str) -> None:
    text = draw(make_picture(), width=width, end=40 * MS, label=192)
    head, _, rest = text.partition(' role="img" aria-label="')
    assert head == f'<svg viewBox="0 0 {width} {height}"'
    _, _, body = rest.partition('">')
    assert list_elements(body) == list_elements(f"{content}</svg>")


def list_elements(text: str) -> list[str]:
    """Return an element a line."""
    return text.replace("\n", "").replace("><", ">\n<").splitlines()


def test_picture_of_600_pixels_has_words_and_a_name_beside_each_lane() -> None:
    """So has one whose names have 10 pixels."""
    shared = Shared("s0", 0)
    text = draw(make_picture(), width=600, end=40 * MS, label=192, shared=shared)
    assert f'viewBox="0 0 600 155" role="img" id="{shared.name}" aria-label=' in text
    assert 'id="s0w-lines"' in text
    assert "<use" not in text
    assert '<text x="4" y="22">A</text><g class="bars" id="s00-0">' in text
    # 400 pixels for 40 ms.
    assert '<path class="sleeping" d="M195 17h97"><title>sleeping for A: 9.7 ms, from 0.3 ms</title></path>' in text
    assert '<path class="mark" d="M212 6v22M292 8l5 9l-5 9M309 14l6 6m0 -6l-6 6"><title>sent at' in text
    assert '<text x="4" y="22">A</text>' in draw(make_picture(), width=1000, end=40 * MS, label=10)


@pytest.mark.parametrize(
    ("width", "milliseconds", "ticks"),
    [
        # 13 ticks have room beside names of 192 pixels, 5 in a narrow picture, and 2 are always there.
        (1000, 13, range(1, 14)),
        (1000, 13.1, range(2, 14, 2)),
        (1000, 26, range(2, 27, 2)),
        (1000, 26.1, range(5, 27, 5)),
        (1000, 65.1, range(10, 66, 10)),
        (1000, 130.1, range(20, 131, 20)),
        (1000, 260.1, range(50, 261, 50)),
        (1000, 650.1, range(100, 651, 100)),
        (1000, 1300.1, range(200, 1301, 200)),
        (1000, 2600.1, range(500, 2601, 500)),
        (1000, 6500.1, range(1000, 6501, 1000)),
        (1000, 13000.1, range(2000, 13001, 2000)),
        (1000, 26000.1, range(5000, 26001, 5000)),
        (1000, 65000, range(5000, 65001, 5000)),
        (360, 5, range(1, 6)),
        (360, 5.1, range(2, 6, 2)),
        (100, 2, range(1, 3)),
        (100, 2.1, range(2, 3)),
    ],
)
def test_axis_has_as_many_ticks_as_have_room(width: int, milliseconds: float, ticks: range) -> None:
    text = draw(make_picture(), width=width, end=round(milliseconds * MS), label=192)
    left, pixels = (192, 800) if width == 1000 else (4, width - 12)
    found = [(float(x), int(tick)) for x, tick in re.findall(r'<tspan x="([\d.]+)">(\d+)</tspan>', text)]
    assert [tick for _, tick in found] == list(ticks)
    assert [x for x, _ in found] == [pytest.approx(left + pixels * tick / milliseconds, abs=0.051) for tick in ticks]


@pytest.mark.parametrize(("name", "pixels"), [("thread", 57), ("a" * 22, 156), ("a" * 23, 156)])
def test_names_have_room_beside_a_picture_up_to_22_characters(name: str, pixels: int) -> None:
    """6.2 pixels each, and 20."""
    analysis = make_picture()
    analysis.lanes.append(Lane(name, False, ()))
    assert measure_label(analysis) == pixels


@pytest.mark.parametrize(
    ("state", "client", "pixels", "word"),
    [
        # A character takes 6.2 pixels, and 8 are free beside a word.
        (State.SLEEPING, "A", 83, "sleeps for A"),
        (State.SLEEPING, "A", 82, "sleeps"),
        (State.SLEEPING, "A", 46, "sleeps"),
        (State.SLEEPING, "A", 45, "A"),
        (State.SLEEPING, "A", 15, "A"),
        (State.SLEEPING, "A", 14, None),
        (State.SLEEPING, "", 83, "sleeps"),
        (State.RUNNING, "A", 83, "A"),
        (State.RUNNING, "ABCDE", 40, "ABCDE"),
        (State.RUNNING, "ABCDE", 39, None),
        (State.GIL, "B", 83, "GIL"),
        (State.CONNECTED, "A", 83, None),
        (State.LOOP, "A", 83, None),
    ],
)
def test_bar_has_the_words_that_fit(state: State, client: str, pixels: int, word: str | None) -> None:
    """Of 800 pixels for 800 ms."""
    analysis = make_picture()
    analysis.lanes = [Lane("thread", False, (make_span(0, pixels, state, client),))]
    text = draw(analysis, width=1000, end=800 * MS, label=192)
    assert re.findall(r'<text class="bar"[^>]*>([^<]*)<', text) == ([word] if word else [])


def test_thin_bars_share_a_path_and_the_thinnest_are_left_out() -> None:
    """Of 800 pixels for 800 ms: words for a pointer from 6 on, and a line from 0.5 on; a gap of 0.5 can be seen."""
    analysis = make_picture()
    times = [(0, 6), (10, 15.9), (16.4, 17), (17.25, 18), (20, 20.25), (30, 30.5), (100, 106)]
    analysis.lanes = [Lane("t", False, tuple(make_span(*time, State.SENDING) for time in times))]
    text = draw(analysis, width=1000, end=800 * MS, label=192)
    (bars,) = re.findall(r'<g class="bars">(.*?)</g>', text)
    assert list_elements(bars) == list_elements(
        """
<path class="sending" d="M192 17h6"><title>waiting to send: 6.0 ms, from 0.0 ms</title></path>
<path class="sending" d="M292 17h6"><title>waiting to send: 6.0 ms, from 100 ms</title></path>
<path class="sending" d="M202 17h5.9M208.4 17h1.6M222 17h0.5"/>
"""
    )


def test_pictures_of_a_file_are_below_each_other_on_one_axis() -> None:
    """Each has its conclusion above. The first is 36 ms long, and the second has longer names."""
    named = replace(CHAIN, model="b_model", end=72 * MS)
    label = measure_label(Analysis(named))
    pictures = [Analysis(LOOPED), Analysis(named)]
    assert measure_label(pictures[0]) < label
    root = ElementTree.fromstring(draw_together(pictures, width=1000))  # noqa: S314 - the lab's own
    first, second = root.findall(f"{SVG}svg")
    for number, picture in enumerate((first, second)):
        alone = draw(pictures[number], width=1000, end=72 * MS, label=label)
        (height,) = re.findall(r'viewBox="0 0 1000 (\d+)"', alone)
        assert (picture.get("x"), picture.get("width"), picture.get("height")) == ("0", "1000", height)
        grids = (re.findall(r'class="grid" d="([^"]+)"', alone), [each.get("d") for each in picture.iter(f"{SVG}path")])
        assert grids[0][0] == grids[1][0]
    height = int(first.get("height", 0))
    assert (first.get("y"), second.get("y")) == ("24", str(24 + height + 34))
    titles = [(each.get("x"), each.get("y"), each.text) for each in root.findall(f"{SVG}text")]
    assert titles == [
        ("4", "18", f"a_model: {conclude(pictures[0])}"),
        ("4", str(18 + height + 34), f"b_model: {conclude(pictures[1])}"),
    ]
    total = 2 * 34 + height + int(second.get("height", 0))
    assert (root.get("width"), root.get("height"), root.get("viewBox")) == ("1000", str(total), f"0 0 1000 {total}")


def list_titles(picture: ElementTree.Element, of: str) -> list[str]:
    return [
        title.text or ""
        for element in picture.iter()
        if element.get("class") == of
        for title in element.iter(f"{SVG}title")
    ]


def test_picture_has_a_bar_for_each_state_with_its_words() -> None:
    picture = parse(CHAIN)
    # One in the lane of the client, and one in the thread's, which sleeps for it.
    assert list_titles(picture, "sleeping") == ["sleeping: 20 ms, from 2.2 ms", "sleeping for A: 20 ms, from 2.2 ms"]
    assert list_titles(picture, "backlog") == [
        "in the backlog: 0.4 ms, from 0.1 ms",
        "in the backlog: 23 ms, from 0.1 ms",
        "in the backlog: 34 ms, from 0.1 ms",
    ]
    assert list_titles(picture, "mark")[2] == "sent at 6.0 ms, answered at 35 ms, closed at 36 ms"


def test_bar_is_as_long_as_its_time() -> None:
    picture = parse(CHAIN, end=100 * MS)
    words = "computing for B: 10 ms, from 24 ms"
    (bar,) = [each for each in picture.iter(f"{SVG}path") if each.findtext(f"{SVG}title") == words]
    axis = 1000 - 8 - measure_label(Analysis(CHAIN))
    assert abs(float(bar.get("d", "").partition("h")[2]) - axis * 10 / 100) < 0.2


def test_arrows_go_from_the_lane_that_holds_to_the_client_that_waits() -> None:
    assert list_titles(parse(CHAIN), "arrow") == [
        "A holds the thread of B: 18 ms",
        "A holds the thread of C: 16 ms",
        "B holds the thread of C: 10 ms",
    ]
    picture = parse(LOOPED)
    assert list_titles(picture, "arrow") == ["B holds the thread of C: 8.2 ms"]
    (arrow,) = [each for each in picture.iter() if each.get("class") == "arrow"]
    _, start, end = map(float, re.findall(r"[\d.]+", arrow.get("d", "")))
    names = {each.text: float(each.get("y", 0)) for each in list_names(picture)}
    assert names["C"] < end < start < names["loop"]


def test_arrow_is_that_of_the_longest_wait_of_its_kind() -> None:
    analysis = Analysis(CHAIN)
    (first, *_) = analysis.edges
    # From when, for how long, and why: of one reply in three pieces, then of another state, then of no interest.
    waits = ((3, 2, "SENDING"), (6, 9, "SENDING"), (16, 5, "SENDING"), (22, 1, "COMPUTING"), (24, 12, "ENDING"))
    analysis.edges = [
        replace(first, start=start * MS, end=(start + length) * MS, state=State[state])
        for start, length, state in waits
    ]
    text = draw(analysis, width=1000, end=CHAIN.end, label=measure_label(analysis), standalone=True)
    picture = ElementTree.fromstring(text)  # noqa: S314 - the lab's own
    assert list_titles(picture, "arrow") == ["A holds the thread of B: 9.0 ms", "A holds the thread of B: 1.0 ms"]


def test_names_stand_above_the_lanes_of_a_narrow_picture() -> None:
    wide, narrow = parse(CHAIN), parse(CHAIN, width=360)
    assert not list(narrow.iter(f"{SVG}title"))
    heights = [int(each.get("viewBox", "").split()[-1]) for each in (wide, narrow)]
    assert heights[1] > heights[0]


def test_marks_of_a_narrow_picture_share_a_path() -> None:
    """They have no words for a pointer."""
    wide, narrow = ([each for each in parse(CHAIN, width) if each.get("class") == "mark"] for width in (1000, 360))
    (all_marks,) = narrow
    starts = [[line.count("M") for line in (each.get("d", "") for each in marks)] for marks in (wide, narrow)]
    assert starts == [[3, 3, 3], [9]]  # each client sends, has its reply, and closes
    frame = parse(CHAIN, 360)
    tops = [float(each.get("y", 0)) for each in list_names(frame)][:3]
    sent = [float(y) for y in re.findall(r"M[\d.]+ ([\d.]+)v22", all_marks.get("d", ""))]
    assert sent == tops  # both begin two pixels above the bar


def test_page_needs_no_network_and_no_script() -> None:
    page = render([CHAIN, LOOPED], missing={"b_model": "it <b>ended</b>"})
    assert not re.search(r"<script|https?://(?!www\.w3\.org)|@import|url\((?!#)", page)
    assert "it &lt;b&gt;ended&lt;/b&gt;" in page
    assert len(page) < 200_000


def test_page_says_everything_in_words() -> None:
    page = render([CHAIN], missing={})
    assert "a_model</code>: A blocks B, B blocks C" in page
    assert "one clock, CLOCK_MONOTONIC, which takes 70 ns" in page
    assert "<dd>computing for B: 10 ms, from 24 ms</dd>" in page
    ((name, words),) = re.findall(r'role="img" id="([^"]+)" aria-label="([^"]+)"', page)
    assert words == "a_model: A blocks B, B blocks C."
    assert "<p>B waited 19 ms: " in page
    (narrow,) = re.findall(r'<div class="narrow"><svg [^>]*role="img" aria-labelledby="([^"]+)"', page)
    assert narrow == name  # it has the words of the wide one


def test_page_names_its_longest_time_between_two_looks() -> None:
    page = render([replace(CHAIN, look=2 * MS), replace(LOOPED, look=3 * MS)], missing={})
    assert page.count("The kernel was looked at every 3 ms.") == 1
    assert "looked at" not in render([replace(CHAIN, look=0)], missing={})


def test_page_is_that_of_all_its_recordings() -> None:
    """What one of them has is explained: the clock that takes longest, system calls, and switches of one thread."""
    threads = (replace(KERNEL, switches=None), *SWITCHED.threads)
    first = replace(CHAIN, clock=90, machine={"processor": "a chip", "commit": None})
    page = render([first, TRACED, replace(LOOPED, threads=threads), replace(LOOPED, scene="mine")], missing={})
    assert "which takes 90 ns" in page
    assert "the system calls of a thread, and what is between them" in page
    assert "the kernel put the thread on a core" in page
    assert re.findall("<h2>(.*)</h2>", page)[:2] == [SCENES["sleep"].title, "mine"]
    assert "Recorded from running servers, 2026-11-29 09:00:00 UTC." in page
    assert re.findall("<dt>(.*?)</dt>", page)[-1] == "processor"
    assert ("a chip" in page, "commit" in page) == (True, False)
    # The pictures of a scene have room for the longest name of them all.
    assert re.search(r'id="s0w-lines" d="M57 ', page)
    assert re.search(r'id="s1w-lines" d="M44 ', page)


def test_page_without_a_recording_names_what_is_missing() -> None:
    page = render([], missing={"b_model": "it ended"})
    assert "it ended" in page
    assert "one clock" not in page
    assert "looked at" not in page
    assert '<p class="soft">Recorded from running servers. ' in page


def test_waits_and_states_from_a_millisecond_on_are_said() -> None:
    """Shorter ones are those of a machine."""
    analysis = make_picture()
    analysis.waits = {"A": MS - 1, "B": MS, "C": 5 * MS}
    section = _make_section(analysis, 40 * MS, 192, Shared("s0", 0))
    assert section.waits == [("A", "–"), ("B", "1.0 ms"), ("C", "5.0 ms")]  # noqa: RUF001
    short = (State.RUNNING, State.SLEEPING, State.CONNECTED, State.IDLE)
    spans = [Span(0, MS - (number == 0), state) for number, state in enumerate(short)]
    assert _list_words(Lane("t", False, tuple(spans))) == ["sleeping: 1.0 ms, from 0.0 ms"]


def test_pictures_of_one_page_share_their_axis() -> None:
    page = render([LOOPED, CHAIN], missing={})
    wide, narrow = (re.findall(rf'<div class="{name}"><svg .*?</svg>', page, re.DOTALL) for name in ("wide", "narrow"))
    for pictures, size in ((wide, "w"), (narrow, "n")):
        parts = [f's0{size}-{part}"' for part in ("lines", "ticks")]
        assert all(f'id="{part}' in pictures[0] and f'href="#{part}' in pictures[1] for part in parts)
    # Three clients and a thread end at 122.
    assert '<use href="#s0w-ticks" y="138"/>' in wide[1]
    # Ten milliseconds in both.
    lengths = [re.findall(r'h([\d.]+)"><title>computing for B', each) for each in wide]
    assert len(lengths[0]) == 1
    assert lengths[0] == lengths[1]


def test_narrow_picture_uses_the_bars_of_the_wide_one_at_its_own_places() -> None:
    page = render([CHAIN, LOOPED], missing={})
    wide, narrow = (
        re.findall(rf'<div class="{name}">(<svg .*?</svg>)', page, re.DOTALL)[1] for name in ("wide", "narrow")
    )
    ElementTree.fromstring(narrow)  # noqa: S314 - the lab's own; all elements are closed
    alone = draw(Analysis(LOOPED), width=NARROW, end=CHAIN.end, label=100)
    (place,) = re.findall(r'<g transform="translate\((.*?) 0\)scale\((.*?) 1\)"><use href="#s01', narrow)
    right, stretch = map(float, place)
    for lane in range(4):
        (bars,) = re.findall(rf'<g class="bars" id="s01-{lane}">(.*?)</g>', wide)
        (down,) = map(float, re.findall(rf'<use href="#s01-{lane}" y="(.*?)"/>', narrow))
        moved = {(right + x * stretch, y + down, length * stretch) for x, y, length in list_lines(bars)}
        own = re.findall(r'<g class="bars">(.*?)</g>', alone)[lane]
        for x, y, length in list_lines(own):
            near = [each for each in moved if abs(each[0] - x) < 0.2 and abs(each[2] - length) < 0.2]
            assert [each[1] for each in near] == [y]


def list_names(picture: ElementTree.Element) -> list[ElementTree.Element]:
    """Return the names of the lanes: the only text that has no class."""
    return [each for each in picture.iter() if each.tag.endswith("text") and not each.get("class")]


def list_lines(bars: str) -> list[tuple[float, float, float]]:
    """Return the lines of a lane: left, middle, length."""
    return [(float(x), float(y), float(length)) for x, y, length in re.findall(r"M([\d.]+) ([\d.]+)h([\d.]+)", bars)]


def test_page_of_all_models_and_scenes_has_at_most_200_kb() -> None:
    recordings = read_recordings(ROOT / "docs" / "data" / "xray.json")
    assert len({each.model for each in recordings}) > 15
    assert len(render(recordings, missing={}).encode()) <= 200_000


def test_trace_has_a_row_for_each_lane_and_a_flow_for_each_wait() -> None:
    events = make_trace([CHAIN, LOOPED])["traceEvents"]
    processes = [(event["pid"], event["tid"], event["args"]) for event in events if event["name"] == "process_name"]
    assert processes == [(number, 0, {"name": "a_model: sleep"}) for number in (1, 2)]
    rows = [event["args"]["name"] for event in events if event["name"] == "thread_name" and event["pid"] == 1]
    assert rows == ["A", "B", "C", "thread"]
    (computing,) = [event for event in events if event["name"] == "computing for B" and event["pid"] == 1]
    assert (computing["ph"], computing["ts"], computing["dur"]) == ("X", 23_500, 10_000)
    # In microseconds: C sent at 6 ms, and had its reply at 35.
    marks = [(event["name"], event["ts"]) for event in events if event["ph"] == "i" and event["tid"] == 3]
    assert marks[:3] == [("sent", 6_000), ("answered", 35_000), ("closed", 35_500)]
    flows = [event for event in events if event.get("cat") == "wait" and event["pid"] == 2]
    # A flow has a number of its own in all processes, and its end has that of its beginning.
    numbers = [[event["id"] for event in events if event["ph"] == end] for end in "sf"]
    assert numbers == [[1000, 1001, 1002, 2000]] * 2
    # B computes from 4.2 ms on; C waits from when it sent until it was read.
    assert [event["ts"] for event in flows] == [6_000, 14_200]
    assert [(event["ph"], event["name"], event["tid"]) for event in flows] == [
        ("s", "C waits for B", 4),
        ("f", "C waits for B", 3),
    ]


def test_thread_runs_between_two_system_calls_that_are_apart() -> None:
    assert list(list_stretches(CALLS)) == [
        Stretch(0, 2 * MS, Activity.ACCEPT, "accept4"),
        Stretch(2 * MS, 22 * MS, Activity.SLEEP, "clock_nanosleep"),
        Stretch(22 * MS, 23 * MS, Activity.RUN),
        Stretch(23 * MS, 24 * MS, Activity.SEND, "sendto"),
        Stretch(24 * MS, 33 * MS, Activity.RECEIVE, "recvfrom"),
    ]
    assert list(list_stretches([SystemCall(0, 1, "brk")])) == [Stretch(0, 1, Activity.OTHER, "brk")]
    assert list(list_stretches([])) == []
    twice = [*list_stretches([*CALLS, SystemCall(34 * MS, 40 * MS, "sendto")])]
    assert sum_up(twice) == [
        ("clock_nanosleep", 1, 20 * MS),
        ("recvfrom", 1, 9 * MS),
        ("sendto", 2, 7 * MS),
        ("accept4", 1, 2 * MS),
    ]


def test_system_calls_have_a_row_below_their_thread() -> None:
    picture = parse(TRACED)
    assert list_titles(picture, "sleeping thin") == ["clock_nanosleep: 20 ms, from 2.0 ms"]
    assert list_titles(picture, "running thin") == [f"{Activity.RUN}: 1.0 ms, from 22 ms"]
    assert list_titles(picture, "reading thin") == ["recvfrom: 9.0 ms, from 24 ms"]
    (bar,) = [each for each in picture.iter() if each.get("class") == "sleeping thin"]
    (thread,) = [each for each in picture.iter() if each.text == "thread"]
    assert list_lines(bar.get("d", ""))[0][1] > float(thread.get("y", 0))
    page = render([TRACED], missing={})
    assert "system calls: clock_nanosleep 1 times, 20 ms; recvfrom 1 times, 9.0 ms; accept4 1 times, 2.0 ms" in page
    assert "aligned with that of the lanes to within 1.2 µs" in page
    assert "the system calls of a thread, and what is between them" in page
    assert "the system calls of a thread" not in render([CHAIN], missing={})


def test_switches_have_a_row_below_their_thread() -> None:
    picture = parse(SWITCHED)
    assert list_titles(picture, "on") == ["put on a core 6 times in 35 ms"]
    (row,) = [each for each in picture.iter() if each.get("class") == "on"]
    (thread,) = [each for each in picture.iter() if each.text == "thread"]
    top = float(thread.get("y", 0)) - 14
    scale = (1000 - 8 - measure_label(Analysis(CHAIN))) / CHAIN.end
    # Neighbours are one line, from the first look to the last, in whole pixels.
    lines = list_lines(row.get("d", ""))
    assert [y for _, y, _ in lines] == [top + 21] * 2
    ends = [end for x, _, length in lines for end in (x, x + length)]
    assert ends == [measure_label(Analysis(CHAIN)) + round(time * MS * scale) for time in (0, 2, 22, 23)]
    calls = parse(replace(SWITCHED, traced=TRACED.traced))
    (below,) = [each for each in calls.iter() if each.get("class") == "on"]
    assert list_lines(below.get("d", ""))[0][1] == top + 28  # below the row of system calls
    page = render([SWITCHED], missing={})
    assert "<dd>put on a core 6 times in 35 ms</dd>" in page
    assert "the kernel put the thread on a core" in page


def test_page_of_unknown_switches_does_not_speak_of_them() -> None:
    unknown = replace(SWITCHED, threads=tuple(replace(each, switches=None) for each in SWITCHED.threads))
    assert not list_titles(parse(unknown), "on")
    assert "on a core" not in render([unknown], missing={})
    never = replace(SWITCHED, threads=tuple(replace(each, switches=()) for each in SWITCHED.threads))
    assert not list_titles(parse(never), "on")
    assert "<dd>put on a core 0 times in 35 ms</dd>" in render([never], missing={})


def test_trace_has_a_counter_of_switches_for_each_thread() -> None:
    """It has the number for the time between two looks, and is 0 where there was none."""
    counts = [event for event in make_trace([CHAIN, SWITCHED])["traceEvents"] if event["ph"] == "C"]
    assert {(event["pid"], event["name"]) for event in counts} == {(2, "thread: put on a core")}
    assert [(event["ts"], event["args"]) for event in counts] == [
        (0, {"times": 3}),
        (1000, {"times": 2}),
        (2000, {"times": 0}),
        (22_000, {"times": 1}),
        (23_000, {"times": 0}),
    ]


def test_trace_has_the_system_calls_below_their_thread() -> None:
    traced = (TracedThread(1, CALLS), TracedThread(2, CALLS[:1]))
    recording = replace(make_recording([make_process(1, [OWN["A"], OWN["B"]])]), traced=traced)
    events = make_trace([recording])["traceEvents"]
    assert {event["pid"] for event in events} == {1}
    rows = {event["tid"]: event["args"]["name"] for event in events if event["name"] == "thread_name"}
    places = {event["tid"]: event["args"]["sort_index"] for event in events if event["name"] == "thread_sort_index"}
    assert len(set(places.values())) == len(places)
    assert [rows[row] for row in sorted(rows, key=lambda row: places[row])] == [
        "A",
        "B",
        "C",
        "thread 1",
        "thread 1: system calls",
        "thread 2",
        "thread 2: system calls",
    ]
    calls = [event for event in events if event.get("cat") == "system call"]
    assert [(event["name"], event["ts"], event["dur"], rows[event["tid"]]) for event in calls] == [
        ("accept4", 0, 2000, "thread 1: system calls"),
        ("clock_nanosleep", 2000, 20_000, "thread 1: system calls"),
        ("sendto", 23_000, 1000, "thread 1: system calls"),
        ("recvfrom", 24_000, 9000, "thread 1: system calls"),
        ("accept4", 0, 2000, "thread 2: system calls"),
    ]


def test_legend_has_the_class_of_each_state() -> None:
    """And a colour, or a pattern, that no other class has: those of the needs of a thread are one."""
    said = dict(_LEGEND)
    for state, text in (
        (State.BACKLOG, "in the backlog: connected as far as the client can tell"),
        (State.CONNECTED, "connected, and silent"),
        (State.UNREAD, "the client has sent, and the server has not read it"),
        (State.SLEEPING, "the server sleeps for a client"),
        (State.COMPUTING, "the server computes for a client"),
        (State.SENDING, "the server waits until a client takes its reply"),
        (State.READING, "the server waits for a request of a client, or the rest of one"),
        (State.RUNNING, "the server runs, or is between two steps for the client"),
        (State.GIL, "waits for the GIL, a lock or a core"),
    ):
        assert said.pop(CLASSES[state][0]) == text
    assert not said
    colours = dict(re.findall(r"(?<=[}\n])([a-z.,]+){stroke:([^;}]+)}", STYLE))
    del colours[".grid"]
    assert {name for names in colours for name in names.replace(".", "").split(",")} == {
        name for name, _ in CLASSES.values()
    } - {"rest"}
    assert len(set(colours.values())) == len(colours)


def test_each_scene_of_a_page_has_the_names_of_its_own_clients() -> None:
    clients = tuple(replace(client, name=name) for client, name in zip(CHAIN.clients, "RSC", strict=True))
    page = render([CHAIN, replace(CHAIN, scene="slow", clients=clients)], missing={})
    assert re.findall(r'class="figure">(\w) waited</th>', page) == ["A", "B", "C", "R", "S", "C"]


def test_page_says_all_that_a_lane_shows_and_what_was_not_recorded() -> None:
    recording = replace(CHAIN, missing=("strace: not <installed>", "the GIL: not asked"))
    page = render([recording], missing={})
    assert re.findall(r'<p class="small soft">Not recorded: (.*)\.</p>', page) == [
        "strace: not &lt;installed&gt;",
        "the GIL: not asked",
    ]
    lanes = [(lane.name, list(_list_words(lane))) for lane in Analysis(recording).lanes]
    found = re.findall(r"<dt>(.*?)</dt>((?:<dd>.*?</dd>)+)", page)
    assert [(name, re.findall("<dd>(.*?)</dd>", words)) for name, words in found] == lanes
    assert max(len(words) for _, words in lanes) > 2
    wide, narrow = re.findall(r'<div class="(?:wide|narrow)"><svg viewBox="0 0 (\d+) ', page)
    assert (wide, narrow) == ("1000", "360")
