"""RFC 863: whatever comes in is thrown away."""

from services.protocol.events import Event


class Discard:
    """Never answers."""

    port = 9
    tls_port: int | None = None
    over_datagrams = True
    endless = False

    def receive_data(self, data: bytes) -> None:
        """Throw it away."""

    def next_event(self) -> Event | None:
        """There is never anything to do but to read on."""
        return None

    def end_datagram(self) -> bytes:
        """There is no answer to a datagram."""
        return b""
