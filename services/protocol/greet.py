"""The textbook's first server: it thanks the client and hangs up."""

from services.protocol.events import Close, Event, Send

GREETING = b"Thank you for connecting\r\n"


class Greet:
    """Speaks first, listens to nothing."""

    port = 1234
    tls_port: int | None = None
    over_datagrams = True
    endless = False

    def __init__(self) -> None:
        self._greeted = False

    def receive_data(self, data: bytes) -> None:
        """Take what the client sent; it changes nothing."""

    def next_event(self) -> Event | None:
        """The greeting, then the close."""
        if self._greeted:
            return Close()
        self._greeted = True
        return Send(GREETING)

    def end_datagram(self) -> bytes:
        """A datagram of any content is greeted, so nothing is missing at its end."""
        return b""
