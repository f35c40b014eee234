"""Read and write the published measurements of the models, docs/data/measured.json.

Each part of the file belongs to one script, which leaves the other part alone:

    environment, seconds, models, missing    tools/docs/measured.py: medians over the rounds of a run of `lab bench`
    idle, idle_environment                   benchmarks/idle.py: {model: {connections, bytes_per_connection, ...}}
    websockets, websockets_environment       the same, with --websocket
"""

import json
import statistics
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Self

from lab.base.errors import LabError
from lab.base.messages import build
from lab.base.paths import ROOT
from lab.experiments.bench.findings import Findings
from lab.experiments.bench.plan import CLOSED
from lab.load.measurement import Measurement
from lab.metrics.estimates import find_median

MEASURED_FILE = ROOT / "docs" / "data" / "measured.json"


@dataclass(frozen=True, slots=True)
class Summary:
    """One model under one workload: medians over rounds. Times in microseconds, memory in bytes; None means not known.

    Args:
        users: Connections at a time.
        rate_spread: Half the interquartile range of the rates, relative to their median; None for fewer than three.
        is_lower_bound: Whether the server could have done more in at least one round.
        p50_us, p99_us: Response time of an exchange.
        cpu_us: CPU time of the server per request.
        verdicts: The limits, with their numbers of rounds, the most frequent first.
        failures: Failed exchanges of all rounds.
    """

    rounds: int
    users: int
    rate: float
    rate_spread: float | None
    is_lower_bound: bool
    p50_us: float | None
    p99_us: float | None
    cpu_us: float | None
    memory_bytes: float | None
    verdicts: Mapping[str, int]
    failures: int


@dataclass(frozen=True, slots=True)
class Idle:
    """The cost of an idle connection.

    Args:
        bytes_per_connection: Memory of the server.
        p50_us, p99_us: Time of a new client to connect and get one PING answered meanwhile.
        why: The limit that allows no more of them; empty for 10,000.
    """

    connections: int | None = None
    bytes_per_connection: float | None = None
    p50_us: float | None = None
    p99_us: float | None = None
    why: str = ""


@dataclass(frozen=True, slots=True)
class Measured:
    """The content of the file.

    Args:
        seconds: Measured time of each model in a round.
        models: Summaries by model and workload.
        missing: Models that could not be measured, and why.
        idle: Cost of idle connections by model.
        idle_environment: Machine and software of `idle`.
        websockets, websockets_environment: The same for idle WebSockets.
    """

    environment: Mapping[str, str | None] = field(default_factory=dict)
    seconds: float | None = None
    models: Mapping[str, Mapping[str, Summary]] = field(default_factory=dict)
    missing: Mapping[str, str] = field(default_factory=dict)
    idle: Mapping[str, Idle] = field(default_factory=dict)
    idle_environment: Mapping[str, str | None] = field(default_factory=dict)
    websockets: Mapping[str, Idle] = field(default_factory=dict)
    websockets_environment: Mapping[str, str | None] = field(default_factory=dict)

    @classmethod
    def load(cls, path: Path = MEASURED_FILE) -> Self:
        """Read the file; if it does not exist, return empty values.

        Raises:
            LabError: It exists, but is damaged.
        """
        try:
            return build(cls, _read(path))
        except ValueError as error:
            raise LabError(f"{path}: not a file of measurements: {error}") from None

    @classmethod
    def of(cls, findings: Findings) -> Self:
        """Summarize the closed loops of a stored run, without its control server."""
        models: dict[str, dict[str, Summary]] = {}
        for workload in findings.plan.workloads:
            for row in findings.list_rows(workload, CLOSED):
                if found := list(row.found.values()):
                    models.setdefault(row.model, {})[found[0].workload] = summarize(found)
        missing = {model: _explain_missing(findings, model) for model in findings.plan.models if model not in models}
        return cls(environment=findings.environment, seconds=findings.plan.seconds, models=models, missing=missing)

    def save(self, path: Path = MEASURED_FILE) -> None:
        """Write the part of a run of `lab bench`; the other parts of the file stay."""
        data = _read(path) | {
            "environment": dict(self.environment),
            "seconds": self.seconds,
            "models": {
                model: {workload: asdict(summary) for workload, summary in found.items()}
                for model, found in self.models.items()
            },
            "missing": dict(self.missing),
        }
        path.write_text(json.dumps(data, indent=1) + "\n", encoding="utf-8")


def summarize(found: Sequence[Measurement]) -> Summary:
    """Return the medians of at least one measurement of one model under one workload."""
    rates = [item.rate for item in found]
    rate = statistics.median(rates)
    return Summary(
        rounds=len(found),
        users=found[0].users,
        rate=rate,
        rate_spread=_spread(rates, rate),
        is_lower_bound=any(item.verdict.is_lower_bound for item in found),
        p50_us=find_median(item.percentile(0.5) for item in found),
        p99_us=find_median(item.percentile(0.99) for item in found),
        cpu_us=find_median(item.server.cpu_us for item in found),
        memory_bytes=find_median(item.server.memory_bytes for item in found),
        verdicts=dict(Counter(str(item.verdict.bound) for item in found).most_common()),
        failures=sum(item.load.failed for item in found),
    )


def _explain_missing(findings: Findings, model: str) -> str:
    rows = [row.reason for row in findings.rows.values() if row.model == model]
    return findings.unsound.get(model) or next(iter(rows), "it speaks none of the services of the workloads")


def _spread(values: Sequence[float], middle: float) -> float | None:
    if len(values) < 3 or not middle:
        return None
    low, _, high = statistics.quantiles(values, n=4)
    return (high - low) / 2 / middle


def _read(path: Path) -> dict[str, Any]:
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
    except (OSError, ValueError) as error:
        raise LabError(f"{path}: cannot be read: {error}") from None
    if not isinstance(data, dict):
        raise LabError(f"{path}: not a file of measurements: no object")
    return data
