"""Predict what a load means for one model: pure functions over measured and declared properties."""

from collections.abc import Iterator
from dataclasses import asdict, dataclass
from itertools import pairwise
from math import inf, isfinite
from typing import Any

from lab.base.units import show_bytes, show_count, show_time
from lab.experiments.theory import Server, queue_wait


@dataclass(frozen=True, slots=True)
class Demand:
    """A load that somebody has in mind. Times in seconds.

    Args:
        connections: that are open at a time.
        rate: requests per second.
        wait, cpu: what a request takes, by itself.
        share: the percentile that counts, such as 0.99.
        limit: what it has to stay within; None if nothing was asked.
        cores: that the server has.
    """

    connections: int
    rate: float
    wait: float
    cpu: float
    share: float
    limit: float | None
    cores: int


@dataclass(frozen=True, slots=True)
class Known:
    """What is known of a model. None wherever nobody has measured it.

    Args:
        model: its name.
        server: what it declares; None if nothing.
        costs: (requests per second, seconds of CPU of a PING at that rate), rising: one that is asked less often costs
            more, since more of it is waking up. Empty if not known.
        plain: seconds within which the percentile that counts of PINGs came back, at half of what it can do: what this
            machine takes in any case.
        base_bytes: memory with few connections.
        connection_bytes: what one more takes.
        most_connections: the most that it was measured with.
        most_rate: the most requests per second that it was measured with.
        is_lower_bound: whether it could have done more than that.
        memory_limit: of its container, in bytes.
        failing: how it did not do what it was asked in that run; empty if it did.
    """

    model: str
    server: Server | None
    costs: tuple[tuple[float, float], ...] = ()
    plain: float | None = None
    base_bytes: float | None = None
    connection_bytes: float | None = None
    most_connections: int | None = None
    most_rate: float | None = None
    is_lower_bound: bool = False
    memory_limit: int | None = None
    failing: str = ""

    def cost(self, rate: float) -> float | None:
        """Seconds of CPU of a PING at a rate: between two that were measured, in proportion; beyond them, as there."""
        for (low, cheap), (high, dear) in pairwise(self.costs):
            if low <= rate <= high:
                return cheap + (dear - cheap) * (rate - low) / (high - low)
        if not self.costs:
            return None
        return self.costs[0][1] if rate < self.costs[0][0] else self.costs[-1][1]


@dataclass(frozen=True, slots=True)
class Advice:
    """What comes of it.

    Args:
        model: its name.
        holds: whether it can serve the load, and what was asked of its times.
        strain: how near the nearest limit is: 1 is there.
        cpu_load: of the cores that it can use.
        cores: that it can use.
        in_hand: requests at a time, on average.
        places: for how many there is room.
        response: seconds, of the percentile that counts; None where the queue has no end.
        memory_bytes: that it will take; None if not known.
        breaks_first: the nearest limit.
        reason: the sentences.
    """

    model: str
    holds: bool
    strain: float
    cpu_load: float
    cores: int
    in_hand: float
    places: int
    response: float | None
    memory_bytes: float | None
    breaks_first: str
    reason: str

    def as_json(self) -> dict[str, Any]:
        """For a script."""
        return asdict(self) | {"strain": self.strain if isfinite(self.strain) else None}


def advise_model(demand: Demand, known: Known) -> Advice:
    """Reason about one model."""
    server = known.server
    if server is None:
        nothing = "it does not declare whom it serves at the same time (lab.concurrency in compose.yaml)"
        return Advice(known.model, False, inf, 0.0, 1, 0.0, 0, None, None, "not known", f"{nothing}.")
    if known.failing:
        why = f"What it answered in that run cannot be relied on: {known.failing}."
        return Advice(known.model, False, inf, 0.0, 1, 0.0, 0, None, None, "its replies", why)
    cores = demand.cores if server.uses_all_cores else 1
    cost = known.cost(demand.rate)
    cpu = demand.cpu + (cost or 0.0)
    service = demand.wait + cpu
    places = server.places(min(demand.connections, server.connections))
    cpu_load, in_hand = demand.rate * cpu / cores, demand.rate * service
    queue = queue_wait(cores, demand.rate, cpu, demand.share)
    # For its turn at a place: where every connection has one, nobody waits for that.
    turn = queue_wait(places, demand.rate, service, demand.share) if server.workers else 0.0
    # Whoever finds no worker, or is not let in, waits as long as the others stay.
    served = min(demand.connections, server.workers or server.connections, server.connections)
    left_out = demand.connections - served
    response = inf if left_out else demand.wait + turn + max(cpu + queue, known.plain or 0.0)
    memory = None
    if known.base_bytes is not None and known.connection_bytes is not None:
        memory = known.base_bytes + known.connection_bytes * served
    limits = dict(_list_limits(demand, known, server, cpu_load, in_hand / places, response, memory))
    first = max(limits, key=lambda name: limits[name])
    strain = limits[first]
    return Advice(
        known.model,
        strain < 1,
        strain,
        cpu_load,
        cores,
        in_hand,
        places,
        response if isfinite(response) else None,
        memory,
        f"{first}: {f'{strain:.0%} of' if strain < 10 else f'{strain:.0f} times'} it",
        " ".join(_reason(demand, known, cores, cpu_load, in_hand, places, left_out, queue + turn, memory)),
    )


def _list_limits(
    demand: Demand,
    known: Known,
    server: Server,
    cpu_load: float,
    place_load: float,
    response: float,
    memory: float | None,
) -> Iterator[tuple[str, float]]:
    """Every limit, and how much of it the load takes."""
    yield ("the core" if not server.uses_all_cores or demand.cores == 1 else "the cores"), cpu_load
    yield f"LAB_MAX_CONNECTIONS={server.connections}", demand.connections / server.connections
    if server.workers:
        who = "one client at a time" if server.workers == 1 else f"LAB_WORKERS={server.workers}"
        # A client keeps its worker while it is connected: one more than there are waits until another leaves.
        yield who, max(place_load, _crowd(demand.connections, server.workers))
    if memory is not None and known.memory_limit:
        yield f"the container's memory of {show_bytes(known.memory_limit)}", memory / known.memory_limit
    if demand.limit is not None and isfinite(response):
        yield f"{show_time(demand.limit * 1e6)} for p{100 * demand.share:g}", response / demand.limit


def _crowd(connections: int, workers: int) -> float:
    """All workers taken is no harm yet; one connection more is."""
    return connections / workers if connections > workers else min(connections / workers, 0.99)


def _reason(
    demand: Demand,
    known: Known,
    cores: int,
    cpu_load: float,
    in_hand: float,
    places: int,
    left_out: int,
    wait: float,
    memory: float | None,
) -> Iterator[str]:
    own = known.cost(demand.rate)
    cost = "an unknown cost" if own is None else f"{show_time(own * 1e6)} of its own"
    yield (
        f"{show_count(demand.rate)}/s x ({show_time(demand.cpu * 1e6)} + {cost}) is {cpu_load * cores:.2f} of "
        f"{cores} core{'s' if cores > 1 else ''}."
    )
    if left_out:
        yield f"{left_out} of {demand.connections} connections wait until another one leaves, or are refused."
    if in_hand >= places:
        yield f"{in_hand:.3g} requests at a time do not fit into {places} place{'s' if places > 1 else ''}."
    if cpu_load >= 1:
        yield "That is more than it can compute: the queue has no end."
    elif not left_out and isfinite(wait):
        most = f"less than {show_time(wait * 1e6)}" if wait else "not at all"
        yield f"{100 * demand.share:g} % of them wait {most} for their turn."
        if known.plain is not None:
            yield f"A PING took {show_time(known.plain * 1e6)} where nobody had to wait for it."
    if known.costs and demand.rate < known.costs[0][0]:
        lowest = show_count(known.costs[0][0])
        yield f"Extrapolated: its own cost is that at {lowest} requests/s; asked less often, each costs more."
    if memory is None:
        yield "What a connection takes of its memory was not measured."
    if known.most_connections is not None and demand.connections > known.most_connections:
        yield f"Extrapolated: it was measured with at most {known.most_connections} connections."
    if known.most_rate is None:
        yield "Extrapolated: how far it goes was not measured."
    elif demand.rate > known.most_rate:
        end = "was not its end" if known.is_lower_bound else "was its end"
        yield f"Extrapolated: it was measured with at most {show_count(known.most_rate)} requests/s, which {end}."
