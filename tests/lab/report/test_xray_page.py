"""The page of `lab xray`, its pictures and its trace, of made-up recordings."""

import re
from xml.etree import ElementTree

from lab.experiments.xray.analysis import Analysis
from lab.experiments.xray.recording import Recording
from lab.report.xray_page import render
from lab.report.xray_svg import draw, measure_label
from lab.report.xray_trace import make_trace
from tests.support.made_up_xray import (
    LOOP,
    LOOP_CLIENTS,
    MS,
    SEQUENTIAL,
    make_process,
    make_recording,
)

SVG = "{http://www.w3.org/2000/svg}"
CHAIN = make_recording([make_process(1, [SEQUENTIAL])])
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
    assert list_titles(picture, "mark").count("sent at 6.0 ms") == 1


def test_bar_is_as_long_as_its_time() -> None:
    picture = parse(CHAIN, end=100 * MS)
    words = "computing for B: 10 ms, from 24 ms"
    (bar,) = [each for each in picture.iter(f"{SVG}rect") if each.findtext(f"{SVG}title") == words]
    axis = 1000 - 8 - measure_label(Analysis(CHAIN))
    assert abs(float(bar.get("width", 0)) - axis * 10 / 100) < 0.2


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
    names = {each.text: float(each.get("y", 0)) for each in picture.iter() if each.get("class") == "name"}
    assert names["C"] < end < start < names["loop"]


def test_names_stand_above_the_lanes_of_a_narrow_picture() -> None:
    wide, narrow = parse(CHAIN), parse(CHAIN, width=360)
    assert len(list(wide.iter(f"{SVG}rect"))) >= len(list(narrow.iter(f"{SVG}rect")))
    heights = [int(each.get("viewBox", "").split()[-1]) for each in (wide, narrow)]
    assert heights[1] > heights[0]


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
    labels = re.findall(r'role="img" aria-label="([^"]+)"', page)
    assert len(labels) == 2  # the wide picture and the narrow one
    assert all(label.startswith("a_model: A blocks B, B blocks C. B waited 19 ms") for label in labels)


def test_pictures_of_one_page_share_their_axis() -> None:
    page = render([LOOPED, CHAIN], missing={})
    wide = re.findall(r'<div class="wide"><svg .*?</svg>', page, re.DOTALL)
    axes = [re.findall(r'<text class="soft" x="([\d.]+)" [^>]*>([^<]+)<', each) for each in wide]
    assert len(axes) == 2
    assert axes[0] == axes[1]
    # Ten milliseconds in both.
    lengths = [re.findall(r'width="([\d.]+)" height="18"><title>computing for B', each) for each in wide]
    assert len(lengths[0]) == 1
    assert lengths[0] == lengths[1]


def test_trace_has_a_row_for_each_lane_and_a_flow_for_each_wait() -> None:
    events = make_trace([CHAIN, LOOPED])["traceEvents"]
    rows = [event["args"]["name"] for event in events if event["name"] == "thread_name" and event["pid"] == 1]
    assert rows == ["A", "B", "C", "thread"]
    (computing,) = [event for event in events if event["name"] == "computing for B" and event["pid"] == 1]
    assert (computing["ph"], computing["ts"], computing["dur"]) == ("X", 23_500, 10_000)
    flows = [event for event in events if event.get("cat") == "wait" and event["pid"] == 2]
    assert [(event["ph"], event["name"], event["tid"]) for event in flows] == [
        ("s", "C waits for B", 4),
        ("f", "C waits for B", 3),
    ]
