"""Each lane of a picture, each hold and each wait, at its exact times: milliseconds, worked out by hand."""

from collections.abc import Sequence
from dataclasses import replace

import pytest

from lab.experiments.xray.analysis import Analysis, Lane, State, is_orderly
from lab.experiments.xray.recording import Process, Thread
from services.protocol.trace import Kind, Note
from tests.support.made_up_xray import (
    LOOP,
    LOOP_CLIENTS,
    MS,
    OWN,
    SEQUENTIAL,
    make_kernel,
    make_process,
    make_recording,
    make_thread,
)

OWN_CLIENTS = (("A", 2.0, 22.5), ("B", 4.0, 14.5), ("C", 6.0, 11.5))
TWO = (("A", 2.0, 22.5), ("B", 4.0, 23.0))


def analyse(
    threads: Sequence[str], clients: Sequence[tuple[str, float, float | None]], kernel: Sequence[Thread] = ()
) -> Analysis:
    return Analysis(make_recording([make_process(1, threads)], clients, kernel))


def find(analysis: Analysis, name: str) -> Lane:
    (lane,) = (lane for lane in analysis.lanes if lane.name == name)
    return lane


def show(lane: Lane) -> list[str]:
    """Return each span as `begin-end STATE client`."""
    return [f"{span.start / MS:g}-{span.end / MS:g} {span.state.name} {span.client}".strip() for span in lane.spans]


def holds(analysis: Analysis) -> list[tuple[str, State, float, float]]:
    return [(hold.client, hold.state, hold.start / MS, hold.end / MS) for hold in analysis.holds]


def edges(analysis: Analysis) -> list[tuple[str, str, float, float]]:
    return [(edge.holder, edge.waiter, edge.start / MS, edge.end / MS) for edge in analysis.edges]


# Clients.


def test_lane_of_a_client_that_is_served_at_once() -> None:
    lane = find(analyse([SEQUENTIAL], (("A", 2.0, 23.0), ("B", 4.0, 34.0), ("C", 6.0, 35.0))), "A")
    assert show(lane) == [
        "0-0.1 CONNECTING",
        "0.1-0.5 BACKLOG",
        "0.5-2 CONNECTED",
        "2-2.1 UNREAD",
        "2.1-2.2 SERVED",
        "2.2-22.3 SLEEPING",
        "22.3-22.4 SENDING",
        "22.4-23 SERVED",
        "23-23.5 CONNECTED",
        "23.5-35.5 IDLE",
    ]
    assert [(mark.name, mark.time / MS) for mark in lane.marks] == [("sent", 2.0), ("answered", 23.0), ("closed", 23.5)]
    assert (lane.is_client, lane.key, lane.calls) == (True, (0, 0), ())


def test_lane_of_a_client_that_has_sent_before_it_is_accepted() -> None:
    assert show(find(analyse([SEQUENTIAL], (("A", 2.0, 23.0), ("B", 4.0, 34.0), ("C", 6.0, 35.0))), "B")) == [
        "0-0.1 CONNECTING",
        "0.1-23.3 BACKLOG",
        "23.3-23.4 UNREAD",
        "23.4-23.5 SERVED",
        "23.5-33.5 COMPUTING",
        "33.5-33.6 SERVED",
        "33.6-33.7 SENDING",
        "33.7-34 SERVED",
        "34-34.5 CONNECTED",
        "34.5-35.5 IDLE",
    ]


def test_lane_of_a_client_that_nobody_reads() -> None:
    """Its request arrives, and the server ends: it closes at 40 without a reply."""
    lane = find(analyse(["0.5 A OPENED\n0.6 A ASKS"], (("A", 2.0, None),)), "A")
    assert show(lane) == ["0-0.1 CONNECTING", "0.1-0.5 BACKLOG", "0.5-2 CONNECTED", "2-40.5 UNREAD"]
    assert [mark.name for mark in lane.marks] == ["sent", "closed"]


# Threads.


def test_lane_of_the_only_thread() -> None:
    lane = find(analyse([SEQUENTIAL], (("A", 2.0, 23.0), ("B", 4.0, 34.0), ("C", 6.0, 35.0))), "thread")
    assert show(lane) == [
        "0-0.5 IDLE",
        "0.5-0.6 RUNNING A",
        "0.6-2.1 READING A",
        "2.1-2.2 RUNNING A",
        "2.2-22.3 SLEEPING A",
        "22.3-22.4 SENDING A",
        "22.4-23.1 ENDING A",
        "23.1-23.2 RUNNING A",
        "23.2-23.3 IDLE",
        "23.3-23.5 RUNNING B",
        "23.5-33.5 COMPUTING B",
        "33.5-33.6 RUNNING B",
        "33.6-33.7 SENDING B",
        "33.7-34.1 ENDING B",
        "34.1-34.2 RUNNING B",
        "34.2-34.3 IDLE",
        "34.3-34.5 RUNNING C",
        "34.5-34.6 SENDING C",
        "34.6-35.1 ENDING C",
        "35.1-35.2 RUNNING C",
        "35.2-35.5 IDLE",
    ]
    assert (lane.is_client, lane.key) == (False, (1, 1))


def test_lane_of_a_loop_rests_in_its_wait_for_any_client() -> None:
    assert show(find(analyse([LOOP], LOOP_CLIENTS), "loop"))[:10] == [
        "0-0.5 LOOP",
        "0.5-0.6 RUNNING A",
        "0.6-0.7 LOOP",
        "0.7-0.8 RUNNING B",
        "0.8-0.9 LOOP",
        "0.9-1 RUNNING C",
        "1-2.1 LOOP",
        "2.1-2.2 RUNNING A",
        "2.2-4.1 LOOP",
        "4.1-4.2 RUNNING B",
    ]


def test_threads_are_in_the_order_of_their_first_notes() -> None:
    """The second one accepts first; one that only the kernel has seen comes before both."""
    late = OWN["A"].replace("0.5 A OPENED", "0.8 A OPENED").replace("0.6 A", "1.9 A")
    early = OWN["B"].replace("0.7 B OPENED", "0 B OPENED").replace("0.8 B", "2.9 B")
    analysis = analyse([late, early], OWN_CLIENTS[:2], [make_thread(1, 9, "eeeRR")])
    assert [lane.key for lane in analysis.lanes if not lane.is_client] == [(1, 9), (1, 2), (1, 1)]


@pytest.mark.parametrize(
    ("states", "is_shown"),
    [("eee", False), ("Reee", False), ("RRee", False), ("eRee", True), ("eeR", True), ("fff", False)],
)
def test_thread_without_a_note_is_shown_if_it_has_run(states: str, is_shown: bool) -> None:
    """What it was in at the first look does not count: it may have begun long before."""
    analysis = analyse([OWN["A"]], OWN_CLIENTS[:1], [make_thread(1, 9, states)])
    assert ((1, 9) in [lane.key for lane in analysis.lanes]) == is_shown


@pytest.mark.parametrize(("count", "shown"), [(8, 8), (9, 0)])
def test_threads_of_a_server_without_a_recorder_are_shown_if_they_are_few(count: int, shown: int) -> None:
    threads = [make_thread(1, number, "eee") for number in range(1, count + 1)]
    analysis = Analysis(make_recording([], threads=threads))
    assert sum(not lane.is_client for lane in analysis.lanes) == shown


def test_resting_threads_of_a_server_with_a_recorder_are_not_shown() -> None:
    analysis = analyse([OWN["A"]], OWN_CLIENTS[:1], [make_thread(1, 9, "eee")])
    assert [lane.key for lane in analysis.lanes if not lane.is_client] == [(1, 1)]


# The kernel's view.


@pytest.mark.parametrize(
    ("start", "queued", "expected"),
    [
        # From 5 to 9: more than half of four milliseconds.
        (5.0, 2.001, State.CORE),
        (5.0, 2.0, State.READING),
        # From 8 to 9: a millisecond is too short, whatever happens in it.
        (8.0, 1.0, State.READING),
        (7.999, 1.0, State.CORE),
    ],
)
def test_thread_waits_for_a_core_if_it_had_none_for_most_of_the_time(
    start: float, queued: float, expected: State
) -> None:
    """C's thread reads from 1.0 to 11.1 by its notes."""
    segments = [(0.0, start, "recvfrom", 0.0), (start, 8.5, "recvfrom", queued), (9.0, 15.0, "recvfrom", 0.0)]
    analysis = analyse([OWN["C"]], OWN_CLIENTS[2:], make_kernel(*segments))
    spans = find(analysis, "thread").spans
    assert next(span.state for span in spans if span.end == 9 * MS or span.end == 11_100_000) is expected
    if expected is State.CORE:
        assert f"{start:g}-9 CORE C" in show(find(analysis, "thread"))


def test_futex_of_a_computation_is_the_gil() -> None:
    """And that of a sleep is the sleep: some models sleep in one."""
    segments = [(0.0, 5.0, "recvfrom", 0.0), (6.0, 7.5, "futex", 0.0), (8.0, 20.0, "running", 0.0)]
    assert show(find(analyse([OWN["B"]], OWN_CLIENTS[1:2], make_kernel(*segments)), "thread"))[3:8] == [
        "4.1-4.2 RUNNING B",
        "4.2-6 COMPUTING B",
        "6-8 GIL B",
        "8-14.2 COMPUTING B",
        "14.2-14.3 RUNNING B",
    ]
    asleep = find(
        analyse([OWN["A"]], OWN_CLIENTS[:1], make_kernel((0.0, 2.0, "recvfrom", 0), (3.0, 22.0, "futex", 0))), "thread"
    )
    assert "2.2-22.3 SLEEPING A" in show(asleep)


@pytest.mark.parametrize(
    ("begin", "end", "state"),
    [
        # B computes from 4.2 to 14.2. One nanosecond together is enough.
        (2.0, 4.2, "LOCK"),
        (2.0, 4.200001, "GIL"),
        (14.2, 15.0, "LOCK"),
        (14.199999, 15.0, "GIL"),
    ],
)
def test_wait_for_the_gil_is_one_while_another_thread_computes(begin: float, end: float, state: str) -> None:
    lines = "0.9 C OPENED\n1.0 C ASKS\n16.1 C RECEIVED 6\n16.2 C SEND 7\n16.3 C CLOSE\n"
    segments = [(0.0, begin, "recvfrom", 0.0), (begin, end, "futex", 0.0), (end, 20.0, "recvfrom", 0.0)]
    analysis = analyse([OWN["B"], lines], (OWN_CLIENTS[1], ("C", 6.0, 16.5)), make_kernel(*segments, tid=2))
    assert [span.split()[1] for span in show(find(analysis, "thread 2")) if span.split()[1] in ("GIL", "LOCK")] == [
        state
    ]


@pytest.mark.parametrize(
    ("processes", "key"),
    [
        # Without a GIL; in another process than the one that computes.
        ([make_process(1, [OWN["B"], OWN["C"]], has_gil=False)], (1, 2)),
        ([make_process(7, [OWN["B"]]), make_process(1, ["", OWN["C"]])], (1, 2)),
    ],
)
def test_wait_for_a_lock_while_another_process_or_one_without_a_gil_computes(
    processes: list[Process], key: tuple[int, int]
) -> None:
    kernel = make_kernel((0.0, 6.0, "recvfrom", 0.0), (6.0, 9.0, "futex", 0.0), (9.0, 20.0, "recvfrom", 0.0), tid=2)
    analysis = Analysis(make_recording(processes, OWN_CLIENTS[1:], kernel))
    (lane,) = (lane for lane in analysis.lanes if lane.key == key)
    assert "6-9 LOCK" in show(lane)
    assert edges(analysis) == []


def test_thread_does_not_hold_the_gil_against_itself() -> None:
    """It computes until 14.2, and waits for a lock until 15."""
    kernel = make_kernel((0.0, 14.0, "running", 0.0), (14.0, 14.9, "futex", 0.0), (15.0, 20.0, "running", 0.0))
    spans = show(find(analyse([OWN["B"]], OWN_CLIENTS[1:2], kernel), "thread"))
    assert [span for span in spans if "LOCK" in span or "GIL" in span] == ["14-14.2 GIL B", "14.2-15 LOCK"]


def test_kernel_contradicts_rest() -> None:
    """A loop that is at rest by its notes."""
    segments = [(0.0, 8.0, "epoll_wait", 0.0), (8.0, 9.5, "running", 0.0), (9.5, 30.0, "epoll_wait", 0.0)]
    lines = "0.5 A OPENED\n0.6 B OPENED\n2.1 A RECEIVED 9\n2.2 A SEND 5\n20.0 B RECEIVED 5\n20.1 B SEND 9"
    assert show(find(analyse([lines], TWO, make_kernel(*segments)), "loop"))[-5:] == [
        "2.2-8 LOOP",
        "8-9.5 RUNNING",
        "9.5-20 LOOP",
        "20-20.1 RUNNING B",
        "20.1-23.5 LOOP",
    ]


# Who waited for whom.


def deaf(sent: float, read: float, more: str = "", others: Sequence[tuple[str, float, float]] = ()) -> Analysis:
    """A loop in which A sleeps from 2.2 to 22.2, while B sends something that is read at some time."""
    lines = f"""
        0.5 A OPENED
        0.6 B OPENED
        0.7 C OPENED
        0.8 A ASKS
        1.0 B ASKS
        2.1 A RECEIVED 9
        2.2 A WAIT 20000
        22.2 A SEND 5
        {read} B RECEIVED 9
        23.5 B SEND 9{more}
        35.0 A CLOSE
    """
    return analyse([lines], [("A", 2.0, 22.5), ("B", sent, read + 0.2), *others])


@pytest.mark.parametrize(
    ("sent", "read", "is_deaf"),
    [
        (2.2, 23.0, True),  # as the sleep begins
        (2.199999, 23.0, False),
        (12.2, 23.0, True),  # the middle of the sleep
        (12.200001, 23.0, False),
        (4.0, 22.2, False),  # read as soon as the sleep ends
        (4.0, 22.200001, True),
    ],
)
def test_loop_is_deaf_if_it_leaves_another_client_unread_for_half_a_sleep(
    sent: float, read: float, is_deaf: bool
) -> None:
    assert (("A", State.SLEEPING, 2.2, 22.2) in holds(deaf(sent, read))) == is_deaf


def test_one_unread_client_is_enough() -> None:
    others = [("C", 21.0, 25.0)]
    analysis = deaf(4.0, 23.0, "\n24.0 C RECEIVED 5\n24.1 C SEND 5", others)
    assert ("A", State.SLEEPING, 2.2, 22.2) in holds(analysis)


def test_client_of_another_thread_does_not_make_a_loop_deaf() -> None:
    lines = (
        "0.5 A OPENED\n0.6 B OPENED\n2.1 A RECEIVED 9\n2.2 A WAIT 20000\n22.2 A SEND 5\n23.0 B RECEIVED 9\n30.0 A CLOSE"
    )
    other = "0.9 C OPENED\n1.0 C ASKS\n28.0 C RECEIVED 6\n28.1 C SEND 7"
    analysis = analyse([lines, other], (("A", 2.0, 22.5), ("B", 22.5, 23.5), ("C", 4.0, 28.5)))
    assert "A" not in [client for client, state, _, _ in holds(analysis) if state is State.SLEEPING]


def test_client_that_sends_more_while_a_loop_sleeps_for_it_does_not_make_it_deaf() -> None:
    lines = """
        0.5 A OPENED
        0.6 B OPENED
        2.1 A RECEIVED 9
        2.2 A WAIT 20000
        22.2 A SEND 5
        22.6 A RECEIVED 9
        23.0 B RECEIVED 9
        23.5 B SEND 9
    """
    recording = make_recording([make_process(1, [lines])], (("A", 2.0, 22.5), ("B", 22.9, 23.6)))
    first, last = recording.clients
    analysis = Analysis(replace(recording, clients=(replace(first, sent=(2 * MS, 4 * MS)), last)))
    assert "A" not in [client for client, state, _, _ in holds(analysis) if state is State.SLEEPING]


@pytest.mark.parametrize(("read", "expected"), [(4.999, []), (5.0, [("A", "B", 4.0, 5.0)])])
def test_shortest_wait_is_a_millisecond(read: float, expected: list[tuple[str, str, float, float]]) -> None:
    """A computes until B is read; B has sent at 4."""
    lines = f"""
        0.5 A OPENED
        0.6 B OPENED
        2.1 A RECEIVED 9
        2.2 A COMPUTE 9
        {read} A DIGEST
        {read} B RECEIVED 9
        9.0 A CLOSE
    """
    assert edges(analyse([lines], (("A", 2.0, 7.0), ("B", 4.0, 7.5)))) == expected


def test_waits_are_the_times_unread_and_late_from_a_sleep() -> None:
    # A: unread from 2.0 to 2.1, and due at 22.2, but served at 22.3. C: from 6.0 to 14.5.
    assert analyse([LOOP], LOOP_CLIENTS).waits == {"A": 200_000, "B": 100_000, "C": 8_500_000}
    # Read at once, and again later; and a sleep that ends before its time is no wait.
    lines = "0.5 A OPENED\n2.0 A RECEIVED 9\n2.2 A WAIT 20000\n22.0 A SEND 5\n30.0 A RECEIVED 9\n"
    assert analyse([lines], (("A", 2.0, 22.5),)).waits == {"A": 0}


def test_client_that_no_thread_served_does_not_end_the_search() -> None:
    lines = SEQUENTIAL.replace(" A ", " X ")
    clients = (("A", 1.0, None), ("X", 2.0, 23.0), ("B", 4.0, 34.0), ("C", 6.0, 35.0))
    analysis = analyse([lines], clients)
    assert analysis.lane_of("A") is None
    assert analysis.chain == [("X", "B", "thread"), ("B", "C", "thread")]


def test_thread_of_a_client_is_that_of_its_first_note() -> None:
    lines = "0.5 A OPENED\n"
    later = "2.1 A RECEIVED 9\n2.2 A SEND 5\n"
    process = make_process(1, [lines, later])
    assert Analysis(make_recording([process], (("A", 2.0, 2.5),))).lane_of("A") == (1, 1)
    # Whatever the numbers of its threads are.
    process = make_process(1, [later, lines])
    assert Analysis(make_recording([process], (("A", 2.0, 2.5),))).lane_of("A") == (1, 2)


def test_chain_is_in_the_order_of_the_clients() -> None:
    """First by who waits, then by who is waited for; the names mean nothing."""
    swapped = SEQUENTIAL
    for old, new in (("A", "Z"), ("B", "M"), ("C", "E")):
        swapped = swapped.replace(f" {old} ", f" {new} ")
    analysis = analyse([swapped], (("Z", 2.0, 23.0), ("M", 4.0, 34.0), ("E", 6.0, 35.0)))
    assert analysis.chain == [("Z", "M", "thread"), ("M", "E", "thread")]
    # Both compute, B first, while C waits in a thread of its own.
    threads = [
        "0.5 A OPENED\n0.6 A ASKS\n12.0 A RECEIVED 9\n12.1 A COMPUTE 9\n16.0 A DIGEST",
        "0.7 B OPENED\n0.8 B ASKS\n4.0 B RECEIVED 9\n4.1 B COMPUTE 9\n10.0 B DIGEST",
        "0.9 C OPENED\n1.0 C ASKS\n18.0 C RECEIVED 9",
    ]
    both = analyse(threads, (("A", 12.0, 17.0), ("B", 4.0, 11.0), ("C", 2.0, 18.5)))
    assert both.chain == [("A", "C", "GIL"), ("B", "C", "GIL")]


def test_notes_of_other_connections_are_left_out() -> None:
    """A health check has a port of its own, and a thread's own notes belong to no client."""
    process = make_process(1, [OWN["A"]])
    notes = (
        Note(100, 1, Kind.OPENED, 777, 12345),
        Note(200, 1, Kind.RECEIVED, 777, 9),
        *process.notes[:1],
        Note(process.notes[0].time + 1, 1, Kind.THREAD, ord("A"), 1),
        *process.notes[1:],
    )
    plain = Analysis(make_recording([process], OWN_CLIENTS[:1]))
    more = Analysis(make_recording([type(process)(1, True, notes)], OWN_CLIENTS[:1]))
    assert more.entries == plain.entries
    assert {entry.client for entry in more.entries} == {"A"}


def test_only_a_wait_for_the_end_is_one() -> None:
    """A reply under way when the client ends is still being sent."""
    lines = "0.5 A OPENED\n2.1 A RECEIVED 9\n2.2 A SEND 5\n8.0 A ENDED\n8.1 A CLOSE"
    assert holds(analyse([lines], (("A", 2.0, 7.5),))) == [("A", State.SENDING, 2.2, 8.0)]


def test_client_that_comes_later_is_idle_before() -> None:
    recording = make_recording([make_process(1, [OWN["C"]])], OWN_CLIENTS[2:])
    (client,) = recording.clients
    later = replace(recording, clients=(replace(client, connecting=300_000, connected=400_000),))
    assert show(find(Analysis(later), "C"))[:3] == ["0-0.3 IDLE", "0.3-0.4 CONNECTING", "0.4-0.9 BACKLOG"]


def test_lanes_of_several_processes_are_numbered() -> None:
    processes = [make_process(1, [OWN["A"]]), make_process(10, [OWN["B"], OWN["C"]])]
    analysis = Analysis(make_recording(processes, OWN_CLIENTS))
    assert [lane.name for lane in analysis.lanes[3:]] == ["process 1", "process 2, thread 1", "process 2, thread 2"]


@pytest.mark.parametrize(
    ("answered", "orderly"),
    [
        (23.0, True),
        # B sends at 4.0: not after the reply to A.
        (4.0, True),
        (3.999, False),
        (None, False),
    ],
)
def test_scene_is_orderly_if_each_client_sends_before_the_reply_to_the_one_before(
    answered: float | None, orderly: bool
) -> None:
    clients = (("A", 2.0, answered), ("B", 4.0, 34.0), ("C", 6.0, 35.0))
    recording = make_recording([make_process(1, [SEQUENTIAL])], clients)
    assert is_orderly(recording) == orderly
    *others, last = recording.clients
    # None waits for the reply to the last one, which must have sent something.
    assert is_orderly(replace(recording, clients=(*others, replace(last, answered=None)))) == orderly
    assert not is_orderly(replace(recording, clients=(*others, replace(last, sent=()))))


def test_scene_is_not_orderly_if_one_client_waited_for_a_later_one() -> None:
    """A, which is due at 22.2, for B; though C has waited for B as well, which is as it should be."""
    lines = """
        0.5 A OPENED
        0.7 B OPENED
        0.9 C OPENED
        2.1 A RECEIVED 9
        2.2 A WAIT 20000
        4.1 B RECEIVED 9
        20.0 B COMPUTE 9
        30.1 B DIGEST
        30.2 A SEND 5
        30.3 C RECEIVED 9
        30.4 C SEND 5
    """
    recording = make_recording([make_process(1, [lines])], (("A", 2.0, 30.5), ("B", 4.0, 30.2), ("C", 21.0, 30.6)))
    assert [(edge.holder, edge.waiter) for edge in Analysis(recording).edges] == [("B", "A"), ("B", "C")]
    assert not is_orderly(recording)
