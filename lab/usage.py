"""What a server uses at one moment, and the line in which the lab tells the load generator. See lab/feed.py."""

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


def encode(usages: Sequence[Usage]) -> bytes:
    """A line for the generator."""
    return json.dumps([asdict(usage) for usage in usages]).encode() + b"\n"


def decode(line: bytes) -> dict[str, Usage]:
    """What `encode` made, by model.

    Raises:
        ValueError: it is not that.
    """
    try:
        rows: list[Mapping[str, Any]] = json.loads(line)
        usages = [Usage(**row) for row in rows]
    except TypeError as error:
        raise ValueError(f"not a line of the feed: {error}") from None
    return {usage.model: usage for usage in usages}
