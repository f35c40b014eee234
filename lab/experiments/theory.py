"""What simple theory expects of a server: how much it can answer, and how long a request waits for its turn.

Pure functions over what a model declares of its concurrency (`lab.concurrency` and `lab.cores` in compose.yaml) and
what one request takes. Strategy: the bounds of operational analysis. A request needs a place (a connection's turn, a
worker) for all of its time S, and a core for the part of it that computes; no more requests are answered than the
scarcer of the two allows. What a queue adds below that bound is Erlang's formula for so many servers (M/M/c).

Sources: Denning and Buzen, "The operational analysis of queueing network models", 1978; Kleinrock, "Queueing Systems",
volume 1, 1975, sections 3.5 and 5.5.
"""

from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, fields
from math import inf, log
from typing import Any, Self

from lab.base.units import show_count, show_time
from lab.servers.backend import read_limits
from lab.servers.catalogue import Catalogue, Model
from services.protocol import BLOCKING_WORKERS, Limits

# Who waits while a request computes.
_WHO_WAITS = {
    "one": "one client at a time",
    "thread each": "threads take turns at one GIL",
    "threads": "threads take turns at one GIL",
    "loop": "one loop, and everybody on it waits for who computes",
}


@dataclass(frozen=True, slots=True)
class Server:
    """What theory has to know of a server.

    Args:
        concurrency: of `lab.servers.catalogue.CONCURRENCIES`.
        workers: connections that can have a request in hand at the same time; None for as many as there are.
        connections: the most that it accepts.
        uses_all_cores: whether it can compute on several cores at the same time.
    """

    concurrency: str
    workers: int | None
    connections: int
    uses_all_cores: bool

    @classmethod
    def of(cls, catalogue: Catalogue, model: Model) -> Self | None:
        """As the catalogue declares it; None where it says nothing of the concurrency."""
        if model.concurrency is None:
            return None
        limits = Limits.from_environ({**catalogue.environ(model.name), **read_limits()})
        pool = limits.workers or BLOCKING_WORKERS
        workers = {"one": 1, "threads": pool, "processes": pool}.get(model.concurrency)
        return cls(model.concurrency, workers, limits.connections, model.uses_all_cores)

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Self:
        """What `as_json` gave."""
        return cls(**{item.name: data[item.name] for item in fields(cls)})

    def as_json(self) -> dict[str, Any]:
        """For the store."""
        return asdict(self)

    def places(self, connections: int) -> int:
        """How many requests can be in hand at the same time."""
        return min(connections, self.workers or connections)


@dataclass(frozen=True, slots=True)
class Ceiling:
    """The most that theory allows.

    Args:
        rate: requests per second.
        reason: the sentence that leads to it.
    """

    rate: float
    reason: str


def find_ceiling(
    server: Server, *, connections: int, cores: int, cpu: float | None, wait: float, hold: float | None = None
) -> Ceiling | None:
    """How many requests a second a server can answer at most.

    Args:
        connections: that ask without a pause.
        cores: that the server can compute on at the same time.
        cpu: seconds of CPU that a request takes of it; None if nobody knows.
        wait: seconds that a request waits for something else.
        hold: of a server for one client at a time, how long a request keeps it, the way to the client and back
            included; None if nobody knows.

    Returns:
        None if there is nothing to reason from.
    """
    found = []
    if cpu:
        where = f"{cores} core" + ("s" if cores > 1 else "")
        if not server.uses_all_cores:
            where = _WHO_WAITS.get(server.concurrency, where)
        found.append(Ceiling(cores / cpu, f"{where}: {cores}/S with S = {show_time(cpu * 1e6)} of CPU"))
    if hold or wait:
        taken = hold or wait + (cpu or 0.0)
        places = server.places(connections)
        who = "one client at a time" if places == 1 else f"{places} requests at once"
        found.append(Ceiling(places / taken, f"{who}: {places}/S with S = {show_time(taken * 1e6)} from begin to end"))
    return min(found, key=lambda item: item.rate, default=None)


def wait_chance(servers: int, load: float) -> float:
    """Erlang's C: the chance that a request has to wait, of so many servers.

    Args:
        servers: at least 1.
        load: rate x service time: how many of them are busy on average.
    """
    if load >= servers:
        return 1.0
    # Erlang's B by its recurrence, which stays within floating point for any number of servers.
    blocked = 1.0
    for number in range(1, servers + 1):
        blocked = load * blocked / (number + load * blocked)
    return servers * blocked / (servers - load * (1 - blocked))


def queue_wait(servers: int, rate: float, service: float, share: float) -> float:
    """How long a request waits for its turn: the time that this share of them stay within, in seconds.

    M/M/c, first come, first served: P(wait > t) = C(c, rate x service) x exp(-(c / service - rate) x t). Arrivals are
    those of people who know nothing of each other, service times as uneven as those of an exponential distribution;
    where they are all alike, the wait is about half as long (Pollaczek and Khinchine).

    Args:
        servers: cores or workers.
        rate: requests per second.
        service: seconds that each takes of one of them.
        share: such as 0.99.

    Returns:
        Infinity where more is asked than they can do.
    """
    load = rate * service
    if load >= servers:
        return inf
    chance = wait_chance(servers, load)
    if chance <= 1 - share:
        return 0.0
    return log(chance / (1 - share)) / (servers / service - rate)


def describe_concurrency(catalogue: Catalogue, models: Iterable[Model]) -> dict[str, dict[str, Any]]:
    """What is declared of models, by name, for the store: a compose file may say something else tomorrow."""
    found = {model.name: Server.of(catalogue, model) for model in models}
    return {name: server.as_json() for name, server in found.items() if server}


def describe_rate(rate: float) -> str:
    """A rate in a sentence."""
    return f"{show_count(rate)}/s"
