"""Predict what a load means for one model: pure functions over measured and declared properties."""

from collections.abc import Iterator
from dataclasses import asdict, dataclass
from itertools import pairwise
from math import inf, isfinite

from lab.base.units import show_bytes, show_count, show_time
from lab.experiments.theory import Server, queue_wait


@dataclass(frozen=True, slots=True)
class Demand:
    """The load to plan for. Times in seconds.

    Args:
        connections: Open connections.
        rate: Requests per second.
        wait, cpu: Sleeping and computing time of a request on an idle server.
        share: The percentile of the condition, such as 0.99.
        limit: The limit of that percentile; None without a condition.
        cores: Cores of the server.
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
    """What is known of a model. None means not measured.

    Args:
        model: Its name.
        server: Its declared concurrency; None if it declares none.
        costs: (requests per second, CPU seconds of a PING at that rate), rising. At a low rate a PING costs more, since
            the server has to wake up more often. Empty if not known.
        ping_time: The percentile of the condition for PINGs at half of the model's maximum, in seconds: the least that
            any request takes.
        base_bytes: Memory with few connections.
        connection_bytes: Memory of each further connection.
        most_connections: The largest number of connections that was measured.
        most_rate: The highest rate that was measured, in requests per second.
        is_lower_bound: Whether it could have done more than `most_rate`.
        memory_limit: Limit of its container, in bytes.
        failing: How it failed in that run; empty if it did not.
    """

    model: str
    server: Server | None
    costs: tuple[tuple[float, float], ...] = ()
    ping_time: float | None = None
    base_bytes: float | None = None
    connection_bytes: float | None = None
    most_connections: int | None = None
    most_rate: float | None = None
    is_lower_bound: bool = False
    memory_limit: int | None = None
    failing: str = ""

    def cost(self, rate: float) -> float | None:
        """Return the CPU seconds of a PING at a rate: interpolated between measured rates, constant beyond them."""
        for (low, cheap), (high, dear) in pairwise(self.costs):
            if low <= rate <= high:
                return cheap + (dear - cheap) * (rate - low) / (high - low)
        if not self.costs:
            return None
        return self.costs[0][1] if rate < self.costs[0][0] else self.costs[-1][1]


@dataclass(frozen=True, slots=True)
class Advice:
    """The prediction for one model.

    Args:
        model: Its name.
        holds: Whether it can serve the load within the condition.
        utilization: Utilization of the nearest limit; at 1 the limit is reached.
        cpu_load: Utilization of the cores that it can use.
        cores: Cores that it can use.
        in_flight: Mean number of requests in progress.
        slots: Requests that can be in progress at the same time.
        response: The percentile of the response time in seconds; None if the queue grows without bound.
        memory_bytes: Memory that it needs; None if not known.
        breaks_first: The nearest limit.
        reason: The reasons as sentences.
    """

    model: str
    holds: bool
    utilization: float
    cpu_load: float
    cores: int
    in_flight: float
    slots: int
    response: float | None
    memory_bytes: float | None
    breaks_first: str
    reason: str

    def as_json(self) -> dict[str, object]:
        return asdict(self) | {"utilization": self.utilization if isfinite(self.utilization) else None}


def advise_model(demand: Demand, known: Known) -> Advice:
    server = known.server
    if server is None:
        nothing = "it does not declare its concurrency (lab.concurrency in compose.yaml)"
        return Advice(known.model, False, inf, 0.0, 1, 0.0, 0, None, None, "not known", f"{nothing}.")
    if known.failing:
        why = f"Its replies in that run were not correct: {known.failing}."
        return Advice(known.model, False, inf, 0.0, 1, 0.0, 0, None, None, "its replies", why)
    cores = demand.cores if server.uses_all_cores else 1
    cost = known.cost(demand.rate)
    cpu = demand.cpu + (cost or 0.0)
    service = demand.wait + cpu
    slots = server.slots(min(demand.connections, server.connections))
    cpu_load, in_flight = demand.rate * cpu / cores, demand.rate * service
    queue = queue_wait(cores, demand.rate, cpu, demand.share)
    # The wait for a slot; there is none if each connection has one.
    turn = queue_wait(slots, demand.rate, service, demand.share) if server.workers else 0.0
    # A connection without a worker, or above the limit, waits until another one closes.
    served = min(demand.connections, server.workers or server.connections, server.connections)
    unserved = demand.connections - served
    response = inf if unserved else demand.wait + turn + max(cpu + queue, known.ping_time or 0.0)
    memory = None
    if known.base_bytes is not None and known.connection_bytes is not None:
        memory = known.base_bytes + known.connection_bytes * served
    limits = dict(_list_limits(demand, known, server, cpu_load, in_flight / slots, response, memory))
    first = max(limits, key=lambda name: limits[name])
    utilization = limits[first]
    return Advice(
        known.model,
        utilization < 1,
        utilization,
        cpu_load,
        cores,
        in_flight,
        slots,
        response if isfinite(response) else None,
        memory,
        f"{first}: {f'{utilization:.0%} of' if utilization < 10 else f'{utilization:.0f} times'} it",
        " ".join(_reason(demand, known, cores, cpu_load, in_flight, slots, unserved, queue + turn, memory)),
    )


def _list_limits(
    demand: Demand,
    known: Known,
    server: Server,
    cpu_load: float,
    slot_load: float,
    response: float,
    memory: float | None,
) -> Iterator[tuple[str, float]]:
    yield ("the core" if not server.uses_all_cores or demand.cores == 1 else "the cores"), cpu_load
    yield f"LAB_MAX_CONNECTIONS={server.connections}", demand.connections / server.connections
    if server.workers:
        who = "one client at a time" if server.workers == 1 else f"LAB_WORKERS={server.workers}"
        # A client keeps its worker while it is connected. A further client waits until another one disconnects.
        yield who, max(slot_load, _worker_utilization(demand.connections, server.workers))
    if memory is not None and known.memory_limit:
        yield f"the container's memory of {show_bytes(known.memory_limit)}", memory / known.memory_limit
    if demand.limit is not None and isfinite(response):
        yield f"{show_time(demand.limit * 1e6)} for p{100 * demand.share:g}", response / demand.limit


def _worker_utilization(connections: int, workers: int) -> float:
    """Return the utilization of the workers. It stays below 1 as long as each connection has one."""
    return connections / workers if connections > workers else min(connections / workers, 0.99)


def _reason(
    demand: Demand,
    known: Known,
    cores: int,
    cpu_load: float,
    in_flight: float,
    slots: int,
    unserved: int,
    wait: float,
    memory: float | None,
) -> Iterator[str]:
    own = known.cost(demand.rate)
    cost = "an unknown cost" if own is None else f"{show_time(own * 1e6)} of its own"
    yield (
        f"{show_count(demand.rate)}/s x ({show_time(demand.cpu * 1e6)} + {cost}) is {cpu_load * cores:.2f} of "
        f"{cores} core{'s' if cores > 1 else ''}."
    )
    if unserved:
        yield f"{unserved} of {demand.connections} connections wait until another one closes, or are refused."
    if in_flight >= slots:
        yield f"{in_flight:.3g} requests in flight exceed {slots} slot{'s' if slots > 1 else ''}."
    if cpu_load >= 1:
        yield "That is more than it can compute: the queue grows without bound."
    elif not unserved and isfinite(wait):
        most = f"wait less than {show_time(wait * 1e6)}" if wait else "do not wait"
        yield f"{100 * demand.share:g} % of the requests {most} in the queue."
        if known.ping_time is not None:
            yield f"A PING took {show_time(known.ping_time * 1e6)} without a queue."
    if known.costs and demand.rate < known.costs[0][0]:
        lowest = show_count(known.costs[0][0])
        yield f"Extrapolated: its own cost is that at {lowest} requests/s; at a lower rate, each costs more."
    if memory is None:
        yield "The memory of a connection was not measured."
    if known.most_connections is not None and demand.connections > known.most_connections:
        yield f"Extrapolated: it was measured with at most {known.most_connections} connections."
    if known.most_rate is None:
        yield "Extrapolated: its maximum was not measured."
    elif demand.rate > known.most_rate:
        end = "was not its maximum" if known.is_lower_bound else "was its maximum"
        yield f"Extrapolated: it was measured with at most {show_count(known.most_rate)} requests/s, which {end}."
