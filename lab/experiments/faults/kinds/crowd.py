"""A hostile crowd: 500 who send a byte a second, and 500 who say nothing. The measure is somebody else's PING."""

import json
import tempfile
import time
from contextlib import ExitStack
from pathlib import Path

from lab.base.errors import LabError
from lab.experiments.faults.fault import Fault, Injection, find_address
from lab.servers.backend import Backend

_PINGS = 1000
_PATIENCE = 20.0
_ALLOWED = 5.0  # times the quiet p99


def _prepare(backend: Backend, model: str) -> Injection:
    stack = ExitStack()

    def inject() -> None:
        log = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="crowd-"))) / "log"
        crowd = stack.enter_context(
            backend.start(["python", "-m", "lab.clients.slow_clients", find_address(backend, model)], log=log)
        )
        deadline = time.monotonic() + _PATIENCE
        while "there" not in crowd.output().split():
            if crowd.process.poll() is not None or time.monotonic() > deadline:
                raise LabError(f"the crowd never came; it wrote: {crowd.output().strip() or '(nothing)'}")
            time.sleep(0.05)

    return Injection(inject, stack.close, "`lab down`", f"a crowd is on {model}")


CROWD = Fault("crowd", "500 slow and 500 silent clients", _prepare, hold=1.0, needs=("overlap", "crowd", "thousand"))


def read_ping(backend: Backend, address: str) -> float | str:
    """The p99 of a well-behaved client's PING, in seconds; or why there is none."""
    done = backend.run(
        ["python", "-m", "lab.clients.slow_clients", address, "--ping", str(_PINGS)], capture=True, timeout=60.0
    )
    if done.returncode == 1:
        return done.stdout.strip()
    if done.returncode:
        raise LabError(f"PING could not be asked: {(done.stderr or done.stdout).strip()[-300:]}")
    return float(json.loads(done.stdout)["p99"])


def judge_cost(quiet: float | str, crowded: float | str) -> tuple[str, str]:
    """A verdict on what a client pays for a crowd, and the figures."""
    if isinstance(quiet, str):
        return "unknown", f"no PING was answered before the crowd came: {quiet}"
    if isinstance(crowded, str):
        return "failed", f"a PING beside the crowd: {crowded}"
    times = f"{crowded / quiet:.1f} times"
    said = f"p99 of PING {1000 * quiet:.2f} ms alone, {1000 * crowded:.2f} ms beside the crowd: {times}"
    return ("degraded" if crowded > _ALLOWED * quiet else "held"), said
