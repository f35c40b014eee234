"""`lab demo`: start the models, run the conformance suite, and load each model for a few seconds.

The command (`lab.cli.commands.demo`) prints the results and takes everything down, also after an error or Ctrl-C.
"""

import contextlib
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import asdict, dataclass, field
from functools import partial
from math import inf
from typing import Any

from lab.base import progress
from lab.base.errors import LabError
from lab.base.messages import build
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
from lab.load.cores import pin_servers, split_cores
from lab.load.generator import PersistentGenerator
from lab.load.measure import measure, measure_together
from lab.load.measurement import Measurement
from lab.load.presets import Preset, find_preset
from lab.metrics.estimates import Estimate, estimate
from lab.metrics.verdict import Limit
from lab.servers.backend import Backend
from lab.servers.catalogue import Model

# Enough connections to show which models serve one at a time and to keep the others busy, few enough for a thread or
# process per connection. With 16, models of threads waited for clients a tenth of the time.
USERS = 32
# All models together get these. With twice as many the load generator would be the limit.
_WAITS_USERS = 16
WORKLOADS = {"command": "closed_session", "echo": "closed_session_echo"}
WAITS = "closed_sleep_20ms"
HTTP = "closed_http_ping"
_WAITS_SECONDS = 1.0

# How often each model is loaded, interleaved with the others: the spread of the repeats shows which models differ.
# The order is reversed each time, so that a slow minute does not always hit the same model.
ROUNDS = 3
_WARM_UP = 0.3


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
        rounds: All measurements under the load that all models get, by model.
        measurements: One of these for each model, by family and by CPU per request, the least first.
        waits, http: Under further loads, by model.
        missing: Models that could not be measured, and why.
    """

    families: Mapping[str, str]
    checks: dict[str, results.ModelResult] = field(default_factory=dict)
    rounds: dict[str, list[Measurement]] = field(default_factory=dict)
    measurements: list[Measurement] = field(default_factory=list)
    waits: dict[str, Measurement] = field(default_factory=dict)
    http: dict[str, Measurement] = field(default_factory=dict)
    missing: dict[str, str] = field(default_factory=dict)

    @property
    def costs(self) -> dict[str, Estimate]:
        """CPU microseconds per request by model, where known."""
        found = {model: estimate(item.server.cpu_us for item in items) for model, items in self.rounds.items()}
        return {model: cost for model, cost in found.items() if cost}

    @property
    def rates(self) -> dict[str, Estimate]:
        """Requests per second by model."""
        found = {
            model: estimate(
                (item.rate for item in items), is_lower_bound=any(item.verdict.is_lower_bound for item in items)
            )
            for model, items in self.rounds.items()
        }
        return {model: rate for model, rate in found.items() if rate}


def run(
    backend: Backend,
    models: Sequence[Model],
    found: Demo,
    step: Callable[[str], AbstractContextManager[None]],
    *,
    seconds: float,
) -> None:
    """Start, check and load the models. They stay up.

    Args:
        found: Gets the results.
        step: Called with a line about each part.
        seconds: The measured time of each model, of all rounds together.

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
    # At the same time: sleeping requests use little CPU, so the models do not disturb each other. If this fails, the
    # report shows the figures as missing.
    if able := [model for model in sound if "command" in model.services and not model.rfc_only]:
        with step("load: replies that take 20 ms, all models at once"), contextlib.suppress(LabError):
            waits = measure_together(backend, able, _ask(WAITS, _WAITS_USERS, _WAITS_SECONDS))
            found.waits = {item.model: item for item in waits}
    # On one core with its servers, the generator would wait for them, and they for it.
    pinning = split_cores()
    if pinning and sound:
        with step(f"cores: {pinning}"):
            pin_servers(backend, [model.name for model in sound], pinning)
    with PersistentGenerator(backend.helpers) as generator:
        load = partial(measure, backend, pinning=pinning, generator=generator)
        for number in range(ROUNDS):
            with step(f"load: {len(sound)} models, round {number + 1} of {ROUNDS}"):
                for model in _each(found, sound if number % 2 == 0 else sound[::-1]):
                    with _recorded(found, model):
                        measured = load(model, _ask(choose_workload(model), USERS, seconds / ROUNDS, _WARM_UP))
                        found.rounds.setdefault(model.name, []).append(measured)
        speakers = [model for model in sound if "http" in model.services]
        with step(f"load: HTTP, {len(speakers)} models"):
            for model in _each(found, speakers):
                with _recorded(found, model):
                    found.http[model.name] = load(model, _ask(HTTP, USERS, seconds))
    found.measurements = order_rows(found)


def _each(found: Demo, models: Sequence[Model]) -> Iterator[Model]:
    with progress.progress_line() as show:
        for model in models:
            if model.name not in found.missing:
                show(model.name)
                yield model


def order_rows(found: Demo) -> list[Measurement]:
    """Return a measurement for each model that is not missing: the families together, the least CPU first in each."""
    families = list(dict.fromkeys(found.families.values()))
    rows = [choose_typical(items) for model, items in found.rounds.items() if model not in found.missing]
    costs = found.costs

    def place(row: Measurement) -> tuple[int, float]:
        known = row.family in families
        return families.index(row.family) if known else len(families), costs[
            row.model
        ].middle if row.model in costs else inf

    return sorted(rows, key=place)


def is_sound(found: Measurement) -> bool:
    """Return whether a demo with this measurement can have exit code 0."""
    return not (found.load.failures or found.verdict.is_failure or found.verdict.bound is Limit.DISTURBED)


def choose_typical(items: Sequence[Measurement]) -> Measurement:
    """Return the measurement to show: the first that failed or was disturbed, else a median one.

    It has the median cost among those with the most frequent verdict, as one round of three can meet a busy moment of
    the machine.
    """
    for item in items:
        if not is_sound(item):
            return item
    counts = Counter(item.verdict.bound for item in items)
    usual = [item for item in items if counts[item.verdict.bound] == max(counts.values())]
    ordered = sorted(usual, key=lambda item: inf if item.server.cpu_us is None else item.server.cpu_us)
    return ordered[(len(ordered) - 1) // 2]


def _ask(preset: str, users: int, seconds: float, warm_up: float | None = None) -> Preset:
    return find_preset(preset).change(users=users, duration=seconds, warm_up=warm_up)


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
    versions = found.measurements[0].load.versions if found.measurements else None
    return describe_environment(backend.describe(), versions=versions) | backend.describe_models(models)


def keep(found: Demo, run: Run) -> None:
    """Store the results; `read` returns them.

    Raises:
        StoreError: A result cannot be stored.
    """
    for name, check in found.checks.items():
        run.keep(key_of_check(name), asdict(check))
    for name, items in found.rounds.items():
        for number, item in enumerate(items, 1):
            run.keep(f"{_LOAD}-{number}/{name}", record_measurement(item))
    for load, measured in {_WAITS: found.waits, _HTTP: found.http}.items():
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

    rounds: dict[str, list[Measurement]] = {}
    for load in sorted(folder for folder in kept if folder.startswith(f"{_LOAD}-")):
        for name, item in read_load(load).items():
            rounds.setdefault(name, []).append(item)
    found = Demo(
        families,
        {name: build(results.ModelResult, record) for name, record in kept.get(CONFORMANCE, {}).items()},
        rounds,
        waits=read_load(_WAITS),
        http=read_load(_HTTP),
        missing={name: reason for name, record in kept.get(_MISSING, {}).items() if (reason := read_failure(record))},
    )
    found.measurements = order_rows(found)
    return found
