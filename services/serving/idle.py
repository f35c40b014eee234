"""When a connection is idle: one rule for all models.

A connection is idle if its peer has neither sent nor taken a byte for `Limits.idle` seconds. A model sees what the peer
sends. It sees what the peer takes only while it has data for the kernel. After that, the kernel may hold megabytes, for
which a slow reader needs a minute. So the model asks the kernel how many bytes the peer has not taken yet (SIOCOUTQ):
if the number has become smaller since the last check, the peer is reading.

The resolution is that of the kernel. TCP counts bytes that the other kernel has not acknowledged. A Unix socket counts
buffers, and frees one when it was read completely: a step is up to 64 KiB, the size of a Send. docs/protocol.md has the
lowest rate that counts as progress. Without SIOCOUTQ (macOS), only the bytes that the kernel accepts count.
"""

import fcntl
import struct
import termios

# Checks of a connection within the idle time. The check after these closes an idle connection, so at most a quarter of
# the idle time late.
LOOKS = 4


def unsent(descriptor: int) -> int:
    """Return the bytes in the kernel that the peer has not taken; 0 if unknown, or if the socket is closed."""
    try:
        (queued,) = struct.unpack("i", fcntl.ioctl(descriptor, termios.TIOCOUTQ, bytes(4)))  # SIOCOUTQ by its old name
    except (OSError, ValueError):
        return 0
    return int(queued)


class IdleWatch:
    """Finds out whether the peer of a connection is idle.

    A model checks `LOOKS` times within the idle time, except while it works for this peer. Counting checks costs less
    than reading a clock for each request, and a loop that was blocked does not mistake its own delay for silence of
    the peer.

    Args:
        looks: checks within the idle time, for a model that makes another number.
    """

    __slots__ = ("_at_linger", "_at_look", "_looks", "_most_looks")

    def __init__(self, looks: int = LOOKS) -> None:
        self._most_looks = looks
        self._looks = 0  # since the last news
        self._at_look = (0, 0)  # bytes that the kernel, and the model's library, held then
        self._at_linger = (0, 0)

    def news(self) -> None:
        """Note that the peer has sent something, or that the kernel has accepted something for it."""
        self._looks = 0

    def is_idle(self, descriptor: int, held: int = 0) -> bool:
        """Check the connection; return whether it has been idle for the idle time.

        Args:
            descriptor: the socket's.
            held: bytes in the buffer of the model's library, which the kernel has not accepted yet.
        """
        now = unsent(descriptor), held
        self._looks = 0 if _is_less(now, self._at_look) else self._looks + 1
        self._at_look = now
        return self._looks > self._most_looks

    def is_taking(self, descriptor: int, held: int = 0) -> bool:
        """Return whether the peer has taken some data since the last call, but not all of it.

        A close in stages calls this at its beginning and at the end of each linger time, which begins again while the
        peer takes data.
        """
        now = unsent(descriptor), held
        is_taking = _is_less(now, self._at_linger) and any(now)
        self._at_linger = now
        return is_taking


def _is_less(now: tuple[int, int], before: tuple[int, int]) -> bool:
    # Both separately, because data moves from the library to the kernel.
    return now[0] < before[0] or now[1] < before[1]
