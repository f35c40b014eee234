"""Measure models: load them, read the resource usage of both sides, and find the verdict."""

import contextlib
import json
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from lab.base.environ import ENV_GENERATOR_CORES, ENV_TARGETS
from lab.base.errors import LabError
from lab.base.units import encode_cores
from lab.load.cores import Pinning, allotted_cores
from lab.load.generator import PersistentGenerator, run_generator
from lab.load.measurement import Measurement, encode_targets
from lab.load.presets import Preset
from lab.load.workloads import STEADY
from lab.metrics.sample import Meter, Sample
from lab.metrics.socket_owner import count_connections
from lab.metrics.verdict import LimitInputs, find_limit, in_flight
from lab.servers.backend import Completed, Loadable
from lab.servers.catalogue import Listener, Model
from loadtests.sockets.codec import ENV_CODEC
from services.protocol import Address

# The prefix of the generator's result. loadtests/window.py cannot be imported here: it imports Locust.
_MARKER = "LOAD-RESULT "


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


def measure(
    backend: Loadable,
    model: Model,
    load: Preset,
    *,
    codec: Path | None = None,
    workers: int = 0,
    pinning: Pinning | None = None,
    generator: PersistentGenerator | None = None,
    servers: MeteredServers | None = None,
) -> Measurement:
    """Measure one running model; see `measure_together`."""
    return measure_together(
        backend,
        [model],
        load,
        codec=codec,
        workers=workers,
        pinning=pinning,
        generator=generator,
        servers=servers,
    )[0]


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
        backend: where they run.
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
    with _watch(meters) as seen:
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
            before[model.name],
            after[model.name],
            seen[model.name],
            warm_up,
            pinning,
            unknown=getattr(meters[model.name], "reason", ""),
            other_connections=other_connections[model.name],
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


@contextlib.contextmanager
def _watch(meters: Mapping[str, Meter]) -> Iterator[dict[str, list[TimedSample]]]:
    """Collect readings of the servers while the block runs."""
    seen: dict[str, list[TimedSample]] = {name: [] for name in meters}
    done = threading.Event()
    started = time.monotonic()

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


def _parse(finished: Completed, models: Sequence[str]) -> dict[str, dict[str, Any]]:
    stdout = finished.stdout
    results = {}
    for line in stdout.splitlines():
        # Anywhere in the line: progress output of a terminal may precede it.
        _, marker, text = line.partition(_MARKER)
        if marker:
            with contextlib.suppress(ValueError, KeyError):
                result = json.loads(text)
                results[result["model"]] = result
    if missing := [model for model in models if model not in results]:
        last = [line for line in (stdout + "\n" + finished.stderr).splitlines() if line.strip()][-3:]
        said = " / ".join(last) or "nothing"
        raise LabError(
            f"the load generator gave no result for {', '.join(missing)} (exit code {finished.returncode}); "
            f"its output ends with: {said}"
        )
    return results


def _combine(
    backend: str,
    preset: Preset,
    model: Model,
    result: dict[str, Any],
    before: Sample,
    after: Sample,
    seen: Sequence[TimedSample],
    warm_up: float,
    pinning: Pinning | None,
    *,
    unknown: str = "",
    other_connections: int = 0,
) -> Measurement:
    disturbances = tuple(result["disturbances"])
    if other_connections:
        disturbances += (f"the server had {other_connections} connections of other clients before or after the load",)
    seconds, answered, depth = result["seconds"], result["answered"], result["depth"]
    service = tuple((value, count) for value, count in result["service"])
    intended = result["intended"]
    timed = sum(count for _, count in service)
    requests = result["answered_in_all"] * depth

    def per_request(name: str) -> float | None:
        start, end = getattr(before, name), getattr(after, name)
        # Less than before: it is another process, or it has children that are not reaped yet.
        return None if start is None or end is None or end < start or not requests else (end - start) / requests

    # A zero reading means that the time was charged to children that are not reaped yet: treat it as unknown.
    server_cpu_us = (per_request("cpu_seconds") or 0.0) * 1e6 or None
    user, system = per_request("user_seconds"), per_request("system_seconds")
    allotted = allotted_cores(model, result["cores"], pinning)
    throttled = None
    if before.throttled_seconds is not None and after.throttled_seconds is not None:
        # Of the whole load with its warm-up: the server's readings have no window.
        throttled = (after.throttled_seconds - before.throttled_seconds) / (warm_up + seconds)
    generator_throttled = None if result["generator_throttled"] is None else result["generator_throttled"] / seconds
    server_cores = None if server_cpu_us is None else server_cpu_us * answered * depth / seconds / 1e6
    inputs = LimitInputs(
        users=result["users"],
        starved=result["starved"],
        exchanges_per_second=timed / seconds,
        mean_seconds=None if result["mean_us"] is None else result["mean_us"] / 1e6,
        answered=answered,
        server_cores=server_cores,
        server_allotted=allotted,
        generator_cores=result["generator_cpu"] / seconds,
        generators=result["generators"],
        asked=result["asked"],
        dropped=result["dropped"],
        rests=preset.workload.rests,
        machine_cores=None if result["machine_cpu"] is None else result["machine_cpu"] / seconds,
        cores=result["cores"],
        late=result["late"],
        server_throttled=throttled,
        generator_throttled=generator_throttled,
        failures=result["failures"],
        warm_up_failures=result["warm_up_failures"],
        disturbances=disturbances,
        server_unknown=unknown,
    )
    samples = [*(item.sample for item in seen), after]

    def most(name: str) -> int | None:
        return max((value for item in samples if (value := getattr(item, name)) is not None), default=None)

    return Measurement(
        model=model.name,
        family=model.family,
        summary=model.summary,
        backend=backend,
        workload=preset.name,
        users=round(result["users"]),
        depth=depth,
        seconds=seconds,
        answered=answered,
        failures=result["failures"],
        histogram=service if intended is None else tuple((value, count) for value, count in intended),
        mean_us=result["mean_us"],
        min_us=result["min_us"],
        max_us=result["max_us"],
        starved=result["starved"],
        in_flight=in_flight(inputs),
        server_cpu_us=server_cpu_us,
        server_cores=server_cores,
        generator_cores=inputs.generator_cores,
        machine_cores=inputs.machine_cores,
        cores=inputs.cores,
        memory_bytes=most("memory_bytes"),
        threads=most("threads"),
        versions=result["versions"],
        verdict=find_limit(inputs),
        transport=result["transport"],
        service=None if intended is None else service,
        asked_rate=None if result["asked"] is None else result["asked"] * depth / seconds,
        late=result["late"],
        dropped=result["dropped"],
        lost=result["lost"],
        duplicates=result["duplicates"],
        reordered=result["reordered"],
        server_user_us=None if user is None else user * 1e6,
        server_system_us=None if system is None else system * 1e6,
        processes=most("processes"),
        descriptors=max((item.descriptors for item in seen if item.descriptors is not None), default=None),
        peak_bytes=most("peak_bytes"),
        switches=per_request("switches"),
        server_throttled=throttled,
        generator_throttled=generator_throttled,
        allotted=allotted,
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
        warm_up_failures=result["warm_up_failures"],
        disturbances=disturbances,
        server_unknown=unknown,
    )
