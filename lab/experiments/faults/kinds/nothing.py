"""No fault. A failure under it is not caused by any other fault."""

from lab.experiments.faults.fault import Fault, Injection
from lab.servers.backend import Backend


def _prepare(backend: Backend, model: str) -> Injection:
    return Injection(lambda: None, lambda: None, "nothing", "nothing")


NOTHING = Fault("nothing", "no fault", _prepare)
