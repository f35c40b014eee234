"""Counting what a request costs: logs of strace, and the same numbers as `strace -c`."""

import json
from collections.abc import Iterator
from pathlib import Path
from uuid import uuid4

import pytest

from lab.base.errors import LabError
from lab.experiments.xray import exchanges, sampler, switches
from lab.experiments.xray.count import Cost, _make_costs, count_calls, count_switches, measure
from lab.experiments.xray.record import find_address
from lab.experiments.xray.scenes import SCENES
from lab.experiments.xray.strace import Call, parse_log, traced
from lab.report.xray_costs import list_rows
from lab.servers.catalogue import Catalogue
from lab.servers.processes import Processes
from lab.servers.runtime import runtime_directory

# One that blocks, one that polls, and one with many processes.
MODELS = ("plain_socket", "selector_loop", "prefork")
SECOND = 1_000_000_000
PINGS = 300


def test_log_of_strace_is_read() -> None:
    lines = """
7 100.000000 recvfrom(5, ""..., 65536, 0, NULL, NULL) = 6 <0.250000>
7 100.500000 sendto(5, ""..., 7, 0, NULL, 0) = 7 <0.000010>
7 101.000000 recvfrom(5,  <unfinished ...>
8 101.100000 futex(0x7f, FUTEX_WAKE_PRIVATE, 1) = 1 <0.000005>
7 101.200000 <... recvfrom resumed>""..., 65536, 0, NULL, NULL) = 1024 <0.200000>
7 101.300000 epoll_wait(3, [], 64, 0)   = 0 <0.000100>
7 101.400000 recvfrom(5, 0x7f, 65536, 0, NULL, NULL) = -1 EAGAIN (Resource temporarily unavailable) <0.000008>
9 101.420000 <... futex resumed>) = 0 <0.120000>
8 101.450000 exit_group(0 <unfinished ...>
8 101.500000 --- SIGTERM {si_signo=SIGTERM} ---
8 101.600000 +++ exited with 0 +++
7 101.700000 accept4(3,  <detached ...>
"""
    s, ms, us = SECOND, SECOND // 1000, 1000
    assert list(parse_log(lines.splitlines())) == [
        Call(7, "recvfrom", 100 * s, 100 * s + 250 * ms, 6),
        Call(7, "sendto", 100 * s + 500 * ms, 100 * s + 500 * ms + 10 * us, 7),
        Call(8, "futex", 101 * s + 100 * ms, 101 * s + 100 * ms + 5 * us, 1),
        Call(7, "recvfrom", 101 * s, 101 * s + 200 * ms, 1024),
        Call(7, "epoll_wait", 101 * s + 300 * ms, 101 * s + 300 * ms + 100 * us, 0),
        Call(7, "recvfrom", 101 * s + 400 * ms, 101 * s + 400 * ms + 8 * us, -1),
        Call(9, "futex", 101 * s + 300 * ms, 101 * s + 420 * ms, 0),
        Call(7, "accept4", 101 * s + 700 * ms, None),
    ]


def test_calls_and_bytes_of_a_leg_are_counted() -> None:
    calls = [
        Call(1, "recvfrom", 5, 6, 500),
        Call(1, "sendto", 8, 9, 500),  # of the warm-up
        Call(1, "recvfrom", 9, 10, 6),
        Call(1, "sendto", 15, 15, 7),
        Call(1, "epoll_wait", 16, 17, 1),
        Call(1, "recvfrom", 20, 20, 6),
        Call(2, "recvfrom", 3, 9, 500),  # another thread goes on before the leg
        Call(2, "sendto", 9, 12, 500),
        Call(1, "recvfrom", 21, 21, -1),
        Call(1, "sendto", 22, 22, 7),
        Call(1, "recvfrom", 23, SECOND, 500),
        Call(1, "close", SECOND, SECOND, 0),
        Call(1, "accept4", SECOND, None),
    ]
    assert count_calls(calls, 10, 22, 2) == ({"recvfrom": 1.5, "sendto": 1.0, "epoll_wait": 0.5}, 13.0)


def test_call_has_returned_when_its_thread_goes_on() -> None:
    """strace had no core between its two looks at the clock, for 10 and 900 ms: both waits seem to end early."""
    ms = SECOND // 1000
    begin, end = 1000 * ms, 1100 * ms
    calls = [
        Call(1, "recvfrom", begin - 150 * ms, begin - 10 * ms, 6),
        Call(1, "sendto", begin + 1, begin + 1, 7),
        Call(1, "recvfrom", end + 1, end + 2, 0),
        Call(1, "close", end + 900 * ms, end + 900 * ms, 0),
    ]
    assert count_calls(calls, begin, end, 1) == ({"sendto": 1.0, "recvfrom": 1.0}, 13.0)


def ended(end: int, name: str, result: int) -> Call:
    """Return a system call by when it has returned."""
    return Call(1, name, end, end, result)


def test_calls_after_the_last_reply_belong_to_it_for_half_of_the_pause() -> None:
    """The server still has to wait for the next request; that of the next leg comes after a whole pause."""
    half = int(exchanges.SETTLE / 2 * SECOND)
    calls = [
        Call(1, "sendto", 22, 22, 7),
        Call(1, "epoll_wait", 22, 22 + half, 1),
        Call(1, "recvfrom", 22 + half, 23 + half, 6),
        Call(1, "close", 23 + half, 23 + half),
    ]
    assert count_calls(calls, 10, 22, 1) == ({"sendto": 1.0, "epoll_wait": 1.0}, 7.0)


@pytest.mark.parametrize("name", ["sendto", "sendmsg", "write", "writev", "sendfile"])
def test_call_that_sends_counts_when_it_begins(name: str) -> None:
    """The client has had the last reply for a second when the call returns, as that of its warm-up did before."""
    calls = [Call(1, name, 9, 10, 100), Call(1, name, 10, 11, 7), Call(1, name, 21, 22 + SECOND, 5)]
    assert count_calls(calls, 10, 22, 2) == ({name: 1.0}, 6.0)


def test_costs_are_medians_of_the_rounds() -> None:
    """System calls by the clock of strace, CLOCK_REALTIME; switches were counted without it, by the other clock."""

    def leg(name: str, begin: int, **more: object) -> dict[str, object]:
        # The two clocks are far apart.
        return {"name": name, "count": 2, "begin": [begin, 5], "end": [begin + 9, 6], **more}

    quiet = [leg("PING", 0, switches=switches) for switches in (3.0, None, 1.0, 8.0)]
    quiet.append(leg("echo 1 KiB", 0, switches=None))
    # 2, 4 and 6 bytes of each request; a futex in one round only.
    rounds = [(SECOND, 1, 4), (3 * SECOND, 2, 8), (5 * SECOND, 3, 12)]
    calls = [ended(begin, "sendto", size) for begin, _, size in rounds] + [ended(3 * SECOND, "futex", 100)]
    calls += [ended(begin + 1, "epoll_wait", 1) for begin, number, _ in rounds for _ in range(number)]
    ping, echo = _make_costs("m", ["PING", "echo 1 KiB"], quiet, [leg("PING", begin) for begin, *_ in rounds], calls)
    assert ping == Cost("m", "PING", {"sendto": 0.5, "epoll_wait": 1.0}, 3.0, 4.0)
    assert ping.all_calls == 1.5
    assert echo == Cost("m", "echo 1 KiB", None, None, None)
    assert list(list_rows([ping, echo])) == [
        ["m", "PING", "1.5", "sendto 0.5, epoll_wait 1", "3", "4"],
        ["m", "echo 1 KiB", "–", "–", "–", "–"],  # noqa: RUF001
    ]


def test_switches_are_those_of_threads_that_were_there_all_the_time() -> None:
    looks = [(5, {"1": 10, "2": 7}), (9, {"1": 11, "2": 8, "9": 4}), (21, {"1": 31, "2": 8, "3": 99}), (30, {"1": 90})]
    assert count_switches(looks, 10, 20, 10) == 2.0
    assert count_switches(looks, 4, 20, 10) is None
    assert count_switches(looks, 10, 40, 10) is None


@pytest.fixture
def processes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The init of a container, 1, above a server, 7, with a child, 8."""
    for pid, children in ((1, "7"), (7, "8"), (8, "")):
        folder = tmp_path / "proc" / str(pid) / "task" / str(pid)
        folder.mkdir(parents=True)
        (folder / "children").write_text(children)
        (folder / "status").write_text(f"voluntary_ctxt_switches:\t{pid}00\nnonvoluntary_ctxt_switches:\t{pid}\n")
    for module in (switches, sampler):
        monkeypatch.setattr(module, "Path", lambda text: tmp_path / text.lstrip("/"))
    return tmp_path


@pytest.mark.parametrize("top", [1, 7])
def test_switches_of_a_thread_are_those_of_both_kinds(processes: Path, top: int) -> None:
    assert switches.read_switches(top) == {"7": 707, "8": 808}


def test_init_of_a_container_is_no_process_of_its_server(processes: Path) -> None:
    for find in (switches.list_pids, lambda top: sampler.Sampler(top).list_pids()):
        assert (find(1), find(7), find(8)) == ([7, 8], [7, 8], [8])


# They share a lab.
IN_ONE_WORKER = pytest.mark.xdist_group("xray-count")


@pytest.fixture(scope="module")
def lab() -> Iterator[Processes]:
    backend = Processes(f"test-{uuid4().hex[:8]}", Catalogue.load())
    try:
        backend.up(MODELS)
        yield backend
    finally:
        backend.down()


def count_by_summary(lab: Processes, model: str, count: int) -> int:
    """Return the calls of PINGs on one connection, as `strace -c` sums them up."""
    address = find_address(lab, model, SCENES["sleep"])
    request = {"legs": [["PING", address.host, address.port]], "count": count}
    with traced(lab, model, ("-f", "-c", "-S", "calls", "-U", "calls,name")) as log:
        assert lab.helpers.run(["python", "-m", exchanges.__name__, json.dumps(request)], capture=True).returncode == 0
    (total,) = [line for line in log.lines if line.split()[-1:] == ["total"]]
    return int(total.split()[0])


@IN_ONE_WORKER
@pytest.mark.parametrize("model", MODELS)
def test_counts_equal_those_of_strace_c_and_repeat(lab: Processes, model: str) -> None:
    folder = str(runtime_directory(lab.project) / "xray")
    first, second = ({cost.exchange: cost for cost in measure(lab, model, folder, rounds=1)[0]} for _ in range(2))
    assert list(first) == ["PING", "echo 1 KiB", "echo 64 KiB"]
    # How many pieces 64 KiB arrive in depends on who gets a core when; their bytes do not.
    for exchange in ("PING", "echo 1 KiB"):
        assert first[exchange].all_calls
        assert second[exchange].all_calls == pytest.approx(first[exchange].all_calls, rel=0.01)
    assert first["PING"].copied == 13
    assert first["echo 1 KiB"].copied == 2048
    assert first["echo 64 KiB"].copied == 2 * 65_536
    # The difference of two lengths is without what a connection costs.
    calls = [count_by_summary(lab, model, count) for count in (PINGS, 2 * PINGS)]
    assert first["PING"].all_calls == pytest.approx((calls[1] - calls[0]) / PINGS, rel=0.01)


@IN_ONE_WORKER
def test_missing_strace_is_said_and_the_rest_counted(lab: Processes, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("lab.experiments.xray.strace.shutil.which", lambda name: None)
    costs, missing = measure(lab, "plain_socket", str(runtime_directory(lab.project) / "xray"), count=5, rounds=1)
    assert missing == {"plain_socket": "system calls: strace is not installed: apt-get install strace"}
    assert all(cost.calls is None and cost.switches is not None for cost in costs)
    assert [row[2:4] for row in list_rows(costs)] == [["–", "–"]] * 3  # noqa: RUF001


@IN_ONE_WORKER
def test_process_that_may_not_be_traced_is_said(lab: Processes) -> None:
    """As one of another user: here a process that is traced already."""
    refused = pytest.raises(LabError, match="Operation not permitted")
    with traced(lab, "plain_socket"), refused, traced(lab, "plain_socket"):
        pass
