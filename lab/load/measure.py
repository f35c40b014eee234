"""Measure models: load them, read the resource usage of both sides, and find the verdict."""

import contextlib
import threading
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TypedDict, Unpack

from lab.base.environ import ENV_GENERATOR_CORES, ENV_TARGETS
from lab.base.errors import LabError, last_lines
from lab.base.units import encode_cores
from lab.load.cores import Pinning, allotted_cores, find_core_use
from lab.load.generator import PersistentGenerator, run_generator
from lab.load.measurement import Measurement, encode_targets
from lab.load.presets import Preset
from lab.metrics.sample import Meter, Sample
from lab.metrics.server_use import ServerUse
from lab.metrics.socket_owner import count_connections
from lab.metrics.verdict import find_limit
from lab.servers.backend import Completed, Loadable
from lab.servers.catalogue import Listener, Model
from loadtests.contract import LoadResult
from loadtests.shapes import STEADY
from loadtests.sockets.codec import ENV_CODEC
from services.protocol import Address

# Seconds between two readings of the server.
_SAMPLE_SECONDS = 0.25


# Time for the generator in addition to its window: to start and stop, with its container.
_OVERHEAD_SECONDS = 60.0


@dataclass(frozen=True, slots=True)
class MeteredServer:
    """A server and its meter.

    Args:
        listeners: its addresses.
        meter: reads its CPU time and memory.
    """

    listeners: tuple[Listener, ...]
    meter: Meter


@dataclass
class MeteredServers:
    """Servers that are measured repeatedly: the engine is asked once about each, not for every measurement.

    Args:
        servers: where they run.
    """

    servers: Loadable
    _listeners: dict[str, tuple[Listener, ...]] = field(default_factory=dict)
    _known: dict[str, MeteredServer] = field(default_factory=dict)

    def open(self, names: Sequence[str]) -> dict[str, MeteredServer]:
        """Return these servers, with open meters.

        Raises:
            LabError: one of them does not run.
        """
        for name in names:
            known = self._known.get(name)
            # The meter of a server that has ended or was restarted returns an empty sample.
            if known is None or known.meter.read() == Sample():
                if known or name not in self._listeners:
                    self._listeners = _list_listeners(self.servers)
                if name not in self._listeners:
                    raise LabError(f"{name} is not running; start it with: lab up {name}")
                self._known[name] = MeteredServer(self._listeners[name], self.servers.meter(name))
        return {name: self._known[name] for name in names}


def _list_listeners(servers: Loadable) -> dict[str, tuple[Listener, ...]]:
    found: dict[str, tuple[Listener, ...]] = {}
    for item in servers.targets():
        found[item.model] = (*found.get(item.model, ()), item)
    return found


class Means(TypedDict, total=False):
    """The optional means of a measurement; see `measure_together`."""

    codec: Path | None
    workers: int
    pinning: Pinning | None
    generator: PersistentGenerator | None
    servers: MeteredServers | None


def measure(backend: Loadable, model: Model, load: Preset, **means: Unpack[Means]) -> Measurement:
    """Measure one running model; see `measure_together`."""
    return measure_together(backend, [model], load, **means)[0]


def measure_together(
    backend: Loadable,
    models: Sequence[Model],
    load: Preset,
    *,
    codec: Path | None = None,
    workers: int = 0,
    pinning: Pinning | None = None,
    generator: PersistentGenerator | None = None,
    servers: MeteredServers | None = None,
) -> list[Measurement]:
    """Measure running models at the same time from one generator: for loads that need little CPU.

    Args:
        load: each model gets it.
        codec: a Python file that makes and checks the exchanges, see docs/adding-a-server.md.
        workers: number of processes that generate the load; 0 for Locust without a master.
        pinning: the cores that the models are pinned to (see `lab.load.cores.pin_servers`), and those of the generator.
        generator: a running generator to use, without `workers`; default: start one.
        servers: the servers of this backend, if their meters are open already.

    Raises:
        LabError: a model does not run, or the generator gave no result; the message has the end of its output.
    """
    names = [model.name for model in models]
    found = (servers or MeteredServers(backend)).open(names)
    meters = {name: server.meter for name, server in found.items()}
    # A shape starts with the load, so the window does too.
    warm_up = load.spec.warm_up if load.spec.shape == STEADY else 0.0
    spec = replace(load.spec, models=tuple(names), warm_up=warm_up)
    arguments = ["--headless", "--only-summary", "--loglevel", "ERROR", *spec.to_arguments()]

    environ = {ENV_TARGETS: encode_targets([item for server in found.values() for item in server.listeners])}
    if codec:
        environ[ENV_CODEC] = str(codec.resolve())
    if pinning:
        environ[ENV_GENERATOR_CORES] = encode_cores(pinning.generator)
    before, other_connections = _read(meters), _count_other_connections(backend, found)
    started = time.monotonic()
    with _watch(meters, started) as seen:
        expected = warm_up + load.duration
        limit = expected + _OVERHEAD_SECONDS
        if generator:
            finished = generator.run(arguments, environ=environ, timeout=limit, expected=expected)
        else:
            finished = run_generator(backend.helpers, arguments, workers=workers, environ=environ, timeout=limit)
    after = _read(meters)
    other_connections = {
        name: max(count, other_connections[name]) for name, count in _count_other_connections(backend, found).items()
    }
    results = _parse(finished, names)
    return [
        _combine(
            backend.name,
            load,
            model,
            results[model.name],
            Readings(
                before[model.name],
                after[model.name],
                seen[model.name],
                warm_up,
                started,
                getattr(meters[model.name], "reason", ""),
                other_connections[model.name],
            ),
            pinning,
        )
        for model in models
    ]


def _read(meters: Mapping[str, Meter]) -> dict[str, Sample]:
    return {name: meter.read() for name, meter in meters.items()}


def _count_other_connections(backend: Loadable, servers: Mapping[str, MeteredServer]) -> dict[str, int]:
    """Count the connections of each server before or after the load: they belong to other clients."""
    found = {}
    for name, server in servers.items():
        # A container has its own network namespace. Without access to it, no connections are counted.
        pid = server.meter.pid if backend.in_containers else None
        found[name] = count_connections((Address.parse(item.address) for item in server.listeners), pid=pid)
    return found


@dataclass(frozen=True, slots=True)
class TimedSample:
    """A reading under load.

    Args:
        seconds: since the start of the load.
        sample: from the meter.
        descriptors: open descriptors of the server.
    """

    seconds: float
    sample: Sample
    descriptors: int | None


@dataclass(frozen=True, slots=True)
class Readings:
    """What was read of one server.

    Args:
        before, after: the whole load, with its warm-up.
        seen: readings under load.
        warm_up: its seconds.
        started: the start of the load, of this machine's CLOCK_MONOTONIC in seconds.
        unknown: why the server could not be read; empty if it could, or there is no reason.
        other_connections: connections of other clients.
    """

    before: Sample
    after: Sample
    seen: Sequence[TimedSample]
    warm_up: float
    started: float
    unknown: str = ""
    other_connections: int = 0


@contextlib.contextmanager
def _watch(meters: Mapping[str, Meter], started: float) -> Iterator[dict[str, list[TimedSample]]]:
    """Collect readings of the servers while the block runs."""
    seen: dict[str, list[TimedSample]] = {name: [] for name in meters}
    done = threading.Event()

    def watch() -> None:
        while not done.wait(_SAMPLE_SECONDS):
            for name, meter in meters.items():
                seen[name].append(TimedSample(time.monotonic() - started, meter.read(), meter.count_descriptors()))

    thread = threading.Thread(target=watch, name="meter")
    thread.start()
    try:
        yield seen
    finally:
        done.set()
        thread.join()


def _parse(finished: Completed, models: Sequence[str]) -> dict[str, LoadResult]:
    results = {result.model: result for result in LoadResult.find_all(finished.stdout)}
    if missing := [model for model in models if model not in results]:
        said = " / ".join(last_lines(finished.stdout + "\n" + finished.stderr, 3)) or "nothing"
        raise LabError(
            f"the load generator gave no result for {', '.join(missing)} (exit code {finished.returncode}); "
            f"its output ends with: {said}"
        )
    return results


def _combine(
    backend: str,
    preset: Preset,
    model: Model,
    load: LoadResult,
    readings: Readings,
    pinning: Pinning | None,
) -> Measurement:
    if readings.other_connections:
        said = f"the server had {readings.other_connections} connections of other clients before or after the load"
        load = replace(load, disturbances=(*load.disturbances, said))
    server = _describe_use(load, readings, allotted_cores(model, load.cores, pinning))
    own = None if pinning is None else find_core_use(pinning, load)
    verdict = find_limit(load, server, rests=preset.workload.rests, own=own)
    return Measurement(model.family, model.summary, backend, preset.name, load, server, verdict)


def _describe_use(load: LoadResult, readings: Readings, allotted: int | None) -> ServerUse:
    before, after, seen = readings.before, readings.after, readings.seen
    requests = load.answered_in_all * load.depth

    def per_request(start: float | None, end: float | None) -> float | None:
        # Less than before: it is another process, or it has children that are not reaped yet.
        return None if start is None or end is None or end < start or not requests else (end - start) / requests

    # A zero reading means that the time was charged to children that are not reaped yet: treat it as unknown.
    cpu_us = (per_request(before.cpu_seconds, after.cpu_seconds) or 0.0) * 1e6 or None
    user = per_request(before.user_seconds, after.user_seconds)
    system = per_request(before.system_seconds, after.system_seconds)
    throttled = None
    if before.throttled_seconds is not None and after.throttled_seconds is not None:
        # Of the whole load with its warm-up: the server's readings have no window.
        throttled = (after.throttled_seconds - before.throttled_seconds) / (readings.warm_up + load.seconds)
    samples = [*(item.sample for item in seen), after]
    return ServerUse(
        cpu_us=cpu_us,
        user_us=None if user is None else user * 1e6,
        system_us=None if system is None else system * 1e6,
        cores=None if cpu_us is None else cpu_us * load.rate / 1e6,
        allotted=allotted,
        throttled=throttled,
        memory_bytes=_most(item.memory_bytes for item in samples),
        threads=_most(item.threads for item in samples),
        processes=_most(item.processes for item in samples),
        descriptors=_most(item.descriptors for item in seen),
        peak_bytes=_most(item.peak_bytes for item in samples),
        switches=per_request(before.switches, after.switches),
        series=tuple(
            (
                round(item.seconds, 3),
                item.sample.cpu_seconds,
                item.sample.memory_bytes,
                item.sample.processes,
                item.sample.threads,
                item.descriptors,
            )
            for item in seen
        ),
        window_begin=None if load.began is None else round(load.began - readings.started, 3),
        unknown=readings.unknown,
    )


def _most(values: Iterable[int | None]) -> int | None:
    return max((value for value in values if value is not None), default=None)
