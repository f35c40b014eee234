"""Faults of one model that runs as processes: signals, pauses, and a share of the time."""

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Protocol

import psutil

from lab.base.errors import LabError
from lab.base.paths import ROOT
from lab.servers import throttle
from lab.servers.backend import ContainerControls
from lab.servers.children import STOP_SECONDS, close_child, open_child
from lab.servers.process_helpers import ProcessHelpers
from lab.servers.throttle import signal_all

_POLL_SECONDS = 0.01


class MainProcesses(Protocol):
    """Finds the main processes of models."""

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
    """See `lab.servers.backend.FaultControls`.

    Args:
        directory: of the project, for the logs of what throttles its models.
    """

    recovery_seconds = 1.0
    container: ContainerControls | None = None

    def __init__(self, processes: MainProcesses, helpers: ProcessHelpers, directory: Path) -> None:
        self._processes = processes
        self._helpers = helpers
        self._directory = directory
        self._throttles: dict[str, subprocess.Popen[bytes]] = {}

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
            raise LabError(f"{model}: {(done.stderr.strip() or done.stdout).splitlines()[-1]}")
        return done.stdout

    def limit_cpu(self, model: str, cores: float | None) -> None:
        if before := self._throttles.pop(model, None):
            close_child(before)
            self.unpause(model)  # in case it was killed before it could do so itself
        if cores is None:
            return
        command = [sys.executable, "-m", throttle.__name__, str(self._processes.pid(model)), f"{cores}"]
        log = self._directory / f"{model}.throttle"
        log.unlink(missing_ok=True)
        self._throttles[model] = process = open_child(command, environ=self._helpers.environ(), log=log, cwd=ROOT)
        while not log.read_text():
            if process.poll() is not None:
                raise LabError(f"{model}: the process that throttles it ended with exit code {process.returncode}")
            time.sleep(_POLL_SECONDS)

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
