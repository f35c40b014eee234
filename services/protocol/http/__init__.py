"""HTTP and WebSocket without I/O. See docs/protocol/http.md."""

from services.protocol.http.service import Http

__all__ = ["Http"]
