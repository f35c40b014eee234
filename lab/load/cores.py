"""Pin the servers and the load generator to separate cores.

Without pinning, the scheduler may put both on one core, and such a run looks like a slow server.
"""

import contextlib
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lab.base.environ import ENV_GENERATOR_CORES
from lab.base.errors import LabError
from lab.servers.catalogue import Model


@dataclass(frozen=True, slots=True)
class Pinning:
    """The cores of each side.

    Args:
        servers: cores of the models, of which one is loaded at a time.
        generator: cores of the load generator.
    """

    servers: tuple[int, ...]
    generator: tuple[int, ...]

    def __str__(self) -> str:
        return f"servers on {_show(self.servers)}, load generator on {_show(self.generator)}"


def split_cores(cores: Iterable[int] | None = None) -> Pinning | None:
    """Assign the first core to the load generator, which is one process, and the others to the servers.

    Args:
        cores: default: those that this process may use.

    Returns:
        None if there is only one core.
    """
    found = sorted(os.sched_getaffinity(0) if cores is None else cores)
    return Pinning(tuple(found[1:]), (found[0],)) if len(found) > 1 else None


def pin_servers(backend: Any, models: Iterable[str], pinning: Pinning) -> None:
    """Pin running models, with all present and future processes and threads.

    Raises:
        LabError: a model could not be pinned.
    """
    for model in models:
        try:
            if backend.name == "docker":
                _pin_container(backend.container_name(model), pinning.servers)
            else:
                _pin_process(backend.pid(model), pinning.servers)
        except OSError as error:
            raise LabError(f"{model} cannot be pinned to {_show(pinning.servers)}: {error}") from None


def pin_generator(environ: Mapping[str, str]) -> None:
    """Pin this process, the load generator, to the cores that the lab has set, if any.

    Raises:
        ValueError: the variable does not hold numbers of cores.
        OSError: the cores are not available.
    """
    if text := environ.get(ENV_GENERATOR_CORES):
        os.sched_setaffinity(0, {int(core) for core in text.split(",")})


def encode_cores(cores: Iterable[int]) -> str:
    """Encode cores for `pin_generator` and for Docker."""
    return ",".join(map(str, cores))


def _pin_container(container: str, cores: Sequence[int]) -> None:
    import docker
    import docker.errors
    import requests

    try:
        client = docker.from_env()
        try:
            client.containers.get(container).update(cpuset_cpus=encode_cores(cores))
        finally:
            client.close()
    except (docker.errors.DockerException, requests.RequestException) as error:
        raise LabError(f"a container cannot be pinned to {_show(cores)}: {error}") from None


def _pin_process(pid: int, cores: Sequence[int]) -> None:
    import psutil

    kept: set[int] = set()
    try:
        root = psutil.Process(pid)
        # A new thread inherits the cores of its creator. Threads that started meanwhile are found by the next pass.
        while new := {*_list_threads([root, *root.children(recursive=True)])} - kept:
            for thread in new:
                with contextlib.suppress(ProcessLookupError):  # it has ended
                    os.sched_setaffinity(thread, cores)
            kept |= new
    except psutil.Error as error:
        raise LabError(f"the process {pid} cannot be pinned to {_show(cores)}: {error}") from None


def _list_threads(processes: Iterable[Any]) -> Iterator[int]:
    for process in processes:
        with contextlib.suppress(FileNotFoundError):  # it has ended
            yield from (int(thread.name) for thread in Path(f"/proc/{process.pid}/task").iterdir())


def _show(cores: Iterable[int]) -> str:
    found = list(cores)
    return f"core{'s' if len(found) > 1 else ''} {encode_cores(found)}"


def allotted_cores(model: Model, cores: int | None, pinning: Pinning | None = None) -> int | None:
    """Return how many cores a server can use: one, unless the catalogue says all; at most those it is pinned to."""
    if not model.uses_all_cores:
        return 1
    return len(pinning.servers) if pinning else cores
