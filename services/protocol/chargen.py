"""RFC 864: endless lines of 72 printable characters; each starts one character later than the one before.

Over streams only: as a UDP service it answers a forged datagram with a larger one, which is an amplifier.
"""

from services.protocol.base import Service
from services.protocol.events import SEND_SIZE, Event, Send

_PRINTABLE = bytes(range(0x20, 0x7F))
LINES = tuple(((_PRINTABLE * 2)[start : start + 72] + b"\r\n") for start in range(len(_PRINTABLE)))
# The pattern repeats after 95 lines. A block of whole repetitions can be sent again and again.
_TURN = b"".join(LINES)
_BLOCK = Send(_TURN * (SEND_SIZE // len(_TURN)))


class Chargen(Service):
    """Send until the peer closes, and ignore its input."""

    port = 19
    over_datagrams = False
    endless = True

    def next_event(self) -> Event | None:
        """Return the same block each time, so a thousand readers need no more memory than one."""
        return _BLOCK
