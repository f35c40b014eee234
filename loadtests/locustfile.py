"""The load test of the lab, for `locust -f loadtests/locustfile.py`: the web UI, or headless.

    --models              which servers; the users are dealt out to all of them
    --workload            what they are asked
    --transport           over what
    --loop, --rate        closed: again when it was answered; open: so many requests per second for each model
    --arrivals            of an open loop: at even times, or at random ones
    --shape, --shape-time how users, or the rate, change over time
    --payload             bytes, of a workload that has a payload
    --timeout             seconds until an exchange counts as failed
    --fault, --fault-after, --fault-for   break the models during the run; only behind the lab's own web UI
    --window              measure for so many seconds after a warm-up, print a line of JSON for each model, end

The models' addresses come from LAB_TARGETS (what `lab ls --json` prints), or else from the catalogue.
"""

import logging
import os
import resource
import signal
import sys
from collections import Counter
from collections.abc import Mapping
from typing import Any, ClassVar, cast

import gevent
import locust.stats
from locust import LoadTestShape, events
from locust.argument_parser import LocustArgumentParser
from locust.env import Environment
from locust.exception import StopTest
from locust.runners import MasterRunner, WorkerRunner

from lab.load.cores import VARIABLE, pin_generator
from lab.load.workloads import CLOSED, CUSTOM_PROTOCOL, OPEN, STEADY, WORKLOADS, Workload, level, make_exchange
from loadtests import lifeline, objections, rate_shares
from loadtests.buckets import bucket_three_digits
from loadtests.idle_connections import IdleConnections, divide
from loadtests.objections import CHOICES, RANDOM
from loadtests.run_time import RunTime
from loadtests.scripts import SCRIPTS
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
from loadtests.window import Share, Window
from services.protocol import Transport

# On a worker's stdout; see lab/load/generator.py, which waits for it.
JOINED = "LOAD-JOINED"

# Locust's own hook ("can be replaced at runtime for custom bucketing"). Annotated as int; its code takes any number.
locust.stats.bucket_response_time = cast(Any, bucket_three_digits)

# Descriptors that Locust, its web UI and its messages need beside those of the users.
_OTHER_DESCRIPTORS = 128


class LabUser(WireUser):
    """One connection to one of the models, in the workload that was chosen on the command line or in the web UI."""

    host = "the lab's network"

    targets: ClassVar[Targets]
    # What can be chosen: the lab's workloads, or the one that a codec makes.
    workloads: ClassVar[Mapping[str, Workload]] = WORKLOADS
    running: ClassVar[Counter[str]] = Counter()

    def __init__(self, environment: Environment) -> None:
        super().__init__(environment)
        self._options = cast(Any, environment.parsed_options)
        self._chosen = self.workloads[self._options.workload]
        self._script = SCRIPTS.get(self._chosen.name)
        self._client: SocketClient | None = None

    def on_start(self) -> None:
        """Called by Locust. Takes the model that has the fewest users, so all of them have as many at any time."""
        models = self._options.models
        # Workers begin with different ones, so that few users on many workers are not all of the first model.
        first = max(getattr(self.environment.runner, "worker_index", 0), 0) % len(models)
        self.model = min(models[first:] + models[:first], key=lambda model: self.running[model])
        self.running[self.model] += 1
        if self._script is None:
            super().on_start()
        else:
            address = self.targets.find(self.model, self._chosen.service, Transport(self._options.transport))
            timeout = float(self._options.timeout)
            self._client = SocketClient(address, self.environment, self.make_series(), timeout=timeout)

    def on_stop(self) -> None:
        """Called by Locust, also when it kills the user in the middle of an exchange."""
        self.running[self.model] -= 1
        super().on_stop()
        if self._client is not None:
            self._client.close()

    def be_busy(self) -> None:
        """One turn of the script, or all that there is to do."""
        if self._script is None or self._client is None:
            super().be_busy()
        else:
            self._script(self._client)

    def make_series(self) -> Series:
        """What it is counted as."""
        loop = CLOSED if self._script else self._options.loop
        return Series(self.model, self._chosen.name, self._options.transport, loop)

    def make_group(self) -> ConnectionGroup:
        """What the users of one model have in common."""
        options, transport = self._options, Transport(self._options.transport)
        # Not None: a script's user makes no group of this kind.
        exchange = cast(Exchange, make_exchange(self._chosen, transport, options.payload))
        schedule = None
        if options.loop == OPEN:
            shape, seconds, rate = options.shape, options.shape_time, options.rate / exchange.depth
            schedule = Schedule(lambda since: rate * level(shape, since / seconds), poisson=options.arrivals == RANDOM)
        return ConnectionGroup(
            self.make_series(),
            self.targets.find(self.model, self._chosen.service, transport),
            exchange,
            timeout=float(options.timeout),
            schedule=schedule,
            codec=self.codec,
        )


class Profile(LoadTestShape):
    """How the users of a closed loop change over time; of an open one it is the rate that does."""

    use_common_options = True

    def tick(self) -> tuple[int, float]:
        """Called by Locust every second: how many users there are to be, and how fast they come and go."""
        options = cast(Any, self.runner).environment.parsed_options
        users, spawn_rate = int(options.num_users or 1), float(options.spawn_rate or 1)
        if options.shape == STEADY or options.loop == OPEN:
            return users, spawn_rate
        passed: float = cast(Any, self).get_run_time()
        share_of_all = level(options.shape, passed / options.shape_time)
        return max(round(users * share_of_all), 1), max(spawn_rate, users)


try:
    pin_generator(os.environ)
except (OSError, ValueError) as error:
    sys.exit(f"locustfile: {VARIABLE}={os.environ[VARIABLE]!r}: {error}")

try:
    LabUser.targets = Targets.from_environ(os.environ)
    LabUser.codec = Codec.from_environ(os.environ)
    if LabUser.codec:
        LabUser.workloads = {CUSTOM_PROTOCOL.name: CUSTOM_PROTOCOL}
except (TargetError, CodecError) as error:
    sys.exit(f"locustfile: {error}")


def add_options(parser: LocustArgumentParser, **_: Any) -> None:
    """Called by Locust before it reads its command line."""
    workloads = LabUser.workloads
    about = "; ".join(f"{workload.name}: {workload.summary}" for workload in workloads.values())
    models = LabUser.targets.models
    # The parser, not the group: Locust's keywords for its web UI are the parser's.
    parser.add_argument(
        "--models", nargs="+", choices=models, default=models, is_multiple=True, help="which servers, side by side"
    )
    for name, choices, text in (
        ("--workload", list(workloads), about),
        ("--transport", CHOICES["transport"], "over what"),
        (
            "--loop",
            CHOICES["loop"],
            "closed: a connection asks again when it was answered; open: requests are due at a rate",
        ),
        ("--arrivals", CHOICES["arrivals"], "of an open loop: at even times, or at random ones (Poisson)"),
        ("--shape", CHOICES["shape"], "how the users (closed) or the rate (open) change over time"),
    ):
        parser.add_argument(name, choices=choices, default=choices[0], help=text.replace("%", "%%"))
    for name, kind, default, text in (
        ("--rate", float, 1000.0, "of an open loop: requests per second, for each model"),
        ("--payload", int, 0, "bytes, of a workload that has a payload; 0: its own"),
        ("--shape-time", float, 60.0, "seconds that the shape takes"),
        ("--timeout", float, 5.0, "seconds until an exchange counts as failed"),
    ):
        parser.add_argument(name, type=kind, default=default, help=text)
    for name, warm_up, text in (
        ("--window", None, "measure for so many seconds, print a line of JSON for each model, end"),
        ("--warm-up", 0.5, "seconds of load before the window"),
    ):
        parser.add_argument(name, type=float, default=warm_up, help=text, include_in_web_ui=False)
    faults.add_options(parser)


def find_objection(environment: Environment, options: Any = None) -> str | None:
    """Why a test cannot be run as it was asked for, in one line; None if it can.

    Args:
        environment: Locust's.
        options: those of a form; by default those that Locust has.
    """
    options = options or cast(Any, environment.parsed_options)
    if objection := objections.find_objection(options, LabUser.targets, LabUser.workloads, LabUser.codec):
        return objection
    # A master's users are on its workers, and each of these looks for itself.
    needed = (options.num_users or 1) + LabUser.workloads[options.workload].idle_connections * len(options.models)
    return None if isinstance(environment.runner, MasterRunner) else find_lack_of_descriptors(needed)


def find_lack_of_descriptors(users: int) -> str | None:
    """Whether this process may have a descriptor for each user; its limit is raised as far as it goes."""
    needed = users + _OTHER_DESCRIPTORS
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft < needed <= hard or hard == resource.RLIM_INFINITY:
        resource.setrlimit(resource.RLIMIT_NOFILE, (needed, hard))
    elif needed > hard:
        return f"{users} users need {needed} open files, and this process may have {hard}: raise `ulimit -n`"
    return None


def start(environment: Environment, **_: Any) -> None:
    """Called by Locust when its runner exists, before any user does."""
    options = cast(Any, environment.parsed_options)
    # Python raises it wherever it happens to be, most likely in the engine, where it is an error with a traceback.
    # Locust waits for it in its main greenlet, which is this one.
    gevent.signal_handler(signal.SIGINT, gevent.kill, gevent.getcurrent(), KeyboardInterrupt)
    lifeline.watch()
    RECORDER.attach(environment)
    rate_shares.attach(environment)
    if options.headless and (objection := find_objection(environment)):
        sys.exit(f"locustfile: {objection}")
    if not isinstance(environment.runner, MasterRunner):
        Share(environment)
    if environment.web_ui is not None:
        check_form(environment, lambda asked: find_objection(environment, asked))
    if not isinstance(environment.runner, WorkerRunner):
        RunTime(environment)
    if options.window is not None and not isinstance(environment.runner, WorkerRunner):
        # Tables of whole milliseconds at the end would only stand in the way of the result.
        logging.getLogger("locust.stats_logger").setLevel(logging.WARNING)
        Window(environment, warm_up=options.warm_up, seconds=options.window)


def start_test(environment: Environment, **_: Any) -> None:
    """Called by Locust when a test starts, in the web UI with other options each time."""
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
    options = cast(Any, environment.parsed_options)
    workload = LabUser.workloads[options.workload]
    count = workload.idle_connections
    if isinstance(environment.runner, WorkerRunner):
        count = divide(count, max(environment.runner.worker_index, 0), options.expect_workers)
    for model in options.models if count else ():
        idle = IdleConnections(LabUser.targets.find(model, workload.service, Transport(options.transport)))
        cast(Any, environment.events).test_stop.add_listener(lambda idle=idle, **_: idle.close())
        if (held := idle.open(count)) < count:
            raise StopTest(f"{model} accepted {held} of {count} idle connections")


def announce(environment: Environment, **_: Any) -> None:
    """Called by Locust when its runner exists: on a worker, when its master has taken it."""
    if isinstance(environment.runner, WorkerRunner):
        print(JOINED, flush=True)


# Not as decorators: Locust does not annotate them.
cast(Any, events.init_command_line_parser).add_listener(add_options)
# First what refuses strangers.
cast(Any, events.init).add_listener(extend)
cast(Any, events.init).add_listener(start)
cast(Any, events.init).add_listener(announce)
cast(Any, events.test_start).add_listener(start_test)
