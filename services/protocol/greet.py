"""The textbook's first server: send a greeting and close."""

from services.protocol.events import Close, Event, Send

GREETING = b"Thank you for connecting\r\n"


class Greet:
    """Sends the greeting, and ignores all input."""

    port = 1234
    tls_port: int | None = None
    over_datagrams = True
    endless = False

    def __init__(self) -> None:
        self._greeted = False

    def receive_data(self, data: bytes) -> None:
        """Ignore the input."""

    def next_event(self) -> Event | None:
        """Return the greeting, then Close."""
        if self._greeted:
            return Close()
        self._greeted = True
        return Send(GREETING)

    def end_datagram(self) -> bytes:
        """Return nothing: a datagram with any content gets the greeting."""
        return b""
