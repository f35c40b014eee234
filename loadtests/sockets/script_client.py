"""What a scripted user has as `self.client`: a connection over any transport, whose exchanges are timed and checked.

Under Locust the sockets are gevent's, which has put its own in their place, so what waits here waits alone.
"""

import random
from collections.abc import Iterator
from contextlib import contextmanager
from time import perf_counter

import gevent
from locust.env import Environment
from locust.exception import RescheduleTask

from loadtests.sockets.addresses import DATAGRAM_TRANSPORTS, Address
from loadtests.sockets.connection import BlockingConnection
from loadtests.sockets.engine import FIRST_BACK_OFF, LONGEST_BACK_OFF, Engine, Lane
from loadtests.sockets.errors import ClientError, SetupError
from loadtests.sockets.exchange import Exchange
from loadtests.sockets.failures import (
    TIMED,
    ClosedError,
    ExchangeError,
    NetworkError,
    NoReplyPathError,
    ShortReplyError,
    TimeOutError,
    WrongBytesError,
    translate,
)
from loadtests.sockets.recorder import Series

_READ_SIZE = 64 * 1024


class SocketClient:
    """A connection that is opened when it is needed, and anew after it has failed.

    A failure is counted with its reason, the connection is closed, the user waits (longer each time), and the rest of
    the task is skipped (Locust's `RescheduleTask`).

    Args:
        address: where to.
        environment: Locust's.
        series: what it is counted as.
        timeout: seconds for an exchange, with the connect that it may need.
    """

    def __init__(self, address: Address, environment: Environment, series: Series, *, timeout: float) -> None:
        self._address = address
        self._timeout = timeout
        self._engine = Engine.of(environment)
        # The engine sends nothing for it; it hands over what is counted here.
        unknown = Exchange(((b"", b""),))
        self._lane = self._engine.lane(series, lambda: Lane(series, address, unknown, timeout=timeout))
        self._place = self._engine.enlist(self._lane)
        self._connection: BlockingConnection | None = None
        self._back_off = FIRST_BACK_OFF

    @property
    def answered(self) -> int:
        """Exchanges that came back right."""
        return self._place.answered

    def call(self, request: bytes, reply: bytes) -> None:
        """Send a request, and take the reply that must come."""
        with self.exchange():
            self.send(request)
            self.expect(reply)

    def datagram(self, data: bytes, reply: bytes) -> None:
        """Send a datagram, and take the one that must come back."""
        with self.exchange():
            self.send(data)
            if self.receive() != reply:
                raise WrongBytesError

    @contextmanager
    def exchange(self) -> Iterator[None]:
        """What is done inside counts as one exchange, and is timed as one.

        Raises:
            RescheduleTask: it failed.
        """
        begin = perf_counter()
        self._place.busy = True
        try:
            if self._connection is not None:
                self._connection.reset_deadline()
            yield
        except ExchangeError as error:
            self._fail(error, perf_counter() - begin)
            raise RescheduleTask from error
        finally:
            self._place.busy = False
        self._lane.service.append(perf_counter() - begin)
        self._place.answered += 1
        self._back_off = FIRST_BACK_OFF

    def send(self, data: bytes) -> None:
        """Send all of it; connect first, if need be.

        Raises:
            ExchangeError: it could not be sent.
        """
        with _translated():
            self._open().send(data)

    def receive(self, size: int = _READ_SIZE) -> bytes:
        """What there is, at least a byte, at most `size`; or a datagram.

        Raises:
            ExchangeError: nothing came, or the end.
        """
        with _translated():
            data = self._open().receive(size)
        if not data and self._address.transport not in DATAGRAM_TRANSPORTS:
            raise ClosedError
        return data

    def expect(self, reply: bytes) -> None:
        """Take exactly these bytes.

        Raises:
            ExchangeError: others came, or too few.
        """
        position = 0
        while position < len(reply):
            try:
                data = self.receive(min(len(reply) - position, _READ_SIZE))
            except (ClosedError, TimeOutError) as error:
                if not position:
                    raise
                kind = ShortReplyError if isinstance(error, ClosedError) else TimeOutError
                raise kind(f"{position} of {len(reply)} bytes had come") from None
            if not reply.startswith(data, position):
                raise WrongBytesError
            position += len(data)

    def disconnect(self) -> None:
        """Close the connection; the next thing that is sent opens another one."""
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    def close(self) -> None:
        """The end of the user."""
        self.disconnect()
        self._engine.remove(self._place)

    def _open(self) -> BlockingConnection:
        if self._connection is None:
            self._connection = BlockingConnection(self._address, timeout=self._timeout)
        return self._connection

    def _fail(self, error: ExchangeError, seconds: float) -> None:
        self.disconnect()
        self._lane.note_failure(error)
        if isinstance(error, TIMED):
            self._lane.timed_out.append((seconds, seconds))
        gevent.sleep(self._back_off * random.uniform(0.5, 1))  # noqa: S311  # spreads the users out; no secret
        self._back_off = min(self._back_off * 2, LONGEST_BACK_OFF)


@contextmanager
def _translated() -> Iterator[None]:
    """Raise the failure of an exchange that an error of the blocking connection stands for."""
    try:
        yield
    except ClientError as error:
        raise (NetworkError() if error.cause is None else translate(error.cause)) from error
    except SetupError as error:
        raise NoReplyPathError from error
