"""The handshake of a WebSocket: a request of HTTP with an Upgrade. Section numbers are those of RFC 6455."""

import re
from base64 import b64encode
from hashlib import sha1

from services.protocol.http.deflate import Deflate, negotiate
from services.protocol.http.head import Head

_GUID = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
# 16 bytes in base64, 4.1.
_KEY = re.compile(rb"[A-Za-z0-9+/]{21}[AQgw]==")
_ORIGIN = re.compile(rb"https?://([^/]+)")
_VERSION = b"Sec-WebSocket-Version: 13\r\n"

# RFC 9110, 7.8 and 15.5.22.
UPGRADE = b"Connection: Upgrade\r\nUpgrade: websocket\r\n"


class HandshakeError(Exception):
    """The connection cannot become a WebSocket. It remains one of HTTP.

    Attributes:
        status: of the reply: 400, 403 or 426.
        fields: further fields of the reply, lines that end in CR LF.
    """

    def __init__(self, status: int, reason: str, fields: bytes = b"") -> None:
        super().__init__(reason)
        self.status = status
        self.fields = fields


def shake_hands(request: Head) -> tuple[bytes, Deflate | None]:
    """Check a handshake, 4.2.1, and make the answer to it, 4.2.2.

    Returns:
        The fields of the reply with status 101, lines that end in CR LF; and the compression, if there is any.

    Raises:
        HandshakeError: 426: it is no Upgrade to version 13; 400: its key or a body; 403: its origin.
    """
    fields = request.fields
    # RFC 9110, 7.8: an Upgrade in HTTP/1.0 is ignored.
    asks = b"websocket" in fields.tokens(b"upgrade") and b"upgrade" in fields.options and request.minor
    if not asks or request.method != b"GET":
        raise HandshakeError(426, "this path is for WebSocket", UPGRADE + _VERSION)
    if fields.values.get(b"sec-websocket-version") != [b"13"]:
        raise HandshakeError(426, "only version 13 of WebSocket is spoken here", UPGRADE + _VERSION)
    keys = fields.values.get(b"sec-websocket-key", [])
    if len(keys) != 1 or not _KEY.fullmatch(keys[0]):
        raise HandshakeError(400, "Sec-WebSocket-Key is not 16 bytes in base64")
    if fields.length:
        raise HandshakeError(400, "a handshake with a body")
    _check_origin(request)
    accept = b64encode(sha1(keys[0] + _GUID, usedforsecurity=False).digest())
    reply = UPGRADE + b"Sec-WebSocket-Accept: %b\r\n" % accept
    deflate = negotiate(fields.values.get(b"sec-websocket-extensions", []))
    if deflate is not None:
        reply += b"Sec-WebSocket-Extensions: %b\r\n" % deflate.field()
    return reply, deflate


def _check_origin(request: Head) -> None:
    """Refuse pages of other sites with 403, 10.2: browsers let a page open a WebSocket to any address."""
    origins = request.fields.values.get(b"origin", [])
    if not origins:
        return
    match = _ORIGIN.fullmatch(origins[0].lower())
    if len(origins) > 1 or match is None or match[1] != request.fields.first(b"host").lower():
        raise HandshakeError(403, "a page of another site asks for this WebSocket")
