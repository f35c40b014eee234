"""The PING of a well-behaved client during a fault: how much longer does it take?"""

import json

from lab.base.errors import LabError
from lab.experiments.faults.judge import Verdict
from lab.servers.backend import Helpers

_PINGS = 1000
_LATE_FACTOR = 5.0  # times the quiet p99


def measure_ping(helpers: Helpers, address: str) -> float | str:
    """Return the p99 of a well-behaved client's PING in seconds, or the reason why no PING was answered."""
    done = helpers.run(
        ["python", "-m", "lab.clients.slow_clients", address, "--ping", str(_PINGS)], capture=True, timeout=60.0
    )
    if done.returncode == 1:
        return done.stdout.strip()
    if done.returncode:
        raise LabError(f"PING could not be measured: {(done.stderr or done.stdout).strip()[-300:]}")
    return float(json.loads(done.stdout)["p99"])


def judge_cost(quiet: float | str, loaded: float | str) -> tuple[Verdict, str]:
    """Return a verdict on how much slow clients delay another client, and the figures."""
    if isinstance(quiet, str):
        return Verdict.UNKNOWN, f"no PING was answered before the slow clients connected: {quiet}"
    if isinstance(loaded, str):
        return Verdict.FAILED, f"PING during slow clients: {loaded}"
    times = f"{loaded / quiet:.1f} times"
    said = f"p99 of PING {1000 * quiet:.2f} ms alone, {1000 * loaded:.2f} ms during slow clients: {times}"
    return (Verdict.DEGRADED if loaded > _LATE_FACTOR * quiet else Verdict.HELD), said
