"""Locust's users for sockets: one that is driven by the engine, and one that a script drives."""

from collections.abc import Callable
from typing import ClassVar

import gevent.event
from locust import User, task
from locust.env import Environment

from loadtests.sockets.addresses import Endpoint
from loadtests.sockets.codec import Codec
from loadtests.sockets.engine import Engine, Lane, Link
from loadtests.sockets.exchange import Exchange
from loadtests.sockets.recorder import Series
from loadtests.sockets.schedule import Schedule
from loadtests.sockets.script_client import SocketClient


class WireUser(User):
    """Declares what is said, and leaves the saying to the engine: a user is a connection.

        class Ping(WireUser):
            url = "tcp://127.0.0.1:6379"
            exchange = Exchange(((b"PING\\r\\n", b"+PONG\\r\\n"),))

    With a `rate` it is an open loop: so many requests are due in a second, of all users of the class together, and of
    all workers. Without one, a connection asks again when it was answered.

    Attributes:
        url: where to, as in `tcp://host:port`, `tls://`, `udp://`, `unix:///path`, `unixgram:///path`.
        exchange: what is said, and what must come back.
        rate: requests per second, or a function of the seconds since the start; None for a closed loop.
        poisson: of an open loop, at random times and not at even ones.
        timeout: seconds until an exchange has failed.
        model, workload: what it is counted as; by default the URL, and the name of the class.
        codec: makes the requests, and knows the replies, in place of the exchange's turns.
    """

    abstract = True
    # Locust wants one; where to is in the URL.
    host = "its url"

    url: str
    exchange: ClassVar[Exchange]
    rate: ClassVar[float | Callable[[float], float] | None] = None
    poisson: ClassVar[bool] = False
    timeout: ClassVar[float] = 5.0
    model: str = ""
    workload: ClassVar[str] = ""
    codec: ClassVar[Codec | None] = None

    def __init__(self, environment: Environment) -> None:
        super().__init__(environment)
        self.link: Link | None = None
        self._leaving = gevent.event.Event()

    def on_start(self) -> None:
        """Called by Locust."""
        engine = Engine.of(self.environment)
        lane = engine.lane(self.make_series(), self.make_lane)
        lane.wait_where()
        self.link = engine.add(lane)

    def on_stop(self) -> None:
        """Called by Locust, also when it kills the user."""
        if self.link is not None:
            Engine.of(self.environment).remove(self.link)

    def stop(self, force: bool = False) -> bool:
        """Called by Locust."""
        self._leaving.set()
        return bool(super().stop(force))

    @task
    def go_on(self) -> None:
        """Called by Locust, over and over."""
        self.be_busy()

    def be_busy(self) -> None:
        """Wait until the user has to go: all that is to be done is the engine's."""
        self._leaving.wait()

    def make_series(self) -> Series:
        """What it is counted as."""
        address = Endpoint.parse(self.url)
        loop = "closed" if type(self).rate is None else "open"
        return Series(self.model or self.url, self.workload or type(self).__name__, address.transport, loop)

    def make_lane(self) -> Lane:
        """What the users of a series have in common."""
        rate = type(self).rate
        schedule = None
        if rate is not None:
            function = rate if callable(rate) else lambda _: rate
            schedule = Schedule(lambda seconds: function(seconds) / self.exchange.depth, poisson=self.poisson)
        return Lane(
            self.make_series(),
            Endpoint.parse(self.url),
            self.exchange,
            timeout=self.timeout,
            schedule=schedule,
            codec=self.codec,
        )


class SocketUser(User):
    """A user whose tasks speak for themselves, through `self.client`.

        class Visitor(SocketUser):
            url = "tcp://127.0.0.1:6379"

            @task
            def visit(self):
                self.client.call(b"PING\\r\\n", b"+PONG\\r\\n")
                gevent.sleep(1)

    Attributes:
        url, timeout, model, workload: as of `WireUser`.
    """

    abstract = True
    host = "its url"

    url: str
    timeout: ClassVar[float] = 5.0
    model: str = ""
    workload: ClassVar[str] = ""

    def __init__(self, environment: Environment) -> None:
        super().__init__(environment)
        self.client: SocketClient

    def on_start(self) -> None:
        """Called by Locust."""
        address = Endpoint.parse(self.url)
        series = Series(self.model or self.url, self.workload or type(self).__name__, address.transport)
        self.client = SocketClient(address, self.environment, series, timeout=self.timeout)

    def on_stop(self) -> None:
        """Called by Locust, also when it kills the user."""
        self.client.close()
