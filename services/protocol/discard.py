"""RFC 863: ignore all input."""

from services.protocol.events import Event


class Discard:
    """A service that never replies."""

    port = 9
    tls_port: int | None = None
    over_datagrams = True
    endless = False

    def receive_data(self, data: bytes) -> None:
        """Ignore the input."""

    def next_event(self) -> Event | None:
        """Return None: always read on."""
        return None

    def end_datagram(self) -> bytes:
        """Return nothing: a datagram gets no reply."""
        return b""
