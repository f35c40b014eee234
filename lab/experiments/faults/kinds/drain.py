"""Send SIGTERM, as a deployment does: the model answers accepted requests and exits."""

from lab.experiments.faults.fault import Fault, Injection, RecoveryStart, healed_by_restart
from lab.servers.backend import Backend


def _prepare(backend: Backend, model: str) -> Injection:
    return healed_by_restart(backend, model, lambda: backend.stop(model))


DRAIN = Fault(
    "drain",
    "SIGTERM: every accepted request is answered",
    _prepare,
    must_exit_cleanly=True,
    recovery_counts_from=RecoveryStart.HEALING,
)
