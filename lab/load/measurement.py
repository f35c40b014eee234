"""One measurement: drive a model with the load generator, read both sides' accounts, give the verdict.

The server's CPU is read before the generator starts and after it ends, and divided by all that was answered between,
the warm-up too: no clock of one side has to agree with one of the other's, and nothing else talks to the server then.
"""

import json
from bisect import bisect_left
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields
from itertools import accumulate
from typing import Any, Self

from lab.metrics.verdict import Limit, Verdict
from lab.servers.catalogue import Listener

# What a row of a measurement's series holds: seconds since it began, CPU seconds since the server's start, and so on.
SERIES = ("seconds", "cpu_seconds", "memory_bytes", "processes", "threads", "descriptors")


@dataclass(frozen=True, slots=True)
class Measurement:
    """One model under one workload. Times in microseconds, memory in bytes; None is "not known".

    Args:
        model, family, summary: from the catalogue.
        backend: where it ran.
        workload: what it was asked: a scenario.
        users: connections, on average; each has at most one exchange in flight.
        depth: requests in one exchange (a pipeline's).
        seconds: the measured window, after the warm-up.
        answered: exchanges that came back right.
        failures: those that did not, by reason.
        histogram: (response time to a thousandth, count), rising: from the sending, or in an open loop from when an
            exchange was due.
        service: the same from the sending, in an open loop; None in a closed one, where the two are one.
        mean_us, min_us, max_us: response time of an exchange, from the sending.
        asked_rate: of an open loop, requests per second that were due; None of a closed one.
        late: of an open loop, exchanges that were sent more than a millisecond after their time.
        dropped: those that could not be sent at all.
        lost, duplicates, reordered: datagrams: not answered in time, answered twice, overtaken.
        starved: users without a single reply in the window.
        in_flight: rate x response time.
        server_cpu_us: the server's CPU for one request.
        server_cores, generator_cores, machine_cores: cores' worth of CPU that was used, the last by everything.
        cores: what the machine has.
        memory_bytes, threads: the most that was seen of the server under this load.
        versions: of the load generator.
        verdict: what limited it.
        server_user_us, server_system_us: the two parts of `server_cpu_us`.
        processes, descriptors: the most that was seen of the server.
        peak_bytes: the most memory that the server has held since it started, file cache included.
        switches: the server's context switches for one request, at least.
        server_throttled, generator_throttled: for which part of the time a CPU quota held that side back.
        allotted: cores that the server could use at most.
        series: readings of the server under this load: see `SERIES`.
        warm_up_failures: exchanges of the warm-up that did not come back right, by reason.
        disturbances: what happened to the measurement itself; its figures then mean nothing.
        server_unknown: why nothing is known of the server's process; empty if something is, or nothing says why.
    """

    model: str
    family: str
    summary: str
    backend: str
    workload: str
    users: int
    depth: int
    seconds: float
    answered: int
    failures: dict[str, int]
    histogram: tuple[tuple[float, int], ...]
    mean_us: float | None
    min_us: float | None
    max_us: float | None
    starved: int
    in_flight: float | None
    server_cpu_us: float | None
    server_cores: float | None
    generator_cores: float | None
    machine_cores: float | None
    cores: int | None
    memory_bytes: int | None
    threads: int | None
    versions: dict[str, str]
    verdict: Verdict
    transport: str = "tcp"
    service: tuple[tuple[float, int], ...] | None = None
    asked_rate: float | None = None
    late: int = 0
    dropped: int = 0
    lost: int = 0
    duplicates: int = 0
    reordered: int = 0
    server_user_us: float | None = None
    server_system_us: float | None = None
    processes: int | None = None
    descriptors: int | None = None
    peak_bytes: int | None = None
    switches: float | None = None
    server_throttled: float | None = None
    generator_throttled: float | None = None
    allotted: int | None = None
    series: tuple[tuple[float | None, ...], ...] = ()
    warm_up_failures: dict[str, int] = field(default_factory=dict)
    disturbances: tuple[str, ...] = ()
    server_unknown: str = ""

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Self:
        """What `as_json` gave; fields that this version does not know are left out.

        Raises:
            KeyError, TypeError, ValueError: it is something else.
        """
        known = {item.name for item in fields(cls)}
        values = {name: value for name, value in data.items() if name in known}
        for name in ("histogram", "service", "series"):
            if values.get(name) is not None:
                values[name] = tuple(tuple(row) for row in values[name])
        values["disturbances"] = tuple(values.get("disturbances", ()))
        verdict = values["verdict"]
        return cls(**values | {"verdict": Verdict(Limit(verdict["bound"]), verdict["reason"])})

    @property
    def rate(self) -> float:
        """Requests per second that were answered right."""
        return self.answered * self.depth / self.seconds

    @property
    def rate_ratio(self) -> float | None:
        """The rate, of that which was asked for; None in a closed loop."""
        return self.rate / self.asked_rate if self.asked_rate else None

    @property
    def failed(self) -> int:
        """Exchanges that did not come back right."""
        return sum(self.failures.values())

    @property
    def failure_ratio(self) -> float | None:
        """Failures among all exchanges; None if there were none at all."""
        exchanges = self.answered + self.failed
        return self.failed / exchanges if exchanges else None

    def ratio(self, count: int) -> float | None:
        """A count of exchanges, of all that were due; None in a closed loop."""
        due = self.asked_rate * self.seconds / self.depth if self.asked_rate else 0.0
        return count / due if due else None

    @property
    def loss_ratio(self) -> float | None:
        """Datagrams that were lost, of all that were sent; None if none were answered or lost."""
        sent = self.answered * self.depth + self.lost
        return self.lost / sent if sent else None

    def percentile(self, share: float) -> float | None:
        """The response time within which this share of the exchanges ended, time-outs included."""
        return percentile(self.histogram, share)

    def as_json(self) -> dict[str, Any]:
        """Everything, with the derived figures beside it."""
        # Not `asdict`, which copies every bucket of the histograms: a third of what a step cost the lab itself.
        own = {item.name: getattr(self, item.name) for item in fields(self)}
        times = percentiles(self.histogram, PERCENTILES.values())
        service_times = percentiles(self.service, PERCENTILES.values()) if self.service else times
        return own | {
            "verdict": asdict(self.verdict),
            "rate": self.rate,
            "rate_is_lower_bound": self.verdict.is_lower_bound,
            "rate_ratio": self.rate_ratio,
            **dict(zip(PERCENTILES, times, strict=True)),
            **{f"service_{name}": time for name, time in zip(PERCENTILES, service_times, strict=True)},
        }


PERCENTILES = {"p50_us": 0.5, "p90_us": 0.9, "p99_us": 0.99, "p99.9_us": 0.999}


def percentiles(histogram: Sequence[tuple[float, int]], shares: Iterable[float]) -> list[float | None]:
    """For each share, the smallest value that at least so many of the counts lie at or below (nearest rank).

    None of nothing. All of them at once, because to add the counts up is what takes the time.
    """
    seen = list(accumulate(count for _, count in histogram))
    return [histogram[bisect_left(seen, share * seen[-1])][0] if seen else None for share in shares]


def percentile(histogram: Sequence[tuple[float, int]], share: float) -> float | None:
    """One of `percentiles`."""
    return percentiles(histogram, [share])[0]


def encode_targets(listeners: Sequence[Listener]) -> str:
    """Addresses in the form of `lab ls --json`, for the generator."""
    rows: dict[str, list[dict[str, str]]] = {}
    for item in listeners:
        rows.setdefault(item.model, []).append(item.as_json())
    return json.dumps([{"model": model, "listeners": found} for model, found in rows.items()])
