"""Compute what queueing theory expects of a server: its highest rate, and how long a request waits in the queue.

Pure functions of a model's declared concurrency (`lab.concurrency` and `lab.cores` in compose.yaml) and the cost of a
request. Strategy: the bounds of operational analysis. A request occupies a slot (a connection or a worker) for all of
its time S, and a core for the computing part of it. The scarcer of the two limits the rate. Below that bound, the time
in the queue is that of M/M/c (Erlang's C).

Sources: Denning and Buzen, "The operational analysis of queueing network models", 1978; Kleinrock, "Queueing Systems",
volume 1, 1975, sections 3.5 and 5.5.
"""

from collections.abc import Iterable
from dataclasses import asdict, dataclass
from math import inf, log
from typing import Self

from lab.base.units import show_count, show_time
from lab.servers.backend import read_limits
from lab.servers.catalogue import Catalogue, Model
from services.protocol import BLOCKING_WORKERS, Limits

# How the GIL or the loop limits CPU-bound requests, by concurrency.
_CPU_LIMITS = {
    "one": "one client at a time",
    "thread each": "threads take turns at one GIL",
    "threads": "threads take turns at one GIL",
    "loop": "one loop, blocked while a request computes",
}


@dataclass(frozen=True, slots=True)
class Server:
    """The properties of a server that theory uses.

    Args:
        concurrency: One of `lab.servers.catalogue.CONCURRENCIES`.
        workers: Connections that can have a request in progress at the same time; None for all.
        connections: The limit of accepted connections.
        uses_all_cores: Whether it can compute on several cores at the same time.
    """

    concurrency: str
    workers: int | None
    connections: int
    uses_all_cores: bool

    @classmethod
    def of(cls, catalogue: Catalogue, model: Model) -> Self | None:
        """Return what the catalogue declares; None if it declares no concurrency."""
        if model.concurrency is None:
            return None
        limits = Limits.from_environ({**catalogue.environ(model.name), **read_limits()})
        pool = limits.workers or BLOCKING_WORKERS
        workers = {"one": 1, "threads": pool, "processes": pool}.get(model.concurrency)
        return cls(model.concurrency, workers, limits.connections, model.uses_all_cores)

    def slots(self, connections: int) -> int:
        """Return how many requests can be in progress at the same time."""
        return min(connections, self.workers or connections)


@dataclass(frozen=True, slots=True)
class UpperBound:
    """The highest rate that theory allows.

    Args:
        rate: Requests per second.
        reason: The calculation in words.
    """

    rate: float
    reason: str


def find_upper_bound(
    server: Server, *, connections: int, cores: int, cpu: float | None, wait: float, hold: float | None = None
) -> UpperBound | None:
    """Return the highest rate of requests that a server can answer.

    Args:
        connections: Connections that send requests without a pause.
        cores: Cores that the server can use.
        cpu: CPU seconds per request; None if not known.
        wait: Seconds that a request sleeps.
        hold: For a server that serves one client at a time, the seconds for which a request occupies it, including the
            round trip; None if not known.

    Returns:
        None if neither `cpu`, `wait` nor `hold` is known.
    """
    found = []
    if cpu:
        where = f"{cores} core" + ("s" if cores > 1 else "")
        if not server.uses_all_cores:
            where = _CPU_LIMITS.get(server.concurrency, where)
        found.append(UpperBound(cores / cpu, f"{where}: {cores}/S with S = {show_time(cpu * 1e6)} of CPU"))
    if hold or wait:
        taken = hold or wait + (cpu or 0.0)
        slots = server.slots(connections)
        who = "one client at a time" if slots == 1 else f"{slots} requests at the same time"
        found.append(UpperBound(slots / taken, f"{who}: {slots}/S with S = {show_time(taken * 1e6)} in total"))
    return min(found, key=lambda item: item.rate, default=None)


def wait_chance(servers: int, load: float) -> float:
    """Return the probability that a request has to wait (Erlang's C).

    Args:
        servers: Number of servers, at least 1.
        load: Rate x service time, the mean number of busy servers.
    """
    if load >= servers:
        return 1.0
    # Erlang's B by its recurrence, which does not overflow for any number of servers.
    blocked = 1.0
    for number in range(1, servers + 1):
        blocked = load * blocked / (number + load * blocked)
    return servers * blocked / (servers - load * (1 - blocked))


def queue_wait(servers: int, rate: float, service: float, share: float) -> float:
    """Return a percentile of the time that a request waits in the queue, in seconds.

    M/M/c, first come, first served: P(wait > t) = C(c, rate x service) x exp(-(c / service - rate) x t). Arrivals are
    independent and service times are exponential. With constant service times, the wait is about half as long
    (Pollaczek and Khinchine).

    Args:
        servers: Cores or workers.
        rate: Requests per second.
        service: Seconds of one server per request.
        share: The percentile, such as 0.99.

    Returns:
        Infinity if the load exceeds the capacity.
    """
    load = rate * service
    if load >= servers:
        return inf
    chance = wait_chance(servers, load)
    if chance <= 1 - share:
        return 0.0
    return log(chance / (1 - share)) / (servers / service - rate)


def describe_concurrency(catalogue: Catalogue, models: Iterable[Model]) -> dict[str, dict[str, object]]:
    """Return the declarations of models by name. They are stored with a run, since compose.yaml may change later."""
    found = {model.name: Server.of(catalogue, model) for model in models}
    return {name: asdict(server) for name, server in found.items() if server}


def describe_rate(rate: float) -> str:
    return f"{show_count(rate)}/s"
