"""The sentences about a recording, and the milliseconds in them."""

from dataclasses import replace

import pytest

from lab.experiments.xray.analysis import Analysis, Lane
from lab.experiments.xray.sentences import describe_switches, explain, show_ms
from tests.support.made_up_xray import (
    LOOP,
    LOOP_CLIENTS,
    OWN,
    QUICK,
    make_kernel,
    make_process,
    make_recording,
    make_switches,
    make_thread,
)

C_ALONE = (("C", 6.0, 11.5),)


@pytest.mark.parametrize(
    ("nanoseconds", "shown"),
    [(0, "0.0 ms"), (1_240_000, "1.2 ms"), (9_940_000, "9.9 ms"), (9_950_000, "10 ms"), (123_400_000, "123 ms")],
)
def test_milliseconds_have_the_digits_that_can_be_trusted(nanoseconds: int, shown: str) -> None:
    assert show_ms(nanoseconds) == shown


def test_client_without_a_reply_is_named_with_its_reason() -> None:
    recording = make_recording([make_process(1, [QUICK])], (("A", 2.0, None), ("C", 6.0, 6.5)))
    first, last = recording.clients
    recording = replace(recording, clients=(replace(first, error="connection refused"), last))
    assert explain(Analysis(recording)) == ["C had its reply after 0.5 ms.", "A got no reply: connection refused."]
    # One that has sent nothing has waited for nothing; and of a server without a recorder nothing is concluded.
    unsent = replace(last, sent=(), answered=None, error="it could not send")
    assert explain(Analysis(replace(recording, clients=(first, unsent)))) == ["C got no reply: it could not send."]
    assert explain(Analysis(make_recording([], (("C", 6.0, 6.5),)))) == []


def test_reply_takes_from_the_first_piece_of_its_request() -> None:
    recording = make_recording([make_process(1, [QUICK])], (("C", 5.0, 6.5),))
    (client,) = recording.clients
    recording = replace(recording, clients=(replace(client, sent=(5_000_000, 6_000_000)),))
    assert explain(Analysis(recording))[0] == "C had its reply after 1.5 ms."


@pytest.mark.parametrize(
    ("begin", "end", "said"),
    [
        # C has sent at 6.0, is read at 11.1, and has its reply at 11.5.
        (4.0, 8.0, "C waited 5.1 ms for no client: its thread had no core for 2.0 ms."),
        (4.0, 11.0, "C waited 5.1 ms for no client: its thread had no core for 5.0 ms."),
        (9.0, 13.0, "C waited 5.1 ms for no client: its thread had no core for 2.5 ms."),
        (4.0, 13.0, "C waited 5.1 ms for no client: its thread had no core for 5.1 ms."),
        (4.0, 7.0, "C waited 5.1 ms for no client: its thread had no core for 1.0 ms."),
        (4.0, 6.999, None),
    ],
)
def test_wait_for_a_core_is_none_for_a_client(begin: float, end: float, said: str | None) -> None:
    segments = [(0.0, begin, "recvfrom", 0.0), (begin, end, "recvfrom", end - begin), (end, 15.0, "recvfrom", 0.0)]
    recording = make_recording([make_process(1, [OWN["C"]])], C_ALONE, make_kernel(*segments))
    assert explain(Analysis(recording)) == ["C had its reply after 5.5 ms.", *([said] if said else [])]
    # The same if its reply is lost.
    lost = replace(recording, clients=(replace(recording.clients[0], answered=None, closed=11_500_000),))
    assert explain(Analysis(lost)) == ([said] if said else [])


def test_thread_that_served_a_client_counts_more_than_the_gil() -> None:
    """A computes in C's thread, and B meanwhile in another one."""
    shared = """
        0.5 A OPENED
        2.1 A RECEIVED 9
        2.2 A COMPUTE 9
        8.0 A DIGEST
        8.1 C OPENED
        8.2 C RECEIVED 6
        8.3 C SEND 7
    """
    other = "0.7 B OPENED\n4.0 B RECEIVED 9\n4.1 B COMPUTE 9\n7.0 B DIGEST\n"
    clients = (("A", 2.0, 9.0), ("B", 4.0, 7.5), ("C", 3.0, 8.5))
    analysis = Analysis(make_recording([make_process(1, [shared, other])], clients))
    assert [(edge.holder, edge.via) for edge in analysis.edges if edge.waiter == "C"] == [("A", "thread"), ("B", "GIL")]
    assert explain(analysis) == ["C waited 5.2 ms: the thread that served it computed for A (5.0 ms)."]


def test_each_client_that_waits_for_the_gil_has_a_sentence() -> None:
    threads = [
        "0.5 A OPENED\n2.1 A RECEIVED 9\n2.2 A COMPUTE 9\n12.2 A DIGEST\n",
        "0.7 B OPENED\n0.8 B ASKS\n12.3 B RECEIVED 6\n12.4 B SEND 7\n",
        "0.9 C OPENED\n1.0 C ASKS\n12.5 C RECEIVED 6\n12.6 C SEND 7\n",
    ]
    clients = (("A", 2.0, 12.6), ("B", 4.0, 12.8), ("C", 6.0, 13.0))
    assert explain(Analysis(make_recording([make_process(1, threads)], clients))) == [
        "B waited 8.3 ms: the thread of A computed, and held the GIL.",
        "C waited 6.5 ms: the thread of A computed, and held the GIL.",
    ]


@pytest.mark.parametrize(
    ("end", "said"), [(8.0, " The kernel shows 1.0 ms of it as a wait for a lock (futex)."), (7.999, "")]
)
def test_kernel_corroborates_a_millisecond(end: float, said: str) -> None:
    segments = [(0.0, 7.0, "recvfrom", 0.0), (7.0, end, "futex", 0.0), (end, 15.0, "recvfrom", 0.0)]
    clients = (("B", 4.0, 14.5), ("C", 6.0, 11.5))
    threads = [OWN["B"], OWN["C"]]
    recording = make_recording([make_process(1, threads)], clients, make_kernel(*segments, tid=2))
    assert explain(Analysis(recording)) == [f"C waited 5.1 ms: the thread of B computed, and held the GIL.{said}"]


@pytest.mark.parametrize(
    ("of_b", "of_c", "said"),
    [
        # C has sent at 6.0, and is read at 11.1, while B computes.
        ([(0, 6, 9), (6, 7, 1), (7, 11, 2), (12, 13, 9)], [(6, 7, 1)], "3 times, and that of C once"),
        ([(5, 7, 2), (7, 8, 1)], [(8, 11, 1), (11, 12, 4)], "1 to 3 times, and that of C 1 to 5 times"),
        ([], [(11.1, 12, 4)], "0 times, and that of C 0 times"),
        (None, [(6, 7, 1)], None),
        ([(6, 7, 1)], None, None),
        ([(11, 11.1, 1)], [(5, 6, 1), (6, 6.5, 1)], "once, and that of C once"),
    ],
)
def test_threads_that_share_the_gil_are_compared_by_their_switches(
    of_b: list[tuple[float, float, int]] | None, of_c: list[tuple[float, float, int]] | None, said: str | None
) -> None:
    threads = [
        replace(make_thread(1, tid, "r" * 16), switches=None if looks is None else make_switches(*looks))
        for tid, looks in ((1, of_b), (2, of_c))
    ]
    clients = (("B", 4.0, 14.5), ("C", 6.0, 11.5))
    (text,) = explain(Analysis(make_recording([make_process(1, [OWN["B"], OWN["C"]])], clients, threads)))
    known = f" Meanwhile the thread of B was put on a core {said}." if said else ""
    assert text == f"C waited 5.1 ms: the thread of B computed, and held the GIL.{known}"


@pytest.mark.parametrize(
    ("end", "looks", "said"),
    [
        (10, [(6, 7, 2), (9, 10, 1)], "once, and that of C at least 3 times"),
        (11.099, [(6, 7, 2)], "once, and that of C at least 2 times"),
        (11.1, [(6, 7, 2)], "once, and that of C 2 times"),
        (10, [(5, 7, 2)], None),
    ],
)
def test_thread_that_ended_between_two_looks_has_run_unseen(
    end: float, looks: list[tuple[float, float, int]], said: str | None
) -> None:
    """Of C's, the last look was before it read, at 11.1 ms."""
    (of_c,) = make_kernel((0, end, "recvfrom", 0), tid=2)
    threads = [
        replace(make_thread(1, 1, "r" * 16), switches=make_switches((7, 8, 1))),
        replace(of_c, switches=make_switches(*looks)),
    ]
    clients = (("B", 4.0, 14.5), ("C", 6.0, 11.5))
    (text,) = explain(Analysis(make_recording([make_process(1, [OWN["B"], OWN["C"]])], clients, threads)))
    known = f" Meanwhile the thread of B was put on a core {said}." if said else ""
    assert text == f"C waited 5.1 ms: the thread of B computed, and held the GIL.{known}"


@pytest.mark.parametrize(("end", "of_c"), [(16, "3 times"), (8, "at least once")])
def test_switches_count_each_time_that_a_client_is_held(end: float, of_c: str) -> None:
    """B computes from 2.2 to 6 and from 8 to 12 ms. What C's thread does in between does not count."""
    lines = "0.5 B OPENED\n2.1 B RECEIVED 9\n2.2 B COMPUTE 9\n6.0 B DIGEST\n8.0 B COMPUTE 9\n12.0 B DIGEST\n"
    other = "0.9 C OPENED\n1.0 C ASKS\n13.0 C RECEIVED 6\n13.1 C SEND 7\n"
    looks = ((3, 4, 1), (6, 8, 5), (9, 10, 2)) if end > 10 else ((3, 4, 1), (6, 8, 5))
    threads = [
        replace(kernel, switches=make_switches(*looks))
        for tid, until in ((1, 16.0), (2, end))
        for kernel in make_kernel((0, until, "recvfrom", 0), tid=tid)
    ]
    clients = (("B", 2.0, 12.5), ("C", 2.1, 13.5))
    analysis = Analysis(make_recording([make_process(1, [lines, other])], clients, threads))
    assert [edge.holder for edge in analysis.edges if edge.waiter == "C"] == ["B", "B"]
    of_b = "3 times" if end > 10 else "once"
    assert explain(analysis)[-1].endswith(f" the thread of B was put on a core {of_b}, and that of C {of_c}.")


def test_total_of_switches_is_for_the_time_in_which_a_thread_was_looked_at() -> None:
    (seen,) = make_kernel((2, 5, "futex", 0), (5, 12, "recvfrom", 0))
    known = replace(seen, switches=make_switches((2, 3, 1), (7, 8, 1)))
    once = replace(seen, switches=make_switches((2, 3, 1)))
    lanes = [Lane("thread", False, (), thread=thread) for thread in (known, once, seen, None)]
    said = ["put on a core 2 times in 10 ms", "put on a core once in 10 ms", "", ""]
    assert [describe_switches(lane) for lane in lanes] == said


def test_switches_count_while_the_first_one_that_waits_is_held() -> None:
    """A computes first, and then B: only A is named, and only its time counts."""
    threads = [
        "0.5 A OPENED\n2.1 A RECEIVED 9\n2.2 A COMPUTE 9\n6.0 A DIGEST\n",
        "0.7 B OPENED\n0.8 B RECEIVED 9\n6.1 B COMPUTE 9\n9.0 B DIGEST\n",
        "0.9 C OPENED\n1.0 C ASKS\n9.1 C RECEIVED 6\n9.2 C SEND 7\n",
    ]
    looks = ((3, 4, 1), (7, 8, 5))
    seen = [replace(make_thread(1, tid, "r" * 16), switches=make_switches(*looks)) for tid in (1, 2, 3)]
    clients = (("A", 2.0, 6.1), ("B", 0.8, 9.1), ("C", 2.5, 9.5))
    analysis = Analysis(make_recording([make_process(1, threads)], clients, seen))
    assert [edge.holder for edge in analysis.edges if edge.waiter == "C"] == ["A", "B"]
    assert explain(analysis)[-1].endswith(" Meanwhile the thread of A was put on a core once, and that of C once.")


def test_holder_is_a_process_if_there_are_several() -> None:
    shared = """
        0.5 A OPENED
        2.1 A RECEIVED 9
        2.2 A WAIT 20000
        22.3 A SEND 5
        22.4 B OPENED
        22.5 B RECEIVED 6
        22.6 B SEND 7
    """
    clients = (("A", 2.0, 22.5), ("B", 4.0, 23.0), ("C", 6.0, 6.5))
    processes = [make_process(1, [shared]), make_process(10, [QUICK])]
    assert explain(Analysis(make_recording(processes, clients))) == [
        "B waited 18 ms: the process that served it slept for A (18 ms)."
    ]


def test_holder_is_a_loop_of_a_process() -> None:
    another = "0.9 D OPENED\n1.0 D ASKS\n6.1 D RECEIVED 6\n6.2 D SEND 7\n"
    processes = [make_process(1, [LOOP]), make_process(10, [another])]
    assert explain(Analysis(make_recording(processes, (*LOOP_CLIENTS, ("D", 6.0, 6.5))))) == [
        "C waited 8.5 ms: the loop of its process computed for B (8.2 ms)."
    ]
