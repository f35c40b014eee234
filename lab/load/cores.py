"""Servers and the load generator on cores of their own, so that neither takes the other's.

Without it the scheduler moves both about, and a run in which they met on one core looks like a slow server.
"""

import contextlib
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lab.base.errors import LabError
from lab.servers.catalogue import Model

# Tells the load generator which cores are its own, as `0,1`.
VARIABLE = "LAB_GENERATOR_CORES"


@dataclass(frozen=True, slots=True)
class Pinning:
    """Who runs where.

    Args:
        servers: the cores of the models; only one of them works at a time.
        generator: those of the load generator.
    """

    servers: tuple[int, ...]
    generator: tuple[int, ...]

    def __str__(self) -> str:
        return f"servers on {_show(self.servers)}, load generator on {_show(self.generator)}"


def split_cores(cores: Iterable[int] | None = None) -> Pinning | None:
    """The first core for the load generator, which is one process, and all others for the servers.

    Args:
        cores: by default those that this process may use.

    Returns:
        None if there is only one: then there is nothing to separate.
    """
    found = sorted(os.sched_getaffinity(0) if cores is None else cores)
    return Pinning(tuple(found[1:]), (found[0],)) if len(found) > 1 else None


def pin_servers(backend: Any, models: Iterable[str], pinning: Pinning) -> None:
    """Keep running models to their cores, with all the processes and threads that they have and will have.

    Raises:
        LabError: it could not be done.
    """
    for model in models:
        try:
            if backend.name == "docker":
                _pin_container(backend.container_name(model), pinning.servers)
            else:
                _pin_process(backend.pid(model), pinning.servers)
        except OSError as error:
            raise LabError(f"{model} cannot be kept to {_show(pinning.servers)}: {error}") from None


def pin_generator(environ: Mapping[str, str]) -> None:
    """In the load generator: go to the cores that the lab has named, if it has.

    Raises:
        ValueError: what it has named are no cores.
        OSError: they cannot be had.
    """
    if text := environ.get(VARIABLE):
        os.sched_setaffinity(0, {int(core) for core in text.split(",")})


def encode_cores(cores: Iterable[int]) -> str:
    """Cores as `pin_generator`, and Docker, read them."""
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
        raise LabError(f"a container cannot be kept to {_show(cores)}: {error}") from None


def _pin_process(pid: int, cores: Sequence[int]) -> None:
    import psutil

    kept: set[int] = set()
    try:
        root = psutil.Process(pid)
        # A thread has the cores of the one that started it, so what came while we looked is found by another look.
        while new := {*_list_threads([root, *root.children(recursive=True)])} - kept:
            for thread in new:
                with contextlib.suppress(ProcessLookupError):  # it has ended
                    os.sched_setaffinity(thread, cores)
            kept |= new
    except psutil.Error as error:
        raise LabError(f"the process {pid} cannot be kept to {_show(cores)}: {error}") from None


def _list_threads(processes: Iterable[Any]) -> Iterator[int]:
    for process in processes:
        with contextlib.suppress(FileNotFoundError):  # it has ended
            yield from (int(thread.name) for thread in Path(f"/proc/{process.pid}/task").iterdir())


def _show(cores: Iterable[int]) -> str:
    found = list(cores)
    return f"core{'s' if len(found) > 1 else ''} {encode_cores(found)}"


def allotted_cores(model: Model, cores: int | None, pinning: Pinning | None = None) -> int | None:
    """How many cores a server can keep busy: one, unless its catalogue entry says all; no more than it is kept to."""
    if not model.uses_all_cores:
        return 1
    return len(pinning.servers) if pinning else cores
