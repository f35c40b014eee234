"""A fault in the middle of a Locust scenario: what another client sees before it, while it is there, and after it.

The scenario gives the load, and its own account of it (`lab.measurement`). Who looks at the watch is `lab.witness`,
whose PING is the same under every scenario.
"""

import json
import statistics
import tempfile
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from lab.backends import Backend, Instrument
from lab.errors import LabError
from lab.faults import Fault, Stamp, applied, find_address
from lab.measurement import Measurement, find_scenario, measure
from lab.witness import TIMEOUT

_QUIET_SECONDS = 4.0  # of load before the fault, behind the generator's own start
_AFTER_SECONDS = 4.0
_BAND = 5.0  # times the quiet p99: beyond it, somebody notices
_SETTLED = 10  # so many in turn within the band, and it is over
_PATIENCE = 30.0

Ping = tuple[float, float | None]


@dataclass(frozen=True, slots=True)
class Around:
    """What a witness saw.

    Args:
        quiet_p99: seconds, before the fault; None if nothing was answered.
        detect: seconds from the break to the first PING that failed, or was out of the band; None if none was.
        recover: seconds from the mending to the first of several in turn within the band; None if there were none.
        seconds: rows of [second since the break, p50 and p99 in seconds or None, how many failed].
    """

    quiet_p99: float | None
    detect: float | None
    recover: float | None
    seconds: tuple[tuple[int, float | None, float | None, int], ...]


@dataclass(frozen=True, slots=True)
class UnderLoad:
    """A fault, the load that was there, and what was seen."""

    stamp: Stamp
    around: Around
    measurement: Measurement

    def as_json(self) -> dict[str, Any]:
        """For a report, and for a script."""
        return {
            "stamp": asdict(self.stamp),
            "around": asdict(self.around),
            "measurement": self.measurement.as_json(),
        }


def look(pings: Sequence[Ping], broken: float, mended: float) -> Around:
    """What pings mean around a fault.

    Args:
        pings: when each was sent, and what it took, or None if it failed; in seconds.
        broken, mended: on the same clock.
    """
    quiet = [took for when, took in pings if took is not None and when + took < broken]
    rows: dict[int, list[float | None]] = {}
    for when, took in pings:
        rows.setdefault(int((when - broken) // 1), []).append(took)
    seconds = tuple((number, *_summarize(took)) for number, took in sorted(rows.items()))
    if not quiet:
        return Around(None, None, None, seconds)
    p99 = _quantile(quiet, 99)
    limit = _BAND * p99
    # It is known that one is late when it is, and not only when it has come, or has been given up.
    late = [
        max(0.0, when + limit - broken)
        for when, took in pings
        if (took is None or took > limit) and when + (TIMEOUT if took is None else took) >= broken
    ]
    after = [(when, took is not None and took <= limit) for when, took in pings if when >= mended]
    good = (
        after[number][0] - mended
        for number in range(len(after) - _SETTLED + 1)
        if all(fine for _, fine in after[number : number + _SETTLED])
    )
    return Around(p99, min(late, default=None), next(good, None), seconds)


def apply_under_load(
    backend: Backend, model: str, fault: Fault, scenario: str, *, seconds: float, twin: bool = False
) -> UnderLoad:
    """Load a model that runs with a scenario, and apply a fault in the middle, for so many seconds.

    Raises:
        CannotApplyError, NotHealedError: see `applied`.
        LabError: there was no load, or no witness.
    """
    found = backend.catalogue[model]
    users = find_scenario(scenario).users
    total = _QUIET_SECONDS + seconds + _AFTER_SECONDS
    with tempfile.TemporaryDirectory(prefix="witness-") as directory, ThreadPoolExecutor(1) as pool:
        command = ["python", "-m", "lab.witness", find_address(backend, model)]
        load = pool.submit(measure, backend, found, scenario, users=users, seconds=total, warm_up=1.0)
        with backend.start(command, log=Path(directory) / "log") as witness:
            time.sleep(_QUIET_SECONDS + 2.0)
            with applied(fault, backend, model, twin=twin) as stamp:
                _tell(witness, "broken")
                time.sleep(seconds if fault.hold else 0.0)
            _tell(witness, "mended")
            measurement = load.result()
            if witness.process.stdin is None or witness.process.poll() is not None:
                raise LabError(f"the witness has ended: {witness.output().strip()[-300:]}")
            witness.process.stdin.close()
            witness.process.wait(_PATIENCE)
            seen = json.loads(witness.output().splitlines()[-1])
    around = look([(when, took) for when, took in seen["pings"]], seen["marks"]["broken"], seen["marks"]["mended"])
    return UnderLoad(stamp, around, measurement)


def _tell(witness: Instrument, word: str) -> None:
    if witness.process.stdin is None or witness.process.poll() is not None:
        raise LabError(f"the witness has ended: {witness.output().strip()[-300:]}")
    witness.process.stdin.write(f"{word}\n".encode())
    witness.process.stdin.flush()


def _summarize(took: Sequence[float | None]) -> tuple[float | None, float | None, int]:
    good = [each for each in took if each is not None]
    failed = len(took) - len(good)
    return (_quantile(good, 50), _quantile(good, 99), failed) if good else (None, None, failed)


def _quantile(values: Sequence[float], percent: int) -> float:
    return statistics.quantiles(values, n=100, method="inclusive")[percent - 1] if len(values) > 1 else values[0]
