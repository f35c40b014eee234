"""HTTP by a chain of handlers: passwords, redirects, headers, errors.

Python 2: urllib2
Python 3: urllib.request, urllib.error
Gone since: -
Use instead: requests or httpx; urllib.request if no package can be installed
Servers: gallery_web
"""

import ssl
from urllib.error import HTTPError
from urllib.request import (
    HTTPBasicAuthHandler,
    HTTPDigestAuthHandler,
    HTTPPasswordMgrWithDefaultRealm,
    HTTPRedirectHandler,
    OpenerDirector,
    Request,
    build_opener,
    urlopen,
)

from lab.tour.accounts import ANN, WRONG_PASSWORD
from lab.tour.faulty import SHORT, UNKNOWN_HOST, Failures, breaking_off, silent

HOST = "http://gallery_web"


class StayHere(HTTPRedirectHandler):
    """Follow no redirect: urlopen then raises it as an HTTPError."""

    def redirect_request(self, *arguments: object) -> None:
        return None


def open_with_password(user: str, password: str) -> OpenerDirector:
    """Return an opener that knows a password, for Basic and for Digest authentication."""
    passwords = HTTPPasswordMgrWithDefaultRealm()
    passwords.add_password(None, HOST, user, password)  # None: for every realm of the host
    return build_opener(HTTPBasicAuthHandler(passwords), HTTPDigestAuthHandler(passwords))


def visit() -> None:
    opener = open_with_password(ANN.user, ANN.password)
    for way in ("basic", "digest"):
        with opener.open(f"{HOST}/{way}/secret.txt", timeout=10) as reply:
            print(f"{way}:", reply.status, reply.read().decode().strip())

    request = Request(f"{HOST}/lines.txt", headers={"Range": "bytes=0-6", "User-Agent": "socketlab"})
    with urlopen(request, timeout=10) as reply:
        print("a range:", reply.status, reply.headers["Content-Range"], reply.read())
    with urlopen(Request(f"{HOST}/lines.txt", method="HEAD"), timeout=10) as reply:
        print("a HEAD: ", reply.status, reply.headers["Content-Length"], "bytes, received:", len(reply.read()))

    with urlopen(f"{HOST}/redirect", timeout=10) as reply:
        print("redirected to", reply.geturl())
    try:
        build_opener(StayHere).open(f"{HOST}/redirect", timeout=10)
    except HTTPError as error:  # a reply too: it has a status, headers and a body
        print("not redirected:", error.code, error.headers["Location"])
        error.close()


def failures() -> Failures:
    yield "no password", lambda: urlopen(f"{HOST}/basic/secret.txt")
    opener = open_with_password(ANN.user, WRONG_PASSWORD)
    yield "wrong password (Basic)", lambda: opener.open(f"{HOST}/basic/secret.txt")
    yield "wrong password (Digest)", lambda: opener.open(f"{HOST}/digest/secret.txt")
    yield "missing file", lambda: urlopen(f"{HOST}/missing")
    yield "unknown host", lambda: urlopen(f"http://{UNKNOWN_HOST}/")
    yield "untrusted certificate", lambda: urlopen("https://gallery_web/", context=ssl.create_default_context())
    with breaking_off(b"", b"") as port:
        yield "server closes without a reply", lambda: urlopen(f"http://127.0.0.1:{port}/")
    with silent() as port:
        yield "no reply before the timeout", lambda: urlopen(f"http://127.0.0.1:{port}/", timeout=SHORT)
