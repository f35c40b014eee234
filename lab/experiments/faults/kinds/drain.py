"""SIGTERM, as a deployment sends it: whoever is served is answered, then the model ends by itself."""

from lab.experiments.faults.fault import Fault, Injection, until_restarted
from lab.servers.backend import Backend


def _prepare(backend: Backend, model: str) -> Injection:
    return until_restarted(backend, model, lambda: backend.stop(model))


DRAIN = Fault("drain", "SIGTERM: every request that was accepted is answered", _prepare)
