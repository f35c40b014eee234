"""Open 500 connections that send a byte per second and 500 silent ones (slowloris); measure another client's PING."""

import tempfile
import time
from contextlib import ExitStack
from pathlib import Path

from lab.base.errors import LabError
from lab.experiments.faults.fault import Evidence, Fault, Injection, find_address
from lab.servers.backend import Backend

_CONNECT_TIMEOUT = 20.0


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
    measured_by=Evidence.PING,
)
