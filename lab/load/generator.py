"""Start the load generator: Locust alone, or a master with workers to use more than one core.

A master generates no load itself. Each worker is a separate process (a container with the docker backend), so that N
workers use N cores. A run begins when all workers have joined. A worker that does not join is named, with the end of
its log.
"""

import contextlib
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType

from lab.base.environ import ENV_LIFELINE
from lab.base.errors import LabError
from lab.servers.backend import Completed, Helpers, Instrument
from loadtests.contract import ENDED, JOINED

# Time for a worker to join. It takes a second on an idle machine, mostly for Python's imports.
_JOIN_SECONDS = 60.0

# Each generator ends with the lab that started it.
_LIFELINE = {ENV_LIFELINE: "stdin"}

# Locust's default.
_MASTER_PORT = 5557

_PAUSE = 0.1
_SHORT_PAUSE = 0.02
_LAST_LINES = 10


@dataclass
class Generator:
    """A running load generator.

    Args:
        main: Locust, or the master.
        workers: of the master.
    """

    main: Instrument
    workers: Sequence[Instrument] = ()
    _ended: set[int] = field(default_factory=set)

    def wait(self, timeout: float | None = None, meanwhile: Callable[[], object] = lambda: None) -> int:
        """Wait for the end of the load; report workers that end early.

        Args:
            timeout: seconds.
            meanwhile: called repeatedly.

        Returns:
            The exit code of Locust, or of the master.

        Raises:
            LabError: it took too long.
        """
        deadline = None if timeout is None else time.monotonic() + timeout
        while True:
            with contextlib.suppress(subprocess.TimeoutExpired):
                return self.main.process.wait(_PAUSE)
            meanwhile()
            for number, worker in enumerate(self.workers, 1):
                # Exit code 0: its master told it to end.
                if worker.process.poll() and number not in self._ended:
                    self._ended.add(number)
                    print(
                        f"lab: {_name(number, self.workers)} ended during the run: {_last_words(worker)}",
                        file=sys.stderr,
                    )
            if deadline is not None and time.monotonic() > deadline:
                raise LabError(f"the load generator took longer than {timeout:g} s and was ended")


@contextlib.contextmanager
def open_generator(
    helpers: Helpers,
    arguments: Sequence[str],
    *,
    workers: int,
    environ: Mapping[str, str],
    own: Mapping[str, str] = MappingProxyType({}),
    publish: bool = False,
    capture: bool = False,
    join_seconds: float = _JOIN_SECONDS,
) -> Iterator[Generator]:
    """Start Locust, enter the block when all workers have joined, and end all processes after it.

    Args:
        helpers: where to run.
        arguments: of Locust, or of its master.
        workers: their number; 0 for Locust without a master.
        environ: for all processes.
        own: for Locust or its master only.
        publish: publish the web UI's port.
        capture: keep the output of the master, for `Instrument.output`.

    Raises:
        LabError: a worker did not join, or the master ended first.
    """
    with contextlib.ExitStack() as stack:

        def start(service: str, more: Sequence[str], *, is_logged: bool, publish: bool = False) -> Instrument:
            opened = helpers.start_service(
                service,
                more,
                environ={**environ, **(own if service == "locust" else {}), **_LIFELINE},
                publish=publish,
                log=stack.enter_context(_open_log()) if is_logged else None,
            )
            return stack.enter_context(opened)

        if not workers:
            yield Generator(start("locust", arguments, is_logged=capture, publish=publish))
            return
        host, port = helpers.choose_bind(_MASTER_PORT)
        bound = [f"--master-bind-host={host}", "--master-bind-port", str(port)]
        # Only a headless Locust waits for its workers; with the web UI a run could begin without them.
        expected = ["--expect-workers", str(workers)]
        main = start("locust", [*arguments, "--master", *bound, *expected], is_logged=capture, publish=publish)
        joining = ["--worker", "--master-host", main.host, "--master-port", str(port)]
        # Failed exchanges are a result of the run, not an error of a worker.
        joining += ["--exit-code-on-error", "0"]
        started = [start("locust_worker", joining, is_logged=True) for _ in range(workers)]
        _wait_joined(main, started, join_seconds)
        yield Generator(main, started)


@dataclass
class PersistentGenerator:
    """A load generator that keeps running between loads: starting a load takes 0.3 s instead of 2 to 4 s.

    Each load is still a separate process. If one times out, the generator is ended, and the next load starts a new one.

    Args:
        helpers: where to run.
    """

    helpers: Helpers
    _stack: contextlib.ExitStack = field(default_factory=contextlib.ExitStack)
    _instrument: Instrument | None = None
    _read: int = 0

    def __enter__(self) -> "PersistentGenerator":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def host(self) -> str | None:
        """Return its host name in the lab's network; None if it is not running."""
        return self._instrument.host if self._instrument else None

    def close(self) -> None:
        """End the generator. The next load starts a new one."""
        self._instrument = None
        self._stack.close()

    def run(
        self, arguments: Sequence[str], *, environ: Mapping[str, str], timeout: float, expected: float = 0.0
    ) -> Completed:
        """Run a headless load to its end.

        Args:
            timeout: seconds.
            expected: the least number of seconds that it takes; until then the output is read less often.

        Raises:
            LabError: the load timed out, or the generator ended during it.
        """
        instrument = self._instrument or self._start()
        order = json.dumps({"arguments": list(arguments), "environ": {**environ, **_LIFELINE}})
        stdin = instrument.process.stdin
        assert stdin is not None  # noqa: S101 - for mypy: `open_child` opens it
        with contextlib.suppress(BrokenPipeError):  # it has ended, which is reported below with the end of its log
            stdin.write(f"{order}\n".encode())
            stdin.flush()
        begun = time.monotonic()
        while True:
            output, marker, code = self._said(instrument).partition(ENDED)
            if marker and code.endswith("\n"):
                self._read += len(f"{output}{marker}{code}".encode())
                return Completed(["locust", *arguments], int(code), output, "")
            if instrument.process.poll() is not None:
                words = _last_words(instrument)
                self.close()
                raise LabError(f"the load generator ended: {words}")
            passed = time.monotonic() - begun
            if passed > timeout:
                self.close()
                raise LabError(f"the load generator took longer than {timeout:g} s and was ended")
            time.sleep(_SHORT_PAUSE if passed > expected else _PAUSE)

    def _said(self, instrument: Instrument) -> str:
        """Return the output since the last load. After hundreds of loads, the whole log would be too long to read."""
        assert instrument.log is not None  # noqa: S101 - for mypy: it is started with one
        with instrument.log.open("rb") as log:
            log.seek(self._read)
            return log.read().decode()

    def _start(self) -> Instrument:
        started = self.helpers.start_service(
            "locust_persistent", environ=_LIFELINE, log=self._stack.enter_context(_open_log())
        )
        self._instrument, self._read = self._stack.enter_context(started), 0
        return self._instrument


def run_generator(
    helpers: Helpers, arguments: Sequence[str], *, workers: int, environ: Mapping[str, str], timeout: float
) -> Completed:
    """Run a headless load to its end.

    Args:
        workers: their number; 0 for Locust without a master.
        timeout: seconds after the workers have joined.

    Raises:
        LabError: a worker did not join, or the load timed out.
    """
    if not workers:
        return helpers.run_service("locust", arguments, environ={**environ, **_LIFELINE}, capture=True, timeout=timeout)
    with open_generator(helpers, arguments, workers=workers, environ=environ, capture=True) as generator:
        code = generator.wait(timeout)
        return Completed(["locust", *arguments], code, generator.main.output(), "")


@contextlib.contextmanager
def _open_log() -> Iterator[Path]:
    """Open a file without a name, which disappears with this process; yield a path that opens it until then."""
    with tempfile.TemporaryFile(prefix="socketlab-load-") as file:
        yield Path(f"/proc/{os.getpid()}/fd/{file.fileno()}")


def _wait_joined(main: Instrument, workers: Sequence[Instrument], timeout: float) -> None:
    deadline = time.monotonic() + timeout
    waiting = dict(enumerate(workers, 1))
    while True:
        for number, worker in list(waiting.items()):
            if JOINED in worker.output():
                del waiting[number]
            elif worker.process.poll() is not None:
                raise LabError(f"{_name(number, workers)} did not join its master: {_last_words(worker)}")
        if not waiting:
            return
        if main.process.poll() is not None:
            raise LabError(f"the load generator's master ended before its workers had joined: {_last_words(main)}")
        if time.monotonic() > deadline:
            number, worker = next(iter(waiting.items()))
            raise LabError(f"{_name(number, workers)} did not join its master within {timeout:g} s{_log_of(worker)}")
        time.sleep(_PAUSE)


def _name(number: int, workers: Sequence[Instrument]) -> str:
    return f"worker {number} of {len(workers)}"


def _last_words(instrument: Instrument) -> str:
    return f"exit code {instrument.process.poll()}{_log_of(instrument)}"


def _log_of(instrument: Instrument) -> str:
    if instrument.log is None:
        return ""
    lines = [line for line in instrument.output().splitlines() if line.strip()][-_LAST_LINES:]
    return "\n  ".join(["; its log ends with:", *lines]) if lines else "; its log is empty"
