"""One harness for every case: the same stream, delivered whole, byte by byte, and with trailing bytes behind it.

The idea is h11's: a parser that is right for one way of cutting the stream up and wrong for another fails any case.
"""

from collections.abc import Callable

import pytest

from fuzz.oracle import Outcome
from fuzz.oracle import pull as pull_events
from services.protocol import Close, Connection, Limits

FOLLOWING = b"*2\r\n$4\r\nPING\r\n$5\r\nafter\r\n"


@pytest.fixture(scope="session")
def pull() -> Callable[..., Outcome]:
    return pull_events


def deliver_whole(connection: Connection, stream: bytes) -> Outcome:
    connection.receive_data(stream)
    return pull_events(connection)


def deliver_bytewise(connection: Connection, stream: bytes) -> Outcome:
    outcome = Outcome()
    for start in range(len(stream)):
        connection.receive_data(stream[start : start + 1])
        pull_events(connection, outcome)
    return outcome


def deliver_with_trailing(connection: Connection, stream: bytes) -> Outcome:
    """With a part of the next request in the same chunk; its rest shows that the stream is still followed."""
    connection.receive_data(stream + FOLLOWING[:11])
    outcome = pull_events(connection)
    if not outcome.closed:
        connection.receive_data(FOLLOWING[11:])
        following = pull_events(connection)
        assert following.sent == b"$5\r\nafter\r\n"
        assert not following.closed
    return outcome


DELIVERIES = {"whole": deliver_whole, "bytewise": deliver_bytewise, "trailing": deliver_with_trailing}


@pytest.fixture(params=list(DELIVERIES))
def exchange(request: pytest.FixtureRequest) -> Callable[..., Outcome]:
    """Speak to `command` with complete requests, in one of three ways, and return what it asked for."""
    deliver = DELIVERIES[request.param]

    def run(stream: bytes, *, limits: Limits | None = None, peer: str = "", info: Callable[[], str] = str) -> Outcome:
        connection = Connection("command", peer, limits=limits, info=info)
        outcome = deliver(connection, stream)
        if outcome.closed:
            assert connection.next_event() == Close()
            connection.receive_data(b"whatever comes later")
            assert connection.next_event() == Close()
        return outcome

    return run
