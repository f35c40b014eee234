"""No CPU time to speak of: a twentieth of a core, as beside a neighbour who takes everything."""

from lab.backends import Backend
from lab.faults import Fault, Harm, only_in_container

_SHARE = 0.05


def _prepare(backend: Backend, model: str) -> Harm:
    only_in_container(backend, "a share of the CPU that can be taken from it")
    return Harm(
        lambda: backend.limit_cpu(model, _SHARE),
        lambda: backend.limit_cpu(model, None),
        "`docker update --cpu-quota -1` its container, or `lab down`",
        f"{model} has a twentieth of a core",
    )


STARVE = Fault("starve", "a twentieth of a core", _prepare, hold=0.5)
