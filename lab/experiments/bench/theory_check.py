"""Compare the rows of a run with theory, and mark the deviations. Uses the run's own store alone."""

import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from lab.base.messages import build
from lab.base.units import show_share, show_time
from lab.experiments.bench.findings import Findings, Row
from lab.experiments.bench.plan import WORKLOADS, Phase, Step
from lab.experiments.bench.sweep import is_telling
from lab.experiments.theory import Server, UpperBound, describe_rate, find_upper_bound

# S is measured once, in a window of about a second. A smaller relative difference is not a deviation.
_TOLERANCE = 0.1

# Below this share of what theory allows, theory does not explain the rate.
_FAR_BELOW = 0.5

_SLEEP = re.compile(rb"SLEEP\r\n\$\d+\r\n(\d+)\r\n", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Expectation:
    """What theory says about a row.

    Args:
        upper_bound: the highest rate that theory allows.
        response: seconds per request at that rate by Little's law, if connections never pause.
        deviation: how the measurement contradicts theory, and why if known; empty if it does not.
        key: the step in the store that gives S; None if it is the row's own.
    """

    upper_bound: UpperBound
    response: float
    deviation: str
    key: str | None

    @property
    def reason(self) -> str:
        at_most = f"at most {describe_rate(self.upper_bound.rate)}, {show_time(self.response * 1e6)} each"
        return f"{self.upper_bound.reason}, so {at_most}"


def read_wait(workload: str) -> float:
    """Return the mean time in seconds that a request of a workload asks the server to sleep."""
    asked = WORKLOADS[workload].asked
    if asked.exchange is None:
        return 0.0
    turns = asked.exchange.turns
    total = sum(int(milliseconds) for request, _ in turns for milliseconds in _SLEEP.findall(request))
    return total / 1000 / (len(turns) * asked.depth)


def expect(findings: Findings, row: Row) -> Expectation | None:
    """Return what theory says about a closed row; None if it has no input.

    S comes from the lowest level of the sweep: a separate step, so that a row is not explained by itself. Without a
    sweep it is the row's own.
    """
    servers: dict[str, Any] = findings.run.facts.get("models") or {}
    one = next(iter(row.found.values()), None)
    if one is None or row.model not in servers:
        return None
    server = build(Server, servers[row.model])
    swept = findings.sweeps.get((row.workload, row.model), {})
    levels = {users: item for users, item in swept.items() if is_telling(item)}
    fewest = min(levels, default=one.users + 1)
    few = levels[fewest] if fewest <= one.users else None
    cpu = few.server.cpu_us if few else _middle(item.server.cpu_us for item in row.found.values())
    wait = read_wait(row.workload)
    hold = None
    if server.concurrency == "one":
        hold = 1 / few.rate if few and few.rate else _read_hold(row)
    upper_bound = find_upper_bound(
        server,
        connections=one.users,
        cores=one.server.allotted or 1,
        cpu=None if cpu is None else cpu / 1e6,
        wait=wait,
        hold=hold,
    )
    if upper_bound is None:
        return None
    deviation = _explain(findings, row, upper_bound, cpu)
    key = None if few is None else Step(Phase.SWEEP, fewest, row.workload, row.model).key
    return Expectation(upper_bound, one.users / upper_bound.rate, deviation, key)


def _read_hold(row: Row) -> float | None:
    """Return the seconds for which a request occupies a server for one client at a time; None if the row does not tell.

    With many requests per connection most of them belong to the client that is served: the median contains no queueing.
    """
    exchange = WORKLOADS[row.workload].asked.exchange
    if exchange is None or exchange.per_connection == 1:
        return None
    if len(set(exchange.turns)) > 1:
        # The median of different requests is that of one kind. On one held connection the mean contains no queueing.
        mean = _middle(item.load.service.mean_us for item in row.found.values())
        return None if mean is None else mean / 1e6
    median = row.read("p50_us")
    return None if median is None else median.middle / 1e6


def _middle(values: Iterable[float | None]) -> float | None:
    known = sorted(value for value in values if value is not None)
    return known[len(known) // 2] if known else None


def _explain(findings: Findings, row: Row, upper_bound: UpperBound, cpu: float | None) -> str:
    """Return why a row is above or far below theory; empty if it is neither, or another limit came first."""
    rate, cost = row.read("rate"), row.read("cpu_us")
    if rate is None:
        return ""
    changed = ""
    if cost and cpu:
        more = "more" if cost.middle > cpu else "less"
        if abs(cost.middle / cpu - 1) > _TOLERANCE:
            changed = f"a request took {more} CPU here: {show_time(cost.middle)}, not {show_time(cpu)}"
    if rate.low > upper_bound.rate * (1 + max(_TOLERANCE, findings.noise("rate") or 0.0)):
        by = f"{rate.middle / upper_bound.rate - 1:.0%} above theory"
        return f"{by}: {changed or 'more of it ran in parallel than it declares'}"
    # A lower bound does not show what the server could have done.
    if row.is_lower_bound or rate.high >= upper_bound.rate * _FAR_BELOW:
        return ""
    by = f"{show_share(rate.middle / upper_bound.rate)} of what theory allows"
    return f"{by}: {changed or row.reason}"
