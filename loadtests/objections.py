"""Whether a test can be run as it is asked for: a look at the options alone, before anything starts."""

from collections.abc import Mapping, Sequence
from math import isfinite
from typing import Any

from lab.load.workloads import HIGHEST_RATE, LOOPS, OPEN, SHAPES, Workload, make_exchange
from loadtests.sockets.codec import Codec
from loadtests.targets import TargetError, Targets
from loadtests.web import faults
from services.protocol import Transport

EVEN, RANDOM = "even", "random"

# What each choice can be, in the order in which it is offered.
CHOICES: Mapping[str, Sequence[str]] = {
    "transport": [item.value for item in Transport],
    "loop": LOOPS,
    "arrivals": (EVEN, RANDOM),
    "shape": SHAPES,
}


def find_objection(
    options: Any, targets: Targets, workloads: Mapping[str, Workload], codec: Codec | None = None
) -> str | None:
    """Why a test cannot be run as it was asked for, in one line; None if it can.

    Args:
        options: of Locust's command line, or of its form.
        targets: where the models are.
        workloads: those that are offered.
        codec: what makes the exchanges, if something of somebody's own does.
    """
    for name, known in {"workload": list(workloads), **CHOICES}.items():
        if (value := getattr(options, name)) not in known:
            return f"unknown {name} {value!r}: one of {', '.join(known)}"
    workload, transport = workloads[options.workload], Transport(options.transport)
    if not options.models:
        return "no model is chosen"
    try:
        make_exchange(workload, transport, options.payload)
        for model in options.models:
            targets.find(model, workload.service, transport)
    except (ValueError, TargetError) as error:
        return str(error)
    if options.loop == OPEN and workload.exchange is None:
        return f"{workload.name} is a script of its own: there is no open loop of it"
    if codec and transport.is_datagram and (codec.greeting_size or codec.until_close):
        return f"over {transport} nothing is greeted or closed, as the codec says of its server"
    return _find_bad_number(options) or faults.find_objection(options)


def _find_bad_number(options: Any) -> str | None:
    if not all(_is_above(value, 0) for value in (options.rate, options.shape_time, options.timeout)):
        return "the rate, the time of the shape and the time-out have to be above 0"
    if options.rate > HIGHEST_RATE:
        return f"the rate is at most {HIGHEST_RATE:,.0f} requests per second"
    # None: Locust's own default, which is 1.
    if options.num_users is not None and options.num_users < 1:
        return "there has to be a user"
    if options.spawn_rate is not None and not _is_above(options.spawn_rate, 0):
        return "the spawn rate has to be above 0"
    if options.window is None:
        return None
    if options.run_time:
        return "--window says how long the run is: leave --run-time out"
    if not _is_above(options.window, 0) or not (isfinite(options.warm_up) and options.warm_up >= 0):
        return "the window has to be above 0 seconds, and the warm-up 0 or more"
    return None


def _is_above(value: float, bound: float) -> bool:
    return isfinite(value) and value > bound
