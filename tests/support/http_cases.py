"""Requests, and what RFC 9110 and RFC 9112 say of them. Each case is named after its section: `9112-3.2-no-host`.

What is right stands in the case, and is not computed. Every request is for /, which any server answers.
"""

from dataclasses import dataclass

HOST = b"Host: lab.test\r\n"
NEXT = b"GET / HTTP/1.1\r\n" + HOST + b"\r\n"


@dataclass(frozen=True, slots=True)
class Case:
    """A request, and what must become of it.

    Args:
        name: the RFC, the section, and what is asked.
        statuses: of the reply; one of them.
        goes_on: the connection stays, and the next request is answered; else it ends after the reply.
        ours: the RFC leaves a choice, and this is what this lab has chosen.
    """

    name: str
    request: bytes
    statuses: frozenset[int]
    goes_on: bool
    ours: bool


CASES: list[Case] = []


def accept(name: str, request: bytes, *statuses: int, ours: bool = False) -> None:
    """The request is answered, and its end is where the RFC has it: the request behind it is answered too."""
    CASES.append(Case(name, request, frozenset(statuses or (200,)), goes_on=True, ours=ours))


def refuse(name: str, request: bytes, *statuses: int, ours: bool = False) -> None:
    """The request is refused, and nothing behind it is taken for a request."""
    CASES.append(Case(name, request, frozenset(statuses or (400,)), goes_on=False, ours=ours))


def get(fields: bytes = b"", line: bytes = b"GET / HTTP/1.1", host: bytes = HOST) -> bytes:
    return line + b"\r\n" + host + fields + b"\r\n"


def sized(length: bytes, body: bytes = b"") -> bytes:
    return get(b"Content-Length: " + length + b"\r\n") + body


def chunked(body: bytes, coding: bytes = b"chunked") -> bytes:
    return get(b"Transfer-Encoding: " + coding + b"\r\n") + body


# A request that would be answered with 404 if it were taken for one.
INNER = b"GET /smuggled HTTP/1.1\r\nHost: lab.test\r\n\r\n"
SIZE = b"%d" % len(INNER)
CHUNK = b"%x\r\n%b\r\n0\r\n\r\n" % (len(INNER), INNER)

# 9112, 2.2: lines.
accept("9112-2.2-empty-line-before-request", b"\r\n" + get())
refuse("9112-2.2-two-empty-lines-before-request", b"\r\n\r\n" + get(), ours=True)
refuse("9112-2.2-lines-end-in-lf", get().replace(b"\r\n", b"\n"), ours=True)
refuse("9112-2.2-request-line-ends-in-lf", get().replace(b"\r\n", b"\n", 1), ours=True)
refuse("9112-2.2-field-ends-in-lf", get(b"A: b\nC: d\r\n"), ours=True)
refuse("9112-2.2-cr-in-request-line", get(line=b"GET /\r HTTP/1.1"))
refuse("9112-2.2-cr-in-value", get(b"A: b\rc\r\n"), ours=True)
refuse("9112-2.2-cr-before-crlf", get(b"A: b\r\r\n"), ours=True)
refuse("9112-2.2-space-before-first-field", get(host=b" " + HOST), ours=True)
refuse("9112-2.2-tab-before-first-field", get(host=b"\t" + HOST), ours=True)
refuse("9112-2.2-not-http", b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n")
refuse("9112-2.2-words-of-another-protocol", b"EHLO lab.test\r\n\r\n")

# 9112, 2.3, and 9110, 2.5: versions.
refuse("9112-2.3-version-in-lower-case", get(line=b"GET / http/1.1"))
refuse("9112-2.3-version-without-minor", get(line=b"GET / HTTP/1"), 400, 505)
refuse("9112-2.3-version-with-two-digits", get(line=b"GET / HTTP/1.10"), 400, 505)
refuse("9112-2.3-version-with-comma", get(line=b"GET / HTTP/1,1"))
refuse("9112-2.3-name-of-another-protocol", get(line=b"GET / RTSP/1.0"), 400, 505)
accept("9110-2.5-higher-minor-version", get(line=b"GET / HTTP/1.9"))
refuse("9110-2.5-version-2.0", get(line=b"GET / HTTP/2.0"), 505, 400)
refuse("9110-2.5-version-0.9", get(line=b"GET / HTTP/0.9"), 505, 400)
refuse("9110-2.5-version-3.0", get(line=b"GET / HTTP/3.0"), 505, 400)
refuse("9110-15.6.6-preface-of-http-2", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 505, 400)

# 9112, 3: the request line.
refuse("9112-3-no-version", get(line=b"GET /"))
refuse("9112-3-one-word", get(line=b"GET"))
refuse("9112-3-two-spaces", get(line=b"GET  / HTTP/1.1"), ours=True)
refuse("9112-3-two-spaces-before-version", get(line=b"GET /  HTTP/1.1"), ours=True)
refuse("9112-3-tab", get(line=b"GET\t/ HTTP/1.1"), ours=True)
refuse("9112-3-space-before-method", get(line=b" GET / HTTP/1.1"))
refuse("9112-3-space-behind-version", get(line=b"GET / HTTP/1.1 "), ours=True)
refuse("9112-3-space-in-target", get(line=b"GET /a b HTTP/1.1"))
accept("9112-3-line-of-8000-bytes", get(line=b"GET /?%b HTTP/1.1" % (b"a" * 7984)))
refuse("9112-3-line-over-the-limit", get(line=b"GET /%b HTTP/1.1" % (b"a" * 9000)), 414, ours=True)
refuse("9112-3.1-method-is-no-token", get(line=b"G@T / HTTP/1.1"))
accept("9112-3.1-method-in-lower-case", get(line=b"get / HTTP/1.1"), 501, 405)
accept("9110-9.1-unknown-method", get(line=b"BREW / HTTP/1.1"), 501, 405)
accept("9110-9.1-unknown-method-with-a-body", get(b"Content-Length: 3\r\n", b"BREW / HTTP/1.1") + b"abc", 501, 405)

# 9112, 3.2: the target and Host.
accept("9112-3.2.1-query", get(line=b"GET /?a=b&c=%20/? HTTP/1.1"))
accept("9112-3.2.2-absolute-form", get(line=b"GET http://lab.test/ HTTP/1.1"))
accept("9112-3.2.2-absolute-form-with-port", get(line=b"GET http://lab.test:80/ HTTP/1.1"))
accept("9112-3.2.2-absolute-form-without-path", get(line=b"GET http://lab.test HTTP/1.1"))
accept("9112-3.2.2-absolute-form-with-query-alone", get(line=b"GET http://lab.test?a HTTP/1.1"))
accept("9112-3.2.2-scheme-in-upper-case", get(line=b"GET HTTP://lab.test/ HTTP/1.1"))
refuse("9112-3.2.2-absolute-form-without-host", get(line=b"GET http://lab.test/ HTTP/1.1", host=b""))
refuse("9112-3.2.2-absolute-form-of-ftp", get(line=b"GET ftp://lab.test/ HTTP/1.1"), ours=True)
refuse("9110-4.2.4-user-in-absolute-form", get(line=b"GET http://user@lab.test/ HTTP/1.1"), ours=True)
refuse("9110-4.2.1-no-host-in-absolute-form", get(line=b"GET http:///a HTTP/1.1"))
refuse("9112-3.2.3-authority-form-of-get", get(line=b"GET lab.test:80 HTTP/1.1"))
accept("9110-9.3.6-connect", get(line=b"CONNECT lab.test:80 HTTP/1.1"), 501, 405, ours=True)
accept("9112-3.2.4-options-of-the-server", get(line=b"OPTIONS * HTTP/1.1"), 200, 204)
refuse("9112-3.2.4-asterisk-of-get", get(line=b"GET * HTTP/1.1"))
refuse("9112-3.2-relative-target", get(line=b"GET a HTTP/1.1"))
refuse("9112-3.2-fragment", get(line=b"GET /#a HTTP/1.1"), ours=True)
refuse("9112-3.2-high-byte-in-target", get(line=b"GET /\xe9 HTTP/1.1"), ours=True)
refuse("9112-3.2-nul-in-target", get(line=b"GET /\0 HTTP/1.1"))
refuse("9112-3.2-backslash-in-target", get(line=b"GET /\\ HTTP/1.1"), ours=True)
refuse("3986-2.1-percent-without-digits", get(line=b"GET /%zz HTTP/1.1"), ours=True)
refuse("9112-3.2-no-host", get(host=b""))
refuse("9112-3.2-two-hosts", get(b"Host: other.test\r\n"))
refuse("9112-3.2-host-twice", get(HOST))
refuse("9112-3.2-two-hosts-in-1.0", get(b"Host: other.test\r\n", b"GET / HTTP/1.0"))
refuse("9112-3.2-host-with-space", get(host=b"Host: lab test\r\n"))
refuse("9112-3.2-host-with-path", get(host=b"Host: lab.test/a\r\n"))
refuse("9112-3.2-host-with-user", get(host=b"Host: user@lab.test\r\n"))
refuse("9112-3.2-host-with-two-ports", get(host=b"Host: lab.test:80:80\r\n"))
refuse("9112-3.2-host-with-port-of-letters", get(host=b"Host: lab.test:http\r\n"))
refuse("9112-3.2-host-list", get(host=b"Host: lab.test, other.test\r\n"))
accept("9112-3.2-host-with-port", get(host=b"Host: lab.test:8080\r\n"))
accept("9112-3.2-host-is-ipv6", get(host=b"Host: [::1]:8080\r\n"))
accept("9112-3.2-host-is-empty", get(host=b"Host:\r\n"), ours=True)
accept("9110-5.1-name-in-upper-case", get(host=b"HOST: lab.test\r\n"))

# 9112, 5, and 9110, 5: fields.
refuse("9112-5-no-colon", get(b"Abc\r\n"))
refuse("9112-5-empty-name", get(b": b\r\n"))
refuse("9112-5-space-in-name", get(b"A b: c\r\n"))
refuse("9112-5.1-space-before-colon", get(b"Abc : d\r\n"))
refuse("9112-5.1-tab-before-colon", get(b"Abc\t: d\r\n"))
refuse("9112-5.1-space-before-colon-of-length", get(b"Content-Length : 3\r\n") + b"abc")
refuse("9112-5.1-space-before-colon-of-coding", get(b"Transfer-Encoding : chunked\r\n") + CHUNK)
accept("9112-5.1-no-space-behind-colon", get(b"Abc:d\r\n"))
accept("9112-5.1-blanks-around-value", get(b"Abc: \t d \t \r\n"))
accept("9112-5.1-blanks-around-length", sized(b"\t 3 \t", b"abc"))
accept("9110-5.5-empty-value", get(b"Abc:\r\n"))
refuse("9112-5.2-folded-line", get(b"Abc: d\r\n e\r\n"), ours=True)
refuse("9112-5.2-line-folded-with-tab", get(b"Abc: d\r\n\te\r\n"), ours=True)
refuse("9112-5.2-folded-coding", get(b"Transfer-Encoding:\r\n chunked\r\n") + CHUNK, ours=True)
accept("9110-5.6.2-every-character-of-a-token", get(b"!#$%&'*+-.^_`|~09AZaz: b\r\n"))
accept("9110-5.5-high-bytes-in-value", get(b"Abc: \x80\xff\r\n"))
refuse("9110-5.1-high-byte-in-name", get(b"Ab\xe9: c\r\n"))
refuse("9110-5.1-nul-in-name", get(b"Ab\0: c\r\n"))
refuse("9110-5.1-parenthesis-in-name", get(b"Ab(c): d\r\n"))
refuse("9110-5.5-nul-in-value", get(b"Abc: d\0e\r\n"), ours=True)
refuse("9110-5.5-escape-in-value", get(b"Abc: d\x1be\r\n"), ours=True)
refuse("9110-5.5-del-in-value", get(b"Abc: d\x7fe\r\n"), ours=True)
accept("9110-5.4-ninety-fields", get(b"".join(b"A%d: b\r\n" % number for number in range(90))))
refuse("6585-5-too-many-fields", get(b"A: b\r\n" * 200), 431, ours=True)
refuse("6585-5-too-long-a-field", get(b"A: %b\r\n" % (b"b" * 40_000)), 431, ours=True)
accept("9110-5.3-a-list-in-two-fields", get(b"Accept: a/b\r\nAccept: c/d\r\n"))

# 9112, 6: where the body ends. The body is a request, which must not be taken for one.
accept("9112-6.2-length", sized(SIZE, INNER))
accept("9112-6.2-length-0", sized(b"0"))
accept("9112-6.2-length-with-leading-zeros", sized(b"00" + SIZE, INNER))
accept("9112-6.3-no-length-is-no-body", get(b"Content-Type: text/plain\r\n"))
for name, length in {
    "sign": b"+3",
    "negative": b"-3",
    "hexadecimal": b"0x3",
    "fraction": b"3.0",
    "space": b"3 3",
    "list": b"3, 4",
    "empty": b"",
    "underscore": b"1_0",
    "letters": b"three",
    "other-digits": "٣".encode(),
    "vertical-tab": b"\x0b3",
}.items():
    refuse(f"9112-6.3-length-{name}", sized(length, b"abc"))
refuse("9112-6.3-two-lengths", get(b"Content-Length: 3\r\nContent-Length: 4\r\n") + b"abc")
refuse("9112-6.3-length-twice", get(b"Content-Length: 3\r\nContent-Length: 3\r\n") + b"abc", ours=True)
refuse("9112-6.3-length-list-of-equals", sized(b"3, 3", b"abc"), ours=True)
refuse("9112-6.3-length-of-20-digits", sized(b"9" * 20), 400, 413)
refuse("9112-6.3-length-of-65-bits", sized(b"18446744073709551619", b"abc"), 400, 413)
refuse("9112-6.1-length-and-coding", get(b"Content-Length: 3\r\nTransfer-Encoding: chunked\r\n") + CHUNK, ours=True)
refuse("9112-6.1-coding-and-length", get(b"Transfer-Encoding: chunked\r\nContent-Length: 3\r\n") + CHUNK, ours=True)
refuse("9112-6.1-coding-in-1.0", get(b"Transfer-Encoding: chunked\r\n", b"GET / HTTP/1.0") + CHUNK, ours=True)
accept("9112-6.1-coding-in-upper-case", chunked(CHUNK, b"CHUNKED"))
refuse("9112-6.1-unknown-coding", chunked(CHUNK, b"unknown, chunked"), 501, 400)
refuse("9112-6.1-gzip-and-chunked", chunked(CHUNK, b"gzip, chunked"), 501, 400, ours=True)
refuse("9112-6.3-final-coding-is-not-chunked", chunked(CHUNK, b"chunked, gzip"), 400, 501)
refuse("9112-6.3-coding-without-chunked", chunked(CHUNK, b"gzip"), 400, 501)
refuse("9112-6.3-coding-identity", chunked(CHUNK, b"identity"), 400, 501)
refuse("9112-6.3-coding-xchunked", chunked(CHUNK, b"xchunked"), 400, 501)
refuse("9112-6.3-coding-chunkedx", chunked(CHUNK, b"chunkedx"), 400, 501)
refuse("9112-6.3-coding-in-quotes", chunked(CHUNK, b'"chunked"'), 400, 501)
refuse("9112-6.3-coding-with-vertical-tab", chunked(CHUNK, b"\x0bchunked"), 400, 501)
refuse("9112-6.3-coding-with-parameter", chunked(CHUNK, b"chunked;a=b"), 400, 501, ours=True)
refuse("9112-6.3-coding-empty", chunked(CHUNK, b""), 400, 501, ours=True)
refuse("9112-7.1-chunked-twice", chunked(CHUNK, b"chunked, chunked"), 400, 501)
refuse("9112-7.1-chunked-in-two-fields", chunked(CHUNK, b"chunked\r\nTransfer-Encoding: chunked"), 400, 501)
refuse("9112-6.3-identity-in-a-second-field", chunked(CHUNK, b"chunked\r\nTransfer-Encoding: identity"), 400, 501)

# 9112, 7.1: chunks.
accept("9112-7.1-one-chunk", chunked(CHUNK))
accept("9112-7.1-no-chunk", chunked(b"0\r\n\r\n"))
accept("9112-7.1-several-chunks", chunked(b"1\r\na\r\n2\r\nbc\r\n0\r\n\r\n"))
accept("9112-7.1-digits-in-upper-case", chunked(b"A\r\n0123456789\r\n0\r\n\r\n"))
accept("9112-7.1-digits-in-lower-case", chunked(b"a\r\n0123456789\r\n0\r\n\r\n"))
accept("9112-7.1-leading-zeros", chunked(b"0003\r\nabc\r\n000\r\n\r\n"))
accept("9112-7.1-data-holds-cr-lf", chunked(b"7\r\n\r\n0\r\n\r\n\r\n0\r\n\r\n"))
for name, body in {
    "size-with-prefix": b"0x3\r\nabc\r\n0\r\n\r\n",
    "size-negative": b"-3\r\nabc\r\n0\r\n\r\n",
    "size-with-sign": b"+3\r\nabc\r\n0\r\n\r\n",
    "size-of-letters": b"g\r\nabc\r\n0\r\n\r\n",
    "size-with-underscore": b"1_0\r\nabc\r\n0\r\n\r\n",
    "size-empty": b"\r\nabc\r\n0\r\n\r\n",
    "space-before-size": b" 3\r\nabc\r\n0\r\n\r\n",
    "data-longer-than-size": b"3\r\nabcd\r\n0\r\n\r\n",
    "data-shorter-than-size": b"5\r\nabc\r\n0\r\n\r\n",
    "data-without-cr-lf": b"3\r\nabc0\r\n\r\n",
    "lf-behind-data": b"3\r\nabc\n0\r\n\r\n",
    "lf-behind-size": b"3\nabc\r\n0\r\n\r\n",
    "cr-behind-size": b"3\rabc\r\n0\r\n\r\n",
}.items():
    refuse(f"9112-7.1-{name}", chunked(body))
refuse("9112-7.1-space-behind-size", chunked(b"3 \r\nabc\r\n0\r\n\r\n"), ours=True)
refuse("9112-7.1-size-of-65-bits", chunked(b"10000000000000003\r\nabc\r\n0\r\n\r\n"), 400, 413)
refuse("9112-7.1-size-of-63-bits", chunked(b"7fffffffffffffff\r\nabc\r\n0\r\n\r\n"), 400, 413, ours=True)
accept("9112-7.1.1-extension", chunked(b"3;a\r\nabc\r\n0;b\r\n\r\n"))
accept("9112-7.1.1-extension-with-value", chunked(b"3;a=b;c=d\r\nabc\r\n0\r\n\r\n"))
accept("9112-7.1.1-extension-in-quotes", chunked(b'3;a=";\\"0"\r\nabc\r\n0\r\n\r\n'))
accept("9112-7.1.1-blanks-around-extension", chunked(b"3 ; a = b\r\nabc\r\n0\r\n\r\n"))
refuse("9112-7.1.1-extension-without-name", chunked(b"3;\r\nabc\r\n0\r\n\r\n"), ours=True)
refuse("9112-7.1.1-lf-in-extension", chunked(b"3;a\n\r\nabc\r\n0\r\n\r\n"), ours=True)
refuse("9112-7.1.1-cr-in-extension", chunked(b"3;a\rb\r\nabc\r\n0\r\n\r\n"))
refuse("9112-7.1.1-nul-in-extension", chunked(b"3;a\0\r\nabc\r\n0\r\n\r\n"))
refuse("9112-7.1.1-extension-over-the-limit", chunked(b"3;%b\r\nabc\r\n0\r\n\r\n" % (b"a" * 5000)), ours=True)
refuse("9112-7.1.1-many-extensions", chunked(b"1;%b\r\na\r\n" % (b"a" * 200) * 30 + b"0\r\n\r\n"), ours=True)
accept("9112-7.1.2-trailer", chunked(b"0\r\nAbc: d\r\n\r\n"))
accept("9112-7.1.2-trailer-behind-chunks", chunked(b"3\r\nabc\r\n0\r\nAbc: d\r\nEfg: h\r\n\r\n"))
accept("9110-6.5.1-length-in-trailer-is-ignored", chunked(b"0\r\nX-Content-Length: 5\r\n\r\n"))
refuse("9112-7.1.2-trailer-without-colon", chunked(b"0\r\nAbc\r\n\r\n"))
refuse("9112-7.1.2-space-before-colon-in-trailer", chunked(b"0\r\nAbc : d\r\n\r\n"))
refuse("9112-7.1.2-folded-trailer", chunked(b"0\r\nAbc: d\r\n e\r\n\r\n"), ours=True)
refuse("6585-5-too-many-trailers", chunked(b"0\r\n" + b"A: b\r\n" * 200 + b"\r\n"), 431, ours=True)

# 9112, 9, and 9110, 7.8 and 10.1.1: the connection.
refuse("9112-9.3-close", get(b"Connection: close\r\n"), 200)
refuse("9112-9.3-close-in-upper-case", get(b"Connection: CLOSE\r\n"), 200)
refuse("9112-9.3-close-in-a-list", get(b"Connection: keep-alive, close\r\n"), 200)
refuse("9112-9.3-close-in-a-second-field", get(b"Connection: keep-alive\r\nConnection: close\r\n"), 200)
refuse("9112-9.3-version-1.0", get(line=b"GET / HTTP/1.0"), 200)
refuse("9112-9.3-version-1.0-without-host", get(line=b"GET / HTTP/1.0", host=b""), 200)
accept("9112-9.3-keep-alive-in-1.0", get(b"Connection: keep-alive\r\n", b"GET / HTTP/1.0"), ours=True)
accept("9112-9.3-other-option", get(b"Connection: X-Something\r\nX-Something: a\r\n"))
accept("9110-7.8-unknown-upgrade-is-ignored", get(b"Connection: Upgrade\r\nUpgrade: unknown/1\r\n"))
accept("9110-7.8-upgrade-to-h2c-is-ignored", get(b"Connection: Upgrade\r\nUpgrade: h2c\r\n"))
accept("9110-7.8-websocket-elsewhere-is-ignored", get(b"Connection: Upgrade\r\nUpgrade: websocket\r\n"))
refuse("9110-10.1.1-unknown-expectation", get(b"Expect: more\r\n"), 417, ours=True)
accept("9110-10.1.1-expectation-without-a-body", get(b"Expect: 100-continue\r\n"), 200, ours=True)
accept("9110-10.1.1-expectation-with-the-body", sized(b"3\r\nExpect: 100-continue", b"abc"), 200, 100, ours=True)
accept("9110-14.2-unknown-range-unit-is-ignored", get(b"Range: lines=1-2\r\n"))
accept("9110-13.1-condition-that-holds", get(b'If-None-Match: "no-such-tag"\r\n'))
