"""What a connection of a load test says, over and over, and what it must hear: data, and nothing that does I/O."""

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import count, cycle

Turn = tuple[bytes, bytes]

NUMBER_SIZE = 8


@dataclass(frozen=True, slots=True)
class Exchange:
    """One exchange, and how it is repeated on a connection.

    Args:
        turns: the request and the whole reply of one exchange after the other; from the start again after the last.
        depth: requests in one exchange: more than one where they are pipelined, or are that many datagrams.
        per_connection: exchanges before the client closes and connects anew; None to hold one connection throughout.
        pause: seconds that a connection rests between two exchanges, in a closed loop.
        numbered: requests begin with their number on the connection, 8 bytes of it in place of the turn's first 8, and
            so do their replies: one that is late, doubled or of somebody else can then be told from the right one.
        half_close: nothing more is sent behind the request, and the server is told so.
        until_close: the reply has ended when the server has closed.
        endless: the server sends more than the reply, which is as much of it as is looked at.
        error_prefix: how a refusal in good form begins, as `-` does in RESP; empty if there is none.
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

    @property
    def holds_connection(self) -> bool:
        """Whether a client keeps its connection for itself as long as it is there."""
        return self.per_connection is None

    def open_turns(self) -> Iterator[Turn]:
        """The turns of one connection, without an end."""
        return self._number_turns() if self.numbered else cycle(self.turns)

    def _number_turns(self) -> Iterator[Turn]:
        numbers = count()
        for request, reply in cycle(self.turns):
            number = next(numbers).to_bytes(NUMBER_SIZE, "big")
            yield number + request[NUMBER_SIZE:], number + reply[NUMBER_SIZE:]


def failure_kind(reason: str) -> str:
    """The reason of a failure without the detail behind it, as in "wrong bytes (3 of 7 bytes had come)"."""
    return reason.partition(" (")[0]
