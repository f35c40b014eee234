"""Requests of HTTP that are nearly valid: most parts are right, some are a mistake that parsers differ on."""

import random
from collections.abc import Sequence

# Of each part: what is right, and what is not, or is only just right.
_METHODS = (
    (b"GET", b"POST", b"HEAD", b"PUT", b"OPTIONS"),
    (b"get", b"PURGE", b"M-SEARCH", b"G(T", b"", b"GE\tT", b"X"),
)
_TARGETS = (
    (b"/", b"/ping", b"/a/b?c=d", b"/%41%2f", b"/echo"),
    (
        b"*",
        b"http://a/x",
        b"http://a",
        b"https://a/x",
        b"a:80",
        b"/\x80",
        b"/a#b",
        b"/%4",
        b"//a",
        b"/a b",
        b"",
        b"/\\",
        b"http://u@a/",
        b"/\t",
    ),
)
_VERSIONS = (
    (b"HTTP/1.1",) * 5 + (b"HTTP/1.0",),
    (
        b"HTTP/1.2",
        b"HTTP/2.0",
        b"http/1.1",
        b"HTTP/01.1",
        b"HTTP/1.1 ",
        b"HTTP/1",
        b"HTTP/1.10",
        b"",
        b"HTTP/0.9",
        b"RTSP/1.0",
    ),
)
_SPACES = ((b" ",), (b"  ", b"\t", b"", b"\x0b", b" \r"))
_ENDS = ((b"\r\n",), (b"\n", b"\r", b"\r\r\n", b"\n\r", b"", b" \r\n"))
_COLONS = ((b": ", b":"), (b" : ", b":\t", b"", b":  ", b"\x00:", b": \x0b"))
_HOSTS = (
    (b"Host: a", b"host:a:80"),
    (b"", b"Host: a\r\nHost: b", b"Host: a b", b"Host:", b"Host: a/b", b"Host: [::1]", b"Host: u@a"),
)
_NAMES = (
    (b"A", b"X-Long-Name", b"Accept", b"Cookie"),
    (b"A B", b"", b" A", b"A\x80", b"A(", b"\tA", b"Content-Length\x00"),
)
_VALUES = (
    (b"b", b"", b"c d, e", b'"f"', b"*/*"),
    (b"\x80", b"a\x00b", b"a\tb", b"a\r b", b"\x7f", b"a\x0bb", b"b\r\n c", b"b\r\n\tc"),
)
_LENGTHS = (
    (b"%d",),
    (
        b"+%d",
        b"-%d",
        b"0x%d",
        b"%d ",
        b"0%d",
        b"%d, %d",
        b"%d,%d",
        b"%da",
        b"%d.0",
        b"%d 1",
        b"",
        b"1" * 20,
        b"1" * 40,
        b"\x0b%d",
        b"1_%d",
    ),
)
_CODINGS = (
    (b"chunked", b"Chunked"),
    (b"gzip, chunked", b"chunked, gzip", b"identity", b"chunked, chunked", b"xchunked", b"chunked;a=b", b'"chunked"',
     b"\x0bchunked", b"chunked,", b",chunked", b"", b"chunked\x00", b"chunked\r\nTransfer-Encoding: chunked",
     b"gzip", b"chunked \t"),
)  # fmt: skip
_SIZES = (
    (b"%x", b"%X", b"0%x", b"%x;a=b", b'%x;a="b c"'),
    (b"0x%x", b"+%x", b"-%x", b" %x", b"%x ", b"%x;", b"%x;\x00", b"%x;a=\n", b"%x;a\rb", b"%xg", b"", b"%x;a=b;",
     b"%x;a b", b"0" * 20 + b"%x", b"f" * 16 + b"%x", b"%x\t", b"%x ;a", b"%x;\x80", b'%x;a="b'),
)  # fmt: skip
_CONNECTIONS = (
    (b"keep-alive", b"close", b"Keep-Alive"),
    (
        b"close, keep-alive",
        b"closed",
        b"",
        b"x",
        b",close",
        b"keep-alive\r\nConnection: close",
        b"c\x80lose",
        b"upgrade",
    ),
)
_EXPECTATIONS = ((b"100-continue",), (b"200-ok", b""))


class Maker:
    """Makes requests, the same ones for the same seed.

    Args:
        mistakes: the probability that a part is a mistake.
    """

    def __init__(self, seed: int, mistakes: float = 0.03) -> None:
        self._random = random.Random(seed)
        self._mistakes = mistakes

    def stream(self) -> bytes:
        """Make a few requests, one behind the other; sometimes one byte of them is wrong, or the end is missing."""
        data = bytearray(b"".join(self._request() for _ in range(self._random.choice((1, 2, 2, 3)))))
        if self._happens(0.1):
            place = self._random.randrange(len(data))
            match self._random.randrange(4):
                case 0:
                    data[place] = self._random.choice(b"\x00\r\n \t:;,0a\x80\xff")
                case 1:
                    del data[place]
                case 2:
                    data[place:place] = self._random.choice((b"\r\n", b"\n", b"\r", b" ", b"0", b"\x00"))
                case 3:
                    del data[place:]
        return bytes(data)

    def _happens(self, probability: float) -> bool:
        return self._random.random() < probability

    def _part(self, choices: tuple[Sequence[bytes], Sequence[bytes]]) -> bytes:
        return self._random.choice(choices[self._happens(self._mistakes)])

    def _number(self, choices: tuple[Sequence[bytes], Sequence[bytes]], number: int) -> bytes:
        pattern = self._part(choices)
        return pattern % ((number,) * pattern.count(b"%"))

    def _request(self) -> bytes:
        first = self._part(_METHODS) + self._part(_SPACES) + self._part(_TARGETS) + self._part(_SPACES)
        lines = [first + self._part(_VERSIONS), self._part(_HOSTS)]
        lines += [self._field() for _ in range(self._random.randrange(3))]
        for probability, name, choices in ((0.15, b"Connection", _CONNECTIONS), (0.05, b"Expect", _EXPECTATIONS)):
            if self._happens(probability):
                lines.append(name + self._part(_COLONS) + self._part(choices))
        if self._happens(0.03):
            lines.append(b"Upgrade: websocket")
        body = self._body(lines)
        if self._happens(0.2):
            lines[1:] = self._random.sample(lines[1:], len(lines) - 1)
        start = self._random.choice((b"\r\n", b"\n", b"\r\n\r\n", b" ")) if self._happens(self._mistakes) else b""
        return start + b"".join(line + self._part(_ENDS) for line in lines if line) + self._part(_ENDS) + body

    def _field(self) -> bytes:
        return self._part(_NAMES) + self._part(_COLONS) + self._part(_VALUES)

    def _body(self, lines: list[bytes]) -> bytes:
        size = self._random.choice((0, 1, 3, 11))
        data = (b"GET / HTTP/1.1\r\nHost: b\r\n\r\n" * 2)[:size] if self._happens(0.3) else b"x" * size
        body = b""
        if self._happens(0.35):
            lines.append(b"Content-Length" + self._part(_COLONS) + self._number(_LENGTHS, size))
            body = data
            if self._happens(self._mistakes):
                lines.append(b"Content-Length: %d" % self._random.choice((size, size + 1)))
        if self._happens(self._mistakes if body else 0.35):
            lines.append(b"Transfer-Encoding" + self._part(_COLONS) + self._part(_CODINGS))
            body = self._chunks(data)
        return body

    def _chunks(self, data: bytes) -> bytes:
        pieces = []
        for _ in range(self._random.randrange(3)):
            if data:
                pieces += [self._number(_SIZES, len(data)), self._part(_ENDS), data, self._part(_ENDS)]
        trailer = self._field() + self._part(_ENDS)
        pieces += [
            self._number(_SIZES, 0),
            self._part(_ENDS),
            trailer if self._happens(0.2) else b"",
            self._part(_ENDS),
        ]
        return b"".join(pieces)
