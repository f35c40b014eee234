"""What a connection asks of the code that does its I/O.

The events are data: the core never sleeps, computes or sends. How a model does each of them is what makes it a model.
"""

from dataclasses import dataclass, field
from hashlib import sha256


# Not frozen, unlike the others: the hot path creates one in each turn, and the __init__ of a frozen dataclass, which
# uses object.__setattr__, takes 1.5 times as long. For the same reason models match `Send() as send`: `Send(data)`
# looks the field up by its name, and an echo costs a blocking model a tenth more instructions.
@dataclass(slots=True)
class Send:
    """Send these bytes, all of them, before asking for the next event.

    `data` can contain the replies to several pipelined requests, at most about `SEND_SIZE` bytes.
    """

    data: bytes


@dataclass(frozen=True, slots=True)
class Wait:
    """Let this many seconds pass without using the CPU, then ask for the next event."""

    seconds: float


@dataclass(frozen=True, slots=True)
class Compute:
    """Call `run`, pass the result to `Connection.receive_digest`, then ask for the next event."""

    rounds: int

    def run(self) -> bytes:
        """Chain SHA-256 over 32 bytes, `rounds` times, and return the digest in hexadecimal.

        hashlib releases the GIL only from 2048 bytes on, so each of these calls holds it, like the code of a handler in
        Python.
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
    """Close: nothing more will be sent. The close has stages, so that what was sent arrives.

    If `at_eof`, `receive_eof` was called: nothing is left to read, so the close needs no stages. It does not count for
    equality: Close equals Close.
    """

    at_eof: bool = field(default=False, compare=False)


Event = Send | Wait | Compute | GiveWay | Close

# Events per turn: few, so that a turn of computations is short; more than one, so that switches cost little.
TURN = 4

# Replies are collected up to this size: large enough that system calls cost little, and small enough that a client
# which does not read occupies only this and one kernel buffer.
SEND_SIZE = 64 * 1024
