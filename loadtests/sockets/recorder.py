"""The results of a load test so far, in one place for each process: counts and full histograms, by series.

    RECORDER.attach(environment)     once, when Locust's runner exists
    RECORDER.add(series, tally)      from everything that drives load, in batches
    RECORDER.rows()                  on a local runner or on the master: everything, of all workers together

Workers send their parts to the master with Locust's own reports (`report_to_master`, `worker_report`), so rows are the
same for one process and for twenty.
"""

import time
from collections import Counter, deque
from collections.abc import Callable, Mapping
from dataclasses import asdict, astuple, dataclass, field, fields
from typing import TYPE_CHECKING, Any, ClassVar, cast

from loadtests.sockets.histogram import Histogram

if TYPE_CHECKING:
    from locust.env import Environment

# Our key in a worker's report to its master.
_KEY = "socketlab"

# Seconds that the rate of a row covers: several of the workers' reports.
_RATE_SECONDS = 3.0

# The counts in a row.
COUNTS = ("answered", "failed", "late", "dropped", "lost", "duplicates", "reordered")

# The name of this process in `_gauges` if it has no master.
_HERE = "local"


@dataclass(frozen=True, slots=True, order=True)
class Series:
    """The name of what is counted together.

    Args:
        model: the server.
        workload: the requests.
        transport: as in a URL.
        loop: closed or open.
    """

    model: str
    workload: str
    transport: str = "tcp"
    loop: str = "closed"

    @property
    def is_open(self) -> bool:
        """Whether exchanges are due at times, from which the intended times count."""
        return self.loop == "open"


@dataclass(slots=True)
class Tally:
    """Counts of one series.

    Args:
        answered: exchanges with the right reply.
        requests: requests in them.
        asked: exchanges that were due, in an open loop.
        failures: exchanges that failed, by reason.
        late: exchanges that were sent more than a millisecond after they were due.
        dropped: exchanges that could not be sent before they timed out.
        user_seconds: the sum of all connections' times.
        lost, duplicates, reordered: datagrams that were not answered in time, answered twice, overtaken.
        service: times from the sending of an exchange to its end; timeouts count with their duration.
        intended: times from when an exchange was due, in an open loop.
    """

    answered: int = 0
    requests: int = 0
    asked: int = 0
    failures: Counter[str] = field(default_factory=Counter)
    late: int = 0
    dropped: int = 0
    lost: int = 0
    duplicates: int = 0
    reordered: int = 0
    user_seconds: float = 0.0
    service: Histogram = field(default_factory=Histogram)
    intended: Histogram = field(default_factory=Histogram)

    COUNTS: ClassVar = (
        *("answered", "requests", "asked", "late", "dropped"),
        *("lost", "duplicates", "reordered", "user_seconds"),
    )

    @property
    def failed(self) -> int:
        return self.failures.total()

    def merge(self, other: "Tally") -> None:
        for name in self.COUNTS:
            setattr(self, name, getattr(self, name) + getattr(other, name))
        self.failures.update(other.failures)
        self.service.merge(other.service)
        self.intended.merge(other.intended)

    def encode(self) -> dict[str, object]:
        """Return data for a message, for `decode`."""
        return {name: getattr(self, name) for name in self.COUNTS} | {
            "failures": dict(self.failures),
            "service": self.service.encode(),
            "intended": self.intended.encode(),
        }

    @classmethod
    def decode(cls, data: dict[str, Any]) -> "Tally":
        return cls(
            **{name: data[name] for name in cls.COUNTS},
            failures=Counter(data["failures"]),
            service=Histogram.decode(data["service"]),
            intended=Histogram.decode(data["intended"]),
        )


@dataclass(slots=True)
class Gauge:
    """The current state of one series in one process.

    Args:
        users: connections.
        in_flight: exchanges without a reply yet.
        rate: answered requests per second, over the last seconds.
    """

    users: int = 0
    in_flight: int = 0
    rate: float = 0.0


@dataclass(frozen=True, slots=True)
class Row:
    """The results of one series, with one kind of time.

    Args:
        series: its name.
        kind: "service", from the sending, or in an open loop also "intended", from when it should have been sent.
        gauge: its state.
        tally: its counts.
        times: of this kind.
    """

    series: Series
    kind: str
    gauge: Gauge
    tally: Tally
    times: Histogram

    def as_json(self) -> dict[str, str | int | float | None]:
        """Return the figures by name, for CSV or JSON: times in microseconds, None without a time."""
        return {
            **asdict(self.series),
            "kind": self.kind,
            "users": self.gauge.users,
            "rate": self.gauge.rate,
            **{name: getattr(self.tally, name) for name in COUNTS},
            "in_flight": self.gauge.in_flight,
            **self.times.percentiles(),
            "max_us": self.times.max_us,
        }


class Recorder:
    """Collects tallies."""

    def __init__(self) -> None:
        self._tallies: dict[Series, Tally] = {}
        self._unreported: dict[Series, Tally] | None = None
        self._gauges: dict[str, dict[Series, Gauge]] = {}
        self._recent: dict[Series, deque[tuple[float, int]]] = {}
        # The master's workers, by name; None in any other process.
        self._workers: Mapping[str, object] | None = None

    def attach(self, environment: "Environment") -> None:
        """Reset with Locust's statistics; report to a master, or receive the workers' reports."""
        # Not above: Locust patches the process that imports it, and tallies are useful without it.
        from locust.runners import MasterRunner, WorkerRunner

        runner = environment.runner
        events = cast(Any, environment.events)  # not annotated by Locust
        # Locust's tables and ours share a page, so both are reset at the same moment.
        follow(environment.stats, "reset_all", self.reset)
        follow(environment.stats, "clear_all", self.clear)
        if isinstance(runner, WorkerRunner):
            self._unreported = {}
            events.report_to_master.add_listener(self._report)
        elif isinstance(runner, MasterRunner):
            self._workers = runner.clients
            events.worker_report.add_listener(self._receive)

    def add(self, series: Series, tally: Tally, *, users: int, in_flight: int) -> None:
        self._merge(self._tallies, series, tally)
        if self._unreported is not None:
            self._merge(self._unreported, series, tally)
        gauge = self._gauges.setdefault(_HERE, {}).setdefault(series, Gauge())
        gauge.users, gauge.in_flight = users, in_flight
        self._recent.setdefault(series, deque()).append((time.monotonic(), tally.requests))

    def reset(self) -> None:
        """Set all counts to 0; keep the series, their users and their exchanges in flight."""
        self._tallies = {series: Tally() for series in self._tallies}
        if self._unreported is not None:
            self._unreported.clear()

    def clear(self) -> None:
        """Forget everything, as at the start of a test."""
        self._tallies.clear()
        self._recent.clear()
        self._gauges.clear()
        if self._unreported is not None:
            self._unreported.clear()

    def tallies(self) -> dict[Series, Tally]:
        """Return the counts since the last reset, by series."""
        return dict(sorted(self._tallies.items()))

    def gauge(self, series: Series) -> Gauge:
        """Return the state of a series, summed over all processes."""
        if self._workers is not None:
            for node in self._gauges.keys() - self._workers.keys():
                del self._gauges[node]
        elif series in self._recent:
            self._gauges[_HERE][series].rate = self._measure_rate(series)
        found = [gauges[series] for gauges in self._gauges.values() if series in gauges]
        return Gauge(*(sum(getattr(item, part.name) for item in found) for part in fields(Gauge)))

    def rows(self) -> list[Row]:
        """Return a row for each series and kind of time."""
        rows = []
        for series, tally in self.tallies().items():
            gauge = self.gauge(series)
            kinds = {"service": tally.service} | ({"intended": tally.intended} if series.is_open else {})
            rows += [Row(series, kind, gauge, tally, times) for kind, times in kinds.items()]
        return rows

    @staticmethod
    def _merge(tallies: dict[Series, Tally], series: Series, tally: Tally) -> None:
        tallies.setdefault(series, Tally()).merge(tally)

    def _measure_rate(self, series: Series) -> float:
        recent, now = self._recent[series], time.monotonic()
        # The oldest entry only gives the start: its requests came before.
        while len(recent) > 2 and now - recent[1][0] > _RATE_SECONDS:
            recent.popleft()
        seconds = now - recent[0][0]
        return sum(count for _, count in list(recent)[1:]) / seconds if seconds > 0 else 0.0

    def _report(self, client_id: str, data: dict[str, Any]) -> None:
        """Add this worker's part to its report, on Locust's event."""
        if self._unreported is None:
            return
        data[_KEY] = [
            [astuple(series), self._unreported.get(series, Tally()).encode(), astuple(self.gauge(series))]
            for series in self._gauges.get(_HERE, {})
        ]
        self._unreported = {}

    def _receive(self, client_id: str, data: dict[str, Any]) -> None:
        """Add a worker's part, on Locust's event."""
        for names, tally, gauge in data.get(_KEY, ()):
            series = Series(*names)
            self._merge(self._tallies, series, Tally.decode(tally))
            self._gauges.setdefault(client_id, {})[series] = Gauge(*gauge)


def follow(stats: Any, name: str, also: Callable[[], None]) -> None:
    """Have a method of Locust's statistics (`reset_all`, `clear_all`) call `also` afterwards."""
    own = getattr(stats, name)

    def both() -> None:
        own()
        also()

    setattr(stats, name, both)


RECORDER = Recorder()
