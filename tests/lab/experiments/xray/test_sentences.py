"""The sentences about a recording, and the milliseconds in them."""

from dataclasses import replace

import pytest

from lab.experiments.xray.analysis import Analysis
from lab.experiments.xray.sentences import explain, show_ms
from tests.support.made_up_xray import LOOP, LOOP_CLIENTS, OWN, QUICK, make_kernel, make_process, make_recording

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
