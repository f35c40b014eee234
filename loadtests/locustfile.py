"""The load test of the lab, for `locust -f loadtests/locustfile.py`: the web UI, or headless.

    --model, --workload   what is loaded with what; drop-downs in the web UI ("all" deals the users out)
    --timeout             seconds until an exchange counts as failed
    --window              measure for so many seconds after a warm-up, print a line of JSON for each model, end

The models' addresses come from LAB_TARGETS (what `lab ls --json` prints), or else from the catalogue.
"""

import logging
import os
import sys
from typing import Any, cast

import locust.stats
from locust import events
from locust.argument_parser import LocustArgumentParser
from locust.env import Environment
from locust.runners import WorkerRunner

from lab.workloads import OWN
from loadtests.buckets import bucket_three_digits
from loadtests.codec import Codec, CodecError
from loadtests.measurement import Window
from loadtests.targets import TargetError, Targets
from loadtests.users import ALL, SocketUser
from loadtests.web import extend

__all__ = ["SocketUser"]

# On a worker's stdout; see lab/generator.py, which waits for it.
JOINED = "LOAD-JOINED"

# Locust's own hook ("can be replaced at runtime for custom bucketing"). Annotated as int; its code takes any number.
locust.stats.bucket_response_time = cast(Any, bucket_three_digits)

try:
    SocketUser.targets = Targets.from_environ(os.environ)
    SocketUser.codec = Codec.from_environ(os.environ)
    if SocketUser.codec:
        SocketUser.workloads = {OWN.name: OWN}
except (TargetError, CodecError) as error:
    sys.exit(f"locustfile: {error}")


def add_options(parser: LocustArgumentParser, **_: Any) -> None:
    """Called by Locust before it reads its command line."""
    models = [*SocketUser.targets.models, ALL]
    workloads = SocketUser.workloads
    about = "; ".join(f"{workload.name.removeprefix('closed_')}: {workload.summary}" for workload in workloads.values())
    for name, choices, text in (
        ("--model", models, f"which server is loaded; {ALL}: each of them, with its share of the users"),
        ("--workload", list(workloads), about),
    ):
        # The parser, not the group: Locust's keywords for its web UI are the parser's.
        parser.add_argument(name, choices=choices, default=choices[0], help=text.replace("%", "%%"))
    parser.add_argument("--timeout", type=float, default=5.0, help="seconds until an exchange counts as failed")
    for name, default, text in (
        ("--window", None, "measure for so many seconds, print a line of JSON for each model, end"),
        ("--warm-up", 0.5, "seconds of load before the window"),
    ):
        parser.add_argument(name, type=float, default=default, help=text, include_in_web_ui=False)


def start_window(environment: Environment, **_: Any) -> None:
    """Called by Locust when its runner exists, before any user does."""
    options = cast(Any, environment.parsed_options)
    if options.window is not None:
        # Tables of whole milliseconds at the end would only stand in the way of the result.
        logging.getLogger("locust.stats_logger").setLevel(logging.WARNING)
        Window(environment, warm_up=options.warm_up, seconds=options.window)


def announce(environment: Environment, **_: Any) -> None:
    """Called by Locust when its runner exists: on a worker, when its master has taken it."""
    if isinstance(environment.runner, WorkerRunner):
        print(JOINED, flush=True)


# Not as decorators: Locust does not annotate them.
cast(Any, events.init_command_line_parser).add_listener(add_options)
cast(Any, events.init).add_listener(start_window)
cast(Any, events.init).add_listener(extend)
cast(Any, events.init).add_listener(announce)
