"""A fault in the middle of a Locust scenario: what another client sees before it, while it is there, and after it.

The scenario gives the load, and its own account of it (`lab.load.measurement`). Who looks at the watch is
`lab.clients.latency_probe`, whose PING is the same under every scenario.
"""

import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from typing import Any

from lab.experiments.faults.fault import Fault, FaultInterval, injected
from lab.experiments.faults.probe_reader import ProbeReport, open_probe
from lab.load.measure import measure
from lab.load.measurement import Measurement
from lab.load.presets import find_preset
from lab.servers.backend import Backend

_QUIET_SECONDS = 4.0  # of load before the fault, behind the generator's own start
_AFTER_SECONDS = 4.0


@dataclass(frozen=True, slots=True)
class UnderLoad:
    """A fault, the load that was there, and what was seen."""

    interval: FaultInterval
    probe_report: ProbeReport
    measurement: Measurement

    def as_json(self) -> dict[str, Any]:
        """For a report, and for a script."""
        return {
            "interval": asdict(self.interval),
            "probe_report": asdict(self.probe_report),
            "measurement": self.measurement.as_json(),
        }


def apply_under_load(
    backend: Backend, model: str, fault: Fault, scenario: str, *, seconds: float, control: bool = False
) -> UnderLoad:
    """Load a model that runs with a scenario, and apply a fault in the middle, for so many seconds.

    Raises:
        CannotApplyError, NotHealedError: see `applied`.
        LabError: there was no load, or no witness.
    """
    found = backend.catalogue[model]
    users = find_preset(scenario).users
    total = _QUIET_SECONDS + seconds + _AFTER_SECONDS
    with ThreadPoolExecutor(1) as pool:
        load = pool.submit(measure, backend, found, scenario, users=users, seconds=total, warm_up=1.0)
        with open_probe(backend, model) as probe:
            time.sleep(2.0)
            probe.mark("quiet")
            time.sleep(_QUIET_SECONDS)
            with injected(fault, backend, model, control=control) as interval:
                probe.mark("injected")
                time.sleep(seconds if fault.hold else 0.0)
            probe.mark("healed")
            measurement = load.result()
            return UnderLoad(interval, probe.wait_recovered(0.0), measurement)
