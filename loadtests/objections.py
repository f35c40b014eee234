"""Check the options of a test before it starts."""

from collections.abc import Mapping, Sequence
from math import isfinite
from typing import Any

from lab.load.workloads import HIGHEST_RATE, LOOPS, OPEN, SHAPES, Workload, make_exchange
from loadtests.sockets.codec import Codec
from loadtests.targets import TargetError, Targets
from loadtests.web import faults
from services.protocol import Transport

EVEN, RANDOM = "even", "random"

# The values of each choice, in the order of the form; the first is the default.
CHOICES: Mapping[str, Sequence[str]] = {
    "transport": [item.value for item in Transport],
    "loop": LOOPS,
    "arrivals": (EVEN, RANDOM),
    "shape": SHAPES,
}


def find_objection(
    options: Any, targets: Targets, workloads: Mapping[str, Workload], codec: Codec | None = None
) -> str | None:
    """Return why a test cannot run with these options, in one line; None if it can.

    Args:
        options: of Locust's command line, or of its form.
        targets: addresses of the models.
        workloads: the available workloads.
        codec: of a custom protocol, which then makes the exchanges.
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
        return f"{workload.name} is a script, and has no open loop"
    if codec and transport.is_datagram and (codec.greeting_size or codec.until_close):
        return f"the codec has a greeting or UNTIL_CLOSE, which do not exist over {transport}"
    return _find_bad_number(options) or faults.find_objection(options)


def _find_bad_number(options: Any) -> str | None:
    if not all(_is_above(value, 0) for value in (options.rate, options.shape_time, options.timeout)):
        return "the rate, the duration of the shape and the timeout have to be above 0"
    if options.rate > HIGHEST_RATE:
        return f"the rate is at most {HIGHEST_RATE:,.0f} requests per second"
    # None: Locust's own default, which is 1.
    if options.num_users is not None and options.num_users < 1:
        return "the number of users has to be at least 1"
    if options.spawn_rate is not None and not _is_above(options.spawn_rate, 0):
        return "the spawn rate has to be above 0"
    if options.window is None:
        return None
    if options.run_time:
        return "--window sets the duration of the run: omit --run-time"
    if not _is_above(options.window, 0) or not (isfinite(options.warm_up) and options.warm_up >= 0):
        return "the window has to be above 0 seconds, and the warm-up at least 0"
    return None


def _is_above(value: float, bound: float) -> bool:
    return isfinite(value) and value > bound
