"""The lines between the lab and the load generator behind Locust's web UI.

To it: what servers use at one moment and when they were broken (lab/load/telemetry.py writes it,
loadtests/web/tables.py shows it). From it: which fault somebody asks for in the UI's form (loadtests/web/faults.py
writes it, lab/experiments/faults/remote_requests.py does it).
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Self

# The environment variable that tells the generator to read such lines from its stdin.
VARIABLE = "LAB_FEED"

# And the one with the faults that may be asked for, separated by commas.
FAULTS_VARIABLE = "LAB_FAULTS"

# The form is open to whoever gets to it: nothing stays broken for longer.
MOST_FAULT_SECONDS = 600.0

# How such a line begins, on the generator's stdout among others.
_REQUEST = "LOAD-FAULT "


@dataclass(frozen=True, slots=True)
class Usage:
    """What one server uses now; None is "not known".

    Args:
        cpu_cores: cores' worth of CPU since the last reading.
        memory_bytes, processes, threads: as in `Sample`.
        descriptors: open files, sockets and the like of all its processes.
    """

    model: str
    cpu_cores: float | None = None
    memory_bytes: int | None = None
    processes: int | None = None
    threads: int | None = None
    descriptors: int | None = None


@dataclass(frozen=True, slots=True)
class Fault:
    """When a server was broken on purpose.

    Args:
        fault: how, a name of `lab faults`.
        begin, end: UTC, ISO 8601; `end` is empty while it lasts.
        why_not: why it could not be had, and nothing was broken; empty if it was.
    """

    model: str
    fault: str
    begin: str
    end: str
    why_not: str = ""


@dataclass(frozen=True, slots=True)
class FaultRequest:
    """Somebody wants servers to be broken now.

    Args:
        fault: how, a name of `lab faults`.
        models: which, all at once.
        seconds: for how long, of what does not end by itself.
    """

    fault: str
    models: tuple[str, ...]
    seconds: float

    def encode(self) -> str:
        """A line for the lab."""
        return f"{_REQUEST}{json.dumps(asdict(self))}"

    @classmethod
    def decode(cls, line: str) -> Self | None:
        """What `encode` made; None if the line is something else.

        Raises:
            ValueError: it begins like one, and is none.
        """
        if not line.startswith(_REQUEST):
            return None
        try:
            data = json.loads(line.removeprefix(_REQUEST))
            return cls(str(data["fault"]), tuple(map(str, data["models"])), float(data["seconds"]))
        except (TypeError, KeyError) as error:
            raise ValueError(f"not a request for a fault: {error}") from None


def encode(usages: Sequence[Usage], faults: Sequence[Fault] = ()) -> bytes:
    """A line for the generator: what servers use now, and all faults that it may want to know of."""
    line = {"usages": [asdict(usage) for usage in usages], "faults": [asdict(fault) for fault in faults]}
    return json.dumps(line).encode() + b"\n"


def decode(line: bytes) -> tuple[dict[str, Usage], list[Fault]]:
    """What `encode` made; what servers use by model.

    Raises:
        ValueError: it is not that.
    """
    try:
        rows: Mapping[str, list[Mapping[str, Any]]] = json.loads(line)
        usages = [Usage(**row) for row in rows["usages"]]
        return {usage.model: usage for usage in usages}, [Fault(**row) for row in rows["faults"]]
    except (TypeError, KeyError) as error:
        raise ValueError(f"not a line of the feed: {error}") from None
