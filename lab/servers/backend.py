"""Where models run: in containers on a network of their own, or as child processes on loopback."""

import contextlib
import ctypes
import os
import re
import shutil
import signal
import stat
import subprocess
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, fields
from functools import cache
from pathlib import Path
from typing import Any, Literal, Protocol

from lab.base.errors import EngineAwayError, LabError
from lab.servers.catalogue import Catalogue, GalleryServer, Listener, Model
from services.protocol.limits import Limits

PROJECT = "socketlab"
BACKENDS = ("docker", "process")
# The labs that commands start next to a project's own, and take down again: `lab tour`, and `lab bench` for its control
# server. What a killed one of them left belongs to the project.
SATELLITES = ("-tour", "-twin")

# How long a model may take to answer after its start, in seconds. The slowest of them needs half of one on an idle
# machine; a loaded CI runner needs ten times as long.
READY_SECONDS = 30.0
# How long SIGTERM gets before SIGKILL: that of compose.yaml, above LAB_GRACE_SECONDS.
STOP_SECONDS = 10.0

# In the environment of a load generator: what it has to end with, which is `stdin`. See loadtests/lifeline.py.
LIFELINE = "LAB_LIFELINE"

State = Literal["running", "exited", "missing"]


@dataclass(frozen=True, slots=True)
class ModelState:
    """How one model of the catalogue is, or one server of the gallery.

    Args:
        family: that of a model; of a server, `GALLERY`.
        state: running; exited, and not taken down yet; or missing, never started here.
        exit_code: of an exited one, where it is known; 128 plus the signal's number if one ended it.
        listeners: where it listens, as seen from where `Backend.run` runs; empty unless running.
        last_lines: the end of its log if it exited.
    """

    model: str
    family: str
    backend: str
    state: State
    exit_code: int | None = None
    listeners: tuple[Listener, ...] = ()
    last_lines: tuple[str, ...] = ()

    def as_json(self) -> dict[str, object]:
        """As `lab ls --json` prints it."""
        return {
            "model": self.model,
            "family": self.family,
            "backend": self.backend,
            "state": self.state,
            "exit_code": self.exit_code,
            "listeners": [listener.as_json() for listener in self.listeners],
            "last_lines": list(self.last_lines),
        }


Completed = subprocess.CompletedProcess[str]


@dataclass(frozen=True, slots=True)
class Instrument:
    """One of the catalogue's instruments that runs beside this process, from `Backend.start_service`.

    Args:
        process: what this process waits for; its stdin is a pipe to the instrument.
        host: where other instruments of this lab find it.
        log: a file with all that it has written so far; None if that goes where this process writes.
    """

    process: "subprocess.Popen[bytes]"
    host: str
    log: Path | None

    def output(self) -> str:
        """What it has written so far."""
        return self.log.read_text(errors="replace") if self.log else ""


class Backend(Protocol):
    """One lab: the models of one project name, at one kind of place."""

    name: str
    project: str
    catalogue: Catalogue

    def up(
        self, models: Iterable[str | Model] = (), *, timeout: float = READY_SECONDS, mutual_tls: bool = False
    ) -> None:
        """Start models (by default all that belong to no profile); return when each has answered a protocol exchange.

        What runs already is left alone, unless it was started with other limits (see `read_limits`) or another
        `mutual_tls`: then it is started again. On a failure, or Ctrl-C, what this call started is taken down again.

        Raises:
            NotReadyError: status, exit code, last log lines and a hint.
            LabError: it could not be tried.
        """

    def up_gallery(self, servers: Iterable[GalleryServer], *, timeout: float = READY_SECONDS) -> None:
        """Start servers of the gallery; return when the health check of each has held.

        What runs already is left alone. Where some do not come up, the others still run.

        Raises:
            NotReadyError: which do not answer, each with the end of its log.
            LabError: it could not be tried.
        """

    def down(self) -> None:
        """Take everything of this project down, whoever started it and however that ended. Twice is no error."""

    def state(self) -> list[ModelState]:
        """How each model of the catalogue is, in its order."""

    def gallery(self) -> list[ModelState]:
        """How each server of the gallery is, in the catalogue's order."""

    def targets(self) -> list[Listener]:
        """Where the running models listen, as seen from where `run` runs."""

    def run(
        self,
        arguments: Sequence[str],
        *,
        environ: Mapping[str, str] | None = None,
        capture: bool = False,
        stdin: str | None = None,
        interactive: bool = False,
        timeout: float | None = None,
    ) -> Completed:
        """Run a command of the lab's instruments where the addresses of `targets` mean something.

        Args:
            arguments: the command; `python` stands for the interpreter that has the lab's packages.
            environ: added to its environment.
            capture: return its output instead of letting it through.
            stdin: its input; without it, and unless `interactive`, it has none.
            interactive: give it this terminal.
            timeout: seconds; after these it is ended.

        Raises:
            LabError: it could not be run, or took too long. A failure of the command is its return code.
        """

    def start(self, arguments: Sequence[str], *, log: Path) -> AbstractContextManager[Instrument]:
        """Start a command where `run` runs, and go on: much sooner than an instrument of its own.

        It has to end when its stdin does, which is at the end of the block.

        Args:
            arguments: as for `run`.
            log: the file that takes what it writes.
        """

    def run_service(
        self,
        service: str,
        arguments: Sequence[str] = (),
        *,
        environ: Mapping[str, str] | None = None,
        capture: bool = False,
        publish: bool = False,
        stdin: str | None = None,
        timeout: float | None = None,
    ) -> Completed:
        """Run one of the catalogue's instruments (`tests`, `locust`) once, with arguments behind its entry point.

        Args:
            publish: publish the ports that compose.yaml gives it, on 127.0.0.1.
            others: as for `run`.
        """

    def start_service(
        self,
        service: str,
        arguments: Sequence[str] = (),
        *,
        environ: Mapping[str, str] | None = None,
        publish: bool = False,
        log: Path | None = None,
    ) -> AbstractContextManager[Instrument]:
        """Start one of the catalogue's instruments, and go on; at the end of the block it is ended, if it has not.

        Args:
            log: the file that takes what it writes.
            others: as for `run_service`.
        """

    def logs(self, model: str) -> str:
        """What a model, or a server of the gallery, has logged since its last start, or so."""

    def restart(self, model: str, *, timeout: float = READY_SECONDS) -> None:
        """Start a model anew, running or not, at the addresses that it had; return when it answers."""

    def kill(self, model: str, signal: int) -> None:
        """Send a signal to a model's main process."""

    def stop(self, model: str) -> int:
        """Ask a model to stop, as SIGTERM does; wait for its grace period, then end it.

        Returns:
            Its exit code, 137 if it had to be ended.
        """

    def wait_ready(self, model: str, *, timeout: float = READY_SECONDS) -> None:
        """Wait until a model that runs answers.

        Raises:
            NotReadyError: it did not in that time.
        """

    def pause(self, model: str) -> None:
        """Have all processes of a model stand still."""

    def unpause(self, model: str) -> None:
        """Have them go on; no error where they do."""

    def run_beside(self, model: str, script: str, arguments: Sequence[str] = ()) -> str:
        """Run a Python script, of the standard library alone, as a model's user and where its processes are seen.

        Its first argument is the pid above them: of a container's init, or of the model's main process.

        Returns:
            What it printed.

        Raises:
            LabError: it could not be run, or failed.
        """

    # Only of the backend `docker`.

    def run_in_network(self, model: str, arguments: Sequence[str]) -> str:
        """Run a command of the instrument with CAP_NET_ADMIN in the network namespace of a model's container.

        Returns:
            What it printed.

        Raises:
            LabError: it failed; with what it said.
        """

    def disconnect(self, model: str) -> None:
        """Take a model from the lab's network."""

    def connect(self, model: str) -> None:
        """Put it back, under its name; no error where it is there."""

    def limit_cpu(self, model: str, cores: float | None) -> None:
        """Give a model so many cores, or as many as there are."""

    def memory_limit(self, model: str) -> tuple[int, int]:
        """How many bytes a model's container may have, and how many with those that are swapped out."""

    def limit_memory(self, model: str, memory: int, swap: int) -> None:
        """Let it have so many; also one that does not run."""


def open_child(
    command: Sequence[str],
    *,
    environ: Mapping[str, str],
    log: Path | None = None,
    cwd: Path | None = None,
    has_lifeline: bool = False,
) -> "subprocess.Popen[bytes]":
    """Start what ends with this process, with a pipe as its stdin; it writes to `log`, or to where this one writes.

    Args:
        has_lifeline: the end of its stdin ends it, and a signal may come too early: a client of Docker that is killed
            while it starts a container leaves one whose stdin nobody will ever close.
    """
    with contextlib.ExitStack() as stack:
        output = stack.enter_context(log.open("ab")) if log else None
        return subprocess.Popen(  # noqa: S603 - the lab's own commands
            command,
            stdin=subprocess.PIPE,
            stdout=output,
            stderr=subprocess.STDOUT if log else None,
            env=environ,
            cwd=cwd,
            preexec_fn=None if has_lifeline else die_with_lab,
        )


def close_child(process: "subprocess.Popen[bytes]") -> None:
    """End what `open_child` has started: politely, then by force."""
    process.terminate()
    try:
        process.wait(STOP_SECONDS)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
    # Last: whoever feeds it in another thread then finds that there is nobody, and not another file.
    if process.stdin:
        with contextlib.suppress(BrokenPipeError):
            process.stdin.close()


@contextlib.contextmanager
def open_lifeline(environ: Mapping[str, str] | None) -> Iterator[int]:
    """What a child gets as its stdin: nothing to read; with `LIFELINE` in its environment, no end before this one's."""
    if not environ or LIFELINE not in environ:
        yield subprocess.DEVNULL
        return
    theirs, ours = os.pipe()
    try:
        yield theirs
    finally:
        os.close(theirs)
        os.close(ours)


@cache
def _libc() -> Any:
    return ctypes.CDLL(None)


def die_with_lab() -> None:
    """In a child: ask for SIGTERM when its parent dies, prctl(2), so that none outlives a killed lab.

    And take it: a parent that holds signals back (`lab.base.interrupts.signals_held`) hands that down. A Ctrl-C stays
    held.
    """
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGTERM})
    if sys.platform == "linux":
        _libc().prctl(1, signal.SIGTERM)


def choose_models(
    backend: Backend, names: Iterable[str | Model] = (), profiles: Iterable[str] = ()
) -> tuple[Model, ...]:
    """The models that something is to be done with; of those that nobody asked for, the ones that can run here.

    Raises:
        CatalogueError: an unknown name or profile.
    """
    names = list(names)
    selected = backend.catalogue.select(names, profiles)
    bound = [model.name for model in selected if model.only_in_container and not model.profile]
    if names or not bound or backend.name == "docker":
        return selected
    print(f"lab: left out, as they run only in containers: {', '.join(bound)}", file=sys.stderr)
    return tuple(model for model in selected if model.name not in bound)


def choose_speakers(backend: Backend, names: Iterable[str | Model], service: str) -> list[str]:
    """Return the names of those of them (see `choose_models`) that speak a service as this lab's own models do.

    Raises:
        CatalogueError: an unknown name.
        LabError: one that is named does not, or none does.
    """
    names = list(names)
    chosen = choose_models(backend, names)
    speak = [model.name for model in chosen if service in model.services and not model.holds_rfc_only]
    others = [model.name for model in chosen if model.name not in speak]
    if others and (names or not speak):
        raise LabError(
            f"{', '.join(others)}: does not speak all of this lab's `{service}`; `lab ls` lists other models"
        )
    return speak


def open_backend(name: str | None = None, project: str | None = None, *, catalogue: Catalogue | None = None) -> Backend:
    """Find where to run.

    Args:
        name: docker or process. None: what LAB_BACKEND says; else where this project runs already; else docker where
            an engine answers, and process, with a line on stderr, where none does.
        project: the name that keeps labs apart; several can run side by side. None: what LAB_PROJECT says, or, where
            there is no such variable, socketlab. An empty name is none: whose lab it was meant to be is not known.
        catalogue: by default that of this project's compose.yaml.

    Raises:
        LabError: a name that is none, or a compose file that cannot be used.
    """
    name = name or os.environ.get("LAB_BACKEND") or None
    if project is None:
        project = os.environ.get("LAB_PROJECT", PROJECT)
    # Compose's rule for project names; the length leaves room for the path of a Unix socket, at most 107 bytes.
    if not re.fullmatch(r"[a-z0-9][a-z0-9_-]{0,39}", project):
        raise LabError(f"{project!r} cannot name a project: small letters, digits, _ and -, at most 40")
    catalogue = catalogue or Catalogue.load()
    match name or _find(project):
        case "docker":
            from lab.servers.docker.containers import Containers

            return Containers(project, catalogue)
        case "process":
            from lab.servers.processes import Processes

            return Processes(project, catalogue)
    raise LabError(f"unknown backend {name!r}; known: {', '.join(BACKENDS)}")


def read_limits() -> dict[str, str]:
    """The variables of servers' limits (services/protocol/limits.py) that this process has: its servers obey them."""
    variables = (item.metadata["variable"] for item in fields(Limits))
    return {variable: os.environ[variable] for variable in variables if variable in os.environ}


def runtime_directory(project: str) -> Path:
    """Where a project that runs as processes keeps its state and its Unix sockets; it exists while the project runs."""
    return runtime_base() / project


def runtime_base() -> Path:
    """Where the projects of this user are. A short path: that of a Unix socket has at most 107 bytes."""
    home = os.environ.get("XDG_RUNTIME_DIR", "")
    return Path(home if home and os.access(home, os.W_OK) else "/tmp") / f"socketlab-{os.getuid()}"  # noqa: S108 - the process backend checks who owns it


def make_private(directory: Path) -> None:
    """Make a directory for this user alone; one that is there must be just that, as /tmp belongs to everybody.

    Raises:
        LabError: it is something else.
    """
    directory.mkdir(mode=0o700, exist_ok=True)
    status = directory.lstat()
    if not stat.S_ISDIR(status.st_mode) or status.st_uid != os.getuid() or status.st_mode & 0o077:
        raise LabError(f"{directory} is not a private directory of this user: remove it, then call again")


def find_stamps(project: str) -> Path:
    """Return the file of a project's fault intervals (lab/experiments/faults/timeline.py); it need not exist."""
    # No directory: those beside it are the projects that run as processes.
    return runtime_base() / f"{project}.faults"


def find_mark(project: str) -> Path:
    """The empty file that says that a project was started in containers; for the time when no engine can say it."""
    return runtime_base() / f"{project}.docker"


def forget(project: str) -> None:
    """Remove what a project leaves on this machine beside its models: the stamps, and a directory that is empty."""
    find_stamps(project).unlink(missing_ok=True)
    with contextlib.suppress(OSError):
        runtime_base().rmdir()


def take_down(name: str | None, project: str | None, catalogue: Catalogue, *, satellites: bool = False) -> list[str]:
    """Take a project down, on both backends unless one is named.

    Args:
        name: docker or process; None: both.
        project: as for `open_backend`.
        satellites: the labs of `SATELLITES` too.

    Returns:
        What was removed, each as `PROJECT (BACKEND)`.

    Raises:
        EngineAwayError: there may be containers of it, and no engine answers; its processes are down by then.
    """
    from lab.servers.processes import Processes

    own = open_backend("process", project, catalogue=catalogue).project
    projects = [own, *(f"{own}{suffix}" for suffix in SATELLITES)] if satellites else [own]
    removed = []
    if name != "docker":
        for each in projects:
            if runtime_directory(each).exists():
                removed.append(f"{each} (process)")
            Processes(each, catalogue).down()
    if name == "docker" or (name is None and _may_have_containers(projects, is_process_lab=bool(removed))):
        from lab.servers.docker.containers import purge

        try:
            removed += [f"{each} (docker)" for each in projects if purge(each)]
        except EngineAwayError as error:
            known = any(find_mark(each).exists() for each in projects)
            what = "the containers" if known else "containers, if there are any,"
            raise EngineAwayError(f"{what} of project {own} remain, as {error}; then call this again") from None
    return removed


def _may_have_containers(projects: Iterable[str], *, is_process_lab: bool) -> bool:
    """Whether Docker is to be asked for containers of a project. Where it is not even installed, there are none."""
    if any(find_mark(project).exists() for project in projects):
        return True
    return shutil.which("docker") is not None and (not is_process_lab or has_engine())


def _find(project: str) -> str:
    if runtime_directory(project).exists():
        return "process"
    if has_engine():
        return "docker"
    if find_mark(project).exists():
        raise EngineAwayError(
            f"project {project} was started in containers, and no Docker engine answers now: start the engine "
            "(`lab doctor` says how), or take --backend process"
        )
    print("lab: no Docker engine answers, so models run as processes on loopback", file=sys.stderr)
    return "process"


def has_engine() -> bool:
    """Whether a Docker engine answers: asked of its socket, and only where that says nothing of the Docker client."""
    from lab.engine import client, daemon, is_running

    return (client.is_own_engine(os.environ) and daemon.is_answering()) or is_running()
