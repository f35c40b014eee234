"""When a connection is idle: one rule for all models.

A connection is idle when its peer has neither sent nor taken a byte for `Limits.idle` seconds. A model sees what the
peer sends. It sees what the peer takes only while it has something to hand to the kernel: after that the kernel may
hold megabytes, and a slow reader needs a minute for them. So the kernel is asked for the bytes that the peer has not
taken yet (SIOCOUTQ): if that queue is shorter than at the last look, the reader is at work.

The resolution is the kernel's. TCP counts bytes that the other kernel has not acknowledged. A Unix socket counts
buffers, and frees one when all of it has been read: one step is up to 64 KiB, the size of a Send. docs/protocol.md says
which rate is the least that counts. Where the kernel does not answer (macOS has no SIOCOUTQ), only the bytes that it
accepts count.
"""

import fcntl
import struct
import termios

# How many times within the idle time a connection is looked at. An idle connection is closed by the look after these,
# so at the latest a quarter later than the idle time says.
LOOKS = 4


def unsent(descriptor: int) -> int:
    """How many bytes the kernel holds that the peer has not taken; 0 if it does not tell, or the socket is closed."""
    try:
        (queued,) = struct.unpack("i", fcntl.ioctl(descriptor, termios.TIOCOUTQ, bytes(4)))  # SIOCOUTQ by its old name
    except (OSError, ValueError):
        return 0
    return int(queued)


class IdleWatch:
    """Whether the peer of one connection is idle.

    A model looks `LOOKS` times within the idle time, and not while it works for this peer. Counting looks costs less
    than reading a clock for each request, and a loop that was held up for long does not take its own absence for the
    peer's.
    """

    __slots__ = ("_at_linger", "_at_look", "_looks")

    def __init__(self) -> None:
        self._looks = 0  # since the last news
        self._at_look = (0, 0)  # bytes that the kernel, and the model's library, held then
        self._at_linger = (0, 0)

    def news(self) -> None:
        """Note that the peer has sent something, or that the kernel has accepted something for it."""
        self._looks = 0

    def is_idle(self, descriptor: int, held: int = 0) -> bool:
        """Look at the connection; whether it has been idle for the idle time.

        Args:
            descriptor: the socket's.
            held: bytes that the model's library holds until the kernel accepts them.
        """
        now = unsent(descriptor), held
        self._looks = 0 if _is_less(now, self._at_look) else self._looks + 1
        self._at_look = now
        return self._looks > LOOKS

    def is_taking(self, descriptor: int, held: int = 0) -> bool:
        """Whether the peer has taken something since this was last asked, and has not taken everything.

        For a close in stages, which asks when it begins and whenever the linger time is over. That time begins again
        for a peer that is taking.
        """
        now = unsent(descriptor), held
        is_taking = _is_less(now, self._at_linger) and any(now)
        self._at_linger = now
        return is_taking


def _is_less(now: tuple[int, int], before: tuple[int, int]) -> bool:
    # Each by itself: what leaves the library enters the kernel.
    return now[0] < before[0] or now[1] < before[1]
