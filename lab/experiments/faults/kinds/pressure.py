"""Memory up to the limit: the container may have little more than it has now, and the kernel ends who takes more.

With `memory` a process is refused what it asks for, and can say so. Here nobody is asked: what goes beyond the limit of
the control group is ended by the kernel's OOM killer.
"""

from lab.experiments.faults.fault import CannotApplyError, Fault, Injection, only_in_container
from lab.load.measure import open_meter
from lab.servers.backend import Backend

_MORE = 8 * 1024 * 1024  # bytes


def _prepare(backend: Backend, model: str) -> Injection:
    only_in_container(backend, "a memory limit of its own")
    used = open_meter(backend, model).read().memory_bytes
    if used is None:
        raise CannotApplyError("this engine does not say how much memory a container has")
    before, limit = backend.memory_limit(model), used + _MORE
    return Injection(
        lambda: backend.limit_memory(model, limit, limit),  # nothing is to be swapped out instead
        lambda: backend.limit_memory(model, *before),  # one that the kernel has ended is started again by `applied`
        f"`lab down`, `lab up {model}`",
        f"{model} may have no more than {limit / 2**20:.0f} MiB",
    )


PRESSURE = Fault("pressure", "8 MiB are left to its container", _prepare, hold=0.5)
