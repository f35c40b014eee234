"""Charts of single measurements, for the pages of `lab demo` and `lab load`."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise

from lab.base.units import show_count, show_number, show_time, show_us
from lab.load.measurement import Measurement
from lab.metrics.estimates import Estimate, estimate, show_estimate
from lab.metrics.server_use import SERIES
from lab.report.charts.chart import Chart
from lab.report.charts.intervals import Interval, draw_intervals
from lab.report.charts.lines import Distribution, Line, draw_lines, draw_percentiles
from lab.report.charts.palette import Tone
from lab.report.charts.scale import make_axis
from lab.report.charts.scatter import Point, draw_scatter
from lab.report.distribution import read_shares
from lab.servers.catalogue import PEER

# From this ratio on, the costs of two single windows are called different.
_FAR = 1.25

Show = Callable[[float], str]


@dataclass(frozen=True)
class Comparison:
    """Measurements beside each other, and by model the CPU per request and the rate that are compared."""

    measurements: Sequence[Measurement]
    costs: Mapping[str, Estimate]
    rates: Mapping[str, Estimate]

    @classmethod
    def of(cls, measurements: Sequence[Measurement]) -> "Comparison":
        """Compare single measurements, whose figures have no intervals; a rate may be a lower bound."""
        costs = {item.model: estimate([item.server.cpu_us]) for item in measurements}
        rates = {item.model: estimate([item.rate], is_lower_bound=item.verdict.is_lower_bound) for item in measurements}
        return cls(
            measurements,
            {model: found for model, found in costs.items() if found},
            {model: found for model, found in rates.items() if found},
        )

    @cached_property
    def tones(self) -> dict[str, Tone]:
        """The tone of each model: blue for those that tie with the least CPU per request, orange for the most.

        Peers are not among them.
        """
        known = {item.model: self.costs[item.model] for item in self._costed if item.family != PEER}
        tones = {item.model: Tone.GREY for item in self.measurements}
        if len(known) < 2:
            return tones
        least, most = (pick(known, key=lambda model: known[model].middle) for pick in (min, max))
        tones |= {model: Tone.BLUE for model, cost in known.items() if _ties(cost, known[least])}
        if not _ties(known[most], known[least]):
            tones[most] = Tone.ORANGE
        return tones

    @property
    def _costed(self) -> list[Measurement]:
        return [item for item in self.measurements if item.model in self.costs]

    def make_answer(self) -> dict[str, str]:
        """Return the models with the least and the most CPU per request, and why, by tone; empty if they tie."""
        costs = {model: cost.middle for model, cost in self.costs.items()}
        best = sorted((model for model, tone in self.tones.items() if tone is Tone.BLUE), key=costs.__getitem__)
        worst = next((item for item in self.measurements if self.tones[item.model] is Tone.ORANGE), None)
        if not best or worst is None:
            return {}
        return {
            "best": ", ".join(best),
            "why_best": f"{show_us(costs[best[0]])} µs" + (", no clear difference" if best[1:] else ""),
            "worst": worst.model,
            "why_worst": f"{costs[worst.model] / costs[best[0]]:.1f} times as much ({worst.summary})",
        }

    def draw_figures(self) -> Iterator[Chart]:
        """Yield the intervals of CPU per request and of the rate."""
        shown: tuple[tuple[str, str, str, Mapping[str, Estimate], Show], ...] = (
            ("cpu", "CPU per request: less is better", "CPU µs per request", self.costs, show_us),
            ("rate", "Requests/s: more is better", "requests/s", self.rates, show_count),
        )
        for name, title, axis, figures, show in shown:
            rows = [
                Interval(
                    item.model,
                    found.middle,
                    found.low,
                    found.high,
                    self.tones[item.model],
                    show_estimate(found, show).split(" [")[0],
                    f"{show_estimate(found, show)}, {item.verdict.bound}",
                    item.family,
                )
                for item in self.measurements
                if (found := figures.get(item.model))
            ]
            if rows:
                yield draw_intervals(name, title, rows, axis=axis, show=show)

    def draw_latency(self) -> Iterator[Chart]:
        """Yield the percentiles of the response times."""
        found = [
            Distribution(item.model, self.tones[item.model], item.answered, read_shares(item.load.times))
            for item in self.measurements
            if item.load.times.total
        ]
        title = "Latency distribution: the higher the tail, the longer the queue"
        if found:
            yield draw_percentiles("latency", title, found, show=show_time, up="response time, log scale")

    def draw_costs(self) -> Iterator[Chart]:
        """Yield CPU per request against p99."""
        points = [
            Point(
                item.model,
                cost := self.costs[item.model].middle,
                tail,
                self.tones[item.model],
                f"{item.model}: {show_us(cost)} µs per request, p99 {show_time(tail)}",
            )
            for item in self._costed
            if (tail := item.percentile(0.99))
        ]
        if points:
            across = make_axis("CPU µs per request", [point.x for point in points], show_us)
            up = make_axis("p99", [point.y for point in points], show_time)
            title = "Cost against tail: the best are at the bottom left"
            yield draw_scatter("cost", title, points, across=across, up=up)

    def draw_course(self) -> Iterator[Chart]:
        """Yield the cores and the memory of the servers over time."""
        cores = {item.model: _read_cores(item) for item in self.measurements}
        memory = {item.model: _read_memory(item) for item in self.measurements}
        shown: tuple[tuple[str, str, str, Mapping[str, list[tuple[float, float]]], Show], ...] = (
            ("cores", "Cores used by the server over time", "cores", cores, lambda value: f"{value:.2f}"),
            ("memory", "Memory of the server over time", "memory in MiB", memory, show_number),
        )
        for name, title, unit, found, show in shown:
            lines = [
                Line(
                    model,
                    points,
                    self.tones[model],
                    f"{model}: {show(points[0][1])} to {show(points[-1][1])}",
                    has_dots=False,
                )
                for model, points in found.items()
                if len(points) > 1
            ]
            if lines:
                seconds = make_axis("seconds", [x for line in lines for x, _ in line.points], show_number, is_log=False)
                is_log = False if name == "cores" else None
                up = make_axis(unit, [y for line in lines for _, y in line.known], show, is_log=is_log)
                yield draw_lines(name, title, lines, across=seconds, up=up)


def _ties(cost: Estimate, least: Estimate) -> bool:
    """Return whether two costs are no different; those of a single window differ only if they are far apart."""
    return cost.overlaps(least) or (cost.repeats < 2 and cost.middle < _FAR * least.middle)


def _read_cores(found: Measurement) -> list[tuple[float, float]]:
    """Return the mean number of cores between two readings, at the second one."""
    return [
        (now, (used - before) / (now - then))
        for (then, before), (now, used) in pairwise(_read_series(found, "cpu_seconds"))
        if now > then
    ]


def _read_memory(found: Measurement) -> list[tuple[float, float]]:
    return [(at, value / 2**20) for at, value in _read_series(found, "memory_bytes")]


def _read_series(found: Measurement, column: str) -> list[tuple[float, float]]:
    """Return (seconds, value) of the readings where both are known."""
    second, number = SERIES.index("seconds"), SERIES.index(column)
    known = ((row[second], row[number]) for row in found.server.series)
    return [(at, value) for at, value in known if at is not None and value is not None]
