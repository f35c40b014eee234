"""What a server uses at one moment and when it was broken: the line in which the lab tells the load generator.

See lab/feed.py, which writes it, and loadtests/web.py, which shows it.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

# The environment variable that tells the generator to read such lines from its stdin.
VARIABLE = "LAB_FEED"


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
    """

    model: str
    fault: str
    begin: str
    end: str


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
