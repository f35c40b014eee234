"""RFC 862: whatever comes in goes out again."""

from services.protocol.events import Event, Send


class Echo:
    """Holds what has come in and not yet gone out."""

    port = 7
    tls_port: int | None = 7007
    over_datagrams = True
    endless = False

    def __init__(self) -> None:
        self._chunks: list[bytes] = []

    def receive_data(self, data: bytes) -> None:
        """Take bytes; an empty datagram counts, and is echoed as one."""
        self._chunks.append(data)

    def next_event(self) -> Event | None:
        """All that has come in, in one piece. The usual single chunk goes out as the object that came in."""
        chunks = self._chunks
        if not chunks:
            return None
        data = chunks[0] if len(chunks) == 1 else b"".join(chunks)
        chunks.clear()
        return Send(data)

    def end_datagram(self) -> bytes:
        """Every datagram is a whole conversation already."""
        return b""
