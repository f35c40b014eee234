"""The lines that the scripts of benchmarks/ print, and their verdicts, with figures worked out by hand."""

import resource
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import psutil
import pytest

from benchmarks import (
    against_redis,
    drain,
    duel,
    engine,
    exhaustion,
    http_engine,
    mail_round_trip,
    recorder,
    scaling,
    slowed,
    up,
)
from lab.clients.request_log import Account
from lab.experiments.faults.judge import Verdict
from lab.load.workloads import WORKLOADS
from lab.metrics.sample import Sample
from lab.metrics.server_use import ServerUse
from loadtests.contract import LoadResult
from loadtests.sockets.histogram import Histogram
from tests.support.fakes import CATALOGUE
from tests.support.made_up import MEASUREMENT


def words(line: str) -> str:
    return " ".join(line.split())


# against_redis


def test_models_beside_redis_are_sorted_by_their_medians() -> None:
    found = {"peer_redis": [100.0, 80.0, 90.0], "slow": [45.0, 9.0, 50.0], "fast": [180.0, 170.0, 190.0]}
    assert list(map(words, against_redis.list_lines({"requests/s": found}))) == [
        "requests/s",
        "fast 180 2.00 of peer_redis (170 to 190)",
        "peer_redis 90 1.00 of peer_redis (80 to 100)",
        "slow 45 0.50 of peer_redis (9 to 50)",
    ]


@pytest.mark.parametrize(
    ("answered", "took", "kept_up"),
    [(60_000, 3.0, True), (60_000, 3.5, True), (60_000, 3.6, False), (59_999, 3.0, False)],
)
def test_fixed_rate_is_kept_up_with(answered: int, took: float, kept_up: bool) -> None:
    assert against_redis.kept_up(answered, took, 3) == kept_up


class FakeBackend:
    """A container whose CPU has grown by `spent` seconds at each second reading, and a helper that prints."""

    def __init__(self, printed: str, spent: float) -> None:
        self.readings = [1.0, 1.0 + spent]
        self.done = SimpleNamespace(stdout=printed, stderr="", returncode=0)
        self.ran: list[list[str]] = []
        self.helpers = SimpleNamespace(run=self.run)

    def run(self, command: list[str], **_: object) -> object:
        self.ran.append(command)
        return self.done

    def container_name(self, name: str) -> str:
        return f"lab-{name}-1"

    def read(self) -> Sample:
        return Sample(cpu_seconds=self.readings.pop(0))


def put_meter(backend: FakeBackend, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    opened: list[str] = []

    def open_meter(name: str) -> FakeBackend:
        opened.append(name)
        return backend

    monkeypatch.setattr(against_redis, "open_container_meter", open_meter)
    return opened


REDIS_BENCHMARK = '"test","rps","avg_latency_ms"\n"PING_MBULK","123456.7","0.3"\n'


def test_redis_benchmark_gives_its_rate_and_the_cpu_for_each_request(monkeypatch: pytest.MonkeyPatch) -> None:
    backend: Any = FakeBackend(REDIS_BENCHMARK, spent=3.0)
    opened = put_meter(backend, monkeypatch)
    # 3 s of CPU for a million requests.
    assert against_redis.benchmark(backend, "prefork", 16) == (123_456.7, 3.0)
    assert opened == ["lab-prefork-1"]
    assert " ".join(backend.ran[0]).endswith("-h prefork -t ping_mbulk -c 50 -n 1000000 -P 16 --csv")


def test_cpu_at_the_fixed_rate_is_that_of_all_requests(monkeypatch: pytest.MonkeyPatch) -> None:
    backend: Any = FakeBackend("40000 2.01\n", spent=1.0)
    put_meter(backend, monkeypatch)
    assert against_redis.pace(backend, "prefork", seconds=2) == 25.0
    assert backend.ran == [["python", "-", "prefork", "6379", "50", "20000", "2"]]


@pytest.mark.parametrize("printed", ["39999 2.01\n", "40000 2.6\n", ""])
def test_server_that_falls_behind_the_fixed_rate_has_no_figure(printed: str, monkeypatch: pytest.MonkeyPatch) -> None:
    backend: Any = FakeBackend(printed, spent=1.0)
    put_meter(backend, monkeypatch)
    with pytest.raises(SystemExit, match="prefork did not keep up with 20000 a second"):
        against_redis.pace(backend, "prefork", seconds=2)


# drain


ACCOUNT = Account(8, 8, sent=1_200, answered=1_100, lost=7, wrong={"late": 2, "twice": 3})


def test_row_of_a_drain_counts_what_was_lost_and_that_of_a_kill_does_not() -> None:
    assert drain.make_row("prefork", "drain", ACCOUNT, Verdict.FAILED).split("|")[1:-1] == [
        *(f" {'prefork':24} ", " drain ", "    1,200 ", "    1,100 ", "        100 ", "    7 ", "     5 ", " failed "),
    ]
    assert words(drain.make_row("prefork", "kill", ACCOUNT, Verdict.HELD)) == (
        "| prefork | kill | 1,200 | 1,100 | 100 | - | 5 | held |"
    )


class Lab:
    """A backend that notes when it starts and stops."""

    catalogue = CATALOGUE

    def __init__(self) -> None:
        self.done: list[str] = []

    def up(self, names: list[str]) -> None:
        self.done += [f"up {name}" for name in names]

    def down(self) -> None:
        self.done.append("down")


@pytest.mark.parametrize(
    ("codes", "code"), [({}, 0), ({"drain": 1}, 1), ({"drain": None}, 1)], ids=["held", "cut off", "not ended"]
)
def test_exit_code_of_drain_says_whether_every_verdict_is_held(
    codes: dict[str, int | None], code: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    lab, seen = Lab(), list[tuple[object, ...]]()

    def break_under_load(backend: Lab, model: str, fault: str, requests: int, seed: int) -> tuple[Account, int | None]:
        seen.append((model, fault, requests, seed))
        # What the fault kills has no exit code of its own.
        own = None if fault == "kill" else codes.get(fault, 0) if model == "prefork" else 0
        return Account(8, 8, 1_000, 1_000, ends={"end": 8}), own

    monkeypatch.setattr(drain, "open_backend", lambda *_, **__: lab)
    monkeypatch.setattr(drain, "break_under_load", break_under_load)
    with pytest.raises(SystemExit) as ended:
        drain.main(500, ["plain_socket", "prefork"])
    assert ended.value.code == code
    assert [(model, fault, requests) for model, fault, requests, _ in seen] == [
        *(("plain_socket", "drain", 500), ("plain_socket", "kill", 500)),
        *(("prefork", "drain", 500), ("prefork", "kill", 500)),
    ]
    assert lab.done == ["up plain_socket", "down", "up plain_socket", "down", *["up prefork", "down"] * 2, "down"]
    assert len(capsys.readouterr().out.splitlines()) == 5


# duel


@pytest.mark.parametrize(
    ("text", "rate"),
    [
        ("1000 requests/sec\n2000 requests/sec\n", 2000.0),
        ("60000 1KiB messages in 2.0 seconds\n29876.5 requests/sec", 29876.5),
        ("took 2 s\n812.5\n", 812.5),
        ("nothing", None),
    ],
)
def test_last_rate_that_a_client_prints_is_read(text: str, rate: float | None) -> None:
    assert duel.read_rate(text) == rate


def test_duel_prints_medians_and_ours_to_theirs() -> None:
    rates = {"ours": [300.0, 100.0, 200.0], "theirs": [400.0, 400.0, 500.0]}
    costs = {"ours": [9.0, 12.0, 10.0], "theirs": [5.0, 4.0, 6.0]}
    assert list(map(words, duel.list_lines(rates, costs))) == [
        "ours 200 requests/s (100 to 300) 10.0 CPU µs/request",
        "theirs 400 requests/s (400 to 500) 5.0 CPU µs/request",
        "ratio 0.50 requests/s",
        "ratio 2.00 CPU",
    ]


def test_cost_in_a_duel_is_for_what_the_client_asked_as_long_as_it_ran(monkeypatch: pytest.MonkeyPatch) -> None:
    times = iter([10.0, 12.0])
    readings = iter([1.0, 1.5])
    monkeypatch.setattr(duel, "time", SimpleNamespace(monotonic=lambda: next(times)))
    meter: Any = SimpleNamespace(read=lambda: Sample(cpu_seconds=next(readings)))
    # 0.5 s of CPU for 2 s of 5000 requests.
    client = f"{sys.executable} -c print({{port}})"
    assert duel.ask(client, 5000, 0, meter) == (5000.0, 50.0)


@pytest.mark.parametrize("printed", ["raise SystemExit(3)", "print()"])
def test_duel_ends_when_a_client_fails_or_says_nothing(printed: str) -> None:
    meter: Any = SimpleNamespace(read=lambda: Sample(cpu_seconds=1.0))
    with pytest.raises(SystemExit, match="-c"):
        duel.ask(f"{sys.executable} -c '{printed}'", 5000, 0, meter)


def test_first_round_of_a_duel_is_no_figure_and_who_goes_first_changes(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    asked: list[int] = []

    def ask(command: str, port: int, core: int, meter: object) -> tuple[float, float]:
        asked.append(port)
        number = (len(asked) - 1) // 2
        return (1000.0 if number == 0 else number * (2.0 if port == 1 else 1.0)), 1.0

    ports = iter([1, 2])
    monkeypatch.setattr(duel, "find_port", lambda: next(ports))
    monkeypatch.setattr(duel, "start", lambda *_: None)
    monkeypatch.setattr(duel, "ask", ask)
    monkeypatch.setattr(sys, "argv", ["duel", "--client=c", "--ours=o", "--theirs=t", "--rounds=2"])
    duel.main()
    assert asked == [1, 2, 2, 1, 1, 2]
    lines = list(map(words, capsys.readouterr().out.splitlines()))
    assert lines[0] == "ours 3 requests/s (2 to 4) 1.0 CPU µs/request"
    assert lines[2] == "ratio 2.00 requests/s"


# engine and http_engine


RESULT = LoadResult(
    "it", "tcp", 50.0, 1, 2.0, 20_000, {}, Histogram.from_pairs([(100.0, 20_000)]), generator_cores=0.5, cores=2
)


def test_wire_user_has_a_rate_and_one_for_each_second_of_its_cpu() -> None:
    assert engine.read_wire_user(f"noise\n{RESULT.encode()}\n") == (10_000.0, 20_000.0)


@pytest.mark.parametrize("changes", [{"failures": {"wrong bytes": 1}}, {"generator_cores": None}])
def test_wire_user_with_failures_or_without_its_cpu_has_no_figure(changes: dict[str, Any]) -> None:
    with pytest.raises(SystemExit, match="failures"):
        engine.read_wire_user(replace(RESULT, **changes).encode())


def test_plain_user_prints_two_rates() -> None:
    assert engine.read_plain_user("noise\nRATES 1234.5 2345.5\nmore") == (1234.5, 2345.5)


def test_redis_benchmark_is_asked_for_as_many_as_take_the_time(monkeypatch: pytest.MonkeyPatch) -> None:
    ran: list[list[str]] = []
    cpu = iter([5.0, 7.0])

    def run(command: list[str], core: int) -> str:
        ran.append(command)
        return REDIS_BENCHMARK

    monkeypatch.setattr(engine, "run", run)
    monkeypatch.setattr(engine, "read_children_cpu", lambda: next(cpu))
    # 4 s of 60,000 a second, and 2 s of CPU.
    assert engine.drive_redis_benchmark(7, 0, 16, 4.0, 60_000.0) == (123_456.7, 120_000.0)
    assert ran[0][-4:] == ["-P", "16", "-n", "240000"]


WRK = """Running 4s test @ http://127.0.0.1:1/ping
  400000 requests in 4.00s, 60.00MB read
Requests/sec:  99500.25
Transfer/sec:     15.00MB
"""


def test_wrk_has_a_rate_and_one_for_each_second_of_its_cpu() -> None:
    assert http_engine.rate_wrk(WRK, 2.5) == (99_500.25, 160_000.0)
    for bad in ("Non-2xx or 3xx responses: 7", "Socket errors: connect 0, read 3, write 0, timeout 0"):
        with pytest.raises(SystemExit, match="requests in"):
            http_engine.rate_wrk(f"{WRK}  {bad}\n", 2.5)


def test_generators_are_compared_round_by_round_in_both_rates() -> None:
    rates = {
        "redis-benchmark": [(100.0, 300.0), (200.0, 200.0), (50.0, 100.0)],
        "WireUser": [(50.0, 300.0), (300.0, 300.0), (50.0, 300.0)],
    }
    # The medians are 100 and 50; of the same rounds the ratios are 0.5, 1.5 and 1.
    assert list(map(words, engine.list_lines(rates, "pipeline of 16, "))) == [
        "pipeline of 16, requests/s, medians of 3",
        "redis-benchmark 100 (50 to 200) WireUser: 1.00 of it",
        "WireUser 50 (50 to 300) WireUser: 1.00 of it",
        "pipeline of 16, requests/s of its CPU, medians of 3",
        "WireUser 300 (300 to 300) WireUser: 1.00 of it",
        "redis-benchmark 200 (100 to 300) WireUser: 1.50 of it",
    ]


@pytest.mark.parametrize("depth", [1, 16])
def test_workload_of_a_wire_user_has_the_depth_of_its_pipeline(depth: int) -> None:
    assert WORKLOADS[engine.WORKLOADS[depth]].depth == depth


def test_server_that_nobody_can_connect_to_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("time.sleep", lambda _: None)
    with pytest.raises(SystemExit, match="nobody listens"), engine.serve("sleep 60", 0):
        pass


# exhaustion


@pytest.mark.parametrize(
    ("exhausted", "again", "judged"),
    [
        ([2.0, 9.0, 2.0], [1.0, 1.0, 1.0], (2.0, 1.0, False)),
        ([2.1, 9.0, 2.1], [1.0, 1.0, 1.0], (2.1, 1.0, True)),
        # The noise excuses a ratio of at most twice as much; less noise than none excuses nothing.
        ([2.9, 2.9, 2.9], [1.5, 1.5, 1.5], (2.9, 1.5, False)),
        ([3.1, 3.1, 3.1], [1.5, 1.5, 1.5], (3.1, 1.5, True)),
        ([1.9, 1.9, 1.9], [0.5, 0.5, 0.5], (1.9, 0.5, False)),
    ],
)
def test_exhaustion_is_judged_by_its_ratio_beyond_noise(
    exhausted: list[float], again: list[float], judged: tuple[float, float, bool]
) -> None:
    assert exhaustion.judge([1.0, 1.0, 1.0], again, exhausted) == judged


def test_ratio_of_exhaustion_is_that_of_the_same_rounds() -> None:
    # 2, 4 and 1; the ratio of the medians would be 1.
    assert exhaustion.judge([1.0, 2.0, 4.0], [2.0, 4.0, 8.0], [2.0, 8.0, 4.0]) == (2.0, 2.0, False)


def test_line_of_exhaustion_is_in_microseconds() -> None:
    line = exhaustion.show("prefork", [0.0001, 0.0003, 0.0002], [0.001, 0.002, 0.003], 10.0, 1.25)
    assert words(line) == "prefork p99 quiet 200 µs, exhausted 2,000 µs, ratio 10.00 (noise 1.25)"


class Link:
    """A client that has every hundredth answer after 50 ms, on a clock of its own."""

    def __init__(self, clock: SimpleNamespace, answers: list[int]) -> None:
        self.clock, self.answers = clock, answers

    def reset_deadline(self) -> None:
        pass

    def send(self, data: bytes) -> None:
        assert data == b"PING\r\n"

    def receive(self) -> bytes:
        self.answers.append(1)
        self.clock.now += 0.05 if len(self.answers) % 50 == 0 else 0.001
        return b"+PONG\r\n"


def test_time_of_held_clients_is_their_p99(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = SimpleNamespace(now=0.0)
    clock.perf_counter = lambda: clock.now
    clock.sleep = lambda seconds: setattr(clock, "now", clock.now + seconds)
    monkeypatch.setattr(exhaustion, "time", clock)
    answers: list[int] = []
    links: Any = [Link(clock, answers) for _ in range(4)]
    # 500 a second for a fifth of a second: two of 100 are slow, so the 99th is.
    assert exhaustion.ask(links, 0.2) == pytest.approx(0.05)
    assert len(answers) == 100


def test_limit_of_descriptors_is_the_lowest_free_one_and_is_lifted_again() -> None:
    with subprocess.Popen(["cat"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, bufsize=0) as process:
        try:
            assert process.stdin is not None
            assert process.stdout is not None
            process.stdin.write(b".")
            process.stdout.read(1)  # a library that it loads is open until then
            _, most = resource.prlimit(process.pid, resource.RLIMIT_NOFILE)
            exhaustion.limit([psutil.Process(process.pid)], more=False)
            assert resource.prlimit(process.pid, resource.RLIMIT_NOFILE) == (3, most)
            exhaustion.limit([psutil.Process(process.pid)], more=True)
            assert resource.prlimit(process.pid, resource.RLIMIT_NOFILE) == (most, most)
        finally:
            process.kill()


# mail_round_trip


def test_mail_is_judged_by_its_median() -> None:
    times = [20.0, *[30.0] * 8, 500.0]
    assert mail_round_trip.show("kept", times) == (
        "connections kept: 10 messages, median 30.0 ms, below 100; nine of ten within 30.0, all within 500.0"
    )
    assert "NOT below 100; nine of ten within 130.0" in mail_round_trip.show("new", [value + 100 for value in times])
    assert "NOT below" in mail_round_trip.show("new", [100.0])


# recorder


def test_recorder_is_compared_slice_by_slice() -> None:
    # Ratios of 1.1, 1.2 and 1.3; the medians differ by 4 µs, which at 5000/s are 2 % of a core.
    line = recorder.show("selector_loop", {"without": [10.0, 20.0, 30.0], "with": [11.0, 24.0, 39.0]})
    assert line == (
        "selector_loop: 20.00 -> 24.00 CPU us/request, +20.0 % (quartiles +10.0 and +30.0), +2.0 % of a core"
    )


def test_cpu_of_threads_is_their_time_on_a_core(tmp_path: Path) -> None:
    for thread, text in (("1", "1500000 77 3"), ("2", "500000 99 1")):
        (tmp_path / thread).mkdir()
        (tmp_path / thread / "schedstat").write_text(text)
    assert recorder.read_cpu(tmp_path) == 2000.0


def test_recorder_is_measured_for_each_request(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(recorder, "SLICES", 2)

    class Server:
        def __init__(self, step: float) -> None:
            self.cpu, self.step = 7.0, step
            self.asked: list[int] = []

        def read_cpu(self) -> float:
            return self.cpu

        def ask(self, count: int) -> None:
            self.asked.append(count)
            self.cpu += count * self.step

    servers: Any = {"without": Server(2.0), "with": Server(3.0)}
    assert recorder.measure(servers) == {"without": [2.0, 2.0], "with": [3.0, 3.0]}
    # A second for the warm-up, then slices of 0.1 s.
    assert servers["with"].asked == [5000, 500, 500]


# scaling


def vary(generator_cores: float | None, cpu_us: float | None) -> Any:
    # 10,000 requests in one second.
    return replace(
        MEASUREMENT,
        load=replace(MEASUREMENT.load, generator_cores=generator_cores),
        server=ServerUse(cpu_us=cpu_us, cores=0.5),
    )


def test_row_of_scaling_has_the_cost_of_both_sides_and_their_ratio() -> None:
    results = [vary(0.6, 30.0), vary(0.4, 10.0), vary(0.5, 25.0), vary(0.9, None), vary(None, 20.0)]
    assert scaling.generator_us(results[0]) == 60.0
    assert words(scaling.make_row("closed_ping", "prefork", 2, results)) == (
        "closed_ping prefork 2 50.0 (40.0 to 60.0) 25.0 (10.0 to 30.0) 2.0 (2.0 to 4.0)"
    )
    assert "not known" in scaling.make_row("closed_ping", "prefork", 2, results[3:])


# slowed


@pytest.mark.parametrize(
    ("slowed_us", "judged"),
    [
        (140.0, (100.0, True)),
        (149.0, (109.0, True)),
        (131.0, (91.0, True)),
        (152.0, (112.0, False)),
        (128.0, (88.0, False)),
    ],
)
def test_what_was_added_must_be_seen_within_ten_per_cent(slowed_us: float, judged: tuple[float, bool]) -> None:
    assert slowed.judge([40.0, 10.0, 60.0], [slowed_us, 1000.0, 0.0]) == judged


# up


def test_starts_are_compared_with_those_of_compose() -> None:
    times = {"lab": [3.0, 9.0, 2.0], "bare": [2.0, 1.0, 4.0], "lab again": [1.0], "bare again": [0.5]}
    assert list(up.list_lines(times)) == [
        "nothing ran: lab up 3.00 s, docker compose up -d 2.00 s, ratio 1.50",
        "all ran already: lab up 1.00 s, docker compose up -d 0.50 s, ratio 2.00",
    ]


class Engine(Lab):
    """Containers that are started by the commands that `measure` gets."""

    def __init__(self, *_: object) -> None:
        super().__init__()

    def build(self, names: list[str]) -> None:
        self.done.append("build")


def test_each_start_is_repeated_while_all_runs_and_who_goes_first_changes(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    lab = Engine()

    def measure(command: list[str]) -> float:
        lab.done.append("bare" if command[0] == "docker" else "lab")
        return {"bare": 1.0, "lab": 3.0}[lab.done[-1]] / (2 if lab.done[-2] == lab.done[-1] else 1)

    monkeypatch.setattr(up, "Containers", lambda *_: lab)
    monkeypatch.setattr(up, "measure", measure)
    up.main(2)
    assert lab.done == [
        "build",
        *("lab", "lab", "down", "bare", "bare", "down"),
        *("bare", "bare", "down", "lab", "lab", "down"),
        "down",
    ]
    assert capsys.readouterr().out.splitlines()[-2:] == [
        "nothing ran: lab up 3.00 s, docker compose up -d 1.00 s, ratio 3.00",
        "all ran already: lab up 1.50 s, docker compose up -d 0.50 s, ratio 3.00",
    ]
