"""A Locust user that speaks to a socket: one connection each, every reply checked, timed with a monotonic clock."""

import random
from collections import Counter
from collections.abc import Mapping
from time import perf_counter
from typing import Any, ClassVar, cast

import gevent
from locust import User, constant, task
from locust.env import Environment

from lab.workloads import SESSION, WORKLOADS, Workload
from loadtests.codec import Codec
from loadtests.targets import Targets
from loadtests.wire import ExchangeError, TimeOutError, Wire

# For `--model`: the users are dealt out to all of them.
ALL = "all"

# Exchanges before Locust's scheduler has its turn, which costs about as much as one of them and is time in which the
# user asks for nothing. A multiple of every workload's `per_connection`.
_TURN = SESSION

# After a failure the next attempt waits, twice as long each time, so that a server in trouble is not run over.
_FIRST_BACK_OFF = 0.05
_LONGEST_BACK_OFF = 2.0


class SocketUser(User):
    """Repeats one workload against one model; both are chosen on the command line or in the web UI."""

    # Locust asks for one; where the models are comes from the catalogue.
    host = "the lab's network"
    wait_time = constant(0)

    targets: ClassVar[Targets]
    # What can be chosen: the lab's workloads, or the one that a codec makes.
    workloads: ClassVar[Mapping[str, Workload]] = WORKLOADS
    codec: ClassVar[Codec | None] = None
    # Who runs now, and what each model has answered since the process started, warm-up included.
    running: ClassVar[set["SocketUser"]] = set()
    answered_by_model: ClassVar[Counter[str]] = Counter()

    def __init__(self, environment: Environment) -> None:
        super().__init__(environment)
        options = cast(Any, environment.parsed_options)
        self._workload = self.workloads[options.workload]
        self._models = self.targets.models if options.model == ALL else [options.model]
        self._timeout = float(options.timeout)
        self._wire: Wire | None = None
        self._back_off = _FIRST_BACK_OFF
        self.answered = 0
        self.model = ""

    def on_start(self) -> None:
        """Called by Locust. Takes the model that has the fewest users, so all of them have as many at any time."""
        count = Counter(user.model for user in self.running)
        self.model = min(self._models, key=lambda model: count[model])
        self._address = self.targets.find(self.model, self._workload.service)
        self._name = request_name(self.model, self._workload.name)
        self.running.add(self)

    def on_stop(self) -> None:
        """Called by Locust, also when it kills the user in the middle of an exchange."""
        self.running.discard(self)
        self._close()

    @task
    def converse(self) -> None:
        """A turn of exchanges, on one connection or on as many as the workload asks for."""
        limit = self._workload.per_connection
        for count in range(1, _TURN + 1):
            if not self._exchange():
                return
            if limit and count % limit == 0:
                self._close()

    def _exchange(self) -> bool:
        # Connecting is part of the exchange that needed it: with a server that serves one at a time, it is the wait.
        started = perf_counter()
        try:
            if self._wire is None:
                self._wire = Wire(self._address, self._workload, timeout=self._timeout, codec=self.codec)
            self._wire.exchange()
        except ExchangeError as error:
            self._fail(error, perf_counter() - started)
            return False
        elapsed = perf_counter() - started
        self.answered += 1
        self.answered_by_model[self.model] += 1
        self._back_off = _FIRST_BACK_OFF
        self._record(elapsed * 1000)
        return True

    def _fail(self, error: ExchangeError, elapsed: float) -> None:
        self._close()
        # Only a time-out says how long a reply takes (at least so long). A quick refusal must not pass for a fast one.
        self._record(elapsed * 1000 if isinstance(error, TimeOutError) else None, error)
        gevent.sleep(self._back_off * random.uniform(0.5, 1))  # noqa: S311  # spreads the users out; no secret
        self._back_off = min(self._back_off * 2, _LONGEST_BACK_OFF)

    def _record(self, milliseconds: float | None, error: ExchangeError | None = None) -> None:
        self.environment.events.request.fire(
            request_type="TCP",
            name=self._name,
            response_time=milliseconds,
            response_length=0 if error else sum(map(len, self._workload.replies)),
            exception=error,
            context={},
        )

    def _close(self) -> None:
        if self._wire is not None:
            self._wire.close()
            self._wire = None


def request_name(model: str, workload: str) -> str:
    """The row in Locust's tables: one for each model and workload."""
    return f"{model} {workload}"
