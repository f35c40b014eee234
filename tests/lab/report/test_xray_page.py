"""The page of `lab xray`, its pictures and its trace, of made-up recordings."""

import re
from dataclasses import replace
from xml.etree import ElementTree

from lab.base.paths import ROOT
from lab.experiments.xray.analysis import Analysis, State
from lab.experiments.xray.calls import Activity
from lab.experiments.xray.recording import Recording, SystemCall, TracedThread, read_recordings
from lab.report.xray_page import render
from lab.report.xray_svg import NARROW, draw, measure_label
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
    return ElementTree.fromstring(text)  # noqa: S314 - the lab's own


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


def test_pictures_of_one_page_share_their_axis() -> None:
    page = render([LOOPED, CHAIN], missing={})
    wide, narrow = (re.findall(rf'<div class="{name}"><svg .*?</svg>', page, re.DOTALL) for name in ("wide", "narrow"))
    for pictures, size in ((wide, "w"), (narrow, "n")):
        parts = [f's0{size}-{part}"' for part in ("lines", "ticks")]
        assert all(f'id="{part}' in pictures[0] and f'href="#{part}' in pictures[1] for part in parts)
    # Ten milliseconds in both.
    lengths = [re.findall(r'h([\d.]+)"><title>computing for B', each) for each in wide]
    assert len(lengths[0]) == 1
    assert lengths[0] == lengths[1]


def test_narrow_picture_uses_the_bars_of_the_wide_one_at_its_own_places() -> None:
    page = render([CHAIN, LOOPED], missing={})
    wide, narrow = (
        re.findall(rf'<div class="{name}">(<svg .*?</svg>)', page, re.DOTALL)[1] for name in ("wide", "narrow")
    )
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
    rows = [event["args"]["name"] for event in events if event["name"] == "thread_name" and event["pid"] == 1]
    assert rows == ["A", "B", "C", "thread"]
    (computing,) = [event for event in events if event["name"] == "computing for B" and event["pid"] == 1]
    assert (computing["ph"], computing["ts"], computing["dur"]) == ("X", 23_500, 10_000)
    # In microseconds: C sent at 6 ms, and had its reply at 35.
    marks = [(event["name"], event["ts"]) for event in events if event["ph"] == "i" and event["tid"] == 3]
    assert marks[:3] == [("sent", 6_000), ("answered", 35_000), ("closed", 35_500)]
    flows = [event for event in events if event.get("cat") == "wait" and event["pid"] == 2]
    # B computes from 4.2 ms on; C waits from when it sent until it was read.
    assert [event["ts"] for event in flows] == [6_000, 14_200]
    assert [(event["ph"], event["name"], event["tid"]) for event in flows] == [
        ("s", "C waits for B", 4),
        ("f", "C waits for B", 3),
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
    rows = {event["tid"]: event["args"]["name"] for event in events if event["name"] == "thread_name"}
    places = {event["tid"]: event["args"]["sort_index"] for event in events if event["name"] == "thread_sort_index"}
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
