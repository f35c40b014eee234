"""The messages between the lab and the load generator behind Locust's web UI; each is a line.

The generator receives telemetry: the resources that servers use, and the faults injected into them
(lab/load/telemetry.py sends it, loadtests/web/tables.py shows it). It sends requests for faults from the UI's form
(loadtests/web/faults.py sends them, lab/experiments/faults/remote_requests.py injects the fault).
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Self

# The longest fault that the form can request: everyone who reaches the UI can use it.
MOST_FAULT_SECONDS = 600.0

# The prefix of a request among the other lines of the generator's stdout.
_REQUEST = "LOAD-FAULT "


@dataclass(frozen=True, slots=True)
class Usage:
    """The resources that a server uses at one moment; None if unknown.

    Args:
        cpu_cores: mean number of cores in use since the last reading.
        memory_bytes, processes, threads: as in `Sample`.
        descriptors: open descriptors of all its processes.
    """

    model: str
    cpu_cores: float | None = None
    memory_bytes: int | None = None
    processes: int | None = None
    threads: int | None = None
    descriptors: int | None = None


@dataclass(frozen=True, slots=True)
class FaultEvent:
    """A fault that was injected into a server.

    Args:
        fault: a name of `lab faults`.
        begin, end: UTC, ISO 8601; `end` is empty until the fault is healed.
        why_not: why it could not be injected; empty if it was.
    """

    model: str
    fault: str
    begin: str
    end: str
    why_not: str = ""


@dataclass(frozen=True, slots=True)
class FaultRequest:
    """A request to inject a fault now.

    Args:
        fault: a name of `lab faults`.
        models: all get it at the same time.
        seconds: until it is healed, for a fault that does not end by itself.
    """

    fault: str
    models: tuple[str, ...]
    seconds: float

    def encode(self) -> str:
        """Return the line for the lab."""
        return f"{_REQUEST}{json.dumps(asdict(self))}"

    @classmethod
    def decode(cls, line: str) -> Self | None:
        """Parse a line of `encode`; return None for any other line.

        Raises:
            ValueError: the line has the prefix but is malformed.
        """
        if not line.startswith(_REQUEST):
            return None
        try:
            data = json.loads(line.removeprefix(_REQUEST))
            return cls(str(data["fault"]), tuple(map(str, data["models"])), float(data["seconds"]))
        except (TypeError, KeyError) as error:
            raise ValueError(f"not a request for a fault: {error}") from None


def encode(usages: Sequence[Usage], faults: Sequence[FaultEvent] = ()) -> bytes:
    """Return a line of telemetry: current usage, and all faults since the load started."""
    line = {"usages": [asdict(usage) for usage in usages], "faults": [asdict(fault) for fault in faults]}
    return json.dumps(line).encode() + b"\n"


def decode(line: bytes) -> tuple[dict[str, Usage], list[FaultEvent]]:
    """Parse a line of telemetry; return the usage by model, and the faults.

    Raises:
        ValueError: the line is malformed.
    """
    try:
        rows: Mapping[str, list[Mapping[str, Any]]] = json.loads(line)
        usages = [Usage(**row) for row in rows["usages"]]
        return {usage.model: usage for usage in usages}, [FaultEvent(**row) for row in rows["faults"]]
    except (TypeError, KeyError) as error:
        raise ValueError(f"not a line of telemetry: {error}") from None
