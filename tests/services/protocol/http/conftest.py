"""The same stream in three deliveries: whole, byte by byte, and in pieces that cut across requests."""

from collections.abc import Callable, Iterable

import pytest

from fuzz.oracle import Outcome
from fuzz.oracle import pull as pull_events
from services.protocol import Connection, Limits
from tests.support.http_link import HttpLink, Reply


class ManualClock:
    """A clock that a test turns."""

    def __init__(self) -> None:
        self.now = 1000.0

    def date(self) -> bytes:
        return b"Sun, 06 Nov 1994 08:49:37 GMT"

    def elapsed(self) -> float:
        return self.now


class Recorded:
    """What a server has sent, as a connection that ends after it."""

    def __init__(self, data: bytes) -> None:
        self._data = data

    def receive(self) -> bytes:
        data, self._data = self._data, b""
        return data


def read_replies(data: bytes, methods: Iterable[str] = ()) -> list[Reply]:
    """Take a stream of replies apart; `methods` are those of the first requests, the others are GET."""
    link = HttpLink(Recorded(data))  # type: ignore[arg-type]  # all that reading needs
    chosen = list(methods)
    replies = []
    while (reply := link.read(chosen.pop(0) if chosen else "GET")) is not None:
        replies.append(reply)
        if reply.status == 100 and methods:
            chosen.insert(0, "POST")
    return replies


DELIVERIES: dict[str, Callable[[bytes], list[bytes]]] = {
    "whole": lambda data: [data],
    "bytewise": lambda data: [data[start : start + 1] for start in range(len(data))],
    "pieces": lambda data: [data[start : start + 7] for start in range(0, len(data), 7)],
}


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


@pytest.fixture(params=list(DELIVERIES))
def deliver(request: pytest.FixtureRequest, clock: ManualClock) -> Callable[..., Outcome]:
    """Give a stream to a new connection in one of three ways, and do what it asks for."""
    cut = DELIVERIES[request.param]

    def run(stream: bytes, *, limits: Limits | None = None, info: Callable[[], str] = str) -> Outcome:
        connection = Connection("http", "peer", limits=limits, info=info, clock=clock)
        outcome = Outcome()
        for piece in cut(stream):
            connection.receive_data(piece)
            pull_events(connection, outcome)
        return outcome

    return run
