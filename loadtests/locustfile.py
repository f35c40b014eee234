"""The load test of the lab, for `locust -f loadtests/locustfile.py`: the web UI, or headless.

Its options are those of `loadtests.contract.LoadSpec`; `--users` counts all models together. With `--window`, it
measures for this time after the warm-up, prints a line of JSON per model, and ends. Only with `lab load`'s web UI,
`--fault`, `--fault-after` and `--fault-for` inject a fault during the run.

The models' addresses come from LAB_TARGETS (the output of `lab ls --json`), or else from the catalogue.
"""

import logging
import os
import resource
import signal
import sys
from argparse import Namespace
from collections import Counter
from collections.abc import Mapping
from typing import Any, ClassVar, cast

import gevent
import locust.runners
import locust.stats
from locust import LoadTestShape, events
from locust.argument_parser import LocustArgumentParser
from locust.env import Environment
from locust.exception import StopTest
from locust.runners import MasterRunner, Runner, WorkerRunner

from lab.base.environ import ENV_GENERATOR_CORES
from lab.load.cores import pin_generator
from lab.load.http_exchanges import ask_page
from lab.load.workloads import CUSTOM_PROTOCOL, WORKLOADS, Workload, make_exchange
from loadtests import lifeline, objections, rate_shares
from loadtests.buckets import bucket_three_digits
from loadtests.contract import FLAGS, RANDOM, LoadSpec, declare, option_of
from loadtests.idle_connections import IdleConnections, divide
from loadtests.joining import announce
from loadtests.run_time import RunTime
from loadtests.scripts import SCRIPTS
from loadtests.shapes import CLOSED, STEADY, level
from loadtests.sockets.codec import Codec, CodecError
from loadtests.sockets.engine import ConnectionGroup, Engine
from loadtests.sockets.exchange import Exchange
from loadtests.sockets.recorder import RECORDER, Series
from loadtests.sockets.schedule import Schedule
from loadtests.sockets.script_client import SocketClient
from loadtests.sockets.users import WireUser
from loadtests.targets import TargetError, Targets
from loadtests.web import faults
from loadtests.web.form import check_form
from loadtests.web.tables import extend
from loadtests.window import Window, WindowCounter

# Locust's own hook ("can be replaced at runtime for custom bucketing"). Annotated as int; its code takes any number.
locust.stats.bucket_response_time = cast(Any, bucket_three_digits)

# The live page has a point for each second.
locust.runners.WORKER_REPORT_INTERVAL = 1.0

# Descriptors for Locust itself, its web UI and its messages.
_OTHER_DESCRIPTORS = 128


class LabUser(WireUser):
    """One connection to one of the models, with the workload of the command line or the web UI."""

    host = "the lab's network"

    targets: ClassVar[Targets]
    # The lab's workloads, or the one of a codec.
    workloads: ClassVar[Mapping[str, Workload]] = WORKLOADS
    running: ClassVar[Counter[str]] = Counter()

    def __init__(self, environment: Environment) -> None:
        super().__init__(environment)
        self._spec = LoadSpec.from_options(read_options(environment))
        self._chosen = self.workloads[self._spec.workload]
        self._script = SCRIPTS.get(self._chosen.name)
        self._client: SocketClient | None = None

    def on_start(self) -> None:
        """Choose the model with the fewest users, so that all models always have the same number."""
        models = self._spec.models
        # Workers start with different models. Otherwise, few users on many workers would all load the first model.
        first = max(getattr(self.environment.runner, "worker_index", 0), 0) % len(models)
        self.model = min(models[first:] + models[:first], key=lambda model: self.running[model])
        self.running[self.model] += 1
        if self._script is None:
            super().on_start()
        else:
            address = self.targets.find(self.model, self._chosen.service, self._spec.transport)
            self._client = SocketClient(address, self.environment, self.make_series(), timeout=self._spec.timeout)

    def on_stop(self) -> None:
        """Leave the model, also when Locust kills the user during an exchange."""
        self.running[self.model] -= 1
        super().on_stop()
        if self._client is not None:
            self._client.close()

    def be_busy(self) -> None:
        """Run the script once, or wait while the engine does the work."""
        if self._script is None or self._client is None:
            super().be_busy()
        else:
            self._script(self._client)

    def make_series(self) -> Series:
        loop = CLOSED if self._script else self._spec.loop
        return Series(self.model, self._chosen.name, self._spec.transport.value, loop)

    def make_group(self) -> ConnectionGroup:
        """Return the group that all users of a model share."""
        spec = self._spec
        # Not None: a user with a script makes no group.
        exchange = cast(Exchange, make_exchange(self._chosen, spec.transport, spec.payload))
        if page := self.targets.find_page(self.model, self._chosen.service, spec.transport):
            exchange = ask_page(exchange, page[0], any_body=page[1])
        schedule = None
        if spec.is_open:
            rate = spec.rate / exchange.depth
            schedule = Schedule(
                lambda since: rate * level(spec.shape, since / spec.shape_time), poisson=spec.arrivals == RANDOM
            )
        return ConnectionGroup(
            self.make_series(),
            self.targets.find(self.model, self._chosen.service, spec.transport),
            exchange,
            timeout=spec.timeout,
            schedule=schedule,
            codec=self.codec,
        )


class Profile(LoadTestShape):
    """The number of users of a closed loop over time. In an open loop, the rate changes instead."""

    use_common_options = True

    def tick(self) -> tuple[int, float]:
        """Return the number of users for the next second, and the spawn rate."""
        options = read_options(cast(Runner, self.runner).environment)
        # Not of the specification: the form may change both during a run.
        users, spawn_rate = int(options.num_users or 1), float(options.spawn_rate or 1)
        spec = LoadSpec.from_options(options)
        if spec.shape == STEADY or spec.is_open:
            return users, spawn_rate
        passed: float = cast(Any, self).get_run_time()
        share_of_all = level(spec.shape, passed / spec.shape_time)
        return max(round(users * share_of_all), 1), max(spawn_rate, users)


try:
    pin_generator(os.environ)
except (OSError, ValueError) as error:
    sys.exit(f"locustfile: {ENV_GENERATOR_CORES}={os.environ[ENV_GENERATOR_CORES]!r}: {error}")

try:
    LabUser.targets = Targets.from_environ(os.environ)
    LabUser.codec = Codec.from_environ(os.environ)
    if LabUser.codec:
        LabUser.workloads = {CUSTOM_PROTOCOL.name: CUSTOM_PROTOCOL}
except (TargetError, CodecError) as error:
    sys.exit(f"locustfile: {error}")


def add_options(parser: LocustArgumentParser, **_: object) -> None:
    """Add the options, before Locust parses its command line."""
    workloads = LabUser.workloads
    models = LabUser.targets.models
    # On the parser, not on a group: only the parser accepts Locust's keywords for the web UI.
    parser.add_argument(
        "--models", nargs="+", choices=models, default=models, is_multiple=True, help="Models to load at the same time."
    )
    for name, flag in FLAGS.items():
        about = declare(name)
        if name == "workload":
            summaries = "; ".join(f"{workload.name}: {workload.summary}" for workload in workloads.values())
            about = {"choices": list(workloads), "default": next(iter(workloads)), "help": summaries.replace("%", "%%")}
        parser.add_argument(option_of(name), include_in_web_ui=flag.in_form, **about)
    faults.add_options(parser)


def read_options(environment: Environment) -> Namespace:
    """Return the options that Locust has parsed, or that its form has changed."""
    return cast(Namespace, environment.parsed_options)


def find_objection(environment: Environment, options: Namespace | None = None) -> str | None:
    """Return why a test cannot run with these options, in one line; None if it can.

    Args:
        environment: Locust's.
        options: of a form; default: the current ones.
    """
    options = options or read_options(environment)
    if objection := objections.find_objection(options, LabUser.targets, LabUser.workloads, LabUser.codec):
        return objection
    # A master's users run on its workers, and each worker checks its own limit.
    needed = (options.num_users or 1) + LabUser.workloads[options.workload].idle_connections * len(options.models)
    return None if isinstance(environment.runner, MasterRunner) else find_lack_of_descriptors(needed)


def find_lack_of_descriptors(users: int) -> str | None:
    """Return why this process cannot have a descriptor for each user; raise the soft limit if that is enough."""
    needed = users + _OTHER_DESCRIPTORS
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft == resource.RLIM_INFINITY or needed <= soft:
        return None
    if hard != resource.RLIM_INFINITY and needed > hard:
        return f"{users} users need {needed} open files, and this process may open {hard}: raise `ulimit -n`"
    resource.setrlimit(resource.RLIMIT_NOFILE, (needed, hard))
    return None


def start(environment: Environment, **_: object) -> None:
    """Set up this process, when Locust's runner exists and before any user does."""
    options, spec = read_options(environment), LoadSpec.from_options(read_options(environment))
    # Python raises KeyboardInterrupt in the running code, most likely the engine, which would print a traceback.
    # Locust expects it in its main greenlet, which is this one.
    gevent.signal_handler(signal.SIGINT, gevent.kill, gevent.getcurrent(), KeyboardInterrupt)
    lifeline.watch()
    RECORDER.attach(environment)
    rate_shares.attach(environment)
    if options.headless and (objection := find_objection(environment)):
        sys.exit(f"locustfile: {objection}")
    if not isinstance(environment.runner, MasterRunner):
        WindowCounter(environment)
    if environment.web_ui is not None:
        check_form(environment, lambda asked: find_objection(environment, asked))
    if not isinstance(environment.runner, WorkerRunner):
        RunTime(environment)
    if spec.window is not None and not isinstance(environment.runner, WorkerRunner):
        # Locust's final tables in whole milliseconds would only hide the result.
        logging.getLogger("locust.stats_logger").setLevel(logging.WARNING)
        Window(environment, warm_up=spec.warm_up, seconds=spec.window)


def start_test(environment: Environment, **_: object) -> None:
    """Check the options and prepare a test; in the web UI, each test may have other options."""
    Engine.of(environment).clear()
    if objection := find_objection(environment):
        raise StopTest(objection)
    if not isinstance(environment.runner, MasterRunner):
        open_idle_connections(environment)
    if not isinstance(environment.runner, WorkerRunner):
        faults.schedule(environment)


def open_idle_connections(environment: Environment) -> None:
    """Open the workload's idle connections, and close them when the test stops.

    Raises:
        StopTest: a server did not accept all of them.
    """
    options = read_options(environment)
    spec = LoadSpec.from_options(options)
    workload = LabUser.workloads[spec.workload]
    count = workload.idle_connections
    if isinstance(environment.runner, WorkerRunner):
        count = divide(count, max(environment.runner.worker_index, 0), options.expect_workers)
    for model in spec.models if count else ():
        idle = IdleConnections(LabUser.targets.find(model, workload.service, spec.transport))
        cast(Any, environment.events).test_stop.add_listener(lambda idle=idle, **_: idle.close())
        if (held := idle.open(count)) < count:
            raise StopTest(f"{model} accepted {held} of {count} idle connections")


# Not as decorators: Locust does not annotate them.
cast(Any, events.init_command_line_parser).add_listener(add_options)
# The access checks come first.
cast(Any, events.init).add_listener(lambda environment, **_: extend(environment, list(LabUser.workloads)))
cast(Any, events.init).add_listener(start)
cast(Any, events.init).add_listener(announce)
cast(Any, events.test_start).add_listener(start_test)
