"""What the servers use and when they were broken, told to the load generator while it runs.

Strategy: Locust's page is to show the servers' CPU and memory, and its process cannot read them: it runs in a container
that sees nothing of the others. The engine's socket would let it, and would let it do anything else as root, so it
never gets that. The process that started it reads the meters, as for a measurement, and writes a line of JSON every
second to its stdin: a pipe between two processes needs no port, no token and no place in a volume, nobody else can
write to it, and it ends with either of them.
"""

import contextlib
import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import fields
from datetime import UTC, datetime
from typing import IO, Any

from lab.load.measure import open_meter
from lab.load.messages import Fault, Usage, encode
from lab.load.timeline import read
from lab.metrics.sample import Meter, Sample

# Between two readings. Locust's page asks every other second.
_SECONDS = 1.0


class Gauges:
    """Reads servers again and again. One that was restarted is found again.

    Args:
        backend: where they run.
        models: their names.
    """

    def __init__(self, backend: Any, models: Sequence[str]) -> None:
        self._backend = backend
        self._meters: dict[str, Meter] = {model: open_meter(backend, model) for model in models}
        self._last: dict[str, tuple[float, float]] = {}

    def read(self) -> list[Usage]:
        """Read them all now; the CPU is that since the last time."""
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
                # Children of a process that nobody has waited for yet leave its account, and come back.
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


def list_faults(project: str, since: datetime) -> list[Fault]:
    """What was done to a lab's models since then."""
    names = [item.name for item in fields(Fault)]
    return [Fault(**{name: str(stamp.get(name, "")) for name in names}) for stamp in read(project, since)]


@contextlib.contextmanager
def feed(backend: Any, models: Sequence[str], pipe: IO[bytes]) -> Iterator[None]:
    """Write what the models use to a generator's stdin, a line every second, while the block runs."""
    done = threading.Event()
    since = datetime.now(UTC)

    def write() -> None:
        gauges = Gauges(backend, models)
        # Whoever reads it may have ended before us.
        with contextlib.suppress(BrokenPipeError):
            while not done.wait(_SECONDS):
                pipe.write(encode(gauges.read(), list_faults(backend.project, since)))
                pipe.flush()

    # A generator that is stopped in a debugger lets the pipe fill up; nobody has to wait for that.
    thread = threading.Thread(target=write, name="feed", daemon=True)
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join(2 * _SECONDS)
