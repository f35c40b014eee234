"""An X-ray in characters, of made-up recordings, column by column."""

from dataclasses import replace

import pytest

from lab.experiments.xray.analysis import Analysis
from lab.experiments.xray.recording import SystemCall, TracedThread
from lab.report.xray_text import draw, make_legend, render
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
