"""Faults of one model that runs as processes: signals, pauses, and a share of the time."""

import contextlib
import os
import signal
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from typing import Protocol

import psutil

from lab.base.errors import LabError, last_line
from lab.servers import throttle
from lab.servers.backend import ContainerControls, Helpers
from lab.servers.children import STOP_SECONDS
from lab.servers.throttle import Throttling, signal_all

_POLL_SECONDS = 0.01


class MainProcesses(Protocol):
    def pid(self, model: str) -> int:
        """Return the pid of a model's main process.

        Raises:
            LabError: it is not running.
        """
        ...

    def is_running(self, model: str) -> bool:
        """Return whether it runs; false once its exit code is written."""
        ...


class ProcessFaults:
    """See `lab.servers.backend.FaultControls`."""

    recovery_seconds = 1.0
    container: ContainerControls | None = None

    def __init__(self, processes: MainProcesses, helpers: Helpers) -> None:
        self._processes = processes
        self._helpers = helpers
        self._throttles: dict[str, ExitStack] = {}

    def kill(self, model: str, number: int) -> None:
        with self._unless_ended(model):
            os.kill(self._processes.pid(model), number)

    def pause(self, model: str) -> None:
        with self._unless_ended(model):
            signal_all(self._processes.pid(model), signal.SIGSTOP)

    def unpause(self, model: str) -> None:
        with self._unless_ended(model):
            signal_all(self._processes.pid(model), signal.SIGCONT)

    def run_beside(self, model: str, script: str, arguments: Sequence[str] = ()) -> str:
        command = ["python", "-c", script, str(self._processes.pid(model)), *arguments]
        done = self._helpers.run(command, capture=True)
        if done.returncode:
            raise LabError(f"{model}: {last_line(done.stderr.strip() or done.stdout, 'no output')}")
        return done.stdout

    def limit_cpu(self, model: str, cores: float | None) -> None:
        if before := self._throttles.pop(model, None):
            before.close()
            self.unpause(model)  # in case it was killed before it could do so itself
        if cores is None:
            return
        command = ["python", "-m", throttle.__name__, str(self._processes.pid(model)), f"{cores}"]
        with ExitStack() as stack:
            helper = stack.enter_context(self._helpers.start(f"the process that throttles {model}", command))
            helper.wait_for(Throttling, STOP_SECONDS)
            self._throttles[model] = stack.pop_all()

    @contextlib.contextmanager
    def _unless_ended(self, model: str) -> Iterator[None]:
        """Turn the error of a signal to an ended process into that of a model that is not running.

        Raises:
            LabError: it has ended, and its exit code has been written.
        """
        try:
            yield
        except (psutil.NoSuchProcess, ProcessLookupError):
            deadline = time.monotonic() + STOP_SECONDS
            while self._processes.is_running(model) and time.monotonic() < deadline:
                time.sleep(_POLL_SECONDS)  # its shell writes the exit code now
            raise LabError(f"{model} has just ended: `lab up {model}`") from None
