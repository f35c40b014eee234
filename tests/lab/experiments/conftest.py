"""A fake lab, whose measurements a test provides."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from lab.experiments.bench.plan import Plan
from lab.experiments.bench.runner import Progress, Runner
from lab.experiments.conformance.results import ModelResult
from lab.experiments.store import Run
from lab.load.measurement import Measurement
from lab.load.presets import Preset
from lab.metrics.sample import Meter, NoMeter
from lab.servers.backend import Completed, Loadable
from lab.servers.catalogue import Catalogue, Listener, Model
from tests.support.fakes import UnusedBackend
from tests.support.made_up import MEASUREMENT, vary

CATALOGUE = Catalogue.load()


class FakeBackend(UnusedBackend):
    """Models that count as up, without a process."""

    def __init__(self, models: Sequence[str], project: str = "t") -> None:
        self.project = project
        self.models = models
        self.restarted: list[str] = []

    def targets(self) -> list[Listener]:
        return [Listener(name, "command", "tcp", "tcp://127.0.0.1:1") for name in self.models]

    def state(self) -> list[Any]:
        return [SimpleNamespace(model=name, state="exited", exit_code=3, last_lines=("oh no",)) for name in self.models]

    def meter(self, model: str) -> Meter:
        return NoMeter(f"{model} is not there")

    def restart(self, model: str, **_: Any) -> None:
        self.restarted.append(model)

    def run(self, arguments: Sequence[str], **_: Any) -> Completed:
        if "redis-benchmark" in arguments:
            return Completed(arguments, 0, '"test","rps"\n"PING_MBULK","10000.0"\n', "")
        return Completed(arguments, 0, "{}", "")


@pytest.fixture
def make_measurement() -> Callable[..., Measurement]:
    """Return a typical measurement with some fields changed."""
    return lambda **changes: vary(MEASUREMENT, **changes)


@pytest.fixture
def make_plan() -> Callable[..., Plan]:
    """Return a small plan with some fields changed."""

    def make(**changes: Any) -> Plan:
        plan = Plan(
            models=("asyncio_streams", "twisted_reactor", "plain_socket"),
            workloads=("session",),
            quick_workloads=(),
            levels=(4, 16, 64),
            modes=("closed", "fixed", "open-70"),
            rounds=3,
            seconds=0.1,
            warm_up=0.0,
            seed=1,
            control="asyncio_streams",
            generator_limit=None,
        )
        return replace(plan, **changes)

    return make


class Bench:
    """Runs plans with a fake `measure`; `asked` has its arguments."""

    def __init__(self, root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.root = root
        self.asked: list[tuple[str, str, int, float | None]] = []
        self.answer: Callable[..., Measurement] = lambda model, scenario, users, rate: vary(MEASUREMENT, users=users)
        self.failing: set[str] = set()
        self.lines: list[str] = []
        monkeypatch.setattr("lab.experiments.bench.runner.measure", self._measure)

    def _measure(self, backend: Loadable, model: Model, load: Preset, **_: Any) -> Measurement:
        asked = (load.name, load.spec.users, load.spec.rate if load.spec.is_open else None)
        self.asked.append((model.name, *asked))
        return vary(self.answer(model.name, *asked), model=model.name)

    def begin(self, plan: Plan) -> Run:
        return Run.create("bench", {"plan": plan.as_json(), "environment": {"commit": "abc"}}, root=self.root)

    def check(self, name: str) -> ModelResult:
        return ModelResult(5, 1, 0, (f"t.py::test_x[{name}]@{name}",)) if name in self.failing else ModelResult(5, 0)

    def measure(self, run: Run, plan: Plan) -> FakeBackend:
        backend = FakeBackend((*plan.models, *filter(None, [plan.generator_limit])))
        control = FakeBackend([plan.control], "t-control") if plan.control else None
        models = {name: CATALOGUE[name] for name in (*plan.models, *filter(None, [plan.generator_limit]))}
        runner = Runner(run, plan, backend, control, models, None, Progress(self.lines.append))
        runner.measure_all(lambda _, names: {name: self.check(name) for name in names})
        return backend


@pytest.fixture
def bench(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Bench:
    """Return a benchmark with fake measurements."""
    return Bench(tmp_path, monkeypatch)
