"""The leak test of a soak: units, warm-up, verdicts, exit codes, and the time of each reading."""

import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from itertools import repeat
from pathlib import Path
from types import SimpleNamespace
from typing import Any, NoReturn, cast

import pytest

from lab.base.errors import LabError
from lab.base.messages import Message, decode
from lab.cli.commands import soak as soak_command
from lab.cli.commands.soak import exit_code
from lab.cli.context import Lab
from lab.clients.soak_traffic import Go, ModelCounts, Rest, Resting, TrafficCounts
from lab.experiments import soak
from lab.experiments.soak import COUNTS, MEGABYTE, Clients, Reading, SoakResult, _read, judge, read_settled
from lab.experiments.store import Run, StoreError
from lab.metrics.sample import Meter, Sample
from lab.metrics.trend import Slope, Trend
from lab.servers.backend import Backend
from lab.servers.catalogue import Model
from tests.support.approx import about
from tests.support.fakes import Clock, FakeBackend, FakeHelper, set_clock

MODEL, OTHER = "asyncio_streams", "selector_loop"
SERVED = TrafficCounts(9, 1234)


def make_readings(memory: Sequence[int | None], **counts: Sequence[int | None]) -> tuple[Reading, ...]:
    """Return readings ten seconds apart."""
    rows = []
    for number, value in enumerate(memory):
        row = {name: series[number] for name, series in counts.items()}
        rows.append(
            Reading(10.0 * number, value, row.get("descriptors", 26), row.get("threads", 1), row.get("zombies", 0))
        )
    return tuple(rows)


def test_memory_slope_is_in_bytes_per_hour_after_the_warm_up() -> None:
    # The first three of nine are warm-up, with large growth. Then 1000 bytes in 10 s: 360,000 per hour.
    memory = [0, 10**6, 2 * 10**6, *(5 * 10**6 + 1000 * number for number in range(6))]
    found = judge(MODEL, make_readings(memory), SERVED, 360_001)
    middle = about(360_000)
    assert found.memory == Slope(middle, middle, middle)
    assert found.growth == dict.fromkeys(("memory", *COUNTS), Trend.FLAT)
    assert found.is_flat
    assert judge(MODEL, make_readings(memory), SERVED, 359_999).growth["memory"] is Trend.GROWS


@pytest.mark.parametrize("missing", [3, 8])
def test_missing_reading_is_unknown(missing: int) -> None:
    memory: list[int | None] = [1000] * 9
    memory[missing] = None
    found = judge(MODEL, make_readings(memory), SERVED, MEGABYTE)
    assert (found.memory, found.growth["memory"], found.is_flat) == (None, Trend.UNKNOWN, False)
    # In the warm-up it does not matter.
    memory = [None, None, None, *[1000] * 6]
    assert judge(MODEL, make_readings(memory), SERVED, MEGABYTE).is_flat


def test_five_readings_after_the_warm_up_are_too_few() -> None:
    assert MEGABYTE == 1e6
    found = judge(MODEL, make_readings([1000] * 8), SERVED, MEGABYTE)
    assert (found.memory, set(found.growth.values())) == (None, {Trend.UNKNOWN})


@pytest.mark.parametrize("name", COUNTS)
def test_each_count_is_judged_separately(name: str) -> None:
    assert COUNTS == ("descriptors", "threads", "zombies")
    series = [9, 9, 9, 1, 1, 1, 1, 2, 2]
    found = judge(MODEL, make_readings([1000] * 9, **{name: series}), SERVED, MEGABYTE)
    assert {key for key, growth in found.growth.items() if growth is Trend.GROWS} == {name}
    assert not found.is_flat
    assert json.loads(json.dumps(found.as_json()))["is_flat"] is False


def test_unserved_client_is_not_flat() -> None:
    found = judge(MODEL, make_readings([1000] * 9), replace(SERVED, failures={"no answer": 1}), MEGABYTE)
    assert set(found.growth.values()) == {Trend.FLAT}
    assert not found.is_flat


def test_soak_without_a_request_is_not_flat() -> None:
    found = judge(MODEL, make_readings([1000] * 9), TrafficCounts(3), MEGABYTE)
    assert set(found.growth.values()) == {Trend.FLAT}
    assert (found.is_flat, exit_code([found])) == (False, 2)
    # One request is enough.
    found = judge(MODEL, make_readings([1000] * 9), TrafficCounts(1, 1), MEGABYTE)
    assert (found.is_flat, exit_code([found])) == (True, 0)


def make_finding(memory: Trend = Trend.FLAT, failures: int = 0, model: str = MODEL) -> SoakResult:
    growth = {"memory": memory, **dict.fromkeys(COUNTS, Trend.FLAT)}
    visits = replace(SERVED, failures={"no answer": failures} if failures else {})
    return SoakResult(model, Slope(-5e5, -1.25e6, 2.5e5), growth, make_readings([1000] * 9), visits)


FLAT, GROWS, SHORT = (make_finding(growth) for growth in (Trend.FLAT, Trend.GROWS, Trend.UNKNOWN))


@pytest.mark.parametrize(
    ("findings", "code"),
    [
        ([], 2),
        ([FLAT], 0),
        ([FLAT, FLAT], 0),
        ([FLAT, SHORT], 2),
        ([GROWS], 1),
        ([SHORT, GROWS, FLAT], 1),
        ([SHORT, make_finding(failures=1)], 1),
        ([make_finding(failures=1)], 1),
    ],
)
def test_exit_code_is_that_of_the_worst_model(findings: list[SoakResult], code: int) -> None:
    assert exit_code(findings) == code


def test_row_has_megabytes_per_hour_and_counts_after_the_warm_up() -> None:
    readings = make_readings([1000] * 9, descriptors=[99, 99, 99, 26, 27, 27, 27, 27, 28], threads=[5] * 9)
    found = SoakResult(
        MODEL, Slope(-5e5, -1.25e6, 2.5e5), {"memory": Trend.FLAT, "threads": Trend.FLAT}, readings, SERVED
    )
    assert soak_command._row(found) == [
        MODEL,
        "-0.50",
        "-1.25 to +0.25",
        "26 -> 28",
        "5 -> 5",
        "0 -> 0",
        "1,234",
        "flat",
    ]
    assert soak_command._row(replace(found, memory=Slope(0.0, 0.0, 0.0)))[1:3] == ["+0.00", "+0.00 to +0.00"]
    grown = SoakResult(
        MODEL,
        None,
        {"memory": Trend.UNKNOWN, "threads": Trend.GROWS, "zombies": Trend.FLAT},
        readings,
        replace(SERVED, failures={"no answer": 2}),
    )
    row = soak_command._row(grown)
    assert row[1:3] == ["?", "?"]
    assert row[-1] == "memory unknown; threads grows; 2 x no answer"


def test_row_of_a_soak_without_a_request_is_not_flat() -> None:
    assert soak_command._row(replace(FLAT, visits=TrafficCounts(3)))[-1] == "no request was answered"


def test_each_figure_of_a_soak_has_its_heading(monkeypatch: pytest.MonkeyPatch) -> None:
    """Those of a terminal: elsewhere, a table has none."""
    shown: list[dict[str, str]] = []

    def show(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
        shown.extend(dict(zip(columns, row, strict=True)) for row in rows)

    monkeypatch.setattr(soak_command, "show_table", show)
    soak_command.print_findings([FLAT], 1.0, as_json=False)
    (row,) = shown
    assert (row["model"], row["requests"], row["verdict"]) == (FLAT.model, f"{FLAT.visits.requests:,}", "flat")
    assert [row[name] for name in COUNTS] == soak_command._row(FLAT)[3:6]


def test_resolution_of_the_run_is_described() -> None:
    # Six readings, from 30 s to 80 s. 3 MB/h in 50 s: 3e6 x 50 / 3600 = 41,667 bytes. The interval of each is 1.5 MB/h.
    wide = SoakResult(MODEL, Slope(0.0, -4e6, 2e6), FLAT.growth, FLAT.readings, SERVED)
    said = soak_command._describe_resolution([wide, FLAT], 3.0)
    assert said.startswith("6 readings over 50 s, after a warm-up of 30 s. In that time 3 MB/h are 42 kB.")
    # Half of 6 and half of 1.5, the narrow one first.
    assert "The intervals (95%) are ±0.75 to ±3.00 MB/h" in said
    none = SoakResult(MODEL, None, FLAT.growth, FLAT.readings, SERVED)
    assert "No slope: that takes at least 6 readings after the warm-up." in soak_command._describe_resolution(
        [none], 1.0
    )


class FakeClients(FakeHelper):
    """A traffic process that confirms each rest, and sends its counts at the end."""

    def __init__(self, models: Sequence[str] = (MODEL,), *, rests: bool = True) -> None:
        super().__init__("the traffic", self._answer)
        self.received: list[Message | None] = []
        self._models, self._rests = models, rests
        self.start: Callable[[], object] = lambda: None

    def _answer(self, line: str) -> list[Resting]:
        if not self.received:
            self.start()
        self.received.append(decode(line, Rest) or decode(line, Go))
        return [Resting()] if self._rests and isinstance(self.received[-1], Rest) else []

    def finish(self, timeout: float) -> int | None:
        self.say(*(ModelCounts(model, SERVED) for model in self._models))
        return super().finish(timeout)


def test_clients_are_controlled_by_messages() -> None:
    helper = FakeClients()
    clients = Clients(helper)
    clients.go(warm_up=True)
    clients.rest()
    clients.go(warm_up=False)
    clients.rest()
    assert helper.received == [Go(warm_up=True), Rest(), Go(), Rest()]
    helper.say("a warning")
    assert clients.end() == {MODEL: SERVED}
    assert (helper.program.waited, helper.program.is_closed) == ([120.0], True)


def test_ended_or_stuck_clients_end_the_soak(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    clock = set_clock(monkeypatch, tmp_path, soak)
    gone = FakeClients()
    gone.say("gone")
    gone.program.code = 2
    with pytest.raises(LabError, match=r"^the traffic ended with exit code 2; its output ends with:\n  gone$"):
        Clients(gone).rest()
    assert clock.slept == []
    with pytest.raises(LabError, match=r"^the traffic sent no Resting within 120 s; it said nothing$"):
        Clients(FakeClients(rests=False)).rest()
    assert sum(clock.slept) == pytest.approx(120, abs=0.05)


@dataclass
class FakeMeter:
    """A meter with given counts."""

    counts: Iterator[int]

    def count_descriptors(self) -> int:
        return next(self.counts)

    def count_zombies(self) -> int:
        return 3

    def read(self) -> Sample:
        return Sample(memory_bytes=4096, threads=5)


def settle(monkeypatch: pytest.MonkeyPatch, *series: Sequence[int]) -> tuple[Clock, dict[str, Reading]]:
    clock = Clock()
    monkeypatch.setattr(soak, "time", clock)
    meters = {f"m{number}": cast(Meter, FakeMeter(iter(counts))) for number, counts in enumerate(series)}
    return clock, read_settled(meters, 90.0)


def test_reading_takes_each_figure_from_its_meter() -> None:
    assert _read(cast(Meter, FakeMeter(iter([7]))), 12.5) == Reading(12.5, 4096, 7, 5, 3)


def test_models_are_read_after_three_equal_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    # The second model settles last: counts 3, 4 and 5 are equal. The sixth is the reading.
    clock, found = settle(monkeypatch, [1, 1, 1, 1, 1, 10], [9, 8, 7, 7, 7, 20])
    assert clock.slept == [0.25] * 5
    # The clock began at 100 and the soak at 90.
    assert found == {"m0": Reading(11.25, 4096, 10, 5, 3), "m1": Reading(11.25, 4096, 20, 5, 3)}


def test_models_that_never_settle_are_read_after_five_seconds(monkeypatch: pytest.MonkeyPatch) -> None:
    clock, found = settle(monkeypatch, range(100))
    # 20 polls take 5 s, which is not more than 5 s.
    assert clock.slept == [0.25] * 21
    assert found["m0"].descriptors == 21


class SoakBackend(FakeBackend):
    """A lab whose traffic process answers at once."""

    is_up = False

    def up(self, models: Iterable[str | Model] = (), **_: Any) -> None:
        self.done.append(("up", *models))

    def down(self) -> None:
        self.done.append(("down",))

    def state(self) -> list[Any]:
        return [SimpleNamespace(state="running" if self.is_up else "missing"), SimpleNamespace(state="exited")]

    @contextmanager
    def start_service(
        self, name: str, service: str, arguments: Sequence[str] = (), *, environ: Mapping[str, str], **_: Any
    ) -> Iterator[FakeClients]:
        self.done.append(
            ("service", service, *arguments, *(item["model"] for item in json.loads(environ["LAB_TARGETS"])))
        )
        self.clients = FakeClients(models=[item["model"] for item in json.loads(environ["LAB_TARGETS"])])
        self.clients.start = lambda: self.clock.sleep(7.0)  # it loads its modules
        yield self.clients


@pytest.fixture
def backend(monkeypatch: pytest.MonkeyPatch) -> SoakBackend:
    backend = SoakBackend()
    monkeypatch.setattr(soak, "time", backend.clock)

    def open_meter(name: str) -> Any:
        # One model leaks a byte at each rest, the others none.
        memory = iter(range(1, 10**6)) if name == MODEL else repeat(1)
        return SimpleNamespace(
            count_descriptors=lambda: 7,
            count_zombies=lambda: 0,
            read=lambda: Sample(memory_bytes=next(memory), threads=1),
        )

    monkeypatch.setattr(backend, "meter", open_meter)
    return backend


def test_first_third_of_the_rests_is_warm_up_with_more_clients(backend: SoakBackend) -> None:
    said: list[str] = []
    found = soak.run(backend, [MODEL], seconds=4.6, every=0.5, limit=1e9, say=said.append)
    # The first rest is before the measurement.
    assert backend.clients.received == [Rest(), *[Go(warm_up=True), Rest()] * 3, *[Go(), Rest()] * 6]
    assert said == [f"rest {number} of 9" for number in range(1, 10)]
    # 4.6 s are nine intervals. Each takes half a second of traffic and three polls of a quarter second.
    assert [reading.seconds for reading in found[0].readings] == [1.25 * number for number in range(1, 10)]
    # A byte in 1.25 s: 2880 bytes per hour.
    assert found[0].memory is not None
    assert found[0].memory.middle == pytest.approx(2880)
    assert (found[0].is_flat, found[0].visits) == (True, SERVED)
    assert [reading.memory_bytes for reading in found[0].readings] == list(range(1, 10))


def test_short_soak_has_one_rest(backend: SoakBackend) -> None:
    (found,) = soak.run(backend, [MODEL], seconds=0.1, every=10.0)
    assert len(found.readings) == 1
    assert 10.0 in backend.clock.slept
    # The nearest number of intervals.
    assert [len(soak.run(backend, [MODEL], seconds=seconds, every=1.0)[0].readings) for seconds in (1.4, 1.6)] == [1, 2]


@pytest.mark.parametrize(("model", "workers"), [(MODEL, []), ("plain_socket", ["1"]), ("prefork", ["64"])])
def test_clients_get_the_number_of_workers(backend: SoakBackend, model: str, workers: list[str]) -> None:
    soak.run(backend, [model], seconds=1, every=1)
    expected = [word for count in workers for word in ("--workers", model, count)]
    assert backend.done[0] == ("service", "soak", *expected, model)


def test_model_without_a_declared_concurrency_has_clients_as_any_other(
    backend: SoakBackend, monkeypatch: pytest.MonkeyPatch
) -> None:
    models = tuple(replace(model, concurrency=None) for model in backend.catalogue.models)
    monkeypatch.setattr(backend, "catalogue", replace(backend.catalogue, models=models))
    soak.run(backend, [MODEL], seconds=1, every=1)
    assert backend.done[0] == ("service", "soak", MODEL)


@pytest.fixture
def command(backend: SoakBackend, tmp_path: Path) -> Callable[..., int]:
    class OfBackend(Lab):
        @property
        def backend(self) -> Backend:
            return backend

    def run(*words: str) -> int:
        try:
            soak_command.soak.main(
                [*words, f"--out={tmp_path}"], standalone_mode=False, obj=OfBackend(None, None, None)
            )
        except SystemExit as error:
            return cast(int, error.code)
        raise AssertionError("it did not exit")

    return run


@pytest.mark.parametrize(
    ("words", "code", "flat"),
    [
        (["--duration=9s", "--every=1s"], 0, True),  # 9 s, and six readings that count
        (["--duration=6s", "--every=1s"], 2, False),  # 6 s, four that count
        (["--duration=9000ms", "--every=1s"], 0, True),  # 9 s
        (["--duration=9s", "--every=1s", "--limit=0.001"], 1, False),  # 2057 bytes per hour are more than 1000
    ],
)
def test_command_exits_with_the_code_of_its_results(
    command: Callable[..., int],
    backend: SoakBackend,
    words: list[str],
    code: int,
    flat: bool,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert command(MODEL, OTHER, *words) == code
    assert [item for item in backend.done if item[0] != "service"] == [("up", OTHER, MODEL), ("down",)]
    (folder,) = (tmp_path / "soak").glob("2*")
    kept = json.loads((folder / "run.json").read_text())
    assert json.loads((folder / "end.json").read_text()) == {"flat": flat}
    assert kept["plan"]["models"] == [OTHER, MODEL]
    assert kept["environment"]["backend"] == "process"
    # A chart of the growth needs a slope.
    limit = "0.001" if code == 1 else "1"
    assert (f"ends at the limit of {limit} MB per hour" in (folder / "index.html").read_text()) == (code != 2)
    assert {path.stem for path in (folder / "steps").iterdir()} == {MODEL, OTHER}
    assert kept["plan"]["every"] == 1.0
    assert kept["plan"]["seconds"] == pytest.approx(6 if code == 2 else 9)
    assert kept["plan"]["limit_bytes_per_hour"] == pytest.approx(1000 if code == 1 else 1e6)
    printed, err = capsys.readouterr()
    assert printed.splitlines()[0].startswith(f"{OTHER}\t")
    assert f"stored in {folder}" in printed
    assert "after a warm-up of" in printed
    assert "rest 1 of " in err
    # A stored run prints the same, and keeps its exit code.
    assert command("--show", folder.name) == code
    assert capsys.readouterr().out.splitlines() == printed.splitlines()[:-1]
    assert command("--show", "latest", "--json") == code
    assert [item["model"] for item in json.loads(capsys.readouterr().out)] == [OTHER, MODEL]


def test_full_disk_changes_no_result(
    command: Callable[..., int], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A soak takes hours: its table is printed, and its exit code is that of the table."""

    def keep(*_: object) -> NoReturn:
        raise StoreError("the disk is full")

    monkeypatch.setattr(Run, "keep", keep)
    assert command(MODEL, "--duration=9s", "--every=1s", "--limit=0.001") == 1
    printed, err = capsys.readouterr()
    assert printed.startswith(f"{MODEL}\t")
    assert "stored in" not in printed
    assert err.endswith("lab: not stored: the disk is full\n")


def test_json_is_the_only_output_and_running_models_stay_up(
    command: Callable[..., int], backend: SoakBackend, capsys: pytest.CaptureFixture[str]
) -> None:
    backend.is_up = True
    assert command(MODEL, "--duration=9s", "--every=1s", "--json") == 0
    printed, err = capsys.readouterr()
    (item,) = json.loads(printed)
    assert (item["model"], item["is_flat"], len(item["readings"])) == (MODEL, True, 9)
    assert err == ""
    assert ("down",) not in backend.done
