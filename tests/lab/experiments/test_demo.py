"""The demo: what it measures and in which order, the order of its rows, and which measurement stands for a model."""

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest

from lab.base.errors import LabError
from lab.base.progress import shown_by
from lab.experiments import demo
from lab.experiments.conformance.results import ModelResult
from lab.experiments.demo import Demo, choose_typical, describe, keep, order_rows, read, run
from lab.experiments.store import Run
from lab.load.cores import Pinning
from lab.load.generator import PersistentGenerator
from lab.load.measurement import Measurement
from lab.load.presets import Preset
from lab.metrics.estimates import Estimate
from lab.metrics.verdict import Limit, Verdict
from lab.servers.backend import Backend
from lab.servers.catalogue import Catalogue, Model
from tests.support.fakes import UnusedBackend
from tests.support.made_up import MEASUREMENT, vary

CATALOGUE = Catalogue.load()


def make_rounds(model: str, *costs: float | None) -> list[Measurement]:
    family = CATALOGUE[model].family
    return [vary(MEASUREMENT, model=model, family=family, server_cpu_us=cost) for cost in costs]


def make_demo(rounds: dict[str, Sequence[float | None]], missing: Sequence[str] = ()) -> Demo:
    families = {name: CATALOGUE[name].family for name in rounds}
    return Demo(
        families,
        rounds={name: make_rounds(name, *costs) for name, costs in rounds.items()},
        missing=dict.fromkeys(missing, "it ended"),
    )


def test_rows_are_in_families_with_the_least_cpu_first() -> None:
    costs: dict[str, Sequence[float | None]] = {
        "plain_socket": (90, 91, 92),
        "asyncio_streams": (40, 44, 30),
        "thread_pool": (None, None, None),
        "uvloop_streams": (20, 21, 60),
        "trio_nursery": (10, 50, 50),
        "socketserver_threading": (30, 30, 30),
    }
    rows = [row.model for row in order_rows(make_demo(costs))]
    families = [
        "plain_socket",
        "uvloop_streams",
        "asyncio_streams",
        "trio_nursery",
        "socketserver_threading",
        "thread_pool",
    ]
    assert rows == families
    assert rows[:-1] == [row.model for row in order_rows(make_demo(costs, ["thread_pool"]))]


def test_typical_measurement_is_that_of_the_median_cost_or_the_first_failure() -> None:
    rounds = make_rounds("plain_socket", 3, 1, 2)
    assert choose_typical(rounds).server.cpu_us == 2
    assert choose_typical(make_rounds("plain_socket", None, 1)).server.cpu_us == 1
    for verdict in (Verdict(Limit.DISTURBED, "stopped"), Verdict(Limit.FAILED, "1% failed")):
        bad = replace(rounds[0], verdict=verdict)
        assert choose_typical([rounds[1], bad, rounds[2]]) is bad


def test_typical_measurement_has_the_most_frequent_verdict() -> None:
    bounds = (Limit.SERVER, Limit.SERVER, Limit.WAITING, Limit.SERVER, Limit.WAITING)
    rounds = [
        replace(item, verdict=Verdict(bound, ""))
        for item, bound in zip(make_rounds("plain_socket", 5, 1, 3, 4, 2), bounds, strict=True)
    ]
    # Of 1, 4 and 5; the median of all is 3.
    assert choose_typical(rounds).server.cpu_us == 4
    # Two of each: the median of all four, which are 1, 2, 3 and 5.
    assert choose_typical([*rounds[:3], rounds[4]]).server.cpu_us == 2


def test_figures_are_medians_with_the_lowest_and_the_highest() -> None:
    demo = make_demo({"plain_socket": (3, 1, 2), "thread_pool": (None,)})
    assert demo.costs == {"plain_socket": Estimate(2, 1, 3, 3)}
    demo.rounds["thread_pool"][0] = replace(MEASUREMENT, verdict=Verdict(Limit.GENERATOR, "it was"))
    assert demo.rates["thread_pool"].is_lower_bound
    assert not demo.rates["plain_socket"].is_lower_bound
    # One round of three is enough.
    demo.rounds["plain_socket"][1] = replace(MEASUREMENT, verdict=Verdict(Limit.GENERATOR, "it was"))
    assert demo.rates["plain_socket"].is_lower_bound


PINNING = Pinning((1,), (0,))
SOUND = ModelResult(9, 0)


@dataclass
class FakeLab(UnusedBackend):
    """A lab that notes what it is asked to do. Each measurement has the rate of its number, and fails if told to."""

    events: list[str] = field(default_factory=list)
    steps: list[str] = field(default_factory=list)
    loads: list[Preset] = field(default_factory=list)
    broken: tuple[str, ...] = ()
    broken_by: str = ""
    pinning: Pinning | None = PINNING

    def up(self, models: Iterable[str | Model] = (), **_: Any) -> None:
        self.events.append(f"up {' '.join(map(str, models))}")

    def pin(self, model: str, cores: Sequence[int]) -> None:
        self.events.append(f"pin {model} {cores}")

    @contextmanager
    def step(self, text: str) -> Iterator[None]:
        self.steps.append(text)
        yield

    def measure(
        self, backend: Backend, model: Model, load: Preset, *, pinning: Pinning | None, generator: PersistentGenerator
    ) -> Measurement:
        assert backend is self
        assert generator.helpers is self
        assert pinning is self.pinning
        self.events.append(f"{load.spec.workload} {model.name}")
        self.loads.append(load)
        if model.name in self.broken and self.broken_by in load.spec.workload:
            raise LabError("it ended")
        return vary(MEASUREMENT, model=model.name, answered=len(self.loads))

    def measure_together(self, backend: Backend, models: Sequence[Model], load: Preset) -> list[Measurement]:
        assert backend is self
        self.events.append(f"{load.spec.workload} {' '.join(model.name for model in models)}")
        self.loads.append(load)
        return [vary(MEASUREMENT, model=model.name, answered=1000) for model in models]


def run_demo(
    monkeypatch: pytest.MonkeyPatch, lab: FakeLab, models: Sequence[str], **checks: ModelResult | None
) -> Demo:
    """Run a demo of 6 s; models pass the conformance suite unless `checks` says otherwise; None: it has no result."""
    monkeypatch.setattr(demo, "measure", lab.measure)
    monkeypatch.setattr(demo, "measure_together", lab.measure_together)
    monkeypatch.setattr(demo, "split_cores", lambda: lab.pinning)
    found_by_suite = {name: check for name, check in (dict.fromkeys(models, SOUND) | checks).items() if check}

    def check(backend: Backend, names: Sequence[str]) -> dict[str, ModelResult]:
        assert (backend, names) == (lab, models)
        return found_by_suite

    monkeypatch.setattr(demo, "check_in_subprocess", check)
    chosen = [CATALOGUE[name] for name in models]
    found = Demo({model.name: model.family for model in chosen})
    run(lab, chosen, found, lab.step, seconds=6.0)
    return found


def test_demo_loads_each_model_three_times_in_alternating_order_and_over_http(monkeypatch: pytest.MonkeyPatch) -> None:
    lab = FakeLab()
    # A peer that has no `command` returns as many bytes.
    run_demo(monkeypatch, lab, ["plain_socket", "prefork", "peer_socat"])
    assert lab.events == [
        "up plain_socket prefork peer_socat",
        # At once, and only those that can sleep.
        "sleep_20ms plain_socket prefork",
        *(f"pin {name} (1,)" for name in ("plain_socket", "prefork", "peer_socat")),
        *("session plain_socket", "session prefork", "session_echo peer_socat"),
        *("session_echo peer_socat", "session prefork", "session plain_socket"),
        *("session plain_socket", "session prefork", "session_echo peer_socat"),
        *("http_ping plain_socket", "http_ping prefork"),
    ]


def test_demo_without_the_figures_of_waits_continues(monkeypatch: pytest.MonkeyPatch) -> None:
    class Lost(FakeLab):
        def measure_together(self, backend: Backend, models: Sequence[Model], load: Preset) -> list[Measurement]:
            raise LabError("no result")

    found = run_demo(monkeypatch, Lost(), ["plain_socket"])
    assert (found.waits, found.missing, [row.model for row in found.measurements]) == ({}, {}, ["plain_socket"])


def test_demo_divides_its_time_by_its_rounds(monkeypatch: pytest.MonkeyPatch) -> None:
    lab = FakeLab()
    assert demo.USERS == 32
    # Other numbers than that of the presets; that of the waits is its own, since all models get them at once.
    monkeypatch.setattr(demo, "USERS", 7)
    monkeypatch.setattr(demo, "_WAITS_USERS", 9)
    run_demo(monkeypatch, lab, ["plain_socket"])
    assert [(load.name, load.spec.users, load.duration, load.spec.warm_up) for load in lab.loads] == [
        ("closed_sleep_20ms", 9, 1.0, 0.5),
        *[("closed_session", 7, 2.0, 0.3)] * 3,
        ("closed_http_ping", 7, 6.0, 0.5),
    ]
    assert lab.steps == [
        "1 models up and answering (process)",
        "conformance: the same tests for each",
        "load: replies that take 20 ms, all models at once",
        f"cores: {PINNING}",
        *(f"load: 1 models, round {number} of 3" for number in (1, 2, 3)),
        "load: HTTP, 1 models",
    ]


def test_demo_measures_no_model_that_fails_the_conformance_suite_or_has_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    lab = FakeLab(broken=("prefork",))
    models = ["plain_socket", "prefork", "thread_pool", "peer_nginx"]
    found = run_demo(monkeypatch, lab, models, plain_socket=ModelResult(8, 1, 0, ("test_x",)))
    assert [event for event in lab.events if "plain_socket" in event] == [f"up {' '.join(models)}"]
    # Not asked again.
    assert [event for event in lab.events if event == "session prefork"] == ["session prefork"]
    assert "http_ping prefork" not in lab.events
    assert list(found.missing) == ["plain_socket", "prefork", "peer_nginx"]
    failed = "1 of 9 conformance tests fail: test_x; `lab --backend process check plain_socket` shows why"
    assert found.missing["plain_socket"] == failed
    assert found.missing["prefork"] == "it ended"
    assert found.missing["peer_nginx"] == "no workload for it: it has none of the services command, echo"
    assert [row.model for row in found.measurements] == ["thread_pool"]
    # Nor one that ends in the last load; the others have theirs.
    lab = FakeLab(broken=("prefork",), broken_by="http")
    found = run_demo(monkeypatch, lab, ["plain_socket", "prefork", "thread_pool"])
    assert (found.missing, list(found.http)) == ({"prefork": "it ended"}, ["plain_socket", "thread_pool"])
    assert [row.model for row in found.measurements] == ["plain_socket", "thread_pool"]


def test_demo_on_one_core_pins_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    lab = FakeLab(pinning=None)
    run_demo(monkeypatch, lab, ["prefork"])
    assert not [text for text in [*lab.steps, *lab.events] if text.startswith(("cores", "pin"))]


def test_model_that_the_conformance_suite_has_not_tested_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    lab = FakeLab()
    found = run_demo(monkeypatch, lab, ["plain_socket", "prefork"], prefork=None)
    assert found.missing == {"prefork": "the conformance suite has no tests for it"}
    assert [row.model for row in found.measurements] == ["plain_socket"]


def test_demo_without_a_sound_model_loads_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    lab = FakeLab()
    found = run_demo(monkeypatch, lab, ["plain_socket"], plain_socket=ModelResult(8, 1))
    assert lab.events == ["up plain_socket"]
    assert not [text for text in lab.steps if text.startswith("cores")]
    assert found.measurements == []


def test_model_held_only_to_standards_is_not_asked_to_sleep(monkeypatch: pytest.MonkeyPatch) -> None:
    """It has `command`, whose SLEEP is the lab's own."""
    lab = FakeLab()
    assert (CATALOGUE["peer_redis"].rfc_only, "command" in CATALOGUE["peer_redis"].services) == (True, True)
    run_demo(monkeypatch, lab, ["peer_redis"])
    assert lab.events == ["up peer_redis", "pin peer_redis (1,)", *["session peer_redis"] * 3]
    # One that runs only in a container can sleep as well as any.
    lab = FakeLab()
    run_demo(monkeypatch, lab, ["threads_nogil", "peer_socat"])
    assert lab.events[1] == "sleep_20ms threads_nogil"


def test_model_that_is_loaded_is_on_the_line_of_progress(monkeypatch: pytest.MonkeyPatch) -> None:
    shown: list[str] = []
    with shown_by(shown.append):
        run_demo(monkeypatch, FakeLab(), ["plain_socket", "prefork"])
    # Two rounds of three, then HTTP; the line is empty after each.
    there, back = ["plain_socket", "prefork", ""], ["prefork", "plain_socket", ""]
    assert shown == [*there, *back, *there, *there]


def test_environment_of_a_demo_has_the_versions_of_its_generator() -> None:
    @dataclass
    class Described(FakeLab):
        def describe_models(self, models: Iterable[Model], **_: Any) -> dict[str, str | None]:
            return {model.name: "a version" for model in models}

    found = make_demo({"plain_socket": (1,), "prefork": (2,)})
    for number, row in enumerate(order_rows(found)):
        load = replace(row.load, versions={"Locust": f"2.{number}"})
        found.measurements.append(replace(row, load=load))
    facts = describe(Described(), [CATALOGUE["prefork"]], found)
    assert (facts["backend"], facts["load generator"], facts["prefork"]) == ("process", "Locust 2.0", "a version")
    found.measurements.clear()
    assert describe(Described(), [], found)["load generator"] is None


def test_stored_demo_is_read_in_the_order_of_the_page(tmp_path: Path) -> None:
    """Whatever the order in which its files are found; a model of no known family comes last."""
    found = make_demo({"prefork": (1,), "plain_socket": (2,), "asyncio_streams": (3,)})
    items = {item.model: item for rounds in found.rounds.values() for item in rounds}
    found.families = {name: family for name, family in found.families.items() if name != "asyncio_streams"}
    found.waits, found.http = dict(reversed(items.items())), dict(sorted(items.items()))
    kept = Run.create("demo", {"plan": {"families": found.families}}, root=tmp_path)
    keep(found, kept)
    again = read(kept)
    rows = [row.model for row in again.measurements]
    assert list(again.waits) == list(again.http) == rows == ["prefork", "plain_socket", "asyncio_streams"]
    # One that no further load was measured for, and no model was missing in.
    bare = Run.create("demo", {"plan": {"families": found.families}}, root=tmp_path / "bare")
    keep(Demo(found.families, rounds=found.rounds), bare)
    assert (read(bare).waits, read(bare).http, [row.model for row in read(bare).measurements]) == ({}, {}, rows)


def test_stored_demo_has_each_load_in_its_place(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    found = run_demo(monkeypatch, FakeLab(), ["plain_socket", "prefork"], prefork=ModelResult(8, 1, 0, ("test_x",)))
    assert [item.answered for item in found.rounds["plain_socket"]] == [2, 3, 4]
    assert (found.waits["plain_socket"].answered, found.http["plain_socket"].answered) == (1000, 5)
    kept = Run.create("demo", {"plan": {"families": found.families}}, root=tmp_path)
    keep(found, kept)
    assert read(kept) == found
    loads = [*(f"load-{number}" for number in (1, 2, 3)), "waits", "http"]
    assert sorted(kept.steps()) == sorted(
        [
            "conformance/plain_socket",
            "conformance/prefork",
            "missing/prefork",
            *(f"{each}/plain_socket" for each in loads),
        ]
    )
