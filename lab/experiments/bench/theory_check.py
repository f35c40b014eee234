"""What theory expects of a row, beside what was measured: made from the run's own store, with surprises marked."""

import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from lab.base.units import show_time
from lab.experiments.bench.findings import Findings, Row
from lab.experiments.bench.plan import WORKS
from lab.experiments.theory import Ceiling, Server, describe_rate, find_ceiling
from lab.load.measurement import Measurement
from lab.load.presets import find_preset

# S is measured once, in a window of a second: what is above theory by less than this does not contradict it.
_TOLERANCE = 0.1

# Less than this part of what theory allows is less than it explains.
_FAR_BELOW = 0.5

_SLEEP = re.compile(rb"SLEEP\r\n\$\d+\r\n(\d+)\r\n", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Expectation:
    """Theory beside a measurement.

    Args:
        ceiling: the most that theory allows.
        response: seconds that each request then takes, by Little's law, from connections that ask without a pause.
        surprise: why the measurement is not what theory says, as far as the accounts tell; empty if it is.
        key: the step in the store that S is from; None if it is the row's own.
    """

    ceiling: Ceiling
    response: float
    surprise: str
    key: str | None

    @property
    def reason(self) -> str:
        """One sentence."""
        at_most = f"at most {describe_rate(self.ceiling.rate)}, {show_time(self.response * 1e6)} each"
        return f"{self.ceiling.reason}, so {at_most}"


def read_wait(work: str) -> float:
    """Seconds that a request of a kind of work asks the server to wait, on average."""
    workload = find_preset(WORKS[work].closed).workload
    if workload.exchange is None:
        return 0.0
    turns = workload.exchange.turns
    asked = sum(int(milliseconds) for request, _ in turns for milliseconds in _SLEEP.findall(request))
    return asked / 1000 / (len(turns) * workload.depth)


def expect(findings: Findings, row: Row) -> Expectation | None:
    """What theory says of a row that was measured as fast as it goes; None where it has nothing to reason from.

    S is that of the fewest connections of the sweep: a step of its own, apart from the row that it is to explain.
    Without a sweep it is the row's.
    """
    servers: dict[str, Any] = findings.run.facts.get("models") or {}
    one = next(iter(row.found.values()), None)
    if one is None or row.model not in servers:
        return None
    server = Server.from_json(servers[row.model])
    levels = findings.sweeps.get((row.work, row.model), {})
    fewest = min(levels, default=None)
    few = None if fewest is None or fewest > one.users else levels[fewest]
    cpu = few.server_cpu_us if few else _middle(row.found.values())
    wait = read_wait(row.work)
    hold = None
    if server.concurrency == "one":
        hold = 1 / few.rate if few and few.rate else _read_hold(row)
    ceiling = find_ceiling(
        server,
        connections=one.users,
        cores=one.allotted or 1,
        cpu=None if cpu is None else cpu / 1e6,
        wait=wait,
        hold=hold,
    )
    if ceiling is None:
        return None
    surprise = _explain(findings, row, ceiling, cpu)
    key = None if few is None else f"sweep/{row.work}/{row.model}/{fewest}"
    return Expectation(ceiling, one.users / ceiling.rate, surprise, key)


def _read_hold(row: Row) -> float | None:
    """How long a request keeps a server for one client at a time, in seconds, as far as the row itself can tell.

    With many requests to a connection, most of them are of the client whose turn it is: the median has no queue in it.
    """
    exchange = find_preset(WORKS[row.work].closed).workload.exchange
    if exchange is None or exchange.per_connection == 1:
        return None
    if len(set(exchange.turns)) > 1:
        # Of unlike requests the median is that of one kind. They are asked on one held connection, without a queue.
        means = sorted(item.mean_us for item in row.found.values() if item.mean_us is not None)
        return means[len(means) // 2] / 1e6 if means else None
    median = row.read("p50_us")
    return None if median is None else median.middle / 1e6


def _middle(found: Iterable[Measurement]) -> float | None:
    known = sorted(item.server_cpu_us for item in found if item.server_cpu_us is not None)
    return known[len(known) // 2] if known else None


def _explain(findings: Findings, row: Row, ceiling: Ceiling, cpu: float | None) -> str:
    """Why a row is above what theory allows, or far below; empty if it is neither, or another limit came first."""
    rate, cost = row.read("rate"), row.read("cpu_us")
    if rate is None:
        return ""
    changed = ""
    if cost and cpu:
        more = "more" if cost.middle > cpu else "less"
        if abs(cost.middle / cpu - 1) > _TOLERANCE:
            changed = f"a request took {more} CPU here: {show_time(cost.middle)}, not {show_time(cpu)}"
    if rate.low > ceiling.rate * (1 + max(_TOLERANCE, findings.noise("rate") or 0.0)):
        by = f"{rate.middle / ceiling.rate - 1:.0%} above theory"
        return f"{by}: {changed or 'more of it ran at the same time than it declares'}"
    # A lower bound says nothing of what the server would have done.
    if row.is_lower_bound or rate.high >= ceiling.rate * _FAR_BELOW:
        return ""
    by = f"{rate.middle / ceiling.rate:.0%} of what theory allows"
    return f"{by}: {changed or row.reason}"
