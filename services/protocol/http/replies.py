"""Replies as bytes. `date` is the value of Date; `fields` are lines that end in CR LF (RFC 9112, 4 and 5)."""

from services.protocol.http.errors import REASONS

_STATUS_LINES = {status: b"HTTP/1.1 %d %b\r\nDate: " % (status, text.encode()) for status, text in REASONS.items()}

TEXT = b"text/plain; charset=utf-8"
HTML = b"text/html; charset=utf-8"
JSON = b"application/json"
BYTES = b"application/octet-stream"
EVENTS = b"text/event-stream"

CLOSE = b"Connection: close\r\n"
KEEP_ALIVE = b"Connection: keep-alive\r\n"

CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"
LAST_CHUNK = b"0\r\n\r\n"

_OK = _STATUS_LINES[200]


def head(status: int, date: bytes, fields: bytes) -> bytes:
    """Return the head of a reply, with its empty line."""
    return b"%b%b\r\n%b\r\n" % (_STATUS_LINES[status], date, fields)


def ok(date: bytes, kind: bytes, body: bytes, fields: bytes = b"") -> bytes:
    """Return a whole reply of status 200; `kind` is its Content-Type."""
    return b"%b%b\r\nContent-Type: %b\r\nContent-Length: %d\r\n%b\r\n%b" % (_OK, date, kind, len(body), fields, body)


def text(status: int, date: bytes, reason: str, fields: bytes = b"", *, is_head: bool = False) -> bytes:
    """Return a whole reply whose body is one line with the reason; without the body if `is_head`."""
    body = reason.encode("ascii", "backslashreplace") + b"\n"
    start = head(status, date, b"Content-Type: %b\r\nContent-Length: %d\r\n%b" % (TEXT, len(body), fields))
    return start if is_head else start + body


def chunk(data: bytes) -> bytes:
    """Return one chunk (RFC 9112, 7.1). `data` must not be empty: an empty chunk is the last one."""
    return b"%x\r\n%b\r\n" % (len(data), data)


def with_close(reply: bytes) -> bytes:
    """Return a whole reply, or the start of one, with `Connection: close` in place of any keep-alive."""
    start, end, body = reply.partition(b"\r\n\r\n")
    start = start.replace(b"\r\n" + KEEP_ALIVE.rstrip(), b"")
    return start.replace(b"\r\n", b"\r\n" + CLOSE, 1) + end + body
