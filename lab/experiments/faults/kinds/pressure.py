"""Lower the memory limit of a container to little more than it uses; the kernel's OOM killer ends what exceeds it.

Under `memory` an allocation fails, and the process can handle that. Here the process gets SIGKILL.
"""

from lab.experiments.faults.fault import CannotApplyError, Fault, Injection, require_container
from lab.servers.backend import Backend

_MORE_BYTES = 8 * 1024 * 1024


def _prepare(backend: Backend, model: str) -> Injection:
    container = require_container(backend.faults, "its own memory limit")
    used = backend.meter(model).read().memory_bytes
    if used is None:
        raise CannotApplyError("this engine does not report how much memory a container uses")
    before, limit = container.memory_limit(model), used + _MORE_BYTES
    return Injection(
        lambda: container.limit_memory(model, limit, limit),  # no swap
        lambda: container.limit_memory(model, *before),  # `injected` restarts a model that was killed
        f"`lab down`, `lab up {model}`",
        f"{model} has a memory limit of {limit / 2**20:.0f} MiB",
    )


PRESSURE = Fault("pressure", "8 MiB are left to its container", _prepare, hold=0.5)
