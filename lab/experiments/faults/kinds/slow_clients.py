"""Open 500 connections that send a byte per second and 500 silent ones (slowloris); measure another client's PING."""

from contextlib import ExitStack

from lab.clients.slow_clients import Connected
from lab.experiments.faults.fault import Evidence, Fault, Injection, find_address
from lab.servers.backend import Backend

_CONNECT_TIMEOUT = 20.0


def _prepare(backend: Backend, model: str) -> Injection:
    stack = ExitStack()

    def inject() -> None:
        command = ["python", "-m", "lab.clients.slow_clients", find_address(backend, model)]
        clients = stack.enter_context(backend.helpers.start("the program of the slow clients", command))
        clients.wait_for(Connected, _CONNECT_TIMEOUT)

    return Injection(inject, stack.close, "`lab down`", f"slow clients occupy {model}")


SLOW_CLIENTS = Fault(
    "slow-clients",
    "500 clients that send a byte per second, 500 silent ones",
    _prepare,
    hold=1.0,
    needs=("overlap", "slow-clients", "thousand"),
    measured_by=Evidence.PING,
)
