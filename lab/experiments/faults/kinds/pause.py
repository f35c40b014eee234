"""A model that stands still, as in a virtual machine that is moved: its connections stay, and nobody answers."""

from lab.experiments.faults.fault import Fault, Injection
from lab.servers.backend import Backend


def _prepare(backend: Backend, model: str) -> Injection:
    return Injection(
        lambda: backend.pause(model),
        lambda: backend.unpause(model),
        "`docker unpause` its container, or `kill -CONT` its processes; or `lab down`",
        f"{model} stands still",
    )


PAUSE = Fault("pause", "it stands still, and goes on", _prepare, hold=0.5)
