"""SIGTERM, as a deployment sends it: whoever is served is answered, then the model ends by itself."""

from lab.backends import Backend
from lab.faults import Fault, Harm, until_restarted


def _prepare(backend: Backend, model: str) -> Harm:
    return until_restarted(backend, model, lambda: backend.stop(model))


DRAIN = Fault("drain", "SIGTERM: every request that was accepted is answered", _prepare)
