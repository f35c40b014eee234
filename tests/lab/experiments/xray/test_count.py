"""Counting what a request costs: logs of strace, switches and copied bytes, without a server."""

import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import NoReturn

import pytest

from lab.base.errors import LabError
from lab.experiments.xray import count, exchanges, sampler, switches
from lab.experiments.xray.count import Cost, _make_costs, count_calls, count_switches, measure
from lab.experiments.xray.strace import Call, Log, parse_log
from lab.report.xray_costs import list_rows
from lab.servers.backend import Completed
from lab.servers.catalogue import Listener
from tests.support.fakes import UnusedBackend

SECOND = 1_000_000_000


def test_log_of_strace_is_read() -> None:
    lines = """
7 100.000000 recvfrom(5, ""..., 65536, 0, NULL, NULL) = 6 <0.250000>
7 100.500000 sendto(5, ""..., 7, 0, NULL, 0) = 7 <0.000010>
7 101.000000 recvfrom(5,  <unfinished ...>
6 101.010000 recvfrom(4,  <unfinished ...>
8 101.100000 futex(0x7f, FUTEX_WAKE_PRIVATE, 1) = 1 <0.000005>
7 101.200000 <... recvfrom resumed>""..., 65536, 0, NULL, NULL) = 1024 <0.200000>
6 101.220000 <... recvfrom resumed>""..., 65536, 0, NULL, NULL) = 5 <0.205000>
7 101.300000 epoll_wait(3, [], 64, 0)   = 0 <0.000100>
7 101.400000 recvfrom(5, 0x7f, 65536, 0, NULL, NULL) = -1 EAGAIN (Resource temporarily unavailable) <0.000008>
9 101.420000 <... futex resumed>) = 0 <0.120000>
8 101.450000 exit_group(0 <unfinished ...>
8 101.500000 --- SIGTERM {si_signo=SIGTERM} ---
8 101.600000 +++ exited with 0 +++
7 101.700000 accept4(3,  <detached ...>
9 101.750000 <... futex resumed> <unfinished ...>
9 101.800000 rt_sigreturn({mask=[]})     = ?
"""
    s, ms, us = SECOND, SECOND // 1000, 1000
    assert list(parse_log(lines.splitlines())) == [
        Call(7, "recvfrom", 100 * s, 100 * s + 250 * ms, 6),
        Call(7, "sendto", 100 * s + 500 * ms, 100 * s + 500 * ms + 10 * us, 7),
        Call(8, "futex", 101 * s + 100 * ms, 101 * s + 100 * ms + 5 * us, 1),
        Call(7, "recvfrom", 101 * s, 101 * s + 200 * ms, 1024),
        Call(6, "recvfrom", 101 * s + 10 * ms, 101 * s + 220 * ms, 5),
        Call(7, "epoll_wait", 101 * s + 300 * ms, 101 * s + 300 * ms + 100 * us, 0),
        Call(7, "recvfrom", 101 * s + 400 * ms, 101 * s + 400 * ms + 8 * us, -1),
        Call(9, "futex", 101 * s + 300 * ms, 101 * s + 420 * ms, 0),
        # It does not say how long it took, nor what it returned.
        Call(9, "rt_sigreturn", 101 * s + 800 * ms, 101 * s + 800 * ms, 0),
        Call(7, "accept4", 101 * s + 700 * ms, None),
        Call(9, "futex", 101 * s + 750 * ms, None),
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
        # The last one of its thread.
        Call(2, "futex", 15, 23 + half, 0),
    ]
    assert count_calls(calls, 10, 22, 1) == ({"sendto": 1.0, "epoll_wait": 1.0}, 7.0)


@pytest.mark.parametrize("name", ["sendto", "sendmsg", "write", "writev", "sendfile"])
def test_call_that_sends_counts_when_it_begins(name: str) -> None:
    """The client has had the last reply for a second when the call returns, as that of its warm-up did before."""
    calls = [Call(1, name, 9, 10, 100), Call(1, name, 10, 11, 7), Call(1, name, 21, 22 + SECOND, 5)]
    assert count_calls(calls, 10, 22, 2) == ({name: 1.0}, 6.0)


@pytest.mark.parametrize(
    ("name", "copied"),
    [
        *((name, 7.0) for name in ("read", "readv", "pread64", "preadv", "preadv2", "recvfrom", "recvmsg")),
        *((name, 7.0) for name in ("write", "writev", "pwrite64", "pwritev", "pwritev2", "sendto", "sendmsg")),
        ("sendfile64", 7.0),
        # What they return is a descriptor or an event; nothing is copied, or it is not a client's.
        *((name, 0.0) for name in ("accept4", "epoll_wait", "readlink", "recvmmsg", "futex")),
    ],
)
def test_bytes_are_those_of_calls_that_copy_for_a_client(name: str, copied: float) -> None:
    assert count_calls([Call(1, name, 15, 16, 14), Call(1, name, 17, 18, -1)], 10, 22, 2) == ({name: 1.0}, copied)


def test_costs_are_medians_of_the_rounds() -> None:
    """System calls by the clock of strace, CLOCK_REALTIME; switches were counted without it, by the other clock."""

    def leg(name: str, begin: int, **more: object) -> dict[str, object]:
        # The two clocks are far apart.
        return {"name": name, "count": 2, "begin": [begin, 5], "end": [begin + 9, 6], **more}

    quiet = [leg("PING", 0, switches=switches) for switches in (3.0, None, 0.0, 8.0)]
    quiet.append(leg("echo 1 KiB", 0, switches=None))
    # 2, 4 and 6 bytes of each request; a futex in one round only.
    rounds = [(SECOND, 1, 4), (3 * SECOND, 2, 8), (5 * SECOND, 3, 12)]
    calls = [ended(begin, "sendto", size) for begin, _, size in rounds] + [ended(3 * SECOND, "futex", 100)]
    calls += [ended(begin + 1, "epoll_wait", 1) for begin, number, _ in rounds for _ in range(number)]
    ping, echo = _make_costs("m", ["PING", "echo 1 KiB"], quiet, [leg("PING", begin) for begin, *_ in rounds], calls)
    assert ping == Cost("m", "PING", {"sendto": 0.5, "epoll_wait": 1.0}, 3.0, 4.0)
    assert ping.all_calls == 1.5
    assert echo == Cost("m", "echo 1 KiB", None, None, None)
    assert list(list_rows([ping, echo, Cost("m", "x", None, 3.0, None)])) == [
        ["m", "PING", "1.5", "sendto 0.5, epoll_wait 1", "3", "4"],
        ["m", "echo 1 KiB", "–", "–", "–", "–"],  # noqa: RUF001
        ["m", "x", "–", "–", "3", "–"],  # noqa: RUF001
    ]


def test_switches_are_those_of_threads_that_were_there_all_the_time() -> None:
    looks = [(5, {"1": 10, "2": 7}), (9, {"1": 11, "2": 8, "9": 4}), (21, {"1": 31, "2": 8, "3": 99}), (30, {"1": 90})]
    assert count_switches(looks, 10, 20, 10) == 2.0
    # A look at the very moment is one of before, or of after: the last before, and the first after.
    assert count_switches(looks, 9, 21, 10) == 2.0
    assert count_switches(looks, 5, 30, 10) == 8.0
    assert count_switches(looks, 4, 20, 10) is None
    assert count_switches(looks, 10, 40, 10) is None


@pytest.fixture
def processes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The init of a container, 1, above a server, 7, with a child, 8."""
    for pid, children in ((1, "7"), (7, "8"), (8, "")):
        folder = tmp_path / "proc" / str(pid) / "task" / str(pid)
        folder.mkdir(parents=True)
        (folder / "children").write_text(children)
        # The kernel cuts a name at 15 bytes, here in the middle of a letter.
        counts = b"voluntary_ctxt_switches:\t%d00\nnonvoluntary_ctxt_switches:\t%d\n" % (pid, pid)
        (folder / "status").write_bytes(b"Name:\t%b\n%b" % ("обработчик".encode()[:15], counts))
    for module in (switches, sampler):
        monkeypatch.setattr(module, "Path", lambda text: tmp_path / text.lstrip("/"))
    return tmp_path


@pytest.mark.parametrize("top", [1, 7])
def test_switches_of_a_thread_are_those_of_both_kinds(processes: Path, top: int) -> None:
    assert switches.read_switches(top) == {"7": 707, "8": 808}


def test_init_of_a_container_is_no_process_of_its_server(processes: Path) -> None:
    for find in (switches.list_pids, lambda top: sampler.Sampler(top).list_pids()):
        assert (find(1), find(7), find(8)) == ([7, 8], [7, 8], [8])


def test_process_or_thread_that_has_ended_is_left_out(processes: Path) -> None:
    for process in (7, 8):
        task = processes / "proc" / str(process) / "task"
        # Threads whose status cannot be read any more. They are listed before some of the others, and after some.
        for thread in "abcd":
            (task / thread / "status").mkdir(parents=True)
        for number in range(4):
            (task / f"{process}{number}").mkdir()
            (task / f"{process}{number}" / "status").write_text("voluntary_ctxt_switches:\t1\n")
    for children, found in (("9 8", [7, 8, 9]), ("8 9", [7, 9, 8])):
        (processes / "proc" / "7" / "task" / "7" / "children").write_text(children)
        assert switches.list_pids(7) == sampler.Sampler(7).list_pids() == found
    others = {f"{process}{number}": 1 for process in (7, 8) for number in range(4)}
    assert switches.read_switches(7) == {"7": 707, "8": 808} | others


@pytest.mark.parametrize("done_after", [60, None])
def test_switches_are_read_every_20_ms_until_the_exchanges_are_done_or_after_two_minutes(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str], done_after: int | None
) -> None:
    """The clock begins at 1000 s. To read takes 10 s, and a pause, which is longer than asked for, 20 s."""
    done, slept, clock = tmp_path / "done", [], [1000]

    def sleep(seconds: float) -> None:
        slept.append(seconds)
        clock[0] += 20
        if clock[0] - 1000 == done_after:
            done.touch()

    def read(top: int) -> dict[str, int]:
        clock[0] += 10
        assert clock[0] < 1200, "it does not end"
        return {str(top): clock[0]}

    monkeypatch.setattr("sys.argv", ["switches.py", "7", str(done)])
    monkeypatch.setattr(switches, "read_switches", read)
    monkeypatch.setattr(
        switches,
        "time",
        SimpleNamespace(monotonic=lambda: clock[0], monotonic_ns=lambda: clock[0] * SECOND, sleep=sleep),
    )
    switches.main()
    times = [1000, 1030] if done_after else [1000, 1030, 1060, 1090]
    assert json.loads(capsys.readouterr().out) == [[time * SECOND, {"7": time + 10}] for time in times]
    assert slept == [0.02] * len(times)


@dataclass
class FakeLab(UnusedBackend):
    """A server with two services over TCP, and what its clients print."""

    answers: list[str] = field(default_factory=list)
    asked: list[tuple[list[str], object]] = field(default_factory=list)
    beside: list[tuple[str, Sequence[str]]] = field(default_factory=list)
    looks: str = "[]"
    first_looks: list[str] = field(default_factory=list)

    def targets(self) -> list[Listener]:
        return [
            Listener("m", "command", "udp", "udp://10.0.0.1:1"),
            Listener("other", "command", "tcp", "tcp://10.0.0.2:2"),
            Listener("m", "command", "tcp", "tcp://10.0.0.3:3"),
            Listener("m", "echo", "tcp", "tcp://10.0.0.4:4"),
        ]

    def run(self, arguments: Sequence[str], *, capture: bool, timeout: float) -> Completed:
        assert (capture, timeout) == (True, 120.0)
        *command, request = arguments
        self.asked.append((command, json.loads(request) if request.startswith("{") else request))
        return Completed(arguments, 0, self.answers.pop(0) if request.startswith("{") else "", "a line\nno route\n")

    def run_beside(self, model: str, script: str, arguments: Sequence[str] = ()) -> str:
        self.beside.append((model, arguments))
        assert "read_switches" in script
        return self.first_looks.pop(0) if self.first_looks else self.looks


def make_legs(*legs: tuple[str, int, int]) -> str:
    """Return what the clients print: legs of two exchanges, whose two clocks are a minute apart."""
    minute = 60 * SECOND
    return json.dumps(
        {
            "legs": [
                {"name": name, "count": 2, "begin": [begin, begin + minute], "end": [end, end + minute]}
                for name, begin, end in legs
            ]
        }
    )


@contextmanager
def trace(backend: object, model: str) -> Iterator[Log]:
    """Trace two calls of the echo, and one of the PING: by strace's clock, that of the day."""
    yield Log(['1 5.000000 sendto(3, ""..., 7, 0) = 7 <0.1>', *['1 25.000000 write(3, ""..., 64) = 64 <0.1>'] * 4])


def test_model_is_measured_twice_and_traced_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Context switches are counted in a run without strace, which adds some."""
    monkeypatch.setattr(count, "traced", trace)
    legs = make_legs(("PING", 4 * SECOND, 6 * SECOND), ("echo 1 KiB", 24 * SECOND, 26 * SECOND))
    looks = [[(second + 60) * SECOND, {"1": switches}] for second, switches in ((4, 10), (6, 16), (24, 20), (26, 22))]
    lab = FakeLab(answers=[legs, legs], looks=json.dumps(looks))
    costs, missing = measure(lab, "m", "/folder", count=9, rounds=2)
    ping, small, large = costs
    # 6 switches and one call in two exchanges; 2 and four.
    assert ping == Cost("m", "PING", {"sendto": 0.5}, 3.0, 3.5)
    assert small == Cost("m", "echo 1 KiB", {"write": 2.0}, 1.0, 128.0)
    assert large == Cost("m", "echo 64 KiB", None, None, None)
    assert missing == {}
    (remove, cleaning), (command, quiet), (again, loud) = lab.asked
    assert (remove, command, again) == (["python", "-c"], *[["python", "-m", exchanges.__name__]] * 2)
    # Of an earlier run: the switches would not be read at all.
    assert "'/folder/counted'" in str(cleaning)
    places = [["PING", "10.0.0.3", 3], ["echo 1 KiB", "10.0.0.4", 4], ["echo 64 KiB", "10.0.0.4", 4]]
    assert quiet == {"legs": places * 2, "count": 9, "done": "/folder/counted"}
    assert loud == {"legs": places * 2, "count": 9}
    assert lab.beside == [("m", ["/folder/counted"])]


def test_exchanges_are_repeated_up_to_twice_if_the_switches_were_not_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(count, "traced", trace)
    legs = make_legs(("PING", 4 * SECOND, 6 * SECOND))
    late, whole = (
        json.dumps([[at * SECOND, {"1": n}] for at, n in looks]) for looks in ([(66, 9)], [(64, 3), (66, 9)])
    )
    lab = FakeLab(answers=[legs] * 4, looks=whole, first_looks=[late, late])
    costs, _ = measure(lab, "m", "/folder", rounds=1)
    assert (costs[0].switches, len(lab.beside)) == (3.0, 3)
    lab = FakeLab(answers=[legs] * 4, looks=late)
    costs, _ = measure(lab, "m", "/folder", rounds=1)
    assert (costs[0].switches, len(lab.beside)) == (None, 3)
    # What an earlier try has left would end the next one at once.
    assert sum("unlink" in str(request) for _, request in lab.asked) == 3
    # None that were seen are not unseen ones.
    lab = FakeLab(answers=[legs] * 2, looks=json.dumps([[64 * SECOND, {"1": 3}], [66 * SECOND, {"1": 3}]]))
    costs, _ = measure(lab, "m", "/folder", rounds=1)
    assert (costs[0].switches, len(lab.beside)) == (0.0, 1)


def test_two_hundred_exchanges_are_made_three_times(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(count, "traced", trace)
    lab = FakeLab(answers=[make_legs()] * 2)
    measure(lab, "m", "/folder")
    asked = lab.asked[1][1]
    assert isinstance(asked, dict)
    assert (asked["count"], len(asked["legs"])) == (200, 9)


@pytest.mark.parametrize(
    ("answer", "said"),
    [("", "no route"), ("no JSON", "no route"), ('{"error": "Connection refused"}', "Connection refused")],
)
def test_exchange_that_fails_is_an_error(answer: str, said: str) -> None:
    with pytest.raises(LabError, match=f"^the exchanges failed: {said}$"):
        measure(FakeLab(answers=[answer]), "m", "/folder")


def test_system_calls_that_cannot_be_counted_are_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(backend: object, model: str) -> NoReturn:
        raise LabError("no strace")

    monkeypatch.setattr(count, "traced", refuse)
    looks = [[64 * SECOND, {"1": 10}], [66 * SECOND, {"1": 16}]]
    lab = FakeLab(answers=[make_legs(("PING", 4 * SECOND, 6 * SECOND))], looks=json.dumps(looks))
    costs, missing = measure(lab, "m", "/folder", rounds=1)
    assert missing == {"m": "system calls: no strace"}
    assert costs[0] == Cost("m", "PING", None, 3.0, None)


READS = "read readv pread64 preadv preadv2 recvfrom recvmsg"
WRITES = "write writev pwrite64 pwritev pwritev2 sendto sendmsg sendfile sendfile64"
OTHERS = "accept4 epoll_wait readlink sendmmsg mwrite ioctl"


@pytest.mark.parametrize(
    ("name", "is_copy"),
    [(name, names is not OTHERS) for names in (READS, WRITES, OTHERS) for name in names.split()],
)
def test_bytes_are_copied_by_calls_that_read_and_write(name: str, is_copy: bool) -> None:
    calls = [Call(1, name, 2 * SECOND, 2 * SECOND, 64)]
    assert count_calls(calls, SECOND, 3 * SECOND, 2) == ({name: 0.5}, 32.0 * is_copy)


def test_cost_has_a_name_for_each_figure_in_json() -> None:
    assert Cost("m", "PING", {"sendto": 1.0, "recvfrom": 0.5}, 3.0, 13.0).as_json() == {
        "model": "m",
        "exchange": "PING",
        "system_calls": 1.5,
        "by_name": {"sendto": 1.0, "recvfrom": 0.5},
        "context_switches": 3.0,
        "bytes_copied": 13.0,
    }
    unknown = Cost("m", "PING", None, None, None).as_json()
    assert [unknown[name] for name in ("system_calls", "by_name", "context_switches", "bytes_copied")] == [None] * 4


def test_folder_for_the_end_of_the_exchanges_is_made_and_an_old_file_removed(tmp_path: Path) -> None:
    class Here(FakeLab):
        def run(self, arguments: Sequence[str], *, capture: bool, timeout: float) -> Completed:
            exec(arguments[2], {})  # noqa: S102 - what another Python is asked to run
            return Completed(arguments, 0, "", "")

    path = tmp_path / "xray" / "m" / "counted"
    count._remove(Here(), str(path))
    assert list(path.parent.iterdir()) == []
    path.touch()
    count._remove(Here(), str(path))
    assert list(path.parent.iterdir()) == []
