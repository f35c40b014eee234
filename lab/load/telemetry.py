"""Send the resource usage of the servers, and the faults injected into them, to the running load generator.

Strategy: Locust's page shows the servers' CPU and memory, which its process cannot read: it runs in a container that
does not see the others. Docker's socket would show them, but it also gives root, so the generator does not get it.
Instead, the process that started the generator reads the meters, as for a measurement, and writes a line of JSON every
second to the generator's stdin. A pipe needs no port, no token and no volume, no third process can write to it, and it
ends with either process.
"""

import contextlib
import threading
import time
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from typing import Protocol

from lab.load.messages import Telemetry, Usage
from lab.load.timeline import read
from lab.metrics.sample import Meter, Sample
from lab.servers.backend import Metered
from lab.servers.helper import Helper

# Seconds between two readings. Locust's page asks every two seconds.
_INTERVAL = 1.0


class ProjectServers(Metered, Protocol):
    """Metered servers of a project, whose faults are recorded under its name."""

    @property
    def project(self) -> str: ...


class Gauges:
    """Read servers repeatedly; after a restart of a server, open its meter again.

    Args:
        servers: opens the meters.
        models: their names.
    """

    def __init__(self, servers: Metered, models: Sequence[str]) -> None:
        self._servers = servers
        self._meters: dict[str, Meter] = {model: servers.meter(model) for model in models}
        self._last: dict[str, tuple[float, float]] = {}

    def read(self) -> list[Usage]:
        """Read all servers; CPU usage is the mean since the last call."""
        return [self._read(model) for model in self._meters]

    def _read(self, model: str) -> Usage:
        sample = self._meters[model].read()
        if sample == Sample():
            self._last.pop(model, None)
            self._meters[model] = self._servers.meter(model)
            return Usage(model)
        cores = None
        if sample.cpu_seconds is not None:
            now = time.monotonic()
            if last := self._last.get(model):
                # The CPU time of an ended child is missing from the sum until its parent has reaped it.
                cores = max(0.0, (sample.cpu_seconds - last[1]) / (now - last[0]))
            self._last[model] = now, sample.cpu_seconds
        return Usage(
            model,
            cores,
            sample.memory_bytes,
            sample.processes,
            sample.threads,
            self._meters[model].count_descriptors(),
        )


@contextlib.contextmanager
def send_telemetry(servers: ProjectServers, models: Sequence[str], generator: Helper) -> Iterator[None]:
    """Send the usage of the models to a generator every second while the block runs."""
    done = threading.Event()
    since = datetime.now(UTC)

    def write() -> None:
        gauges = Gauges(servers, models)
        while not done.wait(_INTERVAL) and generator.process.poll() is None:
            generator.tell(Telemetry(tuple(gauges.read()), tuple(read(servers.project, since))))

    # A daemon: a generator that does not read lets the pipe fill up, and `write` would block for ever.
    thread = threading.Thread(target=write, name="telemetry", daemon=True)
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join(2 * _INTERVAL)
