"""Check that a load is possible before anything starts: preset, options and models have to fit together."""

import math
import sys
from collections.abc import Sequence

from lab.base.errors import LabError
from lab.load.presets import Preset
from lab.load.thresholds import Threshold
from lab.load.workloads import make_exchange
from lab.servers.backend import Listening
from lab.servers.catalogue import Model
from loadtests.contract import EVEN


def check_fit(load: Preset, thresholds: Sequence[Threshold]) -> None:
    """Check that the parts of a load fit together.

    Raises:
        LabError: they do not.
    """
    spec = load.spec
    # Random arrivals can exceed the average rate within one window.
    limited = spec.is_open and spec.arrivals == EVEN
    for item in thresholds:
        misfit = item.find_misfit(
            open_loop=spec.is_open,
            datagrams=spec.transport.is_datagram,
            timeout=spec.timeout,
            rate=spec.rate if limited else math.inf,
        )
        if misfit:
            raise LabError(f"--fail-if {item.text!r} {misfit} ({load.name} over {spec.transport})")
    try:
        make_exchange(load.workload, spec.transport, spec.payload)
    except ValueError as error:
        raise LabError(str(error)) from None


def select_able(servers: Listening, models: Sequence[Model], load: Preset, *, named: bool) -> list[Model]:
    """Return the models that speak a load's service over its transport; name the others on stderr.

    Args:
        named: the user named each model, so none may be left out.

    Raises:
        LabError: a named model does not speak it, or no model does.
    """
    service, transport = load.workload.service, load.spec.transport
    offered = {item.model for item in servers.targets() if (item.service, item.transport) == (service, transport)}
    unable = [model.name for model in models if model.name not in offered]
    if unable and (named or len(unable) == len(models)):
        raise LabError(f"{load.name} asks {service} over {transport}, which {', '.join(unable)} does not speak")
    if unable:
        print(f"lab: left out, as they do not speak {service} over {transport}: {', '.join(unable)}", file=sys.stderr)
    limited = [model for model in models if model.name in offered and not load.workload.is_possible(model.limits)]
    if limited:
        reasons = "; ".join(f"{model.name}: {model.limits[load.workload.capability]}" for model in limited)
        if named or len(unable) + len(limited) == len(models):
            raise LabError(f"{load.name} cannot be answered: {reasons}")
        print(f"lab: left out: {reasons}", file=sys.stderr)
    return [model for model in models if model.name in offered and model not in limited]
