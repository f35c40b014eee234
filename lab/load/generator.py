"""Start the load generator: Locust alone, or a master with workers to use more than one core.

A master generates no load itself. Each worker is a separate process (a container with the docker backend), so that N
workers use N cores. A run begins when all workers have joined. A worker that does not join is named, with the end of
its log.
"""

import contextlib
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType

from lab.base.environ import ENV_LIFELINE
from lab.base.errors import LabError
from lab.load.messages import Joined, LoadEnded, RunLoad
from lab.servers.backend import Completed, Helpers
from lab.servers.helper import Helper

# Time for a worker to join. It takes a second on an idle machine, mostly for Python's imports.
_JOIN_SECONDS = 60.0

# Each generator ends with the lab that started it.
_LIFELINE = {ENV_LIFELINE: "stdin"}

# Locust's default.
_MASTER_PORT = 5557

_PAUSE = 0.1


@dataclass
class Generator:
    """A running load generator.

    Args:
        main: Locust, or the master.
        workers: of the master.
    """

    main: Helper
    workers: Sequence[Helper] = ()
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
                    print(f"lab: {worker.name} ended during the run: {worker.describe_end()}", file=sys.stderr)
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
    worker_arguments: Sequence[str] = (),
    join_seconds: float = _JOIN_SECONDS,
) -> Iterator[Generator]:
    """Start Locust, enter the block when all workers have joined, and end all processes after it.

    Args:
        arguments: of Locust, or of its master.
        workers: their number; 0 for Locust without a master.
        environ: for all processes.
        own: for Locust or its master only.
        publish: publish the web UI's port.
        worker_arguments: of Locust, for each worker: those that a master does not pass on.

    Raises:
        LabError: a worker did not join, or the master ended first.
    """
    with contextlib.ExitStack() as stack:

        def start_main(arguments: Sequence[str]) -> Helper:
            everything = {**environ, **own, **_LIFELINE}
            name = "the load generator" + ("'s master" if workers else "")
            return stack.enter_context(
                helpers.start_service(name, "locust", arguments, environ=everything, publish=publish)
            )

        if not workers:
            yield Generator(start_main(arguments))
            return
        host, port = helpers.choose_bind(_MASTER_PORT)
        bound = [f"--master-bind-host={host}", "--master-bind-port", str(port)]
        # Only a headless Locust waits for its workers; with the web UI a run could begin without them.
        expected = ["--expect-workers", str(workers)]
        main = start_main([*arguments, "--master", *bound, *expected])
        joining = [*worker_arguments, "--worker", "--master-host", main.host, "--master-port", str(port)]
        # Failed exchanges are a result of the run, not an error of a worker.
        joining += ["--exit-code-on-error", "0"]
        started = [
            stack.enter_context(
                helpers.start_service(
                    f"worker {number} of {workers}", "locust_worker", joining, environ={**environ, **_LIFELINE}
                )
            )
            for number in range(1, workers + 1)
        ]
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
    _helper: Helper | None = None

    def __enter__(self) -> "PersistentGenerator":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def host(self) -> str | None:
        """Return its host name in the lab's network; None if it is not running."""
        return self._helper.host if self._helper else None

    def close(self) -> None:
        """End the generator. The next load starts a new one."""
        self._helper = None
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
        helper = self._helper or self._start()
        helper.tell(RunLoad(tuple(arguments), {**environ, **_LIFELINE}))
        try:
            ended = helper.wait_for(LoadEnded, timeout, expected=expected)
        except LabError:
            self.close()
            raise
        return Completed(["locust", *arguments], ended.exit_code, "\n".join(helper.take_lines()), "")

    def _start(self) -> Helper:
        started = self.helpers.start_service("the load generator", "locust_persistent", environ=_LIFELINE)
        self._helper = self._stack.enter_context(started)
        return self._helper


def run_generator(
    helpers: Helpers,
    arguments: Sequence[str],
    *,
    workers: int,
    environ: Mapping[str, str],
    timeout: float,
    worker_arguments: Sequence[str] = (),
) -> Completed:
    """Run a headless load to its end.

    Args:
        workers: their number; 0 for Locust without a master.
        timeout: seconds after the workers have joined.
        worker_arguments: see `open_generator`.

    Returns:
        With workers, `stdout` is all output of the master.

    Raises:
        LabError: a worker did not join, or the load timed out.
    """
    if not workers:
        return helpers.run_service("locust", arguments, environ={**environ, **_LIFELINE}, capture=True, timeout=timeout)
    with open_generator(
        helpers, arguments, workers=workers, environ=environ, worker_arguments=worker_arguments
    ) as generator:
        code = generator.wait(timeout)
        return Completed(["locust", *arguments], code, generator.main.output(), "")


def _wait_joined(main: Helper, workers: Sequence[Helper], timeout: float) -> None:
    deadline = time.monotonic() + timeout
    waiting = list(workers)
    while True:
        for worker in list(waiting):
            has_ended = worker.process.poll() is not None
            if worker.take(Joined):
                waiting.remove(worker)
            elif has_ended:
                raise LabError(f"{worker.name} did not join its master: {worker.describe_end()}")
        if not waiting:
            return
        if main.process.poll() is not None:
            raise LabError(f"{main.name} ended before its workers had joined: {main.describe_end()}")
        if time.monotonic() > deadline:
            late = waiting[0]
            raise LabError(f"{late.name} did not join its master within {timeout:g} s{late.describe_output()}")
        time.sleep(_PAUSE)
