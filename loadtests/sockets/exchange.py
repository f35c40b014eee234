"""The exchange that a connection of a load test repeats: its requests and the replies that must come. No I/O."""

from collections.abc import Iterator
from dataclasses import dataclass
from enum import Enum, auto
from itertools import count, cycle

Turn = tuple[bytes, bytes]

NUMBER_SIZE = 8


class Framing(Enum):
    """How a client knows where a reply ends.

    Attributes:
        BYTES: every byte of it is known beforehand.
        HTTP: it is HTTP; a turn has the request, with `http.AUTHORITY` as its host, and the reply's body.
        WEBSOCKET: it is a message; a turn has the request and the reply as a frame of a server.
    """

    BYTES = auto()
    HTTP = auto()
    WEBSOCKET = auto()


class Body(Enum):
    """The body that a reply of HTTP must have.

    Attributes:
        GIVEN: that of its turn.
        FIRST: that of the first reply to the same request, whatever it is.
        ANY: any.
    """

    GIVEN = auto()
    FIRST = auto()
    ANY = auto()


@dataclass(frozen=True, slots=True)
class Exchange:
    """One exchange, and how it is repeated on a connection.

    Args:
        turns: the request and the whole reply of each exchange, in order; after the last one the first follows.
        depth: requests in one exchange: more than one if they are pipelined, or sent as that number of datagrams.
        per_connection: exchanges before the client closes and connects again; None to keep one connection.
        pause: seconds between two exchanges on a connection, in a closed loop.
        numbered: the first 8 bytes of a request and its reply are replaced by their number on the connection, so that
            late, doubled and foreign replies differ from the right one.
        half_close: the client ends its half behind the request.
        until_close: the reply ends when the server closes.
        endless: the server sends more than the reply; the rest is not checked.
        error_prefix: first bytes of a well-formed error reply, `-` in RESP; empty if there is none.
        framing: how a client knows where a reply ends.
        opening: the request of WebSocket's opening handshake.
        body: of HTTP, what the body of a reply must be.
    """

    turns: tuple[Turn, ...]
    depth: int = 1
    per_connection: int | None = None
    pause: float = 0.0
    numbered: bool = False
    half_close: bool = False
    until_close: bool = False
    endless: bool = False
    error_prefix: bytes = b""
    framing: Framing = Framing.BYTES
    opening: bytes = b""
    body: Body = Body.GIVEN

    @property
    def holds_connection(self) -> bool:
        """Whether a client keeps one connection."""
        return self.per_connection is None

    def open_turns(self) -> Iterator[Turn]:
        """Return the turns of one connection, endless."""
        return self._number_turns() if self.numbered else cycle(self.turns)

    def _number_turns(self) -> Iterator[Turn]:
        numbers = count()
        for request, reply in cycle(self.turns):
            number = next(numbers).to_bytes(NUMBER_SIZE, "big")
            yield number + request[NUMBER_SIZE:], number + reply[NUMBER_SIZE:]


def failure_kind(reason: str) -> str:
    """Return the reason of a failure without its detail, as in "wrong bytes (3 of 7 bytes received)"."""
    return reason.partition(" (")[0]
