"""HTTP one message at a time, on one connection: what urllib.request is made of.

Python 2: httplib
Python 3: http.client
Gone since: -
Use instead: http.client still where each byte counts; httpx for HTTP/2, aiohttp for many requests at once
Servers: gallery_web
"""

import ssl
from collections.abc import Iterator
from http.client import HTTPConnection, HTTPSConnection

from lab.tour.accounts import ANN
from lab.tour.faulty import SHORT, UNKNOWN_HOST, Failures, breaking_off, silent

CA = "/run/secrets/tls_ca"


def get(link: HTTPConnection, path: str = "/lines.txt") -> bytes:
    """A request, and its answer read to the end: only then can the connection carry the next."""
    link.request("GET", path)
    return link.getresponse().read()


def form() -> Iterator[bytes]:
    """A body that is not known beforehand: it goes out in chunks."""
    yield b"user="
    yield ANN.user.encode()


def visit() -> None:
    link = HTTPConnection("gallery_web", timeout=10)
    link.request("HEAD", "/lines.txt")
    answer = link.getresponse()
    print("HEAD: ", answer.status, answer.reason, answer.getheader("Content-Length"), "bytes")
    answer.read()  # a HEAD has no body, but has to be brought to its end as well

    link.request("GET", "/lines.txt", headers={"Range": "bytes=-8"})
    answer = link.getresponse()
    print("range:", answer.status, answer.getheader("Content-Range"), answer.read())

    headers = {"Content-Type": "application/x-www-form-urlencoded"}
    link.request("POST", "/cgi-bin/form.py", body=form(), headers=headers, encode_chunked=True)
    answer = link.getresponse()
    print("POST: ", answer.status, " ".join(answer.read().decode().split()))

    link.request("GET", "/missing")
    answer = link.getresponse()
    print("no exception:", answer.status, answer.reason)
    link.close()

    secure = HTTPSConnection("gallery_web", timeout=10, context=ssl.create_default_context(cafile=CA))
    print("over TLS:", get(secure).count(b"\n"), "lines")
    secure.close()


def failures() -> Failures:
    yield "unknown host", lambda: get(HTTPConnection(UNKNOWN_HOST))
    yield "nobody listens", lambda: get(HTTPConnection("gallery_web", 9999))
    yield "an untrusted certificate", lambda: get(HTTPSConnection("gallery_web"))
    link = HTTPConnection("gallery_web")
    link.request("GET", "/lines.txt")
    yield "the next request too early", lambda: get(link)
    with breaking_off(b"", b"") as port:
        yield "server gone before it answered", lambda: get(HTTPConnection("127.0.0.1", port))
    with breaking_off(b"", b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nhalf of it") as port:
        yield "server gone in mid-transfer", lambda: get(HTTPConnection("127.0.0.1", port))
    with breaking_off(b"", b"220 gallery.test ESMTP\r\n") as port:
        yield "not HTTP at all", lambda: get(HTTPConnection("127.0.0.1", port))
    with silent() as port:
        yield "no answer in time", lambda: get(HTTPConnection("127.0.0.1", port, timeout=SHORT))
