"""Send SIGKILL, as the kernel does when memory runs out: the model gets no warning and finishes nothing."""

import signal

from lab.experiments.faults.fault import Fault, Injection, RecoveryStart, healed_by_restart
from lab.servers.backend import Backend


def _prepare(backend: Backend, model: str) -> Injection:
    return healed_by_restart(backend, model, lambda: backend.faults.kill(model, signal.SIGKILL))


KILL = Fault(
    "kill",
    "SIGKILL and a restart: unanswered requests are known",
    _prepare,
    keeps_connections=False,
    recovery_counts_from=RecoveryStart.INJECTION,
)
