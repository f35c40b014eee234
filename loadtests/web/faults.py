"""Faults from the form of Locust's web UI, injected into the models of the run.

The generator cannot inject a fault itself, because it has no access to Docker. At the chosen time it prints a line, and
the lab that started it injects the fault (lab/experiments/faults/remote_requests.py), if it is one of those offered.
"""

import os
from argparse import ArgumentParser, Namespace
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, cast

import gevent

from lab.base.environ import ENV_FAULTS
from lab.base.messages import say
from lab.load.messages import MOST_FAULT_SECONDS, FaultRequest

if TYPE_CHECKING:
    from locust.env import Environment

NONE = "none"


def list_offered() -> list[str]:
    """Return the faults that the lab can inject; none without a lab."""
    return [name for name in os.environ.get(ENV_FAULTS, "").split(",") if name]


def add_options(parser: ArgumentParser) -> None:
    """Add the fields of the form; none if no lab offers faults."""
    offered = list_offered()
    if not offered:
        return
    parser.add_argument(
        "--fault", choices=[NONE, *offered], default=NONE, help="fault to inject into the models during the run"
    )
    parser.add_argument(
        "--fault-after", type=float, default=10.0, help="seconds from the start until the fault is injected"
    )
    parser.add_argument("--fault-for", type=float, default=5.0, help="seconds until the fault is healed")


def find_objection(options: Namespace) -> str | None:
    """Return what is wrong with the chosen fault; None if nothing is."""
    if not _is_asked_for(options):
        return None
    if not options.fault_after >= 0:
        return "a fault starts after 0 seconds or more"
    return find_duration_objection(options.fault_for)


def find_duration_objection(seconds: float) -> str | None:
    """Return what is wrong with the duration of a fault; None if nothing is."""
    if 0 < seconds <= MOST_FAULT_SECONDS:
        return None
    return f"a fault lasts more than 0 and at most {MOST_FAULT_SECONDS:g} seconds"


def ask(fault: str, models: Sequence[str], seconds: float) -> None:
    """Ask the lab that started this generator to inject a fault now."""
    say(FaultRequest(fault, tuple(models), seconds))


def schedule(environment: "Environment") -> None:
    """Request the fault of a run at its time, unless the run stops before."""
    options = cast(Namespace, environment.parsed_options)
    if not _is_asked_for(options):
        return
    waiting = gevent.spawn_later(
        float(options.fault_after), ask, options.fault, list(options.models), float(options.fault_for)
    )

    def cancel(**_: object) -> None:
        waiting.kill(block=False)
        cast(Any, environment.events).test_stop.remove_listener(cancel)

    cast(Any, environment.events).test_stop.add_listener(cancel)


def _is_asked_for(options: Namespace) -> bool:
    return bool(getattr(options, "fault", NONE) != NONE)
