"""The faults, by name."""

from lab.experiments.faults.fault import Fault
from lab.experiments.faults.kinds.drain import DRAIN
from lab.experiments.faults.kinds.kill import KILL
from lab.experiments.faults.kinds.limits import DESCRIPTORS, MEMORY
from lab.experiments.faults.kinds.network import BANDWIDTH, BLACKHOLE, DISCONNECT, JITTER, LATENCY, LOSS
from lab.experiments.faults.kinds.nothing import NOTHING
from lab.experiments.faults.kinds.pause import PAUSE
from lab.experiments.faults.kinds.pressure import PRESSURE
from lab.experiments.faults.kinds.slow_clients import SLOW_CLIENTS
from lab.experiments.faults.kinds.starve import STARVE
from lab.experiments.faults.kinds.worker import WORKER

FAULTS: dict[str, Fault] = {
    fault.name: fault
    for fault in (
        NOTHING,
        DRAIN,
        KILL,
        WORKER,
        PAUSE,
        DISCONNECT,
        BLACKHOLE,
        LOSS,
        LATENCY,
        JITTER,
        BANDWIDTH,
        STARVE,
        MEMORY,
        PRESSURE,
        DESCRIPTORS,
        SLOW_CLIENTS,
    )
}
