"""The course of a load over time: figures of each model, second by second."""

import time
from collections import deque
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass
from typing import Any

import gevent

from lab.load.messages import Usage
from loadtests.sockets.histogram import Histogram
from loadtests.sockets.recorder import Recorder, Series, Tally

# What is kept, and what the live page shows.
SECONDS = 300

# A figure covers this many samples. Workers' reports arrive at other moments than the samples: the rate of one second
# alone would jump between 0 and twice its value.
_COVERED = 3


@dataclass(frozen=True, slots=True)
class Point:
    """One model over the last three seconds; None if unknown.

    Args:
        rate: right replies per second; of pipelined requests, each counts.
        p50_us, p99_us: response times in microseconds: in an open loop from when the request was due.
        failures: failed exchanges per second.
        cpu_us: CPU time of the server for each request, in microseconds.
        memory_bytes: of the server.
        connections: of the load generator.
    """

    rate: float
    p50_us: float | None
    p99_us: float | None
    failures: float
    cpu_us: float | None
    memory_bytes: int | None
    connections: int


@dataclass(frozen=True, slots=True)
class _Snapshot:
    """The counts of a model's series at one moment, and the CPU cores in use."""

    at: float
    requests: int
    failed: int
    times: tuple[Mapping[int, int], ...]
    cores: float | None


@dataclass(slots=True)
class _Past:
    """The last snapshots of a model, of the same series and without a reset in between."""

    series: tuple[Series, ...]
    snapshots: deque[_Snapshot]


class Course:
    """Figures of each model over time.

    Args:
        kept: the number of samples that are kept; None for all.
        clock: monotonic, in seconds.
        now: the time that a sample is marked with: seconds since the epoch.
    """

    def __init__(
        self,
        recorder: Recorder,
        read_usages: Callable[[], Iterable[Usage]] = lambda: (),
        *,
        kept: int | None = SECONDS,
        clock: Callable[[], float] = time.monotonic,
        now: Callable[[], float] = time.time,
    ) -> None:
        self._recorder, self._read_usages = recorder, read_usages
        self._clock, self._now = clock, now
        self._past: dict[str, _Past] = {}
        self._number = 0
        self._samples: deque[tuple[int, float, dict[str, Point]]] = deque(maxlen=kept)

    def sample(self) -> None:
        """Add a point for each model that has a series; none if there is no model."""
        usages = {usage.model: usage for usage in self._read_usages()}
        found: dict[str, dict[Series, Tally]] = {}
        for series, tally in self._recorder.tallies().items():
            found.setdefault(series.model, {})[series] = tally
        points = {model: self._measure(model, tallies, usages.get(model)) for model, tallies in found.items()}
        # A model that is forgotten by Locust starts again without a past.
        self._past = {model: past for model, past in self._past.items() if model in found}
        if points:
            self._number += 1
            self._samples.append((self._number, self._now(), points))

    def since(self, number: int) -> list[dict[str, Any]]:
        """Return the samples after the one with this number, oldest first."""
        return [
            {"number": own, "at": round(at, 3), "models": {model: asdict(point) for model, point in points.items()}}
            for own, at, points in self._samples
            if own > number
        ]

    def rows(self, model: str, begin: float) -> tuple[tuple[float | None, ...], ...]:
        """Return the figures of a model as rows of `loadtests.contract.COURSE`; the first sample has none.

        Args:
            begin: the time from which the rows count.
        """
        return tuple(
            (round(at - begin, 3), point.rate, point.p50_us, point.p99_us, point.failures, point.connections)
            for _, at, points in list(self._samples)[1:]
            if (point := points.get(model))
        )

    def _measure(self, model: str, tallies: Mapping[Series, Tally], usage: Usage | None) -> Point:
        past = self._past.setdefault(model, _Past((), deque(maxlen=_COVERED + 1)))
        histograms = [_times(series, tally) for series, tally in tallies.items()]
        snapshot = _Snapshot(
            self._clock(),
            sum(tally.requests for tally in tallies.values()),
            sum(tally.failed for tally in tallies.values()),
            tuple(dict(histogram.counts) for histogram in histograms),
            usage.cpu_cores if usage else None,
        )
        latest = past.snapshots[-1] if past.snapshots else None
        if past.series != tuple(tallies) or (latest and _is_reset(latest, snapshot)):
            past.series = tuple(tallies)
            past.snapshots.clear()
        past.snapshots.append(snapshot)
        first, seconds = past.snapshots[0], snapshot.at - past.snapshots[0].at
        times = Histogram()
        for histogram, before in zip(histograms, first.times, strict=True):
            times.merge(histogram.since(before))
        rate = (snapshot.requests - first.requests) / seconds if seconds else 0.0
        cores = _mean(item.cores for item in list(past.snapshots)[1:])
        return Point(
            rate=rate,
            p50_us=times.percentile(0.5),
            p99_us=times.percentile(0.99),
            failures=(snapshot.failed - first.failed) / seconds if seconds else 0.0,
            cpu_us=cores / rate * 1e6 if cores is not None and rate else None,
            memory_bytes=usage.memory_bytes if usage else None,
            connections=sum(self._recorder.gauge(series).users for series in tallies),
        )


def _times(series: Series, tally: Tally) -> Histogram:
    return tally.intended if series.is_open else tally.service


def _is_reset(before: _Snapshot, after: _Snapshot) -> bool:
    return after.requests < before.requests or after.failed < before.failed


def _mean(values: Iterable[float | None]) -> float | None:
    """Return the mean of the known values; None if none is known."""
    known = [value for value in values if value is not None]
    return sum(known) / len(known) if known else None


def sample_forever(course: Course) -> None:
    """Sample now, and then every second."""
    while True:
        course.sample()
        gevent.sleep(1.0)
