"""RFC 862: send all input back."""

from services.protocol.base import Service
from services.protocol.events import Event, Send


class Echo(Service):
    """Keeps input until it is sent back."""

    port = 7
    tls_port = 7007

    def __init__(self) -> None:
        self._chunks: list[bytes] = []

    def receive_data(self, data: bytes) -> None:
        """Take bytes. An empty datagram is echoed as an empty datagram."""
        self._chunks.append(data)

    def next_event(self) -> Event | None:
        """Return all input in one piece; a single chunk is not copied."""
        chunks = self._chunks
        if not chunks:
            return None
        data = chunks[0] if len(chunks) == 1 else b"".join(chunks)
        chunks.clear()
        return Send(data)
