"""HTTP, one message at a time on one connection: the layer below urllib.request.

Python 2: httplib
Python 3: http.client
Gone since: -
Use instead: still http.client to control each byte; httpx for HTTP/2, aiohttp for many concurrent requests
Servers: gallery_web
"""

import ssl
from collections.abc import Iterator
from http.client import HTTPConnection, HTTPSConnection

from lab.tour.accounts import ANN
from lab.tour.faulty import SHORT, UNKNOWN_HOST, Failures, breaking_off, silent

CA = "/run/secrets/tls_ca"


def get(connection: HTTPConnection, path: str = "/lines.txt") -> bytes:
    """Send a request and read the whole reply; without that, the connection accepts no further request."""
    connection.request("GET", path)
    return connection.getresponse().read()


def form() -> Iterator[bytes]:
    """Yield a body of unknown length: http.client sends it in chunks."""
    yield b"user="
    yield ANN.user.encode()


def visit() -> None:
    connection = HTTPConnection("gallery_web", timeout=10)
    connection.request("HEAD", "/lines.txt")
    reply = connection.getresponse()
    print("HEAD: ", reply.status, reply.reason, reply.getheader("Content-Length"), "bytes")
    reply.read()  # the reply to HEAD has no body, but must be read as well

    connection.request("GET", "/lines.txt", headers={"Range": "bytes=-8"})
    reply = connection.getresponse()
    print("range:", reply.status, reply.getheader("Content-Range"), reply.read())

    headers = {"Content-Type": "application/x-www-form-urlencoded"}
    connection.request("POST", "/cgi-bin/form.py", body=form(), headers=headers, encode_chunked=True)
    reply = connection.getresponse()
    print("POST: ", reply.status, " ".join(reply.read().decode().split()))

    connection.request("GET", "/missing")
    reply = connection.getresponse()
    print("an error status raises nothing:", reply.status, reply.reason)
    connection.close()

    secure = HTTPSConnection("gallery_web", timeout=10, context=ssl.create_default_context(cafile=CA))
    print("over TLS:", get(secure).count(b"\n"), "lines")
    secure.close()


def failures() -> Failures:
    yield "unknown host", lambda: get(HTTPConnection(UNKNOWN_HOST))
    yield "closed port", lambda: get(HTTPConnection("gallery_web", 9999))
    yield "untrusted certificate", lambda: get(HTTPSConnection("gallery_web"))
    connection = HTTPConnection("gallery_web")
    connection.request("GET", "/lines.txt")
    yield "second request before the first reply was read", lambda: get(connection)
    with breaking_off(b"", b"") as port:
        yield "server closes without a reply", lambda: get(HTTPConnection("127.0.0.1", port))
    with breaking_off(b"", b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nhalf of it") as port:
        yield "server closes in mid-transfer", lambda: get(HTTPConnection("127.0.0.1", port))
    with breaking_off(b"", b"220 gallery.test ESMTP\r\n") as port:
        yield "server of another protocol", lambda: get(HTTPConnection("127.0.0.1", port))
    with silent() as port:
        yield "no reply before the timeout", lambda: get(HTTPConnection("127.0.0.1", port, timeout=SHORT))
