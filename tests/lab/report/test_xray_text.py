"""An X-ray in characters, of made-up recordings, column by column."""

from dataclasses import replace

import pytest

from lab.experiments.xray.analysis import Analysis, Lane, Mark, Span, State
from lab.experiments.xray.recording import SystemCall, TracedThread
from lab.experiments.xray.scenes import SCENES
from lab.report.xray_text import (
    _MARKS,
    _MEANINGS,
    CHARACTERS,
    _draw_axis,
    _wrap,
    describe_scene,
    draw,
    draw_lane,
    make_legend,
    render,
)
from tests.support.made_up_xray import (
    LOOP,
    LOOP_CLIENTS,
    MS,
    OWN,
    SEQUENTIAL,
    make_process,
    make_recording,
    make_switches,
    make_thread,
)

CHAIN = Analysis(make_recording([make_process(1, [SEQUENTIAL])]))


def test_chain_is_drawn() -> None:
    """35.5 ms in 71 columns: two for each millisecond."""
    assert draw(CHAIN, 79).splitlines() == [
        "A       _---<zzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzz=>x",
        "B       ________<______________________________________####################=>x",
        "C       ____________<________________________________________________________>x",
        "thread   ArrAzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzz-=B###################-=-",
        "        |0 ms     |5        |10       |15       |20       |25       |30",
    ]


def test_loop_is_drawn() -> None:
    analysis = Analysis(make_recording([make_process(1, [LOOP])], LOOP_CLIENTS))
    assert draw(analysis, 52).splitlines() == [
        "A     _---<zzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzz>x",
        "B     _-------<####################>x",
        "C     __----------<................>x",
        "loop   =      B####################",
        "      |0 ms     |5        |10       |15       |20",
    ]


@pytest.mark.parametrize("width", [60, 120])
def test_picture_is_never_wider_than_asked(width: int) -> None:
    threads = Analysis(make_recording([make_process(1, list(OWN.values()))]))
    for analysis in (CHAIN, threads):
        lines = render(analysis, width).splitlines()
        assert max(map(len, lines)) <= width
        assert max(map(len, lines)) > width - 12


def test_picture_comes_with_its_conclusion_and_what_is_missing() -> None:
    analysis = Analysis(make_recording([], missing=["the kernel's side: no ptrace"]))
    lines = render(analysis, 100).splitlines()
    assert lines[0] == "a_model: the server has no recorder: only its clients are known"
    assert lines[-1] == "Not recorded: the kernel's side: no ptrace."


def test_legend_has_what_the_lanes_have() -> None:
    """And not the letters of their names."""
    analysis = Analysis(make_recording([make_process(1, [LOOP])], LOOP_CLIENTS))
    characters = [line[0] for line in make_legend([analysis], 52).splitlines()]
    assert characters == ["_", "-", "<", ".", "z", "#", "=", ">", "x"]


def test_number_of_switches_is_at_the_end_of_a_row() -> None:
    """40 ms in 20 columns; ten others are for a name, and three for a number. The second thread's is not known."""
    threads = [make_thread(1, tid, "R" * 41) for tid in (1, 2, 3)]
    threads[2] = replace(threads[2], switches=())
    threads[0] = replace(threads[0], switches=make_switches((0, 1, 3), (5, 6, 4)))
    recording = make_recording([], (("C", 6.0, 39.5),), threads)
    lines = draw(Analysis(recording), 33).splitlines()
    assert lines == [
        "C         ---<..............>x",
        "thread 1  ==================== 7*",
        "thread 2  ====================",
        "thread 3  ==================== 0*",
        "          |0 ms     |20",
    ]
    assert max(map(len, draw(Analysis(recording), 60).splitlines())) == 60
    legend = make_legend([Analysis(recording)], 60).splitlines()
    assert legend[-1] == "*   how many times the kernel put this thread on a core"
    unknown = Analysis(replace(recording, threads=(threads[1],)))
    assert "*" not in draw(unknown, 60) + make_legend([unknown], 60)


def test_system_calls_have_a_row_below_their_thread() -> None:
    calls = (
        SystemCall(0, 10 * MS, "accept4"),
        SystemCall(12 * MS, 20 * MS, "futex"),
        SystemCall(20 * MS, 30 * MS, "brk"),
    )
    recording = make_recording([make_process(1, [SEQUENTIAL])])
    analysis = Analysis(replace(recording, end=40 * MS, traced=(TracedThread(1, calls),), misaligned=2_000))
    lines = draw(analysis, 56).splitlines()
    assert [line[:16].strip() for line in lines] == ["A", "B", "C", "thread", "system calls", ""]
    assert lines[4][16:] == "aaaaaaaaaa==ffffffffoooooooooo"
    assert "to within 2.0 µs" in render(analysis, 300)
    legend = make_legend([analysis], 56).splitlines()
    assert "f   in a row of system calls: futex" in legend
    assert not [line for line in make_legend([CHAIN], 56).splitlines() if "system calls" in line]


def test_column_shows_the_state_that_fills_most_of_it() -> None:
    """30 ns in three columns: 4 and 6; 4, 3 and 3, of which the last is the first again; nothing, and then 1."""
    spans = (
        Span(0, 4, State.SLEEPING),
        Span(4, 14, State.COMPUTING),
        Span(14, 17, State.READING),
        Span(17, 20, State.COMPUTING),
        Span(29, 30, State.SENDING),
    )
    assert draw_lane(Lane("a", True, spans), 30, 3) == "##s"
    # The parts of one state count together: 3 and 3 against 4.
    parts = (Span(0, 3, State.READING), Span(3, 7, State.COMPUTING), Span(7, 10, State.READING))
    assert draw_lane(Lane("a", True, parts), 10, 1) == "r"


def test_moments_of_a_client_that_share_a_column_stand_beside_each_other() -> None:
    def place(*times: int) -> str:
        marks = [Mark(time, name) for time, name in zip(times, ("sent", "answered", "closed"), strict=True)]
        return draw_lane(Lane("a", True, (), tuple(marks)), 100, 10)

    assert place(40, 41, 49) == "  <>x     "
    assert place(0, 50, 100) == "<    >   x"
    # By a coarse clock.
    assert place(40, 40, 40) == "  <>x     "
    # There is no column before the first: the earliest is left out.
    assert place(5, 14, 15) == ">x        "


@pytest.mark.parametrize(
    ("milliseconds", "columns", "axis"),
    [
        # A tick for each millisecond needs six columns for each.
        (4, 24, "|0 ms |1    |2    |3"),
        (4, 23, "|0 ms      |2"),
        (5.2, 32, "|0 ms |1    |2    |3    |4    |5"),
        # The last label would not fit as a whole.
        (5.05, 31, "|0 ms |1    |2    |3    |4"),
        (50, 30, "|0 ms |10   |20   |30   |40"),
        (99, 30, "|0 ms |20   |40   |60   |80"),
        (100, 12, "|0 ms |50"),
        (500, 30, "|0 ms |100  |200  |300  |400"),
        (1_000, 30, "|0 ms |200  |400  |600  |800"),
        (2_500, 30, "|0 ms |500  |1000 |1500 |2000"),
        (5_000, 30, "|0 ms |1000 |2000 |3000 |4000"),
        (5_000, 12, "|0 ms"),
        (10_000, 24, "|0 ms       |5000"),
        (20_000, 60, "|0 ms |2000 |4000 |6000 |8000 |10000|12000|14000|16000|18000"),
        # Not even the largest step gives each tick its room.
        (60_000, 12, "|0 ms"),
    ],
)
def test_axis_has_ticks_at_round_times(milliseconds: float, columns: int, axis: str) -> None:
    assert _draw_axis(round(milliseconds * MS), columns) == axis


def test_picture_on_a_terminal_that_is_too_narrow_is_no_error() -> None:
    assert render(CHAIN, 10)


def test_long_name_of_a_lane_is_cut_and_the_columns_stay_in_line() -> None:
    short, fits, long = (Lane(letter * count, False, ()) for letter, count in (("a", 2), ("b", 23), ("c", 24)))
    analysis = Analysis(CHAIN.recording)
    analysis.lanes = [short, fits, long]
    rows = draw(analysis, 60).splitlines()
    assert rows == ["aa", "b" * 23, "c" * 22 + "…", rows[-1]]
    # 22 and two more.
    assert rows[-1].index("|0") == 24
    # Shorter names take less.
    analysis.lanes = [short]
    assert draw(analysis, 60).splitlines()[-1].index("|0") == 4


def test_sentence_is_wrapped_between_words() -> None:
    assert _wrap("one two three four", 13) == ["one two three", "  four"]
    assert _wrap("one two three four", 12) == ["one two", "  three four"]
    assert _wrap("incomprehensible", 5) == ["incomprehensible"]


def test_scene_is_named_by_what_its_clients_do() -> None:
    assert describe_scene("sleep") == SCENES["sleep"].title
    assert describe_scene("of an older version") == "of an older version"


def test_legend_says_what_the_characters_of_the_states_mean() -> None:
    said = dict(_MEANINGS)
    for state, text in (
        (State.BACKLOG, "in the backlog"),
        (State.CONNECTED, "connected and silent"),
        (State.UNREAD, "sent, and not read by the server yet"),
        (State.SLEEPING, "the server sleeps"),
        (State.COMPUTING, "the server computes"),
        (State.SENDING, "the server waits until this client takes the reply"),
        (State.READING, "the server waits for a request"),
        (State.GIL, "waits for the GIL"),
        (State.LOCK, "waits for a lock"),
        (State.CORE, "waits for a core"),
        (State.RUNNING, "runs"),
    ):
        assert said[CHARACTERS[state]].startswith(text)
    for mark, text in (("sent", "the client sends"), ("answered", "the reply"), ("closed", "the client closes")):
        assert said[_MARKS[mark]].startswith(text)
