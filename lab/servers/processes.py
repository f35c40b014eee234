"""Models as child processes on loopback: for machines without a Docker engine, and for tests.

Strategy: two small things do for a process what the engine and an init do for a container.

* A folder for each project, `$XDG_RUNTIME_DIR or /tmp` / socketlab-<uid> / <project>, holds all of its state. For each
  model there is the identity of its process (.json, written right after the start), its first line (.out), its log
  (.log) and, after its end, its exit code (.exit).
* A shell is the parent of each server and writes that exit code: only a parent gets it, and the lab that started the
  server may have ended. Then it kills the rest of the session, so a forking server leaves no children.

A pid alone does not identify a process; a pid with the time of the process's creation does. The environment variable
LAB_RUNTIME, which every process here inherits, finds the processes that a killed lab could not write down.
"""

import contextlib
import errno
import json
import os
import platform
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import psutil

from lab.base import interrupts
from lab.base.errors import LabError, NotReadyError, last_lines
from lab.base.paths import ROOT
from lab.base.units import show_cores
from lab.metrics.process import open_process_meter
from lab.metrics.sample import Meter, NoMeter
from lab.servers.affinity import pin_process
from lab.servers.backend import READY_SECONDS, FaultControls, Helpers, ModelState, choose_models, read_limits
from lab.servers.catalogue import GALLERY, Catalogue, GalleryServer, Listener, Model
from lab.servers.certificates import CA, SERVER, ensure_certificates
from lab.servers.children import STOP_SECONDS
from lab.servers.readiness import choose_targets, describe_silence, wait_ready
from lab.servers.runtime import ENV_RUNTIME, forget, make_private, runtime_base, runtime_directory

_POLL_SECONDS = 0.01
# How long a restart waits for a port that another program has.
_TAKEN_SECONDS = 5.0
_PATH_LIMIT = 107

# As many descriptors as a container gets, or as many as the hard limit allows. Signals end the server, not the shell.
_SUPERVISE = """
ulimit -Sn "${LAB_NOFILE:-16384}" 2>/dev/null || ulimit -Sn "$(ulimit -Hn)"
trap : TERM INT HUP
"$@"
echo $? > "$0.part" && mv "$0.part" "$0"
kill -KILL 0
"""


@dataclass(frozen=True, slots=True)
class _Record:
    """The process of a model's supervising shell, and the settings of its server: limits, and mutual TLS."""

    pid: int
    created: float
    settings: Mapping[str, str] = field(default_factory=dict)

    @property
    def is_alive(self) -> bool:
        return _is_alive(self.pid, self.created)


class Processes:
    """The lab of one project as processes. See `Backend`."""

    name = "process"
    in_containers = False

    def __init__(self, project: str, catalogue: Catalogue) -> None:
        self.project = project
        self.catalogue = catalogue
        self._directory = runtime_directory(project)
        self._children: dict[str, subprocess.Popen[bytes]] = {}

    # `lab ls` needs neither, and their imports would be a tenth of its time.

    @cached_property
    def helpers(self) -> Helpers:
        """See `Loadable.helpers`."""
        from lab.servers.process_helpers import ProcessHelpers

        return ProcessHelpers(self._directory, self.catalogue)

    @cached_property
    def faults(self) -> FaultControls:
        """See `Backend.faults`."""
        from lab.servers.process_faults import ProcessFaults

        return ProcessFaults(self, self.helpers)

    def up(
        self, models: Iterable[str | Model] = (), *, timeout: float = READY_SECONDS, mutual_tls: bool = False
    ) -> None:
        chosen = choose_models(self, models)
        if bound := [model.name for model in chosen if model.only_in_container]:
            runs = "runs" if len(bound) == 1 else "run"
            raise LabError(f"{', '.join(bound)} {runs} only in a container: use --backend docker")
        selected = [model.name for model in chosen]
        self._check_paths(selected)
        for model in selected:
            self.catalogue.check_process(model)
        is_new = not self._directory.exists()
        make_private(self._directory.parent)
        make_private(self._directory)
        started: list[str] = []
        try:
            deadline = time.monotonic() + timeout
            settings = self._choose_settings(mutual_tls=mutual_tls)
            for model in selected:
                record = _read_record(self._path(model, "json"))
                if record is None or record.settings != settings or not self.is_running(model):
                    started.append(model)
                    self._end(model)
                    self._spawn(model, self._default_listens(model), settings)
            self._wait(selected, deadline, timeout)
        except BaseException:
            # If the project is new, take down all of it, with processes that were started but not yet written down.
            if is_new:
                self.down()
            else:
                for model in started:
                    self._end(model)
            raise

    def up_gallery(self, servers: Iterable[GalleryServer], *, timeout: float = READY_SECONDS) -> None:
        raise LabError("the servers of the gallery run only in containers: use --backend docker")

    def down(self) -> None:
        by_hand = f"lab --backend process --project {self.project} down"
        with interrupts.uninterrupted(f"taking {self.project} down", by_hand):
            self._down()

    def _down(self) -> None:
        records = [record for path in self._directory.glob("*.json") if (record := _read_record(path))]
        for record in records:
            if record.is_alive:
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(record.pid, signal.SIGKILL)
        deadline = time.monotonic() + STOP_SECONDS
        while strays := list(self._find_strays()):
            for stray in strays:
                with contextlib.suppress(psutil.NoSuchProcess):
                    stray.kill()
            if time.monotonic() > deadline:
                raise LabError(f"{', '.join(str(stray.pid) for stray in strays)} cannot be ended, even by SIGKILL")
            time.sleep(_POLL_SECONDS)
        for child in self._children.values():
            child.wait()
        self._children.clear()
        # Without `ignore_errors`: a folder that cannot be removed is an error.
        if self._directory.exists():
            shutil.rmtree(self._directory)
        forget(self.project)
        with contextlib.suppress(OSError):
            self._directory.parent.rmdir()

    def state(self) -> list[ModelState]:
        return [self._state_of(model.name) for model in self.catalogue.models]

    def gallery(self) -> list[ModelState]:
        return [ModelState(server.name, GALLERY, self.name, "missing") for server in self.catalogue.gallery]

    def targets(self) -> list[Listener]:
        return [listener for state in self.state() for listener in state.listeners]

    def logs(self, model: str) -> str:
        try:
            return self._path(model, "log").read_text(errors="replace")
        except FileNotFoundError:
            raise LabError(f"{model} was not started: `lab up {model}`") from None

    def restart(self, model: str, *, timeout: float = READY_SECONDS) -> None:
        record = _read_record(self._path(model, "json"))
        if record is None:
            raise LabError(f"{model} was not started: `lab up {model}`")
        listeners = self._read_listeners(model)
        listens = [f"{item.service}={item.address}" for item in listeners] or self._default_listens(model)
        self._end(model)
        begun = time.monotonic()
        while True:
            self._spawn(model, listens, record.settings)
            try:
                self._wait([model], begun + timeout, timeout)
            except NotReadyError as error:
                # While no server had the port, the kernel may have given it to a client of any program.
                is_taken = os.strerror(errno.EADDRINUSE) in str(error)
                if not is_taken or time.monotonic() > begun + min(timeout, _TAKEN_SECONDS):
                    raise
                time.sleep(_POLL_SECONDS)
            else:
                return

    def stop(self, model: str) -> int:
        record = _read_record(self._path(model, "json"))
        if record is None:
            raise LabError(f"{model} was not started: `lab up {model}`")
        if record.is_alive:
            with contextlib.suppress(LabError, ProcessLookupError):
                os.kill(self.pid(model), signal.SIGTERM)
            deadline = time.monotonic() + STOP_SECONDS
            while self.is_running(model) and time.monotonic() < deadline:
                time.sleep(_POLL_SECONDS)
            if self.is_running(model):
                self._end(model)
                return 128 + signal.SIGKILL
        code = self._exit_code(model)
        return 128 + signal.SIGKILL if code is None else code

    def wait_ready(self, model: str, *, timeout: float = READY_SECONDS) -> None:
        self._wait([model], time.monotonic() + timeout, timeout)

    def pid(self, model: str) -> int:
        """Return the pid of a model's main process.

        Raises:
            LabError: it is not running.
        """
        header = self._read_header(model)
        if not self.is_running(model) or header is None:
            raise LabError(f"{model} is not running: `lab up {model}`")
        return int(header["pid"])

    def is_running(self, model: str) -> bool:
        """Return whether a model runs; false once its exit code is written."""
        if child := self._children.get(model):
            child.poll()  # reaps it if it has ended
        record = _read_record(self._path(model, "json"))
        return record is not None and record.is_alive and not self._path(model, "exit").exists()

    def meter(self, model: str) -> Meter:
        try:
            return open_process_meter(self.pid(model))
        except LabError as error:
            return NoMeter(str(error))

    def pin(self, model: str, cores: Sequence[int]) -> None:
        try:
            pin_process(self.pid(model), cores)
        except OSError as error:
            raise LabError(f"{model} cannot be pinned to {show_cores(cores)}: {error}") from None

    def environ(self, model: str) -> Mapping[str, str]:
        return os.environ

    def describe(self) -> dict[str, str | None]:
        return {"backend": self.name}

    def describe_models(self, models: Iterable[Model]) -> dict[str, str | None]:
        from importlib.metadata import PackageNotFoundError, version

        found = {"Python": platform.python_version()}
        for library in filter(None, (model.extra for model in models)):
            with contextlib.suppress(PackageNotFoundError):
                found[library] = version(library)
        return {"servers": ", ".join(f"{name} {text}" for name, text in found.items())}

    def _path(self, model: str, kind: str) -> Path:
        return self._directory / f"{model}.{kind}"

    def _check_paths(self, models: Iterable[str]) -> None:
        for model in models:
            path = self._directory / model / "command.dgram.sock"
            if len(os.fsencode(path)) > _PATH_LIMIT:
                raise LabError(f"{path} is too long for a Unix socket ({_PATH_LIMIT} bytes): use a shorter --project")

    def _default_listens(self, model: str) -> list[str]:
        directory = self._directory / model
        addresses = [f"{scheme}://127.0.0.1:0" for scheme in ("tcp", "tls", "udp")]
        addresses += [f"unix://{directory}", f"unixgram://{directory}"]
        return [f"all={address}" for address in addresses]

    def _choose_settings(self, *, mutual_tls: bool) -> dict[str, str]:
        client_ca = str(ensure_certificates(self.catalogue.hosts) / CA) if mutual_tls else ""
        return {**read_limits(), "LAB_TLS_CLIENT_CA": client_ca}

    def _spawn(self, model: str, listens: Sequence[str], settings: Mapping[str, str]) -> None:
        certificates = ensure_certificates(self.catalogue.hosts)
        inherited = {name: value for name, value in os.environ.items() if name not in read_limits()}
        # The shell may still be running after it has written the exit code.
        if ended := self._children.pop(model, None):
            ended.wait()
        for kind in ("exit", "out", "log", "json"):
            self._path(model, kind).unlink(missing_ok=True)
        command = [sys.executable, "-m", "services.run", "--model", model]
        for listen in listens:
            command += ["--listen", listen]
        with self._path(model, "out").open("wb") as out, self._path(model, "log").open("wb") as log:
            child = subprocess.Popen(  # noqa: S603 - the lab's own server
                ["/bin/sh", "-c", _SUPERVISE, str(self._path(model, "exit")), *command],
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=log,
                cwd=ROOT,
                env={
                    **self.catalogue.environ(model),
                    **inherited,
                    **settings,
                    "LAB_TLS_CERT": str(certificates / SERVER),
                    ENV_RUNTIME: str(self._directory),
                    "PYTHONUNBUFFERED": "1",
                },
                start_new_session=True,
            )
        self._children[model] = child
        created = psutil.Process(child.pid).create_time()
        record = {"pid": child.pid, "created": created, "settings": dict(settings)}
        part = self._path(model, "json.part")
        part.write_text(json.dumps(record))
        part.rename(self._path(model, "json"))

    def _wait(self, models: Sequence[str], deadline: float, timeout: float) -> None:
        waiting = list(models)
        while waiting:
            for model in list(waiting):
                if self._read_header(model) is not None:
                    waiting.remove(model)
                elif not self.is_running(model) or time.monotonic() > deadline:
                    raise self._not_ready(model, timeout, "it did not say where it listens")
            if waiting:
                time.sleep(_POLL_SECONDS)
        listeners = [listener for model in models for listener in self._read_listeners(model)]
        targets = choose_targets((item.model, item.service, item.address) for item in listeners)
        for outcome in wait_ready(targets, max(0.0, deadline - time.monotonic())):
            if not outcome.ready:
                raise self._not_ready(outcome.model, timeout, outcome.error or "")

    def _not_ready(self, model: str, timeout: float, error: str) -> NotReadyError:
        state = self._state_of(model)
        if state.state == "running":
            return NotReadyError(describe_silence(model, error, timeout, last_lines(self.logs(model))))
        # The last line says why it could not start.
        why = state.last_lines[-1] if state.last_lines else "its log is empty"
        return NotReadyError(f"{model} exited with code {state.exit_code} instead of answering: {why}")

    def _end(self, model: str) -> None:
        """Kill a model and all its children."""
        record = _read_record(self._path(model, "json"))
        if record and record.is_alive:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(record.pid, signal.SIGKILL)
            while self.is_running(model):
                time.sleep(_POLL_SECONDS)

    def _exit_code(self, model: str) -> int | None:
        try:
            return int(self._path(model, "exit").read_text())
        except (FileNotFoundError, ValueError):
            return None

    def _state_of(self, model: str) -> ModelState:
        family = self.catalogue[model].family
        if not self._path(model, "json").exists():
            return ModelState(model, family, self.name, "missing")
        if self.is_running(model):
            return ModelState(model, family, self.name, "running", listeners=tuple(self._read_listeners(model)))
        lines = tuple(last_lines(self.logs(model)))
        return ModelState(model, family, self.name, "exited", self._exit_code(model), last_lines=lines)

    def _read_header(self, model: str) -> dict[str, Any] | None:
        """Return the first line of a server's output; None until it is complete."""
        try:
            # No more than it: what follows is the model's own, of any size, and may be no text.
            with self._path(model, "out").open("rb") as file:
                line = file.readline()
            header = json.loads(line) if line.endswith(b"\n") else None
        except (FileNotFoundError, ValueError):
            return None
        return header if isinstance(header, dict) else None

    def _read_listeners(self, model: str) -> list[Listener]:
        header = self._read_header(model)
        listeners = header["listeners"] if header else []
        return [Listener(model, item["service"], item["transport"], item["address"]) for item in listeners]

    def _find_strays(self) -> Iterator[psutil.Process]:
        """Yield the processes of this project, found by their environment. Zombies have no environment."""
        # This process and its parents may belong to the project too, under `lab shell`.
        own = {os.getpid(), *(process.pid for process in psutil.Process().parents())}
        for process in psutil.process_iter():
            with contextlib.suppress(psutil.Error):
                if process.environ().get(ENV_RUNTIME) == str(self._directory) and process.pid not in own:
                    yield process


def find_projects() -> list[str]:
    """Return the names of all projects of this user that run as processes, or have left state."""
    with contextlib.suppress(FileNotFoundError):
        return sorted(path.name for path in runtime_base().iterdir() if path.is_dir())
    return []


def _read_record(path: Path) -> _Record | None:
    try:
        record = json.loads(path.read_text())
        return _Record(int(record["pid"]), float(record["created"]), record.get("settings", {}))
    except (FileNotFoundError, ValueError, KeyError, TypeError):
        return None


def _is_alive(pid: int, created: float) -> bool:
    try:
        process = psutil.Process(pid)
        return abs(process.create_time() - created) < 0.01 and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False
