"""What the services have in common."""

from services.protocol.events import Event


class Service:
    """A service without TLS, which ignores its input and sends nothing.

    Attributes:
        port, tls_port: well-known ports; None: it is not offered over TLS.
        over_datagrams: whether it is offered over datagrams.
        endless: whether it sends until the peer closes, so that a drain has to end it.
    """

    __slots__ = ()

    port: int
    tls_port: int | None = None
    over_datagrams = True
    endless = False

    def receive_data(self, data: bytes) -> None:
        """Take bytes that have arrived. An empty datagram has none."""

    def next_event(self) -> Event | None:
        """Return the next event; None if more input is needed."""
        return None

    def end_datagram(self) -> bytes:
        """Return the error for a datagram that is not a complete conversation; empty if there is no error."""
        return b""
