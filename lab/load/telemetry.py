"""Telemetry for the load generator: what the servers use and when faults were injected.

Strategy: Locust's page shows the servers' CPU and memory, but Locust's process cannot read them: its container sees no
other container, and it must not get the Docker socket, which would make it root on this machine. So the process that
started Locust reads the meters and writes a line of JSON every second to Locust's stdin. A pipe between two processes
needs no port, token or volume, no other process can write to it, and it ends with either process.
"""

import contextlib
import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import fields
from datetime import UTC, datetime
from typing import IO, Any

from lab.load.measure import open_meter
from lab.load.messages import FaultInterval, Usage, encode_telemetry
from lab.load.timeline import read
from lab.metrics.sample import Meter, Sample

# Between two readings. Locust's page reloads every two seconds.
_SECONDS = 1.0


class UsageReader:
    """Reads what servers use, again and again; also after a server was restarted.

    Args:
        backend: where they run.
        models: their names.
    """

    def __init__(self, backend: Any, models: Sequence[str]) -> None:
        self._backend = backend
        self._meters: dict[str, Meter] = {model: open_meter(backend, model) for model in models}
        self._last: dict[str, tuple[float, float]] = {}

    def read(self) -> list[Usage]:
        """Read all servers now; the CPU is that since the last call."""
        return [self._read(model) for model in self._meters]

    def _read(self, model: str) -> Usage:
        sample = self._meters[model].read()
        if sample == Sample():
            self._last.pop(model, None)
            self._meters[model] = open_meter(self._backend, model)
            return Usage(model)
        cores = None
        if sample.cpu_seconds is not None:
            now = time.monotonic()
            if last := self._last.get(model):
                # CPU seconds fall while an ended child is not yet reaped, and rise again when it is.
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


def list_faults(project: str, since: datetime) -> list[FaultInterval]:
    """Return the faults of a lab's models that began, or ended, after `since`."""
    names = [item.name for item in fields(FaultInterval)]
    return [FaultInterval(**{name: str(stamp.get(name, "")) for name in names}) for stamp in read(project, since)]


@contextlib.contextmanager
def send_telemetry(backend: Any, models: Sequence[str], pipe: IO[bytes]) -> Iterator[None]:
    """Write a line to a generator's stdin every second while the block runs."""
    done = threading.Event()
    since = datetime.now(UTC)

    def write() -> None:
        reader = UsageReader(backend, models)
        # The generator may end first.
        with contextlib.suppress(BrokenPipeError):
            while not done.wait(_SECONDS):
                pipe.write(encode_telemetry(reader.read(), list_faults(backend.project, since)))
                pipe.flush()

    # A daemon: a generator that is stopped in a debugger lets the pipe fill up, and must not block our exit.
    thread = threading.Thread(target=write, name="telemetry", daemon=True)
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join(2 * _SECONDS)
