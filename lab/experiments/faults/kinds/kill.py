"""SIGKILL, as the kernel sends it when memory runs out: no warning, and nothing can be finished."""

import signal

from lab.experiments.faults.fault import Fault, Injection, until_restarted
from lab.servers.backend import Backend


def _prepare(backend: Backend, model: str) -> Injection:
    return until_restarted(backend, model, lambda: backend.kill(model, signal.SIGKILL))


KILL = Fault("kill", "SIGKILL and a restart: what was not answered is known", _prepare, keeps=False)
