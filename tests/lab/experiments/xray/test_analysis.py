"""What follows from made-up recordings: exactly who waited for whom, and in which words."""

import json
from dataclasses import replace
from pathlib import Path

import pytest

from lab.base.errors import LabError
from lab.experiments.xray.analysis import _STATES, Analysis, State, is_orderly
from lab.experiments.xray.calls import ACTIVITIES, Activity
from lab.experiments.xray.record import choose_round, make_recordings
from lab.experiments.xray.recording import (
    Client,
    Recording,
    Segment,
    Switches,
    SystemCall,
    Thread,
    TracedThread,
    read_recordings,
    write_recordings,
)
from lab.experiments.xray.sentences import conclude, explain
from lab.experiments.xray.strace import Log
from tests.support.made_up_xray import (
    LOOP,
    LOOP_CLIENTS,
    MS,
    OWN,
    QUICK,
    SEQUENTIAL,
    make_process,
    make_recording,
    make_switches,
    make_thread,
)

OWN_CLIENTS = (("A", 2.0, 22.5), ("B", 4.0, 14.5), ("C", 6.0, 11.5))
QUICK_CLIENTS = (("A", 2.0, 22.5), ("B", 4.0, 14.5), ("C", 6.0, 6.5))


def analyse_sequential() -> Analysis:
    return Analysis(make_recording([make_process(1, [SEQUENTIAL])]))


def analyse_loop() -> Analysis:
    return Analysis(make_recording([make_process(1, [LOOP])], LOOP_CLIENTS))


def analyse_threads(*, has_gil: bool = True) -> Analysis:
    return Analysis(make_recording([make_process(1, list(OWN.values()), has_gil=has_gil)], OWN_CLIENTS))


def analyse_processes() -> Analysis:
    processes = [make_process(10 * number, [lines]) for number, lines in enumerate((OWN["A"], OWN["B"], QUICK), 1)]
    return Analysis(make_recording(processes, QUICK_CLIENTS))


def test_one_client_at_a_time_is_a_chain() -> None:
    analysis = analyse_sequential()
    assert analysis.chain == [("A", "B", "thread"), ("B", "C", "thread")]
    assert {(edge.holder, edge.state, edge.lane) for edge in analysis.edges} == {
        ("A", State.SLEEPING, (1, 1)),
        ("B", State.COMPUTING, (1, 1)),
    }
    assert conclude(analysis) == "A blocks B, B blocks C"
    assert explain(analysis) == [
        "B waited 19 ms: the only thread slept for A (18 ms).",
        "C waited 28 ms: the only thread slept for A (16 ms), then computed for B (10 ms).",
    ]


def test_loop_sleeps_for_no_one_and_computes_for_one() -> None:
    analysis = analyse_loop()
    assert analysis.chain == [("B", "C", "thread")]
    assert conclude(analysis) == "B blocks C"
    assert explain(analysis) == ["C waited 8.5 ms: the loop computed for B (8.2 ms)."]


def test_loop_that_blocks_while_it_sleeps_is_found_out() -> None:
    """As a coroutine does that calls `time.sleep`."""
    lines = """
        0.5 A OPENED
        0.7 B OPENED
        0.9 C OPENED
        2.1 A RECEIVED 9
        2.2 A WAIT 20000
        22.3 A SEND 5
        22.4 B RECEIVED 9
        22.5 B COMPUTE 9
        32.5 B DIGEST
        32.6 B SEND 70
        32.7 C RECEIVED 6
        32.8 C SEND 7
        33.0 A CLOSE
    """
    clients = (("A", 2.0, 22.5), ("B", 4.0, 33.0), ("C", 6.0, 33.3))
    analysis = Analysis(make_recording([make_process(1, [lines])], clients))
    assert analysis.chain == [("A", "B", "thread"), ("B", "C", "thread")]


def test_loop_that_is_late_for_a_moment_holds_no_one() -> None:
    """A loop that waits for the end of R, without a core when S sends, has not waited for R alone."""
    lines = """
        0.5 R OPENED
        0.7 S OPENED
        0.8 R ASKS
        2.0 S ASKS
        3.0 R RECEIVED 9
        3.1 R SEND 9
        3.2 R ASKS
        23.0 R ENDED
        23.1 S RECEIVED 9
        23.2 S SEND 9
    """
    recording = make_recording([make_process(1, [lines])], (("R", 2.9, 3.2), ("S", 21.0, 23.4)))
    assert not Analysis(recording).edges


def test_loop_without_a_core_holds_no_one() -> None:
    """It turns to B first, so it was not asleep for A meanwhile."""
    lines = """
        0.5 A OPENED
        0.7 B OPENED
        0.9 C OPENED
        2.1 A RECEIVED 9
        2.2 A WAIT 20000
        15.0 B RECEIVED 9
        15.1 B SEND 7
        15.2 C RECEIVED 6
        15.3 C SEND 7
        22.3 A SEND 5
    """
    recording = make_recording([make_process(1, [lines])], (("A", 2.0, 22.5), ("B", 4.0, 15.2), ("C", 6.0, 15.4)))
    assert not Analysis(recording).edges


def test_threads_share_the_gil() -> None:
    analysis = analyse_threads()
    assert analysis.chain == [("B", "C", "GIL")]
    # The lane is the holder's: an arrow begins there.
    assert [(edge.state, edge.lane) for edge in analysis.edges] == [(State.COMPUTING, (1, 2))]
    assert conclude(analysis) == "B and C share the GIL"
    assert explain(analysis) == ["C waited 5.1 ms: the thread of B computed, and held the GIL."]


def test_threads_without_a_gil_share_nothing() -> None:
    analysis = analyse_threads(has_gil=False)
    assert not analysis.edges
    assert conclude(analysis) == "no client waits for another"


def test_processes_share_nothing() -> None:
    analysis = analyse_processes()
    assert not analysis.edges
    assert explain(analysis) == ["C had its reply after 0.5 ms."]


def test_timer_that_comes_late_is_a_wait() -> None:
    lines = """
        0.5 A OPENED
        0.7 B OPENED
        2.1 A RECEIVED 9
        2.2 A WAIT 20000
        4.1 B RECEIVED 9
        20.0 B COMPUTE 9
        30.1 B DIGEST
        30.2 B SEND 70
        30.3 A SEND 5
    """
    recording = make_recording([make_process(1, [lines])], (("A", 2.0, 30.5), ("B", 4.0, 30.2)))
    assert ("B", "A", "thread") in Analysis(recording).chain
    assert not is_orderly(recording)


@pytest.mark.parametrize("analysis", [analyse_sequential(), analyse_loop(), analyse_threads(), analyse_processes()])
def test_lanes_add_up_to_the_whole_time(analysis: Analysis) -> None:
    assert len(analysis.lanes) > 3
    for lane in analysis.lanes:
        assert lane.spans[0].start == 0
        assert lane.spans[-1].end == analysis.recording.end
        assert all(before.end == after.start for before, after in zip(lane.spans, lane.spans[1:], strict=False))


def states_of(analysis: Analysis, lane: str) -> list[tuple[State, str, float]]:
    (found,) = (each for each in analysis.lanes if each.name == lane)
    return [(span.state, span.client, round((span.end - span.start) / MS, 1)) for span in found.spans]


def test_lane_of_a_client_in_the_backlog() -> None:
    assert [(state, length) for state, _, length in states_of(analyse_sequential(), "C")] == [
        (State.CONNECTING, 0.1),
        (State.BACKLOG, 34.2),
        (State.UNREAD, 0.1),
        (State.SERVED, 0.1),
        (State.SENDING, 0.1),
        (State.SERVED, 0.4),
        (State.CONNECTED, 0.5),
    ]


def test_lane_of_the_only_thread_says_for_whom_it_sleeps() -> None:
    long = [each for each in states_of(analyse_sequential(), "thread") if each[2] > 5]
    assert long == [(State.SLEEPING, "A", 20.1), (State.COMPUTING, "B", 10.0)]


def test_lane_of_a_loop_waits_for_any_client() -> None:
    long = [each for each in states_of(analyse_loop(), "loop") if each[2] > 5]
    assert long == [(State.COMPUTING, "B", 10.0), (State.LOOP, "", 7.7)]


def test_kernel_shows_the_wait_for_the_gil() -> None:
    threads = [make_thread(1, 3, "rrrrrrfffffrrrr"), make_thread(1, 1, "zzzzzzzzzzzzzzz")]
    analysis = Analysis(make_recording([make_process(1, list(OWN.values()))], OWN_CLIENTS, threads))
    assert (State.GIL, "C", 5.0) in states_of(analysis, "thread 3")
    assert explain(analysis) == [
        "C waited 5.1 ms: the thread of B computed, and held the GIL. The kernel shows 5.0 ms of it as a wait for a "
        "lock (futex)."
    ]
    for lane in analysis.lanes:
        assert sum(span.end - span.start for span in lane.spans) == analysis.recording.end


def test_wait_for_a_lock_in_a_process_that_computes_nothing_is_not_for_the_gil() -> None:
    threads = [make_thread(1, 3, "rrrrrrfffffrrrr")]
    clients = (("A", 2.0, 22.5), ("C", 6.0, 11.5))
    analysis = Analysis(make_recording([make_process(1, [OWN["A"], "", OWN["C"]])], clients, threads))
    assert (State.LOCK, "", 5.0) in states_of(analysis, "thread 2")


def test_stale_look_is_not_stretched() -> None:
    """A sampler that got no core has seen nothing meanwhile."""
    threads = [make_thread(1, 3, "rrrrrrf")]
    analysis = Analysis(make_recording([make_process(1, list(OWN.values()))], OWN_CLIENTS, threads))
    assert sum(length for state, _, length in states_of(analysis, "thread 3") if state is State.GIL) == 2.0


def test_client_without_a_reply_is_reported_and_the_rest_shown() -> None:
    """A model that ends while it is recorded."""
    lines = "\n".join(SEQUENTIAL.strip().splitlines()[:4])
    recording = make_recording([make_process(1, [lines])], (("A", 2.0, None), ("B", 4.0, None)))
    analysis = Analysis(recording)
    assert states_of(analysis, "thread")[-1][0] is State.IDLE
    assert len(analysis.lanes) == 3


def test_server_without_a_recorder_has_only_clients() -> None:
    analysis = Analysis(make_recording([]))
    assert [lane.name for lane in analysis.lanes] == ["A", "B", "C"]
    assert conclude(analysis) == "the server has no recorder: only its clients are known"
    assert (State.UNREAD, "", 29.0) in states_of(analysis, "C")


def test_round_in_the_middle_is_chosen_and_late_ones_are_left_out() -> None:
    def wait(until: float) -> Recording:
        lines = LOOP.replace("14.5 C RECEIVED", f"{until} C RECEIVED")
        return make_recording([make_process(1, [lines])], LOOP_CLIENTS)

    rounds = [wait(14.58), wait(14.42), wait(14.5)]
    assert choose_round(rounds) is rounds[2]
    late = make_recording([make_process(1, [LOOP])], (("A", 2.0, 22.5), ("B", 4.0, 14.5), ("C", 3.0, 14.8)))
    assert choose_round([late, rounds[0], late]) is rounds[0]
    assert choose_round([late]).missing == ("clients came late in each round: this machine was too busy",)


def test_recording_is_written_and_read(tmp_path: Path) -> None:
    threads = [
        make_thread(1, 3, "rrff"),
        replace(make_thread(1, 4, "r"), switches=()),
        replace(make_thread(1, 5, "r"), switches=make_switches((0, 1, 2), (2, 3, 1))),
    ]
    processes = [make_process(1, list(OWN.values()))]
    recording = make_recording(processes, OWN_CLIENTS, threads, ["strace: not installed"])
    write_recordings(tmp_path / "x.json", [recording, recording])
    assert read_recordings(tmp_path / "x.json") == [recording, recording]


def test_switches_of_a_recording_without_them_are_not_known(tmp_path: Path) -> None:
    """As the lab stored them until 2026-11-29."""
    recording = make_recording([make_process(1, [SEQUENTIAL])], threads=[make_thread(1, 1, "rr")])
    data = recording.as_json()
    del data["threads"][0]["switches"]
    (tmp_path / "x.json").write_text(json.dumps([data]))
    (found,) = read_recordings(tmp_path / "x.json")
    assert found == recording
    (lane,) = [lane for lane in Analysis(found).lanes if not lane.is_client]
    assert (lane.switched, lane.switches) == (None, ())
    known = replace(recording, threads=(replace(recording.threads[0], switches=make_switches((0.0, 1.0, 3))),))
    assert [lane.switches for lane in Analysis(known).lanes] == [(), (), (), make_switches((0.0, 1.0, 3))]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("nonsense", "x.json is not a recording of `lab xray`"),
        ("{}", "x.json is not a recording of `lab xray`"),
        ("[{}]", "x.json is not a recording of `lab xray`"),
        ("[5]", "x.json is not a recording of `lab xray`"),
        ('[{"version": 0, "clients": []}]', "x.json is a recording of version 0, and this lab reads version 1"),
        ('[{"version": 1, "clients": []}]', "x.json is a damaged recording: KeyError"),
    ],
)
def test_file_that_is_no_recording_is_refused(tmp_path: Path, text: str, said: str) -> None:
    (tmp_path / "x.json").write_text(text)
    with pytest.raises(LabError, match=said.replace("(", r"\(")):
        read_recordings(tmp_path / "x.json")


def test_recordings_are_made_of_what_the_programs_print() -> None:
    """Threads get the kernel's numbers, an identity that is used twice both of them, and times begin at 0."""
    client = {"name": "A", "does": "PING", "port": 7, "error": ""}
    times = {"connecting": 1000, "connected": 1010, "sent": [1020], "answered": 1100, "closed": 1200}
    notes = [
        [10, 5, "OPENED", 1, 6],
        [11, 5, "THREAD", 1, 101],
        [1015, 5, "OPENED", 2, 7],
        [1016, 5, "THREAD", 2, 102],
        [1030, 5, "RECEIVED", 2, 6],
        [1040, 5, "ASKS", 1, 0],
        [1900, 5, "CLOSE", 2, 0],
    ]
    played = {
        "rounds": [[client | times]],
        "processes": [{"pid": 9, "has_gil": True, "notes": notes}],
        "faults": ["x"],
        "clock": 80,
        "ended": "",
        "clocks": [[4_999_999_935, 20], [5_000_000_035, 30]],
    }
    looks: dict[str, object] = {
        "threads": [
            [
                9,
                102,
                "python",
                [[900, 1050, "202", 5, 6], [1060, 1300, "running", 7, 8]],
                # The round is from 1000 to 1200: the first is over, the last has not begun.
                [[900, 1000, 1], [999, 1010, 2], [1050, 1060, 3], [1199, 1300, 4], [1200, 1300, 5]],
            ],
            [9, 103, "python", [[900, 1300, "202", 5, 6]], None],
        ]
    }
    looks |= {"faults": ["y"], "machine": "x86_64", "look": 10}
    # Its clock is 15 ns less than 5 s ahead of the other one.
    log = [
        "102 5.000000 futex(0x7f <unfinished ...>",
        "103 5.000001 recvfrom(5,  <unfinished ...>",
        "7 6.000000 getpid() = 7",
    ]
    (found,) = make_recordings(played, looks, Log(log), model="m", scene="sleep", date="d", backend="process")
    assert found.end == 200
    assert [(note.time, note.thread, note.kind.name) for note in found.processes[0].notes] == [
        (15, 102, "OPENED"),
        (16, 102, "THREAD"),
        (30, 102, "RECEIVED"),
        (900, 102, "CLOSE"),
    ]
    assert found.threads == (
        Thread(
            9,
            102,
            "python",
            (Segment(0, 50, "futex", 5, 6), Segment(60, 200, "running", 7, 8)),
            (Switches(0, 10, 2), Switches(50, 60, 3), Switches(199, 200, 4)),
        ),
        Thread(9, 103, "python", (Segment(0, 200, "futex", 5, 6),), None),
    )
    assert found.clients == (Client("A", "PING", 7, 0, 10, (20,), 100, 200),)
    assert [(each.pid, each.has_gil) for each in found.processes] == [(9, True)]
    assert found.missing == ("x", "y")
    assert found.traced == (
        TracedThread(102, (SystemCall(0, 200, "futex"),)),
        TracedThread(103, (SystemCall(15, 200, "recvfrom"),)),
    )
    assert found.misaligned == 30 + 50 + 1000
    assert (found.clock, found.look) == (80, 10)
    assert (found.model, found.scene, found.date, found.backend) == ("m", "sleep", "d", "process")
    json.dumps(found.as_json())


def test_pieces_of_a_reply_are_one_part_of_a_sentence() -> None:
    lines = """
        0.5 R OPENED
        2.0 R RECEIVED 9
        2.1 R SEND 9
        8.0 R SEND 9
        14.0 R SEND 9
        20.0 R CLOSE
        20.1 C OPENED
        20.2 C RECEIVED 6
        20.3 C SEND 7
    """
    clients = (("R", 1.9, 21.0), ("C", 3.0, 20.5))
    analysis = Analysis(make_recording([make_process(1, [lines])], clients))
    assert explain(analysis) == ["C waited 17 ms: the only thread sent to R (17 ms)."]


# What a thread does in each system call, by the names of the manual.
CALLS = {
    (State.LOOP, Activity.WAIT): "epoll_wait epoll_pwait epoll_pwait2 poll ppoll select pselect6",
    (State.LOOP, Activity.ACCEPT): "accept accept4",
    (State.SLEEPING, Activity.SLEEP): "nanosleep clock_nanosleep",
    (State.READING, Activity.RECEIVE): "recvfrom recvmsg",
    (State.SENDING, Activity.SEND): "sendto sendmsg",
    # Of files too, so nothing is said of a thread that waits in one.
    (None, Activity.RECEIVE): "read readv pread64",
    (None, Activity.SEND): "write writev sendfile",
    (None, Activity.WAIT): "restart_syscall",
    (None, Activity.LOCK): "futex",
}


@pytest.mark.parametrize(
    ("name", "state", "activity"),
    [(name, *meaning) for meaning, names in CALLS.items() for name in names.split()],
)
def test_system_calls_have_their_meaning(name: str, state: State | None, activity: Activity) -> None:
    assert (_STATES.get(name), ACTIVITIES.get(name)) == (state, activity)


def test_no_other_system_call_has_a_meaning() -> None:
    assert set(ACTIVITIES) == {name for names in CALLS.values() for name in names.split()}
    assert set(_STATES) - set(ACTIVITIES) == {"running", "fcntl"}
