"""Faults from the form of Locust's web UI: which one, on the models of the run, when, and for how long.

The generator cannot break anything: it has no engine's socket. When it is time it writes a line to its stdout, and the
lab that started it does what the line asks for (lab/experiments/faults/remote_requests.py), if it is one of the faults
that it offered.
"""

import os
from argparse import ArgumentParser
from typing import TYPE_CHECKING, Any, cast

import gevent

from lab.load.messages import FAULTS_VARIABLE, MOST_FAULT_SECONDS, FaultRequest

if TYPE_CHECKING:
    from locust.env import Environment

NONE = "none"


def add_options(parser: ArgumentParser) -> None:
    """Its fields; none where no lab is there to break anything."""
    offered = os.environ.get(FAULTS_VARIABLE)
    if not offered:
        return
    parser.add_argument(
        "--fault", choices=[NONE, *offered.split(",")], default=NONE, help="break the models during the run"
    )
    parser.add_argument("--fault-after", type=float, default=10.0, help="seconds from the start to the fault")
    parser.add_argument("--fault-for", type=float, default=5.0, help="seconds from the fault to its mending")


def find_objection(options: Any) -> str | None:
    """What is wrong with what was chosen; None if nothing is."""
    if _is_asked_for(options) and not (options.fault_after >= 0 and 0 < options.fault_for <= MOST_FAULT_SECONDS):
        return f"a fault comes after 0 seconds or more, and lasts for more than 0 and at most {MOST_FAULT_SECONDS:g}"
    return None


def schedule(environment: "Environment") -> None:
    """Ask for the fault of a run that begins when it is time, unless it has stopped before."""
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
