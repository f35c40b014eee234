"""The containers of models, through the engine's API: faults, restarts, and cores.

The SDK takes several times as long to import as `lab ls` does in total, so this module is imported where it is first
used. A call then takes some milliseconds, and one of the Docker client ten times that, which would count as a part of a
fault. What has output stays with the client: the SDK leaves the sockets of `exec` and `attach` open.
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager

import docker
import docker.errors
import requests
from docker.models.containers import Container

from lab.base.errors import EngineAwayError, LabError
from lab.base.units import encode_cores, show_cores
from lab.engine.probe import explain_away
from lab.servers.backend import ContainerControls
from lab.servers.children import STOP_SECONDS
from lab.servers.docker.cleanup import PART_LABEL, PROJECT_LABEL
from lab.servers.docker.command import last_words, run_docker
from lab.servers.docker.compose import SHELL, Compose

_CPU_PERIOD = 100_000  # microseconds; the default of the kernel and of Docker
_NOT_RUNNING = "is not running"


@contextmanager
def open_client() -> Iterator[docker.DockerClient]:
    """Connect to the engine for the duration of a block.

    Raises:
        EngineAwayError: no engine answers.
    """
    try:
        client = docker.from_env()
    except docker.errors.DockerException as error:
        raise _away(error) from None
    try:
        yield client
    except requests.RequestException as error:
        raise _away(error) from None
    finally:
        client.close()


def _away(error: Exception) -> EngineAwayError:
    problem = explain_away(str(error))
    return EngineAwayError(f"{problem.what}: {problem.fix}")


def read_images(images: Mapping[str, str]) -> str | None:
    """Return the ids of images by model: a tag can be moved to another image. None if one is not known."""
    try:
        with open_client() as client:
            found = {model: client.images.get(image).short_id for model, image in images.items()}
    except (LabError, docker.errors.APIError):
        return None
    return ", ".join(f"{name} {short}" for name, short in found.items())


class ModelContainers:
    """See `lab.servers.backend.FaultControls` and `ContainerControls`."""

    recovery_seconds = 2.0

    def __init__(self, compose: Compose) -> None:
        self._compose = compose

    @property
    def container(self) -> ContainerControls:
        return self

    def restart(self, model: str) -> None:
        """Start a model again, running or not."""
        with self._open(model) as container:
            container.restart(timeout=int(STOP_SECONDS))

    def stop(self, model: str) -> int:
        """Stop a model; return its exit code."""
        with self._open(model) as container:
            container.stop(timeout=int(STOP_SECONDS))
            container.reload()
            return int(container.attrs["State"]["ExitCode"])

    def pin(self, model: str, cores: Sequence[int]) -> None:
        try:
            with self._open(model) as container:
                container.update(cpuset_cpus=encode_cores(cores))
        except LabError as error:
            raise LabError(f"{model} cannot be pinned to {show_cores(cores)}: {error}") from None

    def kill(self, model: str, number: int) -> None:
        with self._open(model) as container:
            container.kill(signal=int(number))

    def pause(self, model: str) -> None:
        with self._open(model) as container:
            container.pause()

    def unpause(self, model: str) -> None:
        with self._open(model) as container:
            if container.attrs["State"]["Paused"]:
                container.unpause()

    def run_beside(self, model: str, script: str, arguments: Sequence[str] = ()) -> str:
        name = self._compose.name_model(model)
        done = run_docker("exec", name, "python3", "-c", script, "1", *arguments, check=False)
        if done.returncode:
            raise LabError(f"{model}: {last_words(done.stderr or done.stdout)}")
        return done.stdout

    def run_in_network(self, model: str, arguments: Sequence[str]) -> str:
        command = self._join(f"--network=container:{self._compose.name_model(model)}", "NET_ADMIN")
        done = run_docker(*command, *arguments, check=False)
        if done.returncode:
            raise LabError(f"{model}: {' '.join((done.stderr or done.stdout).split())}")
        return done.stdout

    def tracing_command(self, model: str) -> list[str]:
        return ["docker", *self._join(f"--pid=container:{self._compose.name_model(model)}", "SYS_PTRACE")]

    def _join(self, namespace: str, capability: str) -> list[str]:
        """Return the Docker command that runs the instrument as root in one namespace of another container."""
        # With the label of its project, so that `down` finds it.
        labels = [f"--label={PROJECT_LABEL}={self._compose.project}", f"--label={PART_LABEL}=instrument"]
        rights = [
            "--user=0",
            "--read-only",
            "--cap-drop=ALL",
            f"--cap-add={capability}",
            "--security-opt=no-new-privileges",
        ]
        with open_client() as client:
            # The image of the running shell: its tag may belong to a newer build.
            image = str(client.containers.get(self._compose.name_container(SHELL)).attrs["Image"])
        return ["run", "--rm", *labels, *rights, namespace, image]

    def disconnect(self, model: str) -> None:
        with self._open(model) as container, open_client() as client:
            client.networks.get(self._compose.network).disconnect(container)

    def connect(self, model: str) -> None:
        with self._open(model) as container, open_client() as client:
            if self._compose.network not in container.attrs["NetworkSettings"]["Networks"]:
                client.networks.get(self._compose.network).connect(container, aliases=[model])

    def limit_cpu(self, model: str, cores: float | None) -> None:
        quota = -1 if cores is None else int(cores * _CPU_PERIOD)
        with self._open(model) as container:
            container.update(cpu_period=_CPU_PERIOD, cpu_quota=quota)

    def memory_limit(self, model: str) -> tuple[int, int]:
        with self._open(model) as container:
            limits = container.attrs["HostConfig"]
        return int(limits["Memory"]), int(limits["MemorySwap"])

    def limit_memory(self, model: str, memory: int, swap: int) -> None:
        with self._open(model) as container:
            container.update(mem_limit=memory, memswap_limit=swap)

    @contextmanager
    def _open(self, model: str) -> Iterator[Container]:
        """Give a model's container, with its state of this moment.

        Raises:
            LabError: the model does not run, or the engine refuses, with its reason.
        """
        with open_client() as client:
            try:
                yield client.containers.get(self._compose.name_model(model))
            except docker.errors.APIError as error:
                reason = str(error.explanation or error)
                if isinstance(error, docker.errors.NotFound) or _NOT_RUNNING in reason:
                    raise LabError(f"{model} is not running: `lab up {model}`") from None
                raise LabError(f"{model}: {reason}") from None
