"""Pause a model, as when its virtual machine migrates: connections stay open, but nothing is answered."""

from lab.experiments.faults.fault import Fault, Injection
from lab.servers.backend import Backend


def _prepare(backend: Backend, model: str) -> Injection:
    return Injection(
        lambda: backend.faults.pause(model),
        lambda: backend.faults.unpause(model),
        "`docker unpause` its container, or `kill -CONT` its processes; or `lab down`",
        f"{model} is paused",
    )


PAUSE = Fault("pause", "all its processes are paused", _prepare, hold=0.5)
