"""The head of a request: its first line and its fields, strictly as RFC 9112 defines them.

Everything that two servers could read differently is refused with 400: requests are smuggled past a proxy that sees the
end of a request in another place. Section numbers in this file are those of RFC 9112, unless another RFC is named.
"""

import re

from services.protocol.clock import Clock
from services.protocol.http.errors import HttpError, quote
from services.protocol.limits import Limits

_TOKEN = rb"[!#$%&'*+\-.^_`|~0-9A-Za-z]+"

# 5: no space before the colon, no space at the start of a line (obs-fold), no control character but HTAB in a value.
_BLOCK = re.compile(rb"(?:" + _TOKEN + rb":[\t\x20-\x7e\x80-\xff]*+\r\n)*+")
_FIELD = re.compile(_TOKEN + rb":[\t\x20-\x7e\x80-\xff]*")

# 3: single spaces. RFC 3986 defines the characters of a target, which has no fragment.
_LINE = re.compile(rb"(" + _TOKEN + rb") ((?:[!$&-;=?-Z_a-z~]|%[0-9A-Fa-f]{2})+) HTTP/([0-9])\.([0-9])")
# 3.2.2. User information can make an address look like another one, so it is refused: RFC 9110, 4.2.4.
_ABSOLUTE = re.compile(rb"https?://([^/?@]+)([/?].*)?", re.IGNORECASE | re.DOTALL)
# RFC 3986, 3.2.2 and 3.2.3.
_HOST = re.compile(
    rb"(?:\[[0-9A-Fa-f:.]+\]|(?:[!$&'()*+,\-.0-9;=A-Z_a-z~]|%[0-9A-Fa-f]{2})*)(?::[0-9]{0,5})?", re.DOTALL
)

# Forbidden in an incomplete head: CR or LF alone, 2.2, and control characters (RFC 9110, 5.5).
_FORBIDDEN = re.compile(rb"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f]|(?<!\r)\n|\r(?!\n|\Z)")

_LF = re.compile(rb"\n")

_DIGITS = re.compile(rb"[0-9]+")
_ESCAPED = re.compile(rb"%([0-9A-Fa-f]{2})")

# The fields that are used. All others are only checked.
_USED = frozenset(
    b"host content-length transfer-encoding connection expect upgrade accept origin "
    b"sec-websocket-key sec-websocket-version sec-websocket-extensions".split()
)

METHODS = frozenset((b"GET", b"HEAD", b"POST", b"PUT", b"DELETE", b"CONNECT", b"OPTIONS", b"TRACE", b"PATCH"))

CHUNKED = -1

_KEEP_ALIVE = frozenset((b"keep-alive",))
_NO_OPTIONS: frozenset[bytes] = frozenset()

# The fields of the last request are kept if they have at most this many bytes: clients repeat them, and comparing is
# cheaper than reading. Longer ones would cost too much memory in ten thousand idle connections.
_KEPT = 1024


class Fields:
    """The checked fields of a head.

    Args:
        values: see below.

    Attributes:
        values: the values of the used fields, by name in lower case, in the order of their lines.
        length: of the body in bytes; `CHUNKED` if the body is in chunks.
        has_length: whether there is a Content-Length, which can be 0, or a Transfer-Encoding.
        options: the options of Connection, in lower case.
        is_plain: whether this is the usual case: no body, option of Connection or expectation.

    Raises:
        HttpError: 400, for a field that is repeated, malformed or contradicts another one; 413; 501.
    """

    __slots__ = ("has_length", "is_plain", "length", "options", "values")

    def __init__(self, values: dict[bytes, list[bytes]]) -> None:
        self.values = values
        if b"host" in values:
            hosts = values[b"host"]
            if len(hosts) > 1:
                raise HttpError(400, "several Host fields")  # 3.2
            if not _HOST.fullmatch(hosts[0]):
                raise HttpError(400, f"Host {quote(hosts[0])} is not a host and a port")
        self.has_length = True
        if b"transfer-encoding" in values:
            if b"content-length" in values:
                raise HttpError(400, "Content-Length with Transfer-Encoding")  # 6.1 and 6.3
            self.length = _read_codings(values[b"transfer-encoding"])
        elif b"content-length" in values:
            self.length = _read_length(values[b"content-length"])
        else:
            self.length = 0
            self.has_length = False
        self.options = _NO_OPTIONS
        is_persistent = True
        if b"connection" in values:
            self.options = frozenset(self.tokens(b"connection"))
            is_persistent = self.options == _KEEP_ALIVE
        self.is_plain = is_persistent and not self.has_length and b"expect" not in values

    def tokens(self, name: bytes) -> list[bytes]:
        """Return the elements of a list field (RFC 9110, 5.6.1) in lower case, without empty ones."""
        items = b",".join(self.values.get(name, ())).split(b",")
        return [word for item in items if (word := _trim(item).lower())]

    def first(self, name: bytes) -> bytes:
        """Return the first value of a field; empty if the field is missing."""
        values = self.values.get(name)
        return values[0] if values else b""


class Head:
    """A request without its body.

    Args:
        line: method, target and minor version, from `read_line`.

    Attributes:
        path: without the query, percent-decoded.
        query: what follows the question mark, as it was sent.
        minor: 0 for HTTP/1.0, 1 for all later versions of HTTP/1.

    Raises:
        HttpError: 400: the target is malformed, 3.2; HTTP/1.1 without Host, 3.2; HTTP/1.0 with chunks, 6.1.
    """

    __slots__ = ("fields", "method", "minor", "path", "query")

    def __init__(self, line: tuple[bytes, bytes, int], fields: Fields) -> None:
        self.method, target, self.minor = line
        self.fields = fields
        if target[0] != 0x2F:  # "/"
            target = self._resolve(target)
        self.path, _, self.query = target.partition(b"?")
        if b"%" in self.path:
            self.path = _ESCAPED.sub(lambda match: bytes.fromhex(match[1].decode()), self.path)
        if not self.minor:
            if fields.length == CHUNKED:
                raise HttpError(400, "Transfer-Encoding in HTTP/1.0")  # 6.1
        elif b"host" not in fields.values:
            raise HttpError(400, "no Host field")  # 3.2

    @property
    def is_kept(self) -> bool:
        """Whether the connection persists after this request, 9.3."""
        options = self.fields.options
        return b"close" not in options and (bool(self.minor) or b"keep-alive" in options)

    def _resolve(self, target: bytes) -> bytes:
        if target == b"*":
            if self.method != b"OPTIONS":
                raise HttpError(400, "the target * is only for OPTIONS")  # 3.2.4
            return target
        if self.method == b"CONNECT":
            return target  # 3.2.3; it matches no route
        match = _ABSOLUTE.fullmatch(target)
        if match is None or not _HOST.fullmatch(match[1]):
            raise HttpError(400, f"the target {quote(target)} is neither a path nor an address")
        rest: bytes = match[2] or b"/"
        return rest if rest.startswith(b"/") else b"/" + rest


def read_line(line: bytes) -> tuple[bytes, bytes, int]:
    """Return a request line's method, target and minor version.

    Raises:
        HttpError: 400, or 505 for another major version.
    """
    match = _LINE.fullmatch(line)
    if match is None:
        raise HttpError(400, f"{quote(line)} is not a request line")
    method, target, major, minor = match.groups()
    if major != b"1":
        raise HttpError(505, f"HTTP/{major.decode()}.{minor.decode()} is not spoken here, but HTTP/1.1 is")
    # RFC 9110, 2.5: a higher minor version is treated as the highest one that is known.
    return method, target, 0 if minor == b"0" else 1


class HeadReader:
    """Cuts a stream into heads; bodies are read from it in between with `take` and `take_line`.

    The buffer is dropped when all of it has been used: an idle connection holds no input. Even a short one can keep a
    page of memory, since it may be the beginning of a block that was allocated for a large read.
    """

    __slots__ = ("_block", "_buffer", "_clock", "_fields", "_limits", "_position", "_since", "_skipped", "_unseen")

    def __init__(self, limits: Limits, clock: Clock) -> None:
        self._limits = limits
        self._clock = clock
        self._buffer = b""
        self._position = 0  # everything before it has been used
        self._unseen = 0  # bytes behind the position that were searched already, without an end or a fault
        self._since: float | None = None  # arrival of the first byte of the incomplete head, in seconds of the clock
        self._skipped = False  # there was an empty line before the head
        self._block = b""  # the fields of the last request, as bytes and as read
        self._fields: Fields | None = None

    def feed(self, data: bytes) -> None:
        """Take bytes that have arrived.

        At most one head and one read are left over, so joining costs no more than a system call.
        """
        if self._position == len(self._buffer):
            self._buffer = data
        else:
            self._buffer = self._buffer[self._position :] + data
        self._position = 0

    @property
    def left(self) -> int:
        """The number of bytes that are not used yet."""
        return len(self._buffer) - self._position

    @property
    def is_tls(self) -> bool:
        """Whether the next bytes are a handshake record of TLS, of any version."""
        return self._buffer.startswith(b"\x16\x03", self._position)

    @property
    def has_head(self) -> bool:
        """Whether a complete head is here."""
        return self._buffer.find(b"\r\n\r\n", self._position) >= 0

    @property
    def is_full(self) -> bool:
        """Whether more bytes are here than any valid head has."""
        limits = self._limits
        return self.left > limits.http_line + limits.http_header_bytes + len(b"\r\n" * 3)

    def take(self, most: int) -> bytes:
        """Return up to `most` bytes of a body."""
        buffer, start = self._buffer, self._position
        end = min(start + most, len(buffer))
        if end == len(buffer):
            self._buffer, self._position = b"", 0
        else:
            self._position = end
        return buffer if end - start == len(buffer) else buffer[start:end]

    def take_line(self, most: int, what: str) -> bytes | None:
        """Return a line of a body without its CR LF; None if it is incomplete.

        Args:
            most: its largest size in bytes.
            what: its name, for errors.

        Raises:
            HttpError: 400: it is longer than `most` bytes, or has a control character other than HTAB.
        """
        buffer, start = self._buffer, self._position
        seen = start + max(self._unseen - 1, 0)
        stop = min(start + most + 2, len(buffer))
        end = buffer.find(b"\r\n", seen, stop)
        # An LF at the start has no CR before it, even if the byte before is one: that belongs to a body.
        # The CR at the end is searched too: a CR just before the end of a search may be one whose LF is missing.
        if buffer.startswith(b"\n", start) or _FORBIDDEN.search(buffer, seen, end + 1 if end >= 0 else stop):
            raise HttpError(400, f"a control character in the {what} {quote(buffer[start:stop])}")
        if end >= 0:
            self._position = end + 2
            self._unseen = 0
            return buffer[start:end]
        if stop == start + most + 2:
            raise HttpError(400, f"the {what} is longer than {most} bytes")
        self._unseen = stop - start
        if not self._unseen:
            self._buffer, self._position = b"", 0
        return None

    def next_head(self) -> Head | None:
        """Cut out the next head.

        Returns:
            None if it is incomplete.

        Raises:
            HttpError: it is refused: 400, 408, 413, 414, 431, 501 or 505. Nothing behind it can be read.
        """
        buffer = self._buffer
        start = self._position
        if start == len(buffer):
            self._buffer, self._position = b"", 0
            return None
        end = buffer.find(b"\r\n\r\n", start + self._unseen)
        if end < 0 or buffer.startswith(b"\r\n", start):
            return self._next_irregular()
        line_end = buffer.find(b"\r\n", start, end + 2)
        limits = self._limits
        if line_end - start > limits.http_line:
            raise HttpError(414, f"the request line is longer than {limits.http_line} bytes")
        line = read_line(buffer[start:line_end])  # before the fields, as in a head that arrives in pieces
        block = buffer[line_end + 2 : end + 2]
        if block == self._block and self._fields is not None:
            head = Head(line, self._fields)
        else:
            head = Head(line, self._read(block))
        self._position = end + 4
        self._unseen = 0
        self._since = None
        self._skipped = False
        return head

    def _read(self, block: bytes) -> Fields:
        fields = read_fields(block, self._limits)
        if len(block) <= _KEPT:
            self._block, self._fields = block, fields
        return fields

    def _next_irregular(self) -> Head | None:
        """Check an incomplete head and its age, or skip one empty line before a head, 2.2."""
        buffer = self._buffer
        if buffer.startswith(b"\r\n", self._position):
            if self._skipped:
                raise HttpError(400, "more than one empty line before a request")
            self._skipped = True
            self._position += 2
            return self.next_head()
        self._check_part()
        self._unseen = max(len(buffer) - self._position - 3, 0)
        now = self._clock.elapsed()
        if self._since is None:
            self._since = now
        elif now - self._since > self._limits.http_head_seconds:
            raise HttpError(408, f"the head took longer than {self._limits.http_head_seconds:g} seconds")
        return None

    def _check_part(self) -> None:
        """Refuse an incomplete head as soon as it cannot become valid: its end may never arrive.

        Raises:
            HttpError: 400, 414, 431 or 505.
        """
        buffer, start, limits = self._buffer, self._position, self._limits
        # The pattern looks at the byte before an LF. Before the first byte, that may be a CR at the end of a body.
        bad = _LF.match(buffer, start) or _FORBIDDEN.search(buffer, start + max(self._unseen - 1, 0))
        if bad:
            raise HttpError(400, f"a control character in the head: {quote(bad[0])}")
        line_end = buffer.find(b"\r\n", start)
        end = len(buffer) - buffer.endswith(b"\r")  # a CR that may be half of a line's end does not count
        if (end if line_end < 0 else line_end) - start > limits.http_line:
            raise HttpError(414, f"the request line is longer than {limits.http_line} bytes")
        if line_end < 0:
            return
        if line_end >= start + self._unseen:
            read_line(buffer[start:line_end])
        # Lines are counted only if there is a new one: otherwise a head in small pieces would be expensive.
        has_ended = buffer.find(b"\n", start + self._unseen) >= 0
        _check_size(end - line_end - 2, buffer.count(b"\r\n", line_end + 2) if has_ended else 0, limits)


def read_fields(block: bytes, limits: Limits) -> Fields:
    """Read the fields of a head, or of a trailer: lines with their CR LF.

    Raises:
        HttpError: 400 for a malformed line, 431 over a limit; see also `Fields`.
    """
    _check_size(len(block), block.count(b"\r\n"), limits)
    if not _BLOCK.fullmatch(block):
        line = next(each for each in block.split(b"\r\n") if not _FIELD.fullmatch(each))
        raise HttpError(400, f"{quote(line)} is not a header field")
    values: dict[bytes, list[bytes]] = {}
    for line in block.split(b"\r\n"):
        name, _, value = line.partition(b":")
        name = name.lower()
        if name in _USED:
            value = value.strip(b" \t")
            if name in values:
                values[name].append(value)
            else:
                values[name] = [value]
    return Fields(values)


def _check_size(size: int, count: int, limits: Limits) -> None:
    if size > limits.http_header_bytes:
        raise HttpError(431, f"the header fields are longer than {limits.http_header_bytes} bytes")
    if count > limits.http_headers:
        raise HttpError(431, f"more than {limits.http_headers} header fields")


def _trim(value: bytes) -> bytes:
    return value.strip(b" \t")


def _read_length(values: list[bytes]) -> int:
    # 6.3 allows merging equal values. Another server may read them differently, so they are refused.
    if len(values) > 1:
        raise HttpError(400, "several Content-Length fields")
    if not _DIGITS.fullmatch(values[0]):
        raise HttpError(400, f"Content-Length {quote(values[0])} is not a number")
    if len(values[0]) > 18:
        raise HttpError(413, f"Content-Length {quote(values[0])} is more than any server takes")
    return int(values[0])


def _read_codings(values: list[bytes]) -> int:
    codings = [_trim(each).lower() for each in b",".join(values).split(b",")]
    if codings == [b"chunked"]:
        return CHUNKED
    if codings[-1] != b"chunked":
        raise HttpError(400, "the final transfer coding is not chunked")  # 6.3
    if b"chunked" in codings[:-1] or b"" in codings:
        raise HttpError(400, "chunked is not the last transfer coding only")  # 7
    raise HttpError(501, f"the transfer coding {quote(codings[0])} is not known here")  # 6.1
