"""Prepare a run of the benchmark: the plan, the facts about the machine, the logs."""

import os
import random
from collections.abc import Mapping, Sequence
from pathlib import Path

from lab.base.errors import LabError
from lab.experiments.bench.plan import PRESETS, WORKS, Plan
from lab.experiments.environment import describe_environment, describe_servers, read_commit
from lab.experiments.store import Run
from lab.load.cores import Pinning
from lab.servers.backend import Backend, choose_models
from lab.servers.catalogue import Catalogue, Model

# What shows how far the generator goes: answered by C, and by nothing that takes longer.
_CEILING = "peer_redis"


# Whom to measure twice: one that serves many at once and needs no library.
_USUAL_TWIN = "asyncio_streams"


# What changes how a process gets its memory.
_ALLOCATOR = ("PYTHONMALLOC", "MALLOC_ARENA_MAX", "MALLOC_MMAP_THRESHOLD_", "MALLOC_TRIM_THRESHOLD_", "LD_PRELOAD")


_GOVERNOR = Path("/sys/devices/system/cpu/cpu0/cpufreq/scaling_governor")


def make_plan(
    backend: Backend,
    preset: str,
    models: Sequence[str],
    works: Sequence[str],
    *,
    rounds: int | None = None,
    seconds: float | None = None,
    seed: int | None = None,
) -> Plan:
    """What a person has asked for.

    Raises:
        LabError: an unknown model or kind of work.
    """
    values = dict(PRESETS[preset])
    if unknown := [name for name in works if name not in WORKS]:
        raise LabError(f"unknown work {', '.join(unknown)}; known: {', '.join(WORKS)}")
    values |= {"works": tuple(works)} if works else {}
    values |= {"rounds": rounds} if rounds else {}
    values |= {"seconds": seconds} if seconds else {}
    chosen = choose_models(backend, models)
    return Plan(
        models=tuple(model.name for model in chosen),
        seed=random.randrange(2**31) if seed is None else seed,  # noqa: S311 - an order, no secret
        twin=choose_twin(chosen),
        ceiling=_CEILING if backend.name == "docker" or _CEILING in {model.name for model in chosen} else None,
        **values,
    )


def choose_twin(models: Sequence[Model]) -> str | None:
    """Whom to measure twice."""
    able = [model.name for model in models if "overlap" not in model.limits]
    return _USUAL_TWIN if _USUAL_TWIN in able else next(iter(able), None)


def check_same(run: Run, backend: Backend) -> None:
    """See that a run can go on: with what it was begun.

    Raises:
        LabError: it has ended, or something else than what it has measured would be measured now.
    """
    if run.is_finished:
        raise LabError(f"{run.started} is finished; `lab bench --show {run.started}` prints it")
    before = run.facts.get("environment") or {}
    for name, now in (("commit", read_commit()), ("backend", backend.name)):
        if before.get(name) != now:
            raise LabError(
                f"{run.started} was begun with {name} {before.get(name)}, and this is {now}: begin a new one"
            )


def describe(backend: Backend, models: Sequence[Model], pinning: Pinning | None) -> dict[str, str | None]:
    """What the benchmark runs on."""
    facts = describe_environment(backend.name)
    facts["servers"] = describe_servers(backend, models)
    if backend.name == "docker":
        facts["images"] = read_images(backend.catalogue, models)
    facts["cores"] = str(pinning) if pinning else "one for all: nothing could be separated"
    facts["governor"] = _GOVERNOR.read_text().strip() if _GOVERNOR.is_file() else None
    facts["libc"] = read_libc(backend)
    # A container has the environment that compose.yaml gives it, and a process this one's.
    environs = (
        {"": os.environ}
        if backend.name == "process"
        else {f"{model.name}: ": backend.catalogue.environ(model.name) for model in models}
    )
    chosen = [
        f"{whose}{name}={environ[name]}"
        for whose, environ in environs.items()
        for name in _ALLOCATOR
        if name in environ
    ]
    facts["allocator"] = ", ".join(chosen) or "as built"
    return facts


def read_libc(backend: Backend) -> str | None:
    """The C library of the servers: their images and that of the lab's shell have one base."""
    done = backend.run(["python", "-c", "import platform; print(*platform.libc_ver())"], capture=True, timeout=60)
    return done.stdout.strip() or None


def read_images(catalogue: Catalogue, models: Sequence[Model]) -> str | None:
    """The ids of the images that were measured: a tag can come to mean another one."""
    import docker
    import docker.errors
    import requests

    try:
        client = docker.from_env()
        try:
            found = {model.name: client.images.get(catalogue.image(model.name)).short_id for model in models}
        finally:
            client.close()
    except (docker.errors.DockerException, requests.RequestException):
        return None
    return ", ".join(f"{name} {short}" for name, short in found.items())


def keep_logs(run: Run, backend: Backend, models: Mapping[str, str]) -> None:
    """What the servers have written goes with the figures, each under the name that its rows have."""
    for model, name in models.items():
        run.keep_log(name, backend.logs(model))
