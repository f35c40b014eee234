"""The command `lab bench`: its plan, the labs it starts, what it stores, and its exit code. `measure` is a fake."""

import json
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from lab.base.errors import LabError
from lab.cli.commands import bench
from lab.cli.main import cli
from lab.cli.params import split_names
from lab.experiments.bench import setup
from lab.experiments.bench.findings import read_findings
from lab.experiments.bench.plan import PRESETS, Plan
from lab.experiments.bench.runner import Runner
from lab.experiments.bench.setup import (
    check_same,
    choose_control,
    describe,
    describe_allocator,
    make_plan,
    read_libc,
)
from lab.experiments.store import Run, StoreError
from lab.load.cores import Pinning
from lab.metrics.verdict import Limit, Verdict
from lab.report.bench_export import render_charts
from lab.servers.backend import Completed
from lab.servers.catalogue import Catalogue, Model
from tests.support.fakes import UnusedBackend
from tests.support.made_up import MEASUREMENT

CATALOGUE = Catalogue.load()


class FakeLab(UnusedBackend):
    """A backend that records `up` and `down`."""

    def __init__(self, name: str, project: str, events: list[str]) -> None:
        self.name = name
        self.project = project
        self.events = events
        self.asked: list[tuple[list[str], dict[str, Any]]] = []

    def up(self, models: Iterable[str | Model] = (), **_: Any) -> None:
        self.events.append(f"{self.project} up {' '.join(map(str, models))}")

    def down(self) -> None:
        self.events.append(f"{self.project} down")

    def logs(self, model: str) -> str:
        return f"{self.project}: {model} said this"

    def environ(self, model: str) -> Mapping[str, str]:
        return self.catalogue.environ(model) if self.in_containers else os.environ

    def describe(self) -> dict[str, str | None]:
        return {"commit": "abc", "backend": self.name}

    def describe_models(self, models: Iterable[Model]) -> dict[str, str | None]:
        return {"servers": "3.13"}

    def run(self, arguments: Sequence[str], **given: Any) -> Completed:
        self.asked.append((list(arguments), given))
        return Completed(tuple(arguments), 0, "glibc 2.41\n", "")


class Command:
    """Runs `lab bench` with fake backends."""

    def __init__(self, root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.root = root
        self.events: list[str] = []
        self.backend = "process"
        self.runners: list[Any] = []
        self.measured: Callable[[Any], None] = self.keep_a_round
        monkeypatch.setattr(bench, "open_backend", self._open)
        monkeypatch.setattr("lab.experiments.bench.setup.describe_environment", dict)
        monkeypatch.setattr("lab.experiments.bench.setup.read_commit", lambda: "abc")
        monkeypatch.setattr(Runner, "measure_all", lambda runner, check: self._measure(runner))
        for variable in ("LAB_PROJECT", "LAB_BACKEND"):
            # The command sets these for its child processes; they are reset after the test.
            monkeypatch.setenv(variable, "")
            monkeypatch.delenv(variable)

    def _open(self, name: str | None, project: str, *, catalogue: Catalogue) -> FakeLab:
        return FakeLab(name or self.backend, project, self.events)

    def _measure(self, runner: Any) -> None:
        self.runners.append(runner)
        self.events.append("measure")
        self.measured(runner)

    def keep_a_round(self, runner: Any, failing: Sequence[str] = ()) -> None:
        for name in (*runner.plan.models, *([f"control-{runner.plan.control}"] if runner.control else [])):
            record = {"failure": "gone"} if name in failing else {"measurement": MEASUREMENT.as_json()}
            runner.run.keep(f"round-1/session/{name}/closed", record)
        runner.run.finish({"own_cores": 0.01})

    def __call__(self, *arguments: str, project: str | None = None, backend: str | None = None) -> Result:
        options = [*(["--project", project] if project else []), *(["--backend", backend] if backend else [])]
        return CliRunner().invoke(cli, [*options, "bench", "--out", str(self.root), *arguments])

    @property
    def run(self) -> Run:
        return Run.find(None, "bench", root=self.root)


@pytest.fixture
def bench_command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Command:
    return Command(tmp_path, monkeypatch)


QUICK = ["--quick", "asyncio_streams", "plain_socket", "--seed", "7"]


def test_bench_starts_both_labs_measures_and_takes_both_down(
    bench_command: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    cores = Pinning((1, 2), (0,))
    monkeypatch.setattr(bench, "split_cores", lambda: cores)
    done = bench_command(*QUICK)
    assert done.exit_code == 0, done.output
    assert bench_command.events == [
        "socketlab-bench up plain_socket asyncio_streams",
        "socketlab-bench-control up asyncio_streams",
        "measure",
        "socketlab-bench-control down",
        "socketlab-bench down",
    ]
    runner = bench_command.runners[0]
    assert (runner.backend.project, runner.control.project) == ("socketlab-bench", "socketlab-bench-control")
    run = bench_command.run
    assert (runner.pinning, list(runner.models)) == (cores, ["plain_socket", "asyncio_streams"])
    assert run.facts["environment"]["cores"] == "servers on cores 1,2, load generator on core 0"
    assert run.facts["environment"]["allocator"]
    assert run.facts["models"]["plain_socket"]["concurrency"] == "one"
    assert sorted(path.name for path in (run.folder / "logs").iterdir()) == [
        "asyncio_streams.log",
        "control-asyncio_streams.log",
        "plain_socket.log",
    ]
    assert (run.folder / "logs" / "control-asyncio_streams.log").read_text() == (
        "socketlab-bench-control: asyncio_streams said this"
    )
    assert f"stored in {run.folder}" in done.output
    assert f"{run.folder / 'index.html'}" in done.output
    assert "asyncio_streams" in (run.folder / "report.md").read_text()
    assert "asyncio_streams" in (run.folder / "index.html").read_text()
    charts = render_charts(read_findings(Run.open(run.folder)))
    assert {name: (run.folder / name).read_text() for name in charts} == charts


def test_bench_without_a_control_starts_one_lab(bench_command: Command) -> None:
    done = bench_command("--quick", "plain_socket")
    assert done.exit_code == 0, done.output
    assert bench_command.events == ["socketlab-bench up plain_socket", "measure", "socketlab-bench down"]
    assert bench_command.runners[0].control is None


def test_bench_of_a_named_project_and_backend_uses_them(bench_command: Command) -> None:
    assert bench_command(*QUICK, project="mine", backend="docker").exit_code == 0
    assert bench_command.events[:2] == [
        "mine up plain_socket asyncio_streams peer_redis",
        "mine-control up asyncio_streams",
    ]
    (runner,) = bench_command.runners
    assert (runner.backend.name, runner.control.name) == ("docker", "docker")


def test_bench_in_containers_starts_the_server_that_shows_the_generators_limit(bench_command: Command) -> None:
    bench_command.backend = "docker"
    assert bench_command(*QUICK).exit_code == 0
    assert bench_command.events[:2] == [
        "socketlab-bench up plain_socket asyncio_streams peer_redis",
        "socketlab-bench-control up asyncio_streams",
    ]
    runner = bench_command.runners[0]
    assert (runner.plan.generator_limit, list(runner.plan.models)) == (
        "peer_redis",
        ["plain_socket", "asyncio_streams"],
    )


def test_bench_exits_with_1_if_a_row_failed(bench_command: Command) -> None:
    bench_command.measured = lambda runner: bench_command.keep_a_round(runner, failing=["plain_socket"])
    assert bench_command(*QUICK).exit_code == 1


def test_bench_exits_with_1_if_replies_were_wrong(bench_command: Command) -> None:
    def measure(runner: Any) -> None:
        for name, bound in (("asyncio_streams", Limit.SERVER), ("plain_socket", Limit.WRONG)):
            found = replace(MEASUREMENT, verdict=Verdict(bound, "because"))
            runner.run.keep(f"round-1/session/{name}/closed", {"measurement": found.as_json()})
        runner.run.finish({"own_cores": 0.01})

    bench_command.measured = measure
    assert bench_command(*QUICK).exit_code == 1


def test_bench_exits_with_1_if_a_model_fails_the_suite(bench_command: Command) -> None:
    def measure(runner: Any) -> None:
        bench_command.keep_a_round(runner)
        runner.run.keep("conformance/plain_socket", {"passed": 5, "failed": 1, "xfailed": 0})

    bench_command.measured = measure
    assert bench_command(*QUICK).exit_code == 1


def test_interrupted_bench_stores_logs_and_report_and_takes_both_labs_down(bench_command: Command) -> None:
    def measure(runner: Any) -> None:
        raise KeyboardInterrupt

    bench_command.measured = measure
    assert bench_command(*QUICK).exit_code != 0
    assert bench_command.events[-2:] == ["socketlab-bench-control down", "socketlab-bench down"]
    assert (bench_command.run.folder / "logs" / "plain_socket.log").is_file()
    assert (bench_command.run.folder / "report.md").is_file()


def test_run_is_locked_while_it_is_measured(bench_command: Command) -> None:
    """`--resume` by another process would measure into it as well."""
    refused = []

    def measure(runner: Any) -> None:
        with pytest.raises(StoreError, match="another process is measuring into it") as raised, runner.run.writing():
            pass
        refused.append(raised.value)
        bench_command.keep_a_round(runner)

    bench_command.measured = measure
    assert bench_command(*QUICK).exit_code == 0
    assert len(refused) == 1


def test_bench_resumes_an_interrupted_run(bench_command: Command) -> None:
    bench_command.measured = lambda runner: None
    bench_command(*QUICK)
    first = bench_command.run
    bench_command.measured = bench_command.keep_a_round
    done = bench_command("--resume", "latest")
    assert done.exit_code == 0, done.output
    assert bench_command.run.folder == first.folder
    assert bench_command.runners[1].plan == bench_command.runners[0].plan
    assert bench_command.runners[1].plan.seed == 7


def test_bench_refuses_to_resume_a_finished_run(bench_command: Command) -> None:
    bench_command(*QUICK)
    done = bench_command("--resume", "latest")
    assert done.exit_code != 0
    assert "is finished; `lab bench --show" in str(done.output) + str(done.exception)


@pytest.mark.parametrize("changed", [{"commit": "older"}, {"backend": "docker"}])
def test_run_of_another_commit_or_backend_is_not_resumed(
    bench_command: Command, make_plan: Callable[..., Plan], changed: dict[str, str]
) -> None:
    environment = {"commit": "abc", "backend": "process"} | changed
    facts = {"plan": make_plan().as_json(), "environment": environment}
    run = Run.create("bench", facts, root=bench_command.root)
    with pytest.raises(LabError, match=f"was started with {next(iter(changed))}"):
        check_same(run, bench_command._open("process", "t", catalogue=CATALOGUE))
    same = Run.create(
        "bench", facts | {"environment": environment | {"commit": "abc", "backend": "process"}}, root=bench_command.root
    )
    check_same(same, bench_command._open("process", "t", catalogue=CATALOGUE))


def test_export_without_show_is_refused(bench_command: Command) -> None:
    done = bench_command("--export", "csv")
    assert done.exit_code != 0
    assert "--export goes with --show RUN" in str(done.output) + str(done.exception)
    assert bench_command.events == []


def plan_of(
    backend: str = "process", preset: str = "quick", models: str = "", workloads: str = "", **given: Any
) -> Plan:
    return make_plan(FakeLab(backend, "t", []), preset, split_names(models), split_names(workloads), **given)


def test_options_override_the_preset() -> None:
    assert plan_of(models="plain_socket,prefork", seed=3) == Plan(
        models=("plain_socket", "prefork"), seed=3, control="prefork", generator_limit=None, **PRESETS["quick"]
    )
    found = plan_of(preset="default", workloads="burn,ping", rounds=9, seconds=0.25, seed=0)
    assert (found.workloads, found.rounds, found.seconds, found.seed) == (("burn", "ping"), 9, 0.25, 0)
    assert found.warm_up == PRESETS["default"]["warm_up"]


def test_default_preset_is_used(bench_command: Command) -> None:
    bench_command("plain_socket")
    assert bench_command.run.facts["plan"]["workloads"] == list(PRESETS["default"]["workloads"])


def test_plan_is_that_of_the_options(bench_command: Command) -> None:
    options = ["--workloads", "burn, ping", "--rounds", "2", "--duration", "250ms", "--seed", "0"]
    bench_command("plain_socket", *options)
    plan = bench_command.run.facts["plan"]
    assert (plan["models"], plan["workloads"]) == (["plain_socket"], ["burn", "ping"])
    assert (plan["rounds"], plan["seconds"], plan["seed"]) == (2, 0.25, 0)
    assert plan["modes"] == list(PRESETS["default"]["modes"])


def test_full_preset_has_every_workload(bench_command: Command) -> None:
    bench_command("plain_socket", "--full")
    plan = bench_command.run.facts["plan"]
    assert (plan["workloads"], plan["modes"]) == tuple(list(PRESETS["full"][name]) for name in ("workloads", "modes"))


def test_progress_is_on_stderr(bench_command: Command) -> None:
    done = bench_command(*QUICK)
    assert "socketlab-bench-control: starting asyncio_streams (process)" in done.stderr
    assert "starting" not in done.stdout


def test_unstored_report_is_reported_on_stderr(bench_command: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(run: Run, name: str, text: str) -> None:
        raise StoreError("the disk is full")

    monkeypatch.setattr(Run, "write_file", refuse)
    done = bench_command(*QUICK)
    assert done.exit_code == 0, done.output
    assert "lab: not stored: the disk is full" in done.stderr
    assert "not kept" not in done.stdout


def test_default_seed_is_random() -> None:
    assert len({plan_of(models="plain_socket").seed for _ in range(5)}) == 5


def test_unknown_workload_is_named() -> None:
    with pytest.raises(LabError, match="unknown workloads: pong, pang; known: session, ping"):
        plan_of(workloads="pong,session,pang")


@pytest.mark.parametrize(
    ("backend", "models", "limit"),
    [
        ("docker", "plain_socket", "peer_redis"),
        ("docker", "peer_redis", "peer_redis"),
        ("process", "plain_socket", None),
    ],
)
def test_generator_limit_is_measured_if_redis_is_available(backend: str, models: str, limit: str | None) -> None:
    assert plan_of(backend, models=models).generator_limit == limit


@pytest.mark.parametrize(
    ("models", "control"),
    [
        (["plain_socket", "twisted_reactor", "asyncio_streams"], "asyncio_streams"),
        (["plain_socket", "twisted_reactor", "prefork"], "twisted_reactor"),
        (["plain_socket", "socketserver_sequential"], None),
    ],
)
def test_control_is_a_model_that_serves_many_clients(models: list[str], control: str | None) -> None:
    assert choose_control([CATALOGUE[name] for name in models]) == control


@pytest.fixture
def facts(bench_command: Command) -> Callable[..., dict[str, str | None]]:
    def make(name: str, pinning: Pinning | None = None) -> dict[str, str | None]:
        lab = bench_command._open(name, "t", catalogue=CATALOGUE)
        return describe(lab, [CATALOGUE["thread_pool"], CATALOGUE["plain_socket"]], pinning)

    return make


def test_environment_of_processes_is_that_of_this_process(
    facts: Callable[..., dict[str, str | None]], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    for name in setup._ALLOCATOR:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr("lab.experiments.bench.setup._GOVERNOR", tmp_path / "governor")
    found = facts("process")
    assert (found["allocator"], found["governor"], found["libc"]) == ("as built", None, "glibc 2.41")
    assert found["cores"] == "one core: servers and load generator share it"
    assert found["servers"] == "3.13"
    monkeypatch.setenv("MALLOC_ARENA_MAX", "2")
    monkeypatch.setenv("PYTHONMALLOC", "malloc")
    (tmp_path / "governor").write_text("performance\n")
    found = facts("process", Pinning((1,), (0,)))
    assert found["allocator"] == "PYTHONMALLOC=malloc, MALLOC_ARENA_MAX=2"
    assert found["governor"] == "performance"
    assert found["cores"] == "servers on core 1, load generator on core 0"


def test_environment_of_containers_comes_from_compose(
    facts: Callable[..., dict[str, str | None]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MALLOC_ARENA_MAX", "2")
    found = facts("docker")
    # compose.yaml gives thread_pool one arena, and plain_socket none of these.
    assert found["allocator"] == "thread_pool: MALLOC_ARENA_MAX=1"


def test_allocator_names_each_variable_and_the_models_that_have_it() -> None:
    names = ("PYTHONMALLOC", "MALLOC_ARENA_MAX", "MALLOC_MMAP_THRESHOLD_", "MALLOC_TRIM_THRESHOLD_", "LD_PRELOAD")
    for name in names:
        assert describe_allocator({"a": {name: "1", "LANG": "C"}, "b": {name: "1"}}) == f"{name}=1"
    two_of_three = {"a": {"LD_PRELOAD": "x"}, "b": {}, "c": {"LD_PRELOAD": "x"}}
    assert describe_allocator(two_of_three) == "a c: LD_PRELOAD=x"


def test_c_library_is_that_of_the_servers(bench_command: Command) -> None:
    lab = bench_command._open("docker", "t", catalogue=CATALOGUE)
    assert read_libc(lab) == "glibc 2.41"
    ((arguments, given),) = lab.asked
    assert arguments[0] == "python"
    assert given == {"capture": True, "timeout": 60}
    lab.run = lambda arguments, **given: Completed((), 0, "\n", "")  # type: ignore[method-assign]
    assert read_libc(lab) is None


def test_plan_survives_storing(bench_command: Command) -> None:
    bench_command(*QUICK, "--rounds", "2", "--duration", "1s")
    kept = json.loads((bench_command.run.folder / "run.json").read_text())["plan"]
    assert (kept["rounds"], kept["seconds"], kept["seed"], kept["control"]) == (2, 1.0, 7, "asyncio_streams")
