"""The record of one measurement: the figures of both sides and the verdict.

The server's CPU time is read before the generator starts and after it ends, and divided by all replies in between,
those of the warm-up included. So no two clocks have to agree. No other client uses the server during that time.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields
from typing import Any, Self

from lab.metrics.verdict import Limit, Verdict
from lab.servers.catalogue import Listener
from loadtests.sockets.histogram import PERCENTILES, percentile, percentiles

# The columns of a measurement's series: seconds since its start, CPU seconds since the server's start, and so on.
SERIES = ("seconds", "cpu_seconds", "memory_bytes", "processes", "threads", "descriptors")


@dataclass(frozen=True, slots=True)
class Measurement:
    """One model under one workload. Times in microseconds, memory in bytes; None if unknown.

    Args:
        model, family, summary: from the catalogue.
        backend: where it ran.
        workload: name of the preset.
        users: mean number of connections; each has at most one exchange in flight.
        depth: requests per exchange (more than one in a pipeline).
        seconds: the measured window, after the warm-up.
        answered: exchanges with a correct reply.
        failures: failed exchanges by reason.
        histogram: (response time to a thousandth, count), ascending. Times count from sending; in an open loop, from
            when the exchange was due.
        service: the same counted from sending, in an open loop; None in a closed one, where they are equal.
        mean_us, min_us, max_us: response time of an exchange, from sending.
        asked_rate: requests per second that were due in an open loop; None in a closed one.
        late: exchanges of an open loop that were sent more than a millisecond late.
        dropped: exchanges of an open loop that could not be sent.
        lost, duplicates, reordered: datagrams without a reply in time, with two replies, or out of order.
        starved: users without a single reply in the window.
        in_flight: rate x response time.
        server_cpu_us: the server's CPU time per request.
        server_cores, generator_cores, machine_cores: mean number of cores in use, the last by all processes.
        cores: cores of the machine.
        memory_bytes, threads: the highest reading of the server under this load.
        versions: of the load generator.
        verdict: what limited the measurement.
        server_user_us, server_system_us: the two parts of `server_cpu_us`.
        processes, descriptors: the highest reading of the server.
        peak_bytes: the highest memory use since the server started, file cache included.
        switches: the server's context switches per request; a lower bound.
        server_throttled, generator_throttled: the share of the time for which a CPU quota stopped that side.
        allotted: the most cores that the server could use.
        series: readings of the server under this load: see `SERIES`.
        warm_up_failures: failed exchanges of the warm-up by reason.
        disturbances: events that make the figures meaningless.
        server_unknown: why the server's process is unknown; empty if it is known, or there is no reason.
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
        """Parse the result of `as_json`; ignore unknown fields.

        Raises:
            KeyError, TypeError, ValueError: the data is not a measurement.
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
        """Return correctly answered requests per second."""
        return self.answered * self.depth / self.seconds

    @property
    def rate_ratio(self) -> float | None:
        """Return the rate relative to the requested rate; None in a closed loop."""
        return self.rate / self.asked_rate if self.asked_rate else None

    @property
    def failed(self) -> int:
        """Return the number of failed exchanges."""
        return sum(self.failures.values())

    @property
    def failure_ratio(self) -> float | None:
        """Return the share of failed exchanges; None if there were no exchanges."""
        exchanges = self.answered + self.failed
        return self.failed / exchanges if exchanges else None

    def ratio(self, count: int) -> float | None:
        """Return a count of exchanges relative to those that were due; None in a closed loop."""
        due = self.asked_rate * self.seconds / self.depth if self.asked_rate else 0.0
        return count / due if due else None

    @property
    def loss_ratio(self) -> float | None:
        """Return the share of lost datagrams; None if none were answered or lost."""
        sent = self.answered * self.depth + self.lost
        return self.lost / sent if sent else None

    def percentile(self, share: float) -> float | None:
        """Return the response time within which this share of the exchanges ended, time-outs included."""
        return percentile(self.histogram, share)

    def as_json(self) -> dict[str, Any]:
        """Return all fields and the derived figures."""
        # Not `asdict`, which copies every bucket of the histograms: a third of the lab's own time per step.
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


def encode_targets(listeners: Sequence[Listener]) -> str:
    """Encode addresses for the load generator, in the format of `lab ls --json`."""
    rows: dict[str, list[dict[str, str]]] = {}
    for item in listeners:
        rows.setdefault(item.model, []).append(item.as_json())
    return json.dumps([{"model": model, "listeners": found} for model, found in rows.items()])
