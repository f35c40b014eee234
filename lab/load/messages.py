"""Messages between the lab and the load generator. Both sides import this module, so it does not import Locust.

From the lab, on the generator's stdin: what the servers use and when faults were injected (written by
lab/load/telemetry.py, shown by loadtests/web/tables.py). From the generator, on its stdout: lines that start with a
marker. They say that a worker has joined, that a load has ended, what a load found, and which fault the web UI asks
for.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Self

# Markers of lines on the generator's stdout, where Locust and its libraries write lines of their own.
JOINED = "LOAD-JOINED"  # from a worker: its master accepted it
ENDED = "LOAD-ENDED "  # from loadtests/fork_server.py: the exit code of a load
RESULT = "LOAD-RESULT "  # a LoadResult as JSON
_FAULT_REQUEST = "LOAD-FAULT "

# The longest fault that the web UI may ask for: anyone who reaches the UI can ask.
MOST_FAULT_SECONDS = 600.0


@dataclass(frozen=True, slots=True)
class LoadResult:
    """What the load generator found for one model.

    Args:
        model, workload, transport, loop: the load.
        users: connections, on average; each has at most one exchange in flight.
        depth: requests in one exchange.
        seconds: the window, after the warm-up.
        answered: exchanges with a correct reply in the window.
        asked: exchanges that were due in the window; None in a closed loop.
        late, dropped: exchanges that were sent too late, or could not be sent.
        lost, duplicates, reordered: datagrams.
        failures: failed exchanges, by reason.
        mean_us: mean response time in microseconds, from the sending; None if nothing was answered.
        min_us, max_us: shortest and longest, not rounded.
        service: (microseconds, count), ascending, from the sending: answers and timeouts.
        intended: the same from the time an exchange was due; None in a closed loop.
        starved: users without any reply in the window.
        generators: processes that generated the load.
        generator_cpu: their CPU seconds in the window, for all models together.
        machine_cpu: CPU seconds of all processes on the machine in the window, also when read in a container; None if
            unknown.
        generator_throttled: seconds in the window for which a CPU quota stopped a generator, of all generators the
            longest; None if unknown.
        cores: of the machine.
        versions: of the generator's software.
        answered_in_all: exchanges since the test started, warm-up included: the server's CPU is divided by it.
        warm_up_failures: failed exchanges of the warm-up, by reason.
        disturbances: sentences about events that make the figures invalid.
    """

    model: str
    workload: str
    transport: str
    loop: str
    users: float
    depth: int
    seconds: float
    answered: int
    asked: int | None
    late: int
    dropped: int
    lost: int
    duplicates: int
    reordered: int
    failures: dict[str, int]
    mean_us: float | None
    min_us: float | None
    max_us: float | None
    service: tuple[tuple[float, int], ...]
    intended: tuple[tuple[float, int], ...] | None
    starved: int
    generators: int
    generator_cpu: float
    machine_cpu: float | None
    generator_throttled: float | None
    cores: int | None
    versions: dict[str, str]
    answered_in_all: int
    warm_up_failures: dict[str, int]
    disturbances: tuple[str, ...]

    def encode(self) -> str:
        """Return a line for the lab."""
        return f"{RESULT}{json.dumps(asdict(self))}"

    @classmethod
    def decode(cls, line: str) -> Self | None:
        """Read a line that `encode` made; a terminal's progress output may precede it. None for any other line.

        Raises:
            ValueError: the line has the marker but is malformed.
        """
        _, marker, text = line.partition(RESULT)
        if not marker:
            return None
        try:
            values = dict(json.loads(text))
            for name in ("service", "intended"):
                if values[name] is not None:
                    values[name] = tuple((value, count) for value, count in values[name])
            return cls(**values | {"disturbances": tuple(values["disturbances"])})
        except (TypeError, KeyError) as error:
            raise ValueError(f"not a result of a load: {error}") from None


@dataclass(frozen=True, slots=True)
class Usage:
    """What one server uses now; None is "not known".

    Args:
        cpu_cores: cores' worth of CPU since the last reading.
        memory_bytes, processes, threads: as in `Sample`.
        descriptors: open file descriptors of all its processes.
    """

    model: str
    cpu_cores: float | None = None
    memory_bytes: int | None = None
    processes: int | None = None
    threads: int | None = None
    descriptors: int | None = None


@dataclass(frozen=True, slots=True)
class FaultInterval:
    """When a fault was injected into a server, and when it was healed.

    Args:
        fault: a name of `lab faults`.
        begin, end: UTC, ISO 8601; `end` is empty until the fault is healed.
        why_not: why the fault could not be injected; empty if it was.
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
        models: the servers, all at once.
        seconds: how long a fault lasts that does not end by itself.
    """

    fault: str
    models: tuple[str, ...]
    seconds: float

    def encode(self) -> str:
        """Return a line for the lab."""
        return f"{_FAULT_REQUEST}{json.dumps(asdict(self))}"

    @classmethod
    def decode(cls, line: str) -> Self | None:
        """Read a line that `encode` made; None for any other line.

        Raises:
            ValueError: the line has the marker but is malformed.
        """
        if not line.startswith(_FAULT_REQUEST):
            return None
        try:
            data = json.loads(line.removeprefix(_FAULT_REQUEST))
            return cls(str(data["fault"]), tuple(map(str, data["models"])), float(data["seconds"]))
        except (TypeError, KeyError) as error:
            raise ValueError(f"not a request for a fault: {error}") from None


def encode_telemetry(usages: Sequence[Usage], faults: Sequence[FaultInterval] = ()) -> bytes:
    """Return a line for the generator: what the servers use now, and the faults of this run."""
    line = {"usages": [asdict(usage) for usage in usages], "faults": [asdict(fault) for fault in faults]}
    return json.dumps(line).encode() + b"\n"


def decode_telemetry(line: bytes) -> tuple[dict[str, Usage], list[FaultInterval]]:
    """Read a line that `encode_telemetry` made; usages by model.

    Raises:
        ValueError: the line is malformed.
    """
    try:
        rows: Mapping[str, list[Mapping[str, Any]]] = json.loads(line)
        usages = [Usage(**row) for row in rows["usages"]]
        return {usage.model: usage for usage in usages}, [FaultInterval(**row) for row in rows["faults"]]
    except (TypeError, KeyError) as error:
        raise ValueError(f"not a line of telemetry: {error}") from None
