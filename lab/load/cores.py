"""Pin the servers and the load generator to separate cores.

Without pinning, the scheduler may put both on one core, and such a run looks like a slow server.
"""

import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from lab.base.environ import ENV_GENERATOR_CORES
from lab.base.units import show_cores
from lab.metrics.verdict import CoreUse
from lab.servers.catalogue import Model
from loadtests.contract import LoadResult


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
        return f"servers on {show_cores(self.servers)}, load generator on {show_cores(self.generator)}"


def split_cores(cores: Iterable[int] | None = None) -> Pinning | None:
    """Assign the first core to the load generator, which is one process, and the others to the servers.

    Args:
        cores: default: those that this process may use.

    Returns:
        None if there is only one core.
    """
    found = sorted(os.sched_getaffinity(0) if cores is None else cores)
    return Pinning(tuple(found[1:]), (found[0],)) if len(found) > 1 else None


class Pinnable(Protocol):
    """Servers that can be pinned to cores."""

    def pin(self, model: str, cores: Sequence[int]) -> None:
        """See `lab.servers.backend.Servers.pin`."""


def pin_servers(servers: Pinnable, models: Iterable[str], pinning: Pinning) -> None:
    """Pin running models to the cores of the servers.

    Raises:
        LabError: a model could not be pinned.
    """
    for model in models:
        servers.pin(model, pinning.servers)


def pin_generator(environ: Mapping[str, str]) -> None:
    """Pin this process, the load generator, to the cores that the lab has set, if any.

    Raises:
        ValueError: the variable does not hold numbers of cores.
        OSError: the cores are not available.
    """
    if text := environ.get(ENV_GENERATOR_CORES):
        os.sched_setaffinity(0, {int(core) for core in text.split(",")})


def allotted_cores(model: Model, cores: int | None, pinning: Pinning | None = None) -> int | None:
    """Return how many cores a server can use: one, unless the catalogue says all; at most those it is pinned to."""
    if not model.uses_all_cores:
        return 1
    return len(pinning.servers) if pinning else cores


def find_core_use(pinning: Pinning, load: LoadResult) -> CoreUse | None:
    """Return how busy the cores of each side were under a load, or None if it is unknown."""
    # A machine with cores that are offline numbers its cores with gaps.
    if max(*pinning.servers, *pinning.generator) >= len(load.core_use):
        return None

    def pick(shares: Sequence[float], cores: Sequence[int]) -> tuple[float, ...]:
        return tuple(shares[core] for core in cores)

    return CoreUse(
        server=pick(load.core_use, pinning.servers),
        generator=pick(load.core_use, pinning.generator),
        server_stolen=pick(load.core_steal, pinning.servers),
        generator_stolen=pick(load.core_steal, pinning.generator),
    )
