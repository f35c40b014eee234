"""The client of a scripted user: a connection over any transport, whose exchanges are timed and checked.

Under Locust, gevent has replaced the sockets with its own, so a call here blocks only its user.
"""

import random
from collections.abc import Iterator
from contextlib import contextmanager
from time import perf_counter

import gevent
from locust.env import Environment
from locust.exception import RescheduleTask

from loadtests.sockets.addresses import DATAGRAM_TRANSPORTS, Address
from loadtests.sockets.connection import RECEIVE_SIZE, BlockingConnection
from loadtests.sockets.engine import FIRST_BACK_OFF, LONGEST_BACK_OFF, ConnectionGroup, Engine
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


class SocketClient:
    """A connection that is opened when it is needed, and again after a failure.

    After a failure it is counted with its reason, the connection is closed, the user waits (longer each time), and
    Locust skips the rest of the task (`RescheduleTask`).

    Args:
        timeout: seconds for an exchange, with the connect that it may need.
    """

    def __init__(self, address: Address, environment: Environment, series: Series, *, timeout: float) -> None:
        self._address = address
        self._timeout = timeout
        self._engine = Engine.of(environment)
        # The engine sends nothing here, and only reports the counts.
        unknown = Exchange(((b"", b""),))
        self._group = self._engine.group(series, lambda: ConnectionGroup(series, address, unknown, timeout=timeout))
        self._registered = self._engine.register(self._group)
        self._connection: BlockingConnection | None = None
        self._back_off = FIRST_BACK_OFF

    @property
    def answered(self) -> int:
        return self._registered.answered

    def call(self, request: bytes, reply: bytes) -> None:
        """Send a request, and require a reply."""
        with self.exchange():
            self.send(request)
            self.expect(reply)

    def datagram(self, data: bytes, reply: bytes) -> None:
        """Send a datagram, and require one in return."""
        with self.exchange():
            self.send(data)
            if self.receive() != reply:
                raise WrongBytesError

    @contextmanager
    def exchange(self) -> Iterator[None]:
        """Count and time the calls inside as one exchange.

        Raises:
            RescheduleTask: it failed.
        """
        begin = perf_counter()
        self._registered.busy = True
        try:
            if self._connection is not None:
                self._connection.reset_deadline()
            yield
        except ExchangeError as error:
            self._fail(error, perf_counter() - begin)
            raise RescheduleTask from error
        finally:
            self._registered.busy = False
        self._group.service.append(perf_counter() - begin)
        self._registered.answered += 1
        self._back_off = FIRST_BACK_OFF

    def send(self, data: bytes) -> None:
        """Send all of it; connect first if necessary.

        Raises:
            ExchangeError: it could not be sent.
        """
        with _translated():
            self._open().send(data)

    def receive(self, size: int = RECEIVE_SIZE) -> bytes:
        """Receive at least a byte, at most `size`; or a datagram.

        Raises:
            ExchangeError: nothing came, or the connection has ended.
        """
        with _translated():
            data = self._open().receive(size)
        if not data and self._address.transport not in DATAGRAM_TRANSPORTS:
            raise ClosedError
        return data

    def expect(self, reply: bytes) -> None:
        """Receive exactly these bytes.

        Raises:
            ExchangeError: other bytes came, or too few.
        """
        position = 0
        while position < len(reply):
            try:
                data = self.receive(min(len(reply) - position, RECEIVE_SIZE))
            except (ClosedError, TimeOutError) as error:
                if not position:
                    raise
                kind = ShortReplyError if isinstance(error, ClosedError) else TimeOutError
                raise kind(f"{position} of {len(reply)} bytes received") from None
            if not reply.startswith(data, position):
                raise WrongBytesError
            position += len(data)

    def disconnect(self) -> None:
        """Close the connection; the next `send` opens another one."""
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    def close(self) -> None:
        """Close the connection, and stop counting the user."""
        self.disconnect()
        self._engine.remove(self._registered)

    def _open(self) -> BlockingConnection:
        if self._connection is None:
            self._connection = BlockingConnection(self._address, timeout=self._timeout)
        return self._connection

    def _fail(self, error: ExchangeError, seconds: float) -> None:
        self.disconnect()
        self._group.note_failure(error)
        if isinstance(error, TIMED):
            self._group.timed_out.append((seconds, seconds))
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
