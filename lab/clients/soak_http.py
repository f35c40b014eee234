"""What a soak sends over HTTP and WebSocket, and the bytes that must come back.

They follow RFC 9112, RFC 6455 and docs/protocol, and share no code with the servers, so that a bug in the servers' code
is noticed. Only the Date is replaced before the comparison (`mask_dates`).
"""

import re
import zlib

from lab.clients.reference import blob, chargen, digest

_DATE = re.compile(rb"\r\nDate: [A-Z][a-z]{2}, [0-9]{2} [A-Z][a-z]{2} [0-9]{4} [0-9:]{8} GMT\r\n")
_MASKED = b"\r\nDate: %b\r\n" % (b"-" * 29)

_BURNT = digest(20)
_BLOB = blob(70_000)
_LINES = chargen(3 * 74)


def mask_dates(data: bytes) -> bytes:
    """Replace each Date, if it is one, by as many bytes."""
    return _DATE.sub(_MASKED, data)


def _request(line: bytes, fields: bytes = b"", body: bytes = b"") -> bytes:
    return b"%b HTTP/1.1\r\nHost: lab.test\r\nUser-Agent: soak\r\n%b\r\n%b" % (line, fields, body)


def _reply(status: bytes, kind: bytes, body: bytes, fields: bytes = b"") -> bytes:
    head = b"HTTP/1.1 %b%bContent-Type: %b\r\nContent-Length: %d\r\n%b\r\n" % (status, _MASKED, kind, len(body), fields)
    return head + body


def _text(body: bytes, status: bytes = b"200 OK", fields: bytes = b"") -> bytes:
    return _reply(status, b"text/plain; charset=utf-8", body, fields)


_PONG = _text(b"PONG\n")
_EXCHANGES = [(_request(b"GET /ping"), _PONG)] * 10 + [
    (
        _request(b"POST /echo", b"Content-Length: 1024\r\n", b"x" * 1024),
        _reply(b"200 OK", b"application/octet-stream", b"x" * 1024),
    ),
    (
        _request(b"POST /ping", b"Transfer-Encoding: chunked\r\n", b"3\r\nabc\r\n1;a=b\r\nd\r\n0\r\nA: b\r\n\r\n"),
        _text(b"POST is not for '/ping'\n", b"405 Method Not Allowed", b"Allow: GET, HEAD, OPTIONS\r\n"),
    ),
    (_request(b"HEAD /ping"), _PONG[: -len(b"PONG\n")]),
    (_request(b"GET /sleep/1"), _text(b"OK\n")),
    (_request(b"GET /burn/20"), _text(_BURNT + b"\n")),
    (_request(b"GET /blob/70000"), _text(_BLOB)),
    (
        _request(b"GET /stream/3"),
        b"HTTP/1.1 200 OK%bContent-Type: text/plain; charset=utf-8\r\nTransfer-Encoding: chunked\r\n\r\n" % _MASKED
        + b"de\r\n%b\r\n0\r\n\r\n" % _LINES,
    ),
    (_request(b"GET /nothing"), _text(b"there is no '/nothing' here\n", b"404 Not Found")),
]
HTTP_MIX = b"".join(request for request, _ in _EXCHANGES)
HTTP_ANSWER = b"".join(answer for _, answer in _EXCHANGES)
HTTP_REQUESTS = len(_EXCHANGES)

_KEY = b"\x01\x02\x03\x04"


def _size(size: int, mask: int) -> bytes:
    if size < 126:
        return bytes((mask | size,))
    if size < 65536:
        return bytes((mask | 126,)) + size.to_bytes(2, "big")
    return bytes((mask | 127,)) + size.to_bytes(8, "big")


def _sent(first: int, data: bytes) -> bytes:
    """Make a frame of a client, RFC 6455, 5.2."""
    masked = bytes(byte ^ _KEY[index % 4] for index, byte in enumerate(data))
    return bytes((first,)) + _size(len(data), 0x80) + _KEY + masked


def _got(first: int, data: bytes) -> bytes:
    return bytes((first,)) + _size(len(data), 0) + data


def _deflate(data: bytes) -> bytes:
    machine = zlib.compressobj(wbits=-15)
    return (machine.compress(data) + machine.flush(zlib.Z_SYNC_FLUSH)).removesuffix(b"\x00\x00\xff\xff")


_FIN, _RSV1, _CONTINUATION, _TEXT, _BINARY, _CLOSE, _PING, _PONG_FRAME = 0x80, 0x40, 0, 1, 2, 8, 9, 10
# The key and its answer are those of RFC 6455, 1.3. A blob comes in fragments of whole turns of the pattern.
_FRAGMENT = 689 * 95
_HANDSHAKE = _request(
    b"GET /ws",
    b"Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n"
    b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Extensions: permessage-deflate\r\n",
)
_SWITCHED = (
    b"HTTP/1.1 101 Switching Protocols%bConnection: Upgrade\r\nUpgrade: websocket\r\n"
    b"Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\nSec-WebSocket-Extensions: permessage-deflate; "
    b"server_no_context_takeover; client_no_context_takeover\r\n\r\n" % _MASKED
)
_MESSAGES = [(_sent(_FIN | _TEXT, b"hello"), _got(_FIN | _TEXT, b"hello"))] * 10 + [
    (_sent(_FIN | _BINARY, b"x" * 1024), _got(_FIN | _BINARY, b"x" * 1024)),
    (
        _sent(_TEXT, b"one ") + _sent(_FIN | _PING, b"ping") + _sent(_FIN | _CONTINUATION, b"two"),
        _got(_FIN | _PONG_FRAME, b"ping") + _got(_FIN | _TEXT, b"one two"),
    ),
    # Below 64 bytes a compressed message comes back as it is.
    (_sent(_FIN | _RSV1 | _TEXT, _deflate(b"small" * 5)), _got(_FIN | _TEXT, b"small" * 5)),
    (_sent(_FIN | _TEXT, b"SLEEP 1"), _got(_FIN | _TEXT, b"OK")),
    (_sent(_FIN | _TEXT, b"BURN 20"), _got(_FIN | _TEXT, _BURNT)),
    (
        _sent(_FIN | _TEXT, b"BLOB 70000"),
        _got(_TEXT, _BLOB[:_FRAGMENT]) + _got(_FIN | _CONTINUATION, _BLOB[_FRAGMENT:]),
    ),
    (_sent(_FIN | _CLOSE, b"\x03\xe8"), _got(_FIN | _CLOSE, b"\x03\xe8")),
]
WEBSOCKET_MIX = _HANDSHAKE + b"".join(message for message, _ in _MESSAGES)
WEBSOCKET_ANSWER = _SWITCHED + b"".join(answer for _, answer in _MESSAGES)
WEBSOCKET_REQUESTS = 1 + len(_MESSAGES)
# A message that never ends.
UNFINISHED_MESSAGE = _HANDSHAKE + _sent(_TEXT, b"x" * 900)
