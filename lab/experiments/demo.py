"""`lab demo`: start the models, run the conformance suite, and load each model for a few seconds.

The command (`lab.cli.commands.demo`) prints the results and takes everything down, also after an error or Ctrl-C.
"""

import contextlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import Any

from lab.base.errors import LabError
from lab.experiments.conformance import results
from lab.experiments.conformance.suite import check_in_subprocess
from lab.experiments.environment import describe_environment
from lab.experiments.records import (
    CONFORMANCE,
    key_of_check,
    read_failure,
    read_measurement,
    record_failure,
    record_measurement,
)
from lab.experiments.store import Run
from lab.load.generator import PersistentGenerator
from lab.load.measure import measure, measure_together
from lab.load.measurement import Measurement
from lab.load.presets import Preset, find_preset
from lab.servers.backend import Backend
from lab.servers.catalogue import Model

# Enough connections to show which models serve one at a time, few enough for a thread or process per connection.
USERS = 16
WORKLOADS = {"command": "closed_session", "echo": "closed_session_echo"}
WAITS = "closed_sleep_20ms"
HTTP = "closed_http_ping"
_WAITS_SECONDS = 1.0


NAME = "demo"

# The loads of the store, as folders: the first that all models get, requests that sleep, and HTTP.
_LOAD, _WAITS, _HTTP = "load", "waits", "http"
_MISSING = "missing"


@dataclass(slots=True)
class Demo:
    """The results so far.

    Args:
        families: The family of each model, by name, in the order of the page.
        checks: Results of the conformance suite.
        measurements: Under the load that all models get.
        waits, http: Under further loads, by model.
        missing: Models that could not be measured, and why.
    """

    families: Mapping[str, str]
    checks: dict[str, results.ModelResult] = field(default_factory=dict)
    measurements: list[Measurement] = field(default_factory=list)
    waits: dict[str, Measurement] = field(default_factory=dict)
    http: dict[str, Measurement] = field(default_factory=dict)
    missing: dict[str, str] = field(default_factory=dict)


def run(
    backend: Backend,
    models: Sequence[Model],
    found: Demo,
    step: Callable[[str], AbstractContextManager[None]],
    *,
    seconds: float,
) -> None:
    """Start, check and load the models. They stay up.

    Raises:
        LabError: A step failed for all models. A single model that fails is added to `missing`.
    """
    names = [model.name for model in models]
    with step(f"{len(names)} models up and answering ({backend.name})"):
        backend.up(names)
    with step("conformance: the same tests for each"):
        found.checks = check_in_subprocess(backend, names)
    for model in models:
        if reason := found.checks.get(model.name, results.ModelResult(0, 0)).explain(model.name, backend.name):
            found.missing[model.name] = reason
    sound = [model for model in models if model.name not in found.missing]
    with PersistentGenerator(backend.helpers) as generator:
        for model in sound:
            with step(f"load: {model.name}"), _recorded(found, model):
                measured = measure(backend, model, _ask(choose_workload(model), seconds), generator=generator)
                found.measurements.append(measured)
                if "http" in model.services:
                    of_http = measure(backend, model, _ask(HTTP, seconds), generator=generator)
                    found.http[model.name] = of_http
    # At the same time: sleeping requests use no CPU, so the models do not disturb each other. If this fails, the report
    # shows the figures as missing.
    if able := [model for model in sound if "command" in model.services and not model.rfc_only]:
        with step("load: replies that take 20 ms, all models at once"), contextlib.suppress(LabError):
            waits = measure_together(backend, able, _ask(WAITS, _WAITS_SECONDS))
            found.waits = {item.model: item for item in waits}


def _ask(preset: str, seconds: float) -> Preset:
    return find_preset(preset).change(users=USERS, duration=seconds)


def choose_workload(model: Model) -> str:
    """Return the workload for a model: PINGs, or echoes of the same size if it has no `command`.

    Raises:
        LabError: It has neither.
    """
    for service, workload in WORKLOADS.items():
        if service in model.services:
            return workload
    raise LabError(f"no workload for it: it has none of the services {', '.join(WORKLOADS)}")


@contextlib.contextmanager
def _recorded(found: Demo, model: Model) -> Iterator[None]:
    try:
        yield
    except LabError as error:
        found.missing[model.name] = str(error)


def describe(backend: Backend, models: Iterable[Model], found: Demo) -> dict[str, str | None]:
    """Return the facts about the machine and the servers; the lab has to be up."""
    versions = found.measurements[0].load.versions if found.measurements else None
    return describe_environment(backend.describe(), versions=versions) | backend.describe_models(models)


def keep(found: Demo, run: Run) -> None:
    """Store the results; `read` returns them.

    Raises:
        StoreError: A result cannot be stored.
    """
    for name, check in found.checks.items():
        run.keep(key_of_check(name), check.as_json())
    loads = {_LOAD: {item.model: item for item in found.measurements}, _WAITS: found.waits, _HTTP: found.http}
    for load, measured in loads.items():
        for name, item in measured.items():
            run.keep(f"{load}/{name}", record_measurement(item))
    for name, reason in found.missing.items():
        run.keep(f"{_MISSING}/{name}", record_failure(reason))


def read(run: Run) -> Demo:
    """Read the results of a stored run.

    Raises:
        StoreError: A file is damaged.
    """
    kept: dict[str, dict[str, Mapping[str, Any]]] = {}
    for key, record in run.steps().items():
        folder, _, name = key.partition("/")
        kept.setdefault(folder, {})[name] = record
    families = run.facts["plan"]["families"]
    order = list(families)

    def read_load(load: str) -> dict[str, Measurement]:
        found = {name: item for name, record in kept.get(load, {}).items() if (item := read_measurement(record))}
        return dict(sorted(found.items(), key=lambda item: order.index(item[0]) if item[0] in order else len(order)))

    return Demo(
        families,
        {name: results.ModelResult.from_json(record) for name, record in kept.get(CONFORMANCE, {}).items()},
        list(read_load(_LOAD).values()),
        read_load(_WAITS),
        read_load(_HTTP),
        {name: reason for name, record in kept.get(_MISSING, {}).items() if (reason := read_failure(record))},
    )
