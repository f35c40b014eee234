"""Inject a fault in the middle of a preset's load, and measure a latency probe before, during and after it.

The load has its own measurement (`lab.load.measurement`). The PING of the probe (`lab.clients.latency_probe`) is the
same under every preset.
"""

import time
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from typing import Any, Self

from lab.base.messages import build
from lab.experiments.faults.fault import Fault, FaultInterval, injected
from lab.experiments.faults.probe_reader import ProbeReport, open_probe
from lab.experiments.records import read_measurement, record_measurement
from lab.load.measure import measure
from lab.load.measurement import Measurement
from lab.load.presets import find_preset
from lab.servers.backend import Backend

_QUIET_SECONDS = 4.0  # of load before the fault, after the generator has started
_AFTER_SECONDS = 4.0


@dataclass(frozen=True, slots=True)
class UnderLoad:
    """A fault, the load during which it was injected, and the times of the latency probe."""

    interval: FaultInterval
    probe_report: ProbeReport
    measurement: Measurement

    def as_json(self) -> dict[str, Any]:
        return record_measurement(
            self.measurement, interval=asdict(self.interval), probe_report=asdict(self.probe_report)
        )

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Self | None:
        """Parse the result of `as_json`; None if the data is that of something else.

        Raises:
            ValueError: The data is damaged.
        """
        if (measurement := read_measurement(data)) is None:
            return None
        return cls(build(FaultInterval, data["interval"]), build(ProbeReport, data["probe_report"]), measurement)


def apply_under_load(
    backend: Backend, model: str, fault: Fault, preset: str, *, seconds: float, control: bool = False
) -> UnderLoad:
    """Put a preset's load on a running model, and inject a fault in its middle for `seconds`.

    Raises:
        CannotApplyError, NotHealedError: See `injected`.
        LabError: The load or the latency probe failed.
    """
    found = backend.catalogue[model]
    asked = find_preset(preset).change(duration=_QUIET_SECONDS + seconds + _AFTER_SECONDS, warm_up=1.0)
    with ThreadPoolExecutor(1) as pool:
        load = pool.submit(measure, backend, found, asked)
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
