"""RFC 864: lines of 72 printable characters, each starting one character later than the one before, for ever.

Over streams only: as a UDP service it answers a forged datagram with a larger one, which is an amplifier.
"""

from services.protocol.events import SEND_SIZE, Event, Send

_PRINTABLE = bytes(range(0x20, 0x7F))
LINES = tuple(((_PRINTABLE * 2)[start : start + 72] + b"\r\n") for start in range(len(_PRINTABLE)))
# One turn of the wheel is 95 lines. Whole turns make one block that follows itself without a seam.
_TURN = b"".join(LINES)
_BLOCK = Send(_TURN * (SEND_SIZE // len(_TURN)))


class Chargen:
    """Sends until the peer has gone; what the peer sends is thrown away."""

    port = 19
    tls_port: int | None = None
    over_datagrams = False
    endless = True

    def receive_data(self, data: bytes) -> None:
        """Throw it away, as the RFC says."""

    def next_event(self) -> Event | None:
        """The same block each time: it is made once, so a thousand readers cost no more memory than one."""
        return _BLOCK

    def end_datagram(self) -> bytes:
        """Never called: the service is not offered over datagrams."""
        return b""
