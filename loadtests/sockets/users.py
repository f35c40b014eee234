"""Locust's users for sockets: one that the engine drives, and one that a script drives."""

from collections.abc import Callable
from typing import ClassVar

import gevent.event
from locust import User, task
from locust.env import Environment

from loadtests.sockets.addresses import Endpoint
from loadtests.sockets.codec import Codec
from loadtests.sockets.engine import Connection, ConnectionGroup, Engine
from loadtests.sockets.exchange import Exchange
from loadtests.sockets.recorder import Series
from loadtests.sockets.schedule import Schedule
from loadtests.sockets.script_client import SocketClient


class WireUser(User):
    """A user that is one connection: it declares an exchange, and the engine repeats it.

        class Ping(WireUser):
            url = "tcp://127.0.0.1:6379"
            exchange = Exchange(((b"PING\\r\\n", b"+PONG\\r\\n"),))

    With a `rate` it is an open loop: that number of requests is due in a second, for all users of the class and all
    workers together. Without one, a connection sends the next request when the one before is answered.

    Attributes:
        url: the server's address: `tcp://host:port`, `tls://`, `udp://`, `unix:///path` or `unixgram:///path`.
        exchange: the requests, and the replies that must come.
        rate: requests per second, or a function of the seconds since the start; None for a closed loop.
        poisson: requests of an open loop are due at random times instead of even ones.
        timeout: seconds until an exchange has failed.
        model, workload: the names that it is counted under (default: the URL, and the name of the class).
        codec: makes the requests and checks the replies instead of the exchange's turns.
    """

    abstract = True
    # Locust requires one; the address is in the URL.
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
        self.connection: Connection | None = None
        self._leaving = gevent.event.Event()

    def on_start(self) -> None:
        engine = Engine.of(self.environment)
        group = engine.group(self.make_series(), self.make_group)
        group.destination.wait()
        self.connection = engine.add(group)

    def on_stop(self) -> None:
        """Leave, also when Locust kills the user."""
        if self.connection is not None:
            Engine.of(self.environment).remove(self.connection)

    def stop(self, force: bool = False) -> bool:
        """Let the task end."""
        self._leaving.set()
        return bool(super().stop(force))

    @task
    def go_on(self) -> None:
        self.be_busy()

    def be_busy(self) -> None:
        """Wait until the user has to leave: the engine does the work."""
        self._leaving.wait()

    def make_series(self) -> Series:
        """Return the names that it is counted under."""
        loop = "closed" if type(self).rate is None else "open"
        return _make_series(self, loop)

    def make_group(self) -> ConnectionGroup:
        """Return the group that all users of the series share."""
        rate = type(self).rate
        schedule = None
        if rate is not None:
            function = rate if callable(rate) else lambda _: rate
            schedule = Schedule(lambda seconds: function(seconds) / self.exchange.depth, poisson=self.poisson)
        return ConnectionGroup(
            self.make_series(),
            Endpoint.parse(self.url),
            self.exchange,
            timeout=self.timeout,
            schedule=schedule,
            codec=self.codec,
        )


class SocketUser(User):
    """A user whose tasks make their own exchanges, through `self.client`.

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
        address = Endpoint.parse(self.url)
        self.client = SocketClient(address, self.environment, _make_series(self), timeout=self.timeout)

    def on_stop(self) -> None:
        """Close the client, also when Locust kills the user."""
        self.client.close()


def _make_series(user: WireUser | SocketUser, loop: str = "closed") -> Series:
    transport = Endpoint.parse(user.url).transport
    return Series(user.model or user.url, user.workload or type(user).__name__, transport, loop)
