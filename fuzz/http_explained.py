"""Why other parsers differ from ours, by section of RFC 9112 or RFC 9110, with a request for each.

An explanation is for one kind of difference, and only for a request that shows its cause (`evidence`).
"""

import re
from dataclasses import dataclass
from enum import StrEnum


class Kind(StrEnum):
    """What two parsers differ in."""

    END = "end"
    METHOD = "method"
    TARGET = "target"
    FIELDS = "fields"
    BODY = "body"
    KEPT = "kept"
    ONLY_OURS = "only ours"
    ONLY_THEIRS = "only theirs"


@dataclass(frozen=True, slots=True)
class Explanation:
    """A cause.

    Args:
        section: of the RFC.
        evidence: what a request has that shows the cause.
        example: a request that shows it.
    """

    kind: Kind
    parsers: tuple[str, ...]
    section: str
    why: str
    evidence: re.Pattern[bytes]
    example: bytes


EXPLAINED: list[Explanation] = []

_BOTH = ("h11", "httptools")
_H11, _HTTPTOOLS = _BOTH[:1], _BOTH[1:]
# From the beginning of a request on, within its head: what follows may be another request.
_IN_HEAD = rb"(?:(?!\r\n\r\n)[\s\S])*"
_HEAD = rb"\A[\r\n]*" + _IN_HEAD
_CHUNKED = b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n"


def explain(kind: Kind, parsers: tuple[str, ...], section: str, why: str, evidence: bytes, example: bytes) -> None:
    EXPLAINED.append(Explanation(kind, parsers, section, why, re.compile(evidence, re.IGNORECASE), example))


def accepted(section: str, why: str, evidence: bytes, example: bytes, parsers: tuple[str, ...] = _BOTH) -> None:
    """They accept what ours refuses."""
    explain(Kind.ONLY_THEIRS, parsers, section, why, evidence, example)


def refused(section: str, why: str, evidence: bytes, example: bytes, parsers: tuple[str, ...] = _BOTH) -> None:
    """They refuse what ours accepts."""
    explain(Kind.ONLY_OURS, parsers, section, why, evidence, example)


def get(fields: bytes = b"", line: bytes = b"GET / HTTP/1.1", host: bytes = b"Host: a\r\n") -> bytes:
    return line + b"\r\n" + host + fields + b"\r\n"


# The request line.
accepted(
    "9112-2.2",
    "LF alone may be taken for the end of a line; ours does not, since others do not",
    rb"(?<!\r)\n",
    b"GET / HTTP/1.1\nHost: a\r\n\r\n",
    _H11,
)
accepted(
    "9112-2.2",
    "an empty line may precede a request; ours skips one",
    rb"\A(?:\r?\n){2}|\A[\r\n]*(?:\r(?!\n)|(?<!\r)\n)",
    b"\r\n\r\n" + get(),
    _HTTPTOOLS,
)
accepted(
    "9112-3",
    "a line with another number of spaces may be accepted; ours does not",
    rb"\A[\r\n]*[^ \r\n]+(?: [\t ]|[^\r\n]*  |[^\r\n]* \r\n)",
    get(line=b"GET  / HTTP/1.1"),
    _HTTPTOOLS,
)
accepted(
    "9112-3",
    "a line without a version is one of HTTP/0.9, which is not spoken",
    rb"\A[\r\n]*[^ \r\n]+ +[^ \r\n]*\r?\n",
    get(line=b"GET /"),
    _HTTPTOOLS,
)
accepted(
    "9112-3.2",
    "a target has the characters of a URI and no fragment; others may be repaired, and ours does not",
    rb'\A[\r\n]*[^ \r\n]+ [^ \r\n]*(?:[^!-~]|[#\\"<>^`{|}]|%(?![0-9a-f]{2}))[^\r\n]* HTTP/',
    get(line=b"GET /a#b HTTP/1.1"),
)
accepted(
    "9112-3.2.4",
    "the target * is only for OPTIONS",
    rb"\A[\r\n]*(?!(?-i:OPTIONS) )[^ ]+ \* ",
    get(line=b"GET * HTTP/1.1"),
)
accepted(
    "9112-3.2.2",
    "a target that is no path must be an address: host, port, and no user information (RFC 9110, 4.2.4)",
    rb"\A[\r\n]*[^ ]+ (?!/|\* )"
    rb"(?!https?://(?=[^/? ])(?:\[[0-9a-f:.]+\]|[!$&'()*+,\-.0-9;=A-Z_a-z~%]*)(?::[0-9]{0,5})?[ /?])",
    get(line=b"GET http://u@a/ HTTP/1.1"),
)
accepted(
    "9110-15.6.6",
    "another major version is refused with 505",
    rb"\A[\r\n]*[^ ]+ [^ ]+ HTTP/[02-9]\.[0-9]",
    get(line=b"GET / HTTP/2.0"),
)
accepted(
    "9112-2.3",
    "the version is one of HTTP",
    rb"\A[\r\n]*[^ ]+ [^ ]+ (?!HTTP/)",
    get(line=b"GET / RTSP/1.0"),
    _HTTPTOOLS,
)

# Fields.
accepted(
    "9112-3.2",
    "HTTP/1.1 must have a Host",
    rb"\A[\r\n]*(?![^\r\n]* HTTP/1\.0\r)(?:(?!\nHost:|\r\n\r\n)[\s\S])*\r\n\r\n",
    get(host=b""),
    _HTTPTOOLS,
)
accepted(
    "9112-3.2",
    "so must any later version of HTTP/1 (RFC 9110, 2.5)",
    rb"\A[\r\n]*[^ ]+ [^ ]+ HTTP/1\.[2-9](?:(?!\nHost:|\r\n\r\n)[\s\S])*\r\n\r\n",
    get(line=b"GET / HTTP/1.2", host=b""),
    _H11,
)
accepted(
    "9112-3.2",
    "several Hosts are refused with 400",
    _HEAD + rb"\nHost:" + _IN_HEAD + rb"\nHost:",
    get(b"Host: b\r\n"),
    _HTTPTOOLS,
)
accepted(
    "9112-3.2",
    "a Host that is none is refused with 400",
    _HEAD
    + rb"\nHost:(?![\t ]*(?:\[[0-9a-f:.]+\]|(?:[!$&'()*+,\-.0-9;=A-Z_a-z~]|%[0-9a-f]{2})*)(?::[0-9]*)?[\t ]*\r\n)",
    get(host=b"Host: a b\r\n"),
)
accepted(
    "9112-3.2",
    "no port has more than five digits, though the grammar has no limit (RFC 3986, 3.2.3)",
    _HEAD + rb"\nHost:[^\n]*:[0-9]{6,}[\t ]*\r\n",
    get(host=b"Host: a:000080\r\n"),
)
accepted(
    "9112-5.2",
    "a folded line is refused with 400, or replaced",
    rb"\n[\t ]",
    get(b"A: b\r\n c\r\n"),
    _H11,
)
accepted(
    "9110-5.5",
    "a control character in a value is refused, or replaced",
    rb"[\x01-\x08\x0b\x0c\x0e-\x1f\x7f]|\r(?!\n)",
    get(b"A: \x01\r\n"),
    _H11,
)
accepted(
    "9112-6.1",
    "Content-Length with Transfer-Encoding may be refused",
    _HEAD + rb"\n(Content-Length|Transfer-Encoding):" + _IN_HEAD + rb"\n(?!\1)(?:Content-Length|Transfer-Encoding):",
    get(b"Content-Length: 0\r\nTransfer-Encoding: chunked\r\n") + b"0\r\n\r\n",
    _H11,
)
accepted(
    "9112-6.3",
    "equal lengths may be taken for one; ours does not",
    _HEAD + rb"\nContent-Length:(?:[^\n]*,|" + _IN_HEAD + rb"\nContent-Length:)",
    get(b"Content-Length: 0\r\nContent-Length: 0\r\n"),
    _H11,
)
accepted(
    "9112-6.1",
    "Transfer-Encoding in HTTP/1.0 must be treated as faulty",
    rb"\A[\r\n]*[^ ]+ [^ ]+ HTTP/1\.0(?=\r\n)" + _IN_HEAD + rb"\nTransfer-Encoding:",
    get(b"Transfer-Encoding: chunked\r\n", b"GET / HTTP/1.0") + b"0\r\n\r\n",
)
accepted(
    "9112-6.1",
    "a coding before chunked that is not known is refused with 501",
    _HEAD + rb"\nTransfer-Encoding:[^\n]*[^\s,][\t ]*,[\t ]*chunked",
    get(b"Transfer-Encoding: gzip, chunked\r\n") + b"0\r\n\r\n",
    _HTTPTOOLS,
)
accepted(
    "9110-5.6.1",
    "an empty element of a list may be ignored; in front of a coding ours refuses it",
    _HEAD + rb"\nTransfer-Encoding:[\t ]*,",
    get(b"Transfer-Encoding: ,chunked\r\n") + b"0\r\n\r\n",
    _HTTPTOOLS,
)

# Chunks.
accepted(
    "9112-7.1",
    "a size of more digits than 64 bits have may be refused, also if they are zeros",
    rb"\n[0-9a-f]{17,}",
    _CHUNKED + b"0" * 17 + b"\r\n\r\n",
)
accepted(
    "9112-7.1.1",
    "an extension has a name, and a value that is a token or quoted",
    rb"\n[0-9a-f]+[\t ]*;",
    _CHUNKED + b"0;a=\r\n\r\n",
)
accepted(
    "9112-7.1",
    "a size has nothing behind it but extensions",
    rb"\n[0-9a-f]+[\t ]+\r?\n",
    _CHUNKED + b"0 \r\n\r\n",
    _H11,
)

# What they refuse.
refused("9112-2.2", "an empty line before a request should be ignored", rb"\A\r\n", b"\r\n" + get(), _H11)
refused(
    "9110-2.5",
    "a higher minor version is treated as the highest one that is known",
    rb"\A[\r\n]*[^ ]+ [^ ]+ HTTP/1\.[2-9]",
    get(line=b"GET / HTTP/1.2"),
    _HTTPTOOLS,
)
refused(
    "9110-9.1",
    "a method is any token; ours answers one that is not known with 501",
    rb"\A[\r\n]*(?!(?:GET|HEAD|POST|PUT|OPTIONS|M-SEARCH|PURGE) )[!#$%&'*+\-.^_`|~0-9a-z]+ |\A(?-i:[\r\n]*[^ ]*[a-z])",
    get(line=b"X / HTTP/1.1"),
    _HTTPTOOLS,
)
refused(
    "9112-7.1.1",
    "blanks may stand around the parts of an extension",
    rb"\n[0-9a-f]+(?:;[^\r\n]*)?[\t ]+[;=]|\n[0-9a-f]+[\t ]*;(?:[^\r\n]*=)?[\t ]",
    _CHUNKED + b"0 ;a\r\n\r\n",
)
refused(
    "9110-5.5",
    "blanks around a value are no part of it",
    _HEAD + rb"\nTransfer-Encoding:[^\n]*[\t ]+\r\n",
    get(b"Transfer-Encoding: chunked \t\r\n") + b"0\r\n\r\n",
    _HTTPTOOLS,
)
refused(
    "9110-6.5.1",
    "a trailer decides nothing, whatever its name; ours drops it",
    rb"\n0+[^\n]*\r\n(?:(?!\r\n\r\n)[\s\S])*(?:Transfer-Encoding|Content-Length):",
    _CHUNKED + b"0\r\nTransfer-Encoding: chunked\r\n\r\n",
    _HTTPTOOLS,
)

# How the connection goes on, and where a request ends.
explain(
    Kind.KEPT,
    _H11,
    "9112-9.3",
    "HTTP/1.0 with keep-alive may persist; h11 closes",
    rb"\A[\r\n]*[^ ]+ [^ ]+ HTTP/1\.0(?=\r)(?:(?!\r\n\r\n)[\s\S])*\nConnection:[^\n]*keep-alive",
    get(b"Connection: keep-alive\r\n", b"GET / HTTP/1.0"),
)
explain(
    Kind.KEPT,
    _HTTPTOOLS,
    "9112-9.3",
    "close wins over keep-alive; with HTTP/1.0, httptools lets the connection persist",
    rb"\A(?=(?:(?!\r\n\r\n)[\s\S])*\nConnection:[^\n]*close)(?=(?:(?!\r\n\r\n)[\s\S])*keep-alive)",
    get(b"Connection: keep-alive\r\nConnection: close\r\n", b"GET / HTTP/1.0"),
)
explain(
    Kind.KEPT,
    _HTTPTOOLS,
    "9110-7.8",
    "an Upgrade of HTTP/1.0 is ignored, so the connection ends; httptools stops behind the head, for the new protocol",
    rb"\A[\r\n]*[^ ]+ [^ ]+ HTTP/1\.0(?=\r)"
    rb"(?=(?:(?!\r\n\r\n)[\s\S])*\nUpgrade:)(?:(?!\r\n\r\n)[\s\S])*\nConnection:[^\n]*upgrade",
    get(b"Upgrade: websocket\r\nConnection: upgrade\r\n", b"GET / HTTP/1.0"),
)
explain(
    Kind.END,
    _HTTPTOOLS,
    "9110-7.8",
    "a request with an Upgrade has a body like any other; httptools stops behind the head",
    rb"\A(?=(?:(?!\r\n\r\n)[\s\S])*\nUpgrade:)(?:(?!\r\n\r\n)[\s\S])*\nConnection:[^\n]*upgrade",
    get(b"Connection: upgrade\r\nUpgrade: websocket\r\nContent-Length: 1\r\n") + b"x",
)
