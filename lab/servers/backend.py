"""What a lab needs of the place where its models run: containers, or child processes on loopback."""

import os
import subprocess
import sys
from collections.abc import Iterable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import asdict, dataclass, fields
from typing import Literal, Protocol, TypedDict, Unpack

from lab.base.environ import ENV_XRAY
from lab.base.errors import LabError
from lab.metrics.sample import Meter
from lab.servers.catalogue import Catalogue, GalleryServer, Listener, Model
from lab.servers.helper import Helper
from services.protocol.limits import Limits

# How long a model may take to answer after its start, in seconds. The slowest one needs half a second on an idle
# machine, and ten times as long on a loaded CI runner.
READY_SECONDS = 30.0

State = Literal["running", "exited", "missing"]
Completed = subprocess.CompletedProcess[str]


@dataclass(frozen=True, slots=True)
class ModelState:
    """The state of one model of the catalogue, or of one server of the gallery.

    Args:
        state: running; exited, and not taken down yet; or missing, never started here.
        exit_code: of an exited one, where it is known; 128 plus the signal's number if a signal ended it.
        listeners: where it listens, as seen from the helpers; empty unless it is running.
        last_lines: the end of its log if it has exited.
    """

    model: str
    family: str
    backend: str
    state: State
    exit_code: int | None = None
    listeners: tuple[Listener, ...] = ()
    last_lines: tuple[str, ...] = ()

    def as_json(self) -> dict[str, object]:
        """Return the object that `lab ls --json` prints."""
        return asdict(self) | {"listeners": [listener.as_json() for listener in self.listeners]}


class Listening(Protocol):
    """Servers that listen."""

    def targets(self) -> list[Listener]:
        """Return where the running servers listen, as seen from the helpers."""
        ...


class Metered(Protocol):
    """Servers whose use of resources can be read."""

    def meter(self, model: str) -> Meter:
        """Return the meter of a server; if it cannot be metered, one that knows nothing but the reason."""
        ...


class Loadable(Listening, Metered, Protocol):
    """Servers that can be loaded and measured, of this lab, or external ones (`lab.load.external_server`)."""

    @property
    def name(self) -> str:
        """The place where they run, as a record of a measurement names it: docker or process."""
        ...

    @property
    def in_containers(self) -> bool:
        """Whether each server has a container, and so a network namespace of its own."""
        ...

    @property
    def helpers(self) -> "Helpers":
        """Programs of the lab that can reach the servers."""
        ...


class Servers(Listening, Metered, Protocol):
    """The models and the servers of the gallery of one project."""

    @property
    def project(self) -> str: ...

    @property
    def catalogue(self) -> Catalogue: ...

    @property
    def in_containers(self) -> bool:
        """As `Loadable.in_containers`."""
        ...

    def up(
        self, models: Iterable[str | Model] = (), *, timeout: float = READY_SECONDS, mutual_tls: bool = False
    ) -> None:
        """Start models (default: all without a profile), and wait until each has answered a protocol exchange.

        A model that is running is left alone, unless it was started with other limits (see `read_limits`) or another
        `mutual_tls`: it is then restarted. After a failure or Ctrl-C, what this call has started is taken down.

        Raises:
            NotReadyError: status, exit code, last log lines and a hint.
        """

    def up_gallery(self, servers: Iterable[GalleryServer], *, timeout: float = READY_SECONDS) -> None:
        """Start servers of the gallery, and wait until the health check of each has passed.

        A server that is running is left alone. If some do not start, the others stay up.

        Raises:
            NotReadyError: the servers that do not answer, each with the end of its log.
        """

    def down(self) -> None:
        """Take down everything of this project, by whichever lab it was started. No error if there is nothing."""

    def state(self) -> list[ModelState]:
        """Return the state of each model, in the catalogue's order."""
        ...

    def gallery(self) -> list[ModelState]:
        """Return the state of each server of the gallery, in the catalogue's order."""
        ...

    def logs(self, model: str) -> str:
        """Return the log of a model, or of a server of the gallery, since its last start."""
        ...

    def restart(self, model: str, *, timeout: float = READY_SECONDS) -> None:
        """Start a model again, running or not, at the same addresses, and wait until it answers."""

    def stop(self, model: str) -> int:
        """Send SIGTERM to a model, and SIGKILL after its grace period.

        Returns:
            Its exit code; 137 after SIGKILL.
        """
        ...

    def wait_ready(self, model: str, *, timeout: float = READY_SECONDS) -> None:
        """Wait until a running model answers.

        Raises:
            NotReadyError: it did not answer in time.
        """

    def pin(self, model: str, cores: Sequence[int]) -> None:
        """Pin a running model to cores, with all present and future processes and threads.

        Raises:
            LabError: it could not be pinned.
        """

    def environ(self, model: str) -> Mapping[str, str]:
        """Return the environment that a model gets, without what the lab adds."""
        ...

    def describe(self) -> dict[str, str | None]:
        """Return facts about the place where the models run, for a report."""
        ...

    def describe_models(self, models: Iterable[Model]) -> dict[str, str | None]:
        """Return facts about running models: versions of Python and of their libraries, and their images."""
        ...


class RunOptions(TypedDict, total=False):
    """How a command is run.

    Attributes:
        capture: return its output; by default it goes to this process's stdout and stderr.
        stdin: its input; default: none, unless it has this terminal.
        timeout: seconds after which it is ended.
    """

    capture: bool
    stdin: str | None
    timeout: float | None


class Helpers(Protocol):
    """Runs programs of the lab where the addresses of `Listening.targets` are valid."""

    def run(
        self,
        arguments: Sequence[str],
        *,
        environ: Mapping[str, str] | None = None,
        interactive: bool = False,
        **options: Unpack[RunOptions],
    ) -> Completed:
        """Run a command.

        Args:
            arguments: the command; `python` stands for the interpreter that has the lab's packages.
            environ: added to its environment.
            interactive: give it this terminal.

        Raises:
            LabError: it could not be run, or took too long. A failure of the command is its return code.
        """
        ...

    def start(self, name: str, arguments: Sequence[str]) -> AbstractContextManager[Helper]:
        """Start a command where `run` runs it, in the background. This is much faster than `start_service`.

        The command has to end when its stdin is closed, which happens at the end of the block.

        Args:
            arguments: as for `run`.
        """
        ...

    def run_service(
        self,
        service: str,
        arguments: Sequence[str] = (),
        *,
        environ: Mapping[str, str] | None = None,
        **options: Unpack[RunOptions],
    ) -> Completed:
        """Run one of the catalogue's instruments (`tests`, `locust`) once.

        Args:
            arguments: added to its entry point.
            environ: as for `run`.
        """
        ...

    def start_service(
        self,
        name: str,
        service: str,
        arguments: Sequence[str] = (),
        *,
        environ: Mapping[str, str] | None = None,
        publish: bool = False,
    ) -> AbstractContextManager[Helper]:
        """Start one of the catalogue's instruments, as `run_service` does; the end of the block ends it.

        Args:
            publish: publish the ports that compose.yaml gives it, on 127.0.0.1.
        """
        ...

    def choose_bind(self, port: int, *, local: int | None = None) -> tuple[str, int]:
        """Return host and port to bind for an instrument that listens.

        Args:
            port: the port in a container, where it is free.
            local: the port on this machine; default: any free one.
        """
        ...

    def find_shell(self) -> str:
        """Return the interactive shell to `run`."""
        ...


class ContainerControls(Protocol):
    """Operations of `lab faults` and `lab xray` on the container of one model."""

    def run_in_network(self, model: str, arguments: Sequence[str]) -> str:
        """Run a command of the instrument, with CAP_NET_ADMIN, in the network namespace of a model's container.

        Returns:
            What it printed.

        Raises:
            LabError: it failed; with its output.
        """
        ...

    def tracing_command(self, model: str) -> list[str]:
        """Return the beginning of a command that runs a program of the instrument among a model's processes.

        The program may trace them (CAP_SYS_PTRACE).
        """
        ...

    def disconnect(self, model: str) -> None:
        """Disconnect a model from the lab's network."""

    def connect(self, model: str) -> None:
        """Connect it again, under its name; no error if it is connected."""

    def memory_limit(self, model: str) -> tuple[int, int]:
        """Return the memory limit of a model's container in bytes: without swap, and with it."""
        ...

    def limit_memory(self, model: str, memory: int, swap: int) -> None:
        """Set these limits, in bytes; the model need not be running."""


class FaultControls(Protocol):
    """Operations of `lab faults` on one model."""

    @property
    def container(self) -> ContainerControls | None:
        """What only a container has; None if the models run as processes."""
        ...

    @property
    def recovery_seconds(self) -> float:
        """The time in which a healthy model answers again after it was healed; a container's start takes longer."""
        ...

    def kill(self, model: str, number: int) -> None:
        """Send a signal to a model's main process."""

    def pause(self, model: str) -> None:
        """Stop all processes of a model, as SIGSTOP does."""

    def unpause(self, model: str) -> None:
        """Continue them; no error if they are running."""

    def run_beside(self, model: str, script: str, arguments: Sequence[str] = ()) -> str:
        """Run a Python script of the standard library as a model's user, where the model's processes are visible.

        Its first argument is the pid above them: of a container's init, or of the model's main process.

        Returns:
            What it printed.

        Raises:
            LabError: it could not be run, or failed.
        """
        ...

    def limit_cpu(self, model: str, cores: float | None) -> None:
        """Limit a model to this many cores; None removes the limit."""


class Backend(Servers, Loadable, Protocol):
    """A place where models run, with the programs that reach them and the faults that it can inject."""

    @property
    def faults(self) -> FaultControls: ...


def choose_models(
    servers: Servers, names: Iterable[str | Model] = (), profiles: Iterable[str] = ()
) -> tuple[Model, ...]:
    """Select models for a command. Without names, models that cannot run here are left out.

    Raises:
        CatalogueError: an unknown name or profile.
    """
    names = list(names)
    selected = servers.catalogue.select(names, profiles)
    left_out = [model.name for model in selected if model.only_in_container and not model.profile]
    if names or not left_out or servers.in_containers:
        return selected
    print(f"lab: left out, as they run only in containers: {', '.join(left_out)}", file=sys.stderr)
    return tuple(model for model in selected if model.name not in left_out)


def choose_speakers(servers: Servers, names: Iterable[str | Model], service: str) -> list[str]:
    """Return the names of the selected models (see `choose_models`) that speak a service as the lab's own models do.

    Raises:
        CatalogueError: an unknown name.
        LabError: a named model does not speak it, or no model does.
    """
    names = list(names)
    chosen = choose_models(servers, names)
    speak = [model.name for model in chosen if service in model.services and not model.rfc_only]
    others = [model.name for model in chosen if model.name not in speak]
    if others and (names or not speak):
        raise LabError(
            f"{', '.join(others)}: does not speak all of this lab's `{service}`; `lab ls` lists other models"
        )
    return speak


def read_limits() -> dict[str, str]:
    """Return the variables of limits (services/protocol/limits.py) that this environment has: its servers get them.

    So do they get `LAB_XRAY`, where a server writes its recording.
    """
    variables = [*(item.metadata["variable"] for item in fields(Limits)), ENV_XRAY]
    return {variable: os.environ[variable] for variable in variables if variable in os.environ}
