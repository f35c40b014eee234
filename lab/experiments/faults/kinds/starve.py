"""Limit a model to 5 % of a core, as next to a noisy neighbour.

A container gets a CPU quota. Processes are stopped and continued: they run for 5 ms of every 100 ms.
"""

from lab.experiments.faults.fault import Fault, Injection
from lab.servers.backend import Backend

_SHARE = 0.05


def _prepare(backend: Backend, model: str) -> Injection:
    return Injection(
        lambda: backend.faults.limit_cpu(model, _SHARE),
        lambda: backend.faults.limit_cpu(model, None),
        "`docker update --cpu-quota -1` its container, or `kill -CONT` its processes; or `lab down`",
        f"{model} is limited to 5 % of a core",
    )


STARVE = Fault("starve", "limited to 5 % of a core", _prepare, hold=0.5)
