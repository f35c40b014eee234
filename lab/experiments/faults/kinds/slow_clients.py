"""Open 500 connections that send a byte per second and 500 silent ones (slowloris); measure another client's PING."""

import json
import tempfile
import time
from contextlib import ExitStack
from pathlib import Path

from lab.base.errors import LabError
from lab.experiments.faults.fault import Fault, Injection, find_address
from lab.servers.backend import Backend

_PINGS = 1000
_CONNECT_TIMEOUT = 20.0
_LATE_FACTOR = 5.0  # times the quiet p99


def _prepare(backend: Backend, model: str) -> Injection:
    stack = ExitStack()

    def inject() -> None:
        log = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="slow-clients-"))) / "log"
        clients = stack.enter_context(
            backend.helpers.start(["python", "-m", "lab.clients.slow_clients", find_address(backend, model)], log=log)
        )
        deadline = time.monotonic() + _CONNECT_TIMEOUT
        while "connected" not in clients.output().split():
            if clients.process.poll() is not None or time.monotonic() > deadline:
                raise LabError(
                    f"the slow clients did not connect; their output: {clients.output().strip() or '(nothing)'}"
                )
            time.sleep(0.05)

    return Injection(inject, stack.close, "`lab down`", f"slow clients occupy {model}")


SLOW_CLIENTS = Fault(
    "slow-clients",
    "500 clients that send a byte per second, 500 silent ones",
    _prepare,
    hold=1.0,
    needs=("overlap", "slow-clients", "thousand"),
)


def measure_ping(backend: Backend, address: str) -> float | str:
    """Return the p99 of a well-behaved client's PING in seconds, or the reason why no PING was answered."""
    done = backend.helpers.run(
        ["python", "-m", "lab.clients.slow_clients", address, "--ping", str(_PINGS)], capture=True, timeout=60.0
    )
    if done.returncode == 1:
        return done.stdout.strip()
    if done.returncode:
        raise LabError(f"PING could not be measured: {(done.stderr or done.stdout).strip()[-300:]}")
    return float(json.loads(done.stdout)["p99"])


def judge_cost(quiet: float | str, loaded: float | str) -> tuple[str, str]:
    """Return a verdict on how much slow clients delay another client, and the figures."""
    if isinstance(quiet, str):
        return "unknown", f"no PING was answered before the slow clients connected: {quiet}"
    if isinstance(loaded, str):
        return "failed", f"PING during slow clients: {loaded}"
    times = f"{loaded / quiet:.1f} times"
    said = f"p99 of PING {1000 * quiet:.2f} ms alone, {1000 * loaded:.2f} ms during slow clients: {times}"
    return ("degraded" if loaded > _LATE_FACTOR * quiet else "held"), said
