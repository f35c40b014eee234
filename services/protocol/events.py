"""What a connection asks of the code that does its I/O.

The events are data: the core never sleeps, computes or sends. How a model does each of them is what makes it a model.
"""

from dataclasses import dataclass, field
from hashlib import sha256


# Not frozen, as the others are: one is made for each turn of the hot path, and the __init__ of a frozen dataclass,
# which goes through object.__setattr__, takes half as long again.
@dataclass(slots=True)
class Send:
    """Send these bytes, all of them, before asking for the next event.

    `data` may hold the replies to several pipelined requests, at most about `SEND_SIZE` bytes.
    """

    data: bytes


@dataclass(frozen=True, slots=True)
class Wait:
    """Let this many seconds pass without using the CPU, then ask for the next event."""

    seconds: float


@dataclass(frozen=True, slots=True)
class Compute:
    """Call `run` and give what it returns to `Connection.receive_digest`, then ask for the next event."""

    rounds: int

    def run(self) -> bytes:
        """Chain SHA-256 over 32 bytes, `rounds` times, and return the digest in hexadecimal.

        hashlib releases the GIL only from 2048 bytes on, so each of these calls holds it: this is CPU work in Python
        as a handler written in Python does it.
        """
        digest = bytes(32)
        for _ in range(self.rounds):
            digest = sha256(digest).digest()
        return digest.hex().encode("ascii")


@dataclass(frozen=True, slots=True)
class GiveWay:
    """Let other conversations run, then ask for the next event.

    It comes after `TURN` events in a row. A client that reads as fast as the server writes never makes the server wait:
    without this event, a long pipeline would hold its event loop until the last reply.
    """


@dataclass(frozen=True, slots=True)
class Close:
    """Nothing more will be sent: close, in stages so that what was sent arrives.

    `at_eof` says that `receive_eof` was called: nothing is left to read, so the close needs no stages. It is not a part
    of the value: Close equals Close.
    """

    at_eof: bool = field(default=False, compare=False)


Event = Send | Wait | Compute | GiveWay | Close

# The events of one turn: few, so that a turn of computations is short; more than one, so that a switch is not the cost.
TURN = 4

# Replies are gathered up to this size: large enough that a system call is not the cost, small enough that a client
# which does not read costs a server no more than this and one kernel buffer.
SEND_SIZE = 64 * 1024
