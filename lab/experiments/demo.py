"""`lab demo`: start the models, run the conformance suite, and load each model for a few seconds.

The command (`lab.cli.commands.demo`) prints the results and takes everything down, also after an error or Ctrl-C.
"""

import contextlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field

from lab.base.errors import LabError
from lab.experiments.conformance import results
from lab.experiments.conformance.suite import check_in_subprocess
from lab.experiments.environment import describe_environment
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


@dataclass(slots=True)
class Demo:
    """The results so far."""

    models: Sequence[Model]
    checks: dict[str, results.ModelResult] = field(default_factory=dict)
    measurements: list[Measurement] = field(default_factory=list)
    waits: dict[str, Measurement] = field(default_factory=dict)
    http: dict[str, Measurement] = field(default_factory=dict)
    missing: dict[str, str] = field(default_factory=dict)


def run(backend: Backend, found: Demo, step: Callable[[str], AbstractContextManager[None]], *, seconds: float) -> None:
    """Start, check and load the models. They stay up.

    Raises:
        LabError: A step failed for all models. A single model that fails is added to `missing`.
    """
    names = [model.name for model in found.models]
    with step(f"{len(names)} models up and answering ({backend.name})"):
        backend.up(names)
    with step("conformance: the same tests for each"):
        found.checks = check_in_subprocess(backend, names)
    for model in found.models:
        if reason := found.checks.get(model.name, results.ModelResult(0, 0)).explain(model.name, backend.name):
            found.missing[model.name] = reason
    sound = [model for model in found.models if model.name not in found.missing]
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


def describe(backend: Backend, found: Demo) -> dict[str, str | None]:
    """Return the facts about the machine and the servers; the lab has to be up."""
    versions = found.measurements[0].load.versions if found.measurements else None
    return describe_environment(backend.describe(), versions=versions) | backend.describe_models(found.models)
