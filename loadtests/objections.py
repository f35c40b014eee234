"""Check the options of a test before it starts."""

from argparse import Namespace
from collections.abc import Mapping
from math import isfinite

from lab.load.workloads import HIGHEST_RATE, Workload, make_exchange
from loadtests.contract import LoadSpec
from loadtests.sockets.codec import Codec
from loadtests.targets import TargetError, Targets
from loadtests.web import faults


def find_objection(
    options: Namespace, targets: Targets, workloads: Mapping[str, Workload], codec: Codec | None = None
) -> str | None:
    """Return why a test cannot run with these options, in one line; None if it can.

    Args:
        options: of Locust's command line, or of its form.
        targets: addresses of the models.
        workloads: the available workloads.
        codec: of a custom protocol, which then makes the exchanges.
    """
    try:
        spec = LoadSpec.from_options(options)
    except ValueError as error:
        return str(error)
    if spec.workload not in workloads:
        return f"unknown workload {spec.workload!r}: one of {', '.join(workloads)}"
    workload, transport = workloads[spec.workload], spec.transport
    if not spec.models:
        return "no model is chosen"
    try:
        make_exchange(workload, transport, spec.payload)
        for model in spec.models:
            targets.find(model, workload.service, transport)
    except (ValueError, TargetError) as error:
        return str(error)
    if spec.is_open and workload.exchange is None:
        return f"{workload.name} is a script, and has no open loop"
    if codec and transport.is_datagram and (codec.greeting_size or codec.until_close):
        return f"the codec has a greeting or UNTIL_CLOSE, which do not exist over {transport}"
    return _find_bad_number(spec) or _find_bad_option(options, spec) or faults.find_objection(options)


def _find_bad_number(spec: LoadSpec) -> str | None:
    if not all(_is_above(value, 0) for value in (spec.rate, spec.shape_time, spec.timeout)):
        return "the rate, the duration of the shape and the timeout have to be above 0"
    if spec.rate > HIGHEST_RATE:
        return f"the rate is at most {HIGHEST_RATE:,.0f} requests per second"
    if spec.window is None:
        return None
    if not _is_above(spec.window, 0) or not (isfinite(spec.warm_up) and spec.warm_up >= 0):
        return "the window has to be above 0 seconds, and the warm-up at least 0"
    return None


def _find_bad_option(options: Namespace, spec: LoadSpec) -> str | None:
    """Return what is wrong with Locust's own options. None for a number: its default, which is 1."""
    if options.num_users is not None and options.num_users < 1:
        return "the number of users has to be at least 1"
    if options.spawn_rate is not None and not _is_above(options.spawn_rate, 0):
        return "the spawn rate has to be above 0"
    if spec.window is not None and options.run_time:
        return "--window sets the duration of the run: omit --run-time"
    return None


def _is_above(value: float, bound: float) -> bool:
    return isfinite(value) and value > bound
