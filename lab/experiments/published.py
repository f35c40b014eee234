"""What benchmarks have found about the models, as it is kept in docs/data/measured.json.

The file has one part for each script that writes it, and a script leaves the other's part alone:

    environment, seconds, models, missing    benchmarks/models.py: medians of rounds in turns
    idle, idle_environment                   benchmarks/idle.py: {model: {connections, bytes_per_connection, ...}}
"""

import json
import statistics
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any, Self

from lab.base.errors import LabError
from lab.base.paths import ROOT
from lab.load.measurement import Measurement

MEASURED_FILE = ROOT / "docs" / "data" / "measured.json"


@dataclass(frozen=True, slots=True)
class Summary:
    """One model under one workload: medians over rounds. Times in microseconds, memory in bytes; None is "not known".

    Args:
        rounds: how many measurements stand behind it.
        users: connections at a time.
        rate: requests per second that were answered right.
        rate_spread: half the interquartile range of the rates, as a part of their median; None of fewer than three.
        is_lower_bound: whether the server could have done more in at least one of the rounds.
        p50_us, p99_us: the response time of an exchange.
        cpu_us: the server's CPU time for a request.
        memory_bytes: the most that was seen of the server in a round.
        verdicts: what limited it, and in how many rounds, the most frequent first.
        failures: exchanges that did not come back right, in all rounds together.
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
    """What a connection costs that is merely there.

    Args:
        connections: how many were held at the same time.
        bytes_per_connection: of the server's memory.
        p50_us, p99_us: what connecting and one PING took a new client meanwhile.
    """

    connections: int | None = None
    bytes_per_connection: float | None = None
    p50_us: float | None = None
    p99_us: float | None = None


@dataclass(frozen=True, slots=True)
class Measured:
    """The whole file.

    Args:
        environment: what it ran on.
        seconds: how long each round measured each model.
        models: by model, by workload.
        missing: models that could not be measured, and why.
        idle: by model.
        idle_environment: what that ran on.
    """

    environment: Mapping[str, str | None] = field(default_factory=dict)
    seconds: float | None = None
    models: Mapping[str, Mapping[str, Summary]] = field(default_factory=dict)
    missing: Mapping[str, str] = field(default_factory=dict)
    idle: Mapping[str, Idle] = field(default_factory=dict)
    idle_environment: Mapping[str, str | None] = field(default_factory=dict)

    @classmethod
    def load(cls, path: Path = MEASURED_FILE) -> Self:
        """Read the file; one that does not exist holds nothing.

        Raises:
            LabError: it is there, and cannot be used.
        """
        data = _read(path)
        try:
            return cls(
                environment=data.get("environment", {}),
                seconds=data.get("seconds"),
                models={
                    model: {workload: Summary(**_known(Summary, values)) for workload, values in found.items()}
                    for model, found in data.get("models", {}).items()
                },
                missing=data.get("missing", {}),
                idle={model: Idle(**_known(Idle, values)) for model, values in data.get("idle", {}).items()},
                idle_environment=data.get("idle_environment", {}),
            )
        except (AttributeError, TypeError, ValueError) as error:
            raise LabError(f"{path}: not what a benchmark writes: {error}") from None

    def save(self, path: Path = MEASURED_FILE) -> None:
        """Write the part of benchmarks/models.py; whatever else the file holds stays."""
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


def summarise(found: Sequence[Measurement]) -> Summary:
    """The medians of measurements of one model under one workload; at least one."""
    rates = [item.rate for item in found]
    rate = statistics.median(rates)
    return Summary(
        rounds=len(found),
        users=found[0].users,
        rate=rate,
        rate_spread=_spread(rates, rate),
        is_lower_bound=any(item.verdict.is_lower_bound for item in found),
        p50_us=_median(item.percentile(0.5) for item in found),
        p99_us=_median(item.percentile(0.99) for item in found),
        cpu_us=_median(item.server_cpu_us for item in found),
        memory_bytes=_median(item.memory_bytes for item in found),
        verdicts=dict(Counter(str(item.verdict.bound) for item in found).most_common()),
        failures=sum(item.failed for item in found),
    )


def _spread(values: Sequence[float], middle: float) -> float | None:
    if len(values) < 3 or not middle:
        return None
    low, _, high = statistics.quantiles(values, n=4)
    return (high - low) / 2 / middle


def _median(values: Iterable[float | None]) -> float | None:
    """Of those that are known."""
    known = [value for value in values if value is not None]
    return statistics.median(known) if known else None


def _known(kind: type, values: Mapping[str, Any]) -> dict[str, Any]:
    """What `kind` has fields for: another script may write more."""
    names = {item.name for item in fields(kind)}
    return {name: value for name, value in values.items() if name in names}


def _read(path: Path) -> dict[str, Any]:
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
    except (OSError, ValueError) as error:
        raise LabError(f"{path}: cannot be read: {error}") from None
    if not isinstance(data, dict):
        raise LabError(f"{path}: not what a benchmark writes: no object")
    return data
