"""Check that a load is possible before anything starts: preset, options and models have to fit together."""

import math
import sys
from collections.abc import Sequence
from typing import Any

from lab.base.errors import LabError
from lab.load.presets import Preset
from lab.load.thresholds import Threshold
from lab.load.workloads import OPEN, make_exchange
from lab.servers.catalogue import Model
from services.protocol import Transport


def check_fit(
    preset: Preset,
    thresholds: Sequence[Threshold],
    *,
    rate: float | None,
    transport: Transport,
    payload: int | None,
    timeout: float,
) -> None:
    """Check that options fit a preset.

    Raises:
        LabError: an option does not.
    """
    if preset.loop != OPEN and rate:
        raise LabError(f"--rate goes with an open loop, and {preset.name} is a closed one")
    # Random arrivals can exceed the average rate within one window.
    limited = preset.loop == OPEN and not preset.poisson
    for item in thresholds:
        misfit = item.find_misfit(
            open_loop=preset.loop == OPEN,
            datagrams=transport.is_datagram,
            timeout=timeout,
            rate=rate or preset.rate if limited else math.inf,
        )
        if misfit:
            raise LabError(f"--fail-if {item.text!r} {misfit} ({preset.name} over {transport})")
    try:
        make_exchange(preset.workload, transport, payload)
    except ValueError as error:
        raise LabError(str(error)) from None


def select_able(
    backend: Any, models: Sequence[Model], preset: Preset, transport: Transport, *, named: bool
) -> list[Model]:
    """Return the models that speak a preset's service over a transport; name the others on stderr.

    Args:
        named: the user named each model, so none may be left out.

    Raises:
        LabError: a named model does not speak it, or no model does.
    """
    service = preset.workload.service
    offered = {item.model for item in backend.targets() if (item.service, item.transport) == (service, transport)}
    unable = [model.name for model in models if model.name not in offered]
    if unable and (named or len(unable) == len(models)):
        raise LabError(f"{preset.name} asks {service} over {transport}, which {', '.join(unable)} does not speak")
    if unable:
        print(f"lab: left out, as they do not speak {service} over {transport}: {', '.join(unable)}", file=sys.stderr)
    limited = [model for model in models if not preset.workload.is_possible(model.limits)]
    if limited:
        reasons = "; ".join(f"{model.name}: {model.limits[preset.workload.capability]}" for model in limited)
        if named or len(unable) + len(limited) == len(models):
            raise LabError(f"{preset.name} cannot be answered: {reasons}")
        print(f"lab: left out: {reasons}", file=sys.stderr)
    return [model for model in models if model.name in offered and model not in limited]
