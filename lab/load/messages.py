"""The messages between the lab and the load generator.

A worker says that it has joined its master, and the persistent generator runs one load after the other. The generator
behind Locust's web UI receives telemetry: the resources that servers use, and the faults injected into them
(lab/load/telemetry.py sends it, loadtests/web/tables.py shows it). It sends requests for faults from the UI's form
(loadtests/web/faults.py sends them, lab/experiments/faults/remote_requests.py injects the fault).
"""

from dataclasses import dataclass

from lab.base.messages import Message

# The longest fault that the form can request: everyone who reaches the UI can use it.
MOST_FAULT_SECONDS = 600.0


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
class FaultEvent(Message):
    """A fault that was injected into a server; `why_not` says why it could not be.

    Args:
        begin, end: UTC, ISO 8601; `end` is empty until the fault is healed.
    """

    model: str
    fault: str
    begin: str
    end: str
    why_not: str = ""


@dataclass(frozen=True, slots=True)
class FaultRequest(Message):
    """A request to inject a fault now.

    Args:
        fault: a name of `lab faults`.
        models: all get it at the same time.
        seconds: until it is healed, for a fault that does not end by itself.
    """

    fault: str
    models: tuple[str, ...]
    seconds: float


@dataclass(frozen=True, slots=True)
class Telemetry(Message):
    """The current usage of the servers, and all faults since the load started."""

    usages: tuple[Usage, ...] = ()
    faults: tuple[FaultEvent, ...] = ()


@dataclass(frozen=True, slots=True)
class LoadFailure(Message):
    """A kind of failure of a headless run of a locustfile: what failed, why, and how often."""

    text: str


@dataclass(frozen=True, slots=True)
class Joined(Message):
    """A worker has joined its master."""


@dataclass(frozen=True, slots=True)
class RunLoad(Message):
    """Run Locust once, in the persistent generator.

    Args:
        arguments: of Locust.
        environ: added to its environment.
    """

    arguments: tuple[str, ...]
    environ: dict[str, str]


@dataclass(frozen=True, slots=True)
class LoadEnded(Message):
    """The load of a `RunLoad` has ended; its output came before."""

    exit_code: int
