"""No CPU time to speak of: a twentieth of a core, as beside a neighbour who takes everything.

A container gets a quota. Processes run for a twentieth of each tenth of a second, as with that quota, and stand still
for the rest.
"""

from lab.experiments.faults.fault import Fault, Injection
from lab.servers.backend import Backend

_SHARE = 0.05


def _prepare(backend: Backend, model: str) -> Injection:
    return Injection(
        lambda: backend.limit_cpu(model, _SHARE),
        lambda: backend.limit_cpu(model, None),
        "`docker update --cpu-quota -1` its container, or `kill -CONT` its processes; or `lab down`",
        f"{model} has a twentieth of a core",
    )


STARVE = Fault("starve", "a twentieth of a core", _prepare, hold=0.5)
