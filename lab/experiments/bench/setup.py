"""Prepare a run of the benchmark: the plan, the facts about the machine, the logs."""

import random
from collections.abc import Mapping, Sequence
from pathlib import Path

from lab.base.errors import LabError
from lab.experiments.bench.plan import PRESETS, WORKLOADS, Plan
from lab.experiments.environment import describe_environment, read_commit
from lab.experiments.store import Run
from lab.load.cores import Pinning
from lab.servers.backend import Backend, Helpers, Servers, choose_models
from lab.servers.catalogue import Model

# A server in C that does nothing slow: its rate shows the limit of the generator.
_GENERATOR_LIMIT = "peer_redis"

# The default control: it serves many clients at the same time and needs no library.
_DEFAULT_CONTROL = "asyncio_streams"

# Variables that change how a process allocates memory.
_ALLOCATOR = ("PYTHONMALLOC", "MALLOC_ARENA_MAX", "MALLOC_MMAP_THRESHOLD_", "MALLOC_TRIM_THRESHOLD_", "LD_PRELOAD")

_GOVERNOR = Path("/sys/devices/system/cpu/cpu0/cpufreq/scaling_governor")


def make_plan(
    servers: Servers,
    preset: str,
    models: Sequence[str],
    workloads: Sequence[str],
    *,
    rounds: int | None = None,
    seconds: float | None = None,
    seed: int | None = None,
) -> Plan:
    """Make the plan from the command line.

    Raises:
        LabError: a model or a workload is unknown.
    """
    values = dict(PRESETS[preset])
    if unknown := [name for name in workloads if name not in WORKLOADS]:
        raise LabError(f"unknown workloads: {', '.join(unknown)}; known: {', '.join(WORKLOADS)}")
    values |= {"workloads": tuple(workloads)} if workloads else {}
    values |= {"rounds": rounds} if rounds else {}
    values |= {"seconds": seconds} if seconds else {}
    chosen = choose_models(servers, models)
    has_limit = servers.in_containers or _GENERATOR_LIMIT in {model.name for model in chosen}
    return Plan(
        models=tuple(model.name for model in chosen),
        seed=random.randrange(2**31) if seed is None else seed,  # noqa: S311 - an order, no secret
        control=choose_control(chosen),
        generator_limit=_GENERATOR_LIMIT if has_limit else None,
        **values,
    )


def choose_control(models: Sequence[Model]) -> str | None:
    """Return the model that gets a control server; None if no model serves clients at the same time."""
    able = [model.name for model in models if "overlap" not in model.limits]
    return _DEFAULT_CONTROL if _DEFAULT_CONTROL in able else next(iter(able), None)


def check_same(run: Run, backend: Backend) -> None:
    """Check that a run can be resumed.

    Raises:
        LabError: it is finished, or the commit or the backend has changed.
    """
    if run.is_finished:
        raise LabError(f"{run.started} is finished; `lab bench --show {run.started}` prints it")
    before = run.facts.get("environment") or {}
    for name, now in (("commit", read_commit()), ("backend", backend.name)):
        if before.get(name) != now:
            raise LabError(
                f"{run.started} was started with {name} {before.get(name)}, and this is {now}: start a new run"
            )


def describe(backend: Backend, models: Sequence[Model], pinning: Pinning | None) -> dict[str, str | None]:
    facts = describe_environment(backend.describe()) | backend.describe_models(models)
    facts["cores"] = str(pinning) if pinning else "one core: servers and load generator share it"
    facts["governor"] = _GOVERNOR.read_text().strip() if _GOVERNOR.is_file() else None
    facts["libc"] = read_libc(backend.helpers)
    facts["allocator"] = describe_allocator({model.name: backend.environ(model.name) for model in models})
    return facts


def describe_allocator(environs: Mapping[str, Mapping[str, str]]) -> str:
    """Return the variables that change how models allocate memory, with the models that have them if not all do."""
    found: dict[str, list[str]] = {}
    for model, environ in environs.items():
        for name in _ALLOCATOR:
            if name in environ:
                found.setdefault(f"{name}={environ[name]}", []).append(model)
    everywhere = len(environs)
    shown = (text if len(models) == everywhere else f"{' '.join(models)}: {text}" for text, models in found.items())
    return ", ".join(shown) or "as built"


def read_libc(helpers: Helpers) -> str | None:
    """Return the C library of the servers. Their images and that of the lab's shell have the same base."""
    done = helpers.run(["python", "-c", "import platform; print(*platform.libc_ver())"], capture=True, timeout=60)
    return done.stdout.strip() or None


def keep_logs(run: Run, servers: Servers, models: Mapping[str, str]) -> None:
    """Keep the logs of servers, each under the name of its rows."""
    for model, name in models.items():
        run.keep_log(name, servers.logs(model))
