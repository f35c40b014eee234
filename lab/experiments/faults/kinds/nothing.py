"""No fault: what does not hold under it is no finding about any other."""

from lab.experiments.faults.fault import Fault, Injection
from lab.servers.backend import Backend


def _prepare(backend: Backend, model: str) -> Injection:
    return Injection(lambda: None, lambda: None, "nothing", "nothing")


NOTHING = Fault("nothing", "no fault at all", _prepare)
