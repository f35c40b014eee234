"""Faults from the form of Locust's web UI, injected into the models of the run.

The generator cannot inject a fault itself, because it has no access to Docker. At the chosen time it prints a line, and
the lab that started it injects the fault (lab/experiments/faults/remote_requests.py), if it is one of those offered.
"""

import os
from argparse import ArgumentParser
from typing import TYPE_CHECKING, Any, cast

import gevent

from lab.base.environ import ENV_FAULTS
from lab.load.messages import MOST_FAULT_SECONDS, FaultRequest

if TYPE_CHECKING:
    from locust.env import Environment

NONE = "none"


def add_options(parser: ArgumentParser) -> None:
    """Add the fields of the form; none if no lab offers faults."""
    offered = os.environ.get(ENV_FAULTS)
    if not offered:
        return
    parser.add_argument(
        "--fault",
        choices=[NONE, *offered.split(",")],
        default=NONE,
        help="fault to inject into the models during the run",
    )
    parser.add_argument(
        "--fault-after", type=float, default=10.0, help="seconds from the start until the fault is injected"
    )
    parser.add_argument("--fault-for", type=float, default=5.0, help="seconds until the fault is healed")


def find_objection(options: Any) -> str | None:
    """Return what is wrong with the chosen fault; None if nothing is."""
    if _is_asked_for(options) and not (options.fault_after >= 0 and 0 < options.fault_for <= MOST_FAULT_SECONDS):
        return (
            f"a fault starts after 0 seconds or more, and lasts more than 0 and at most {MOST_FAULT_SECONDS:g} seconds"
        )
    return None


def schedule(environment: "Environment") -> None:
    """Request the fault of a run at its time, unless the run stops before."""
    options = cast(Any, environment.parsed_options)
    if not _is_asked_for(options):
        return
    request = FaultRequest(options.fault, tuple(options.models), float(options.fault_for))
    waiting = gevent.spawn_later(float(options.fault_after), lambda: print(request.encode(), flush=True))

    def cancel(**_: Any) -> None:
        waiting.kill(block=False)
        cast(Any, environment.events).test_stop.remove_listener(cancel)

    cast(Any, environment.events).test_stop.add_listener(cancel)


def _is_asked_for(options: Any) -> bool:
    return getattr(options, "fault", NONE) != NONE
