"""HTTP by handlers that are put together: passwords, redirects, headers, errors.

Python 2: urllib2
Python 3: urllib.request, urllib.error
Gone since: -
Use instead: requests or httpx; urllib.request where nothing may be installed
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
    """Follows no redirect: it stays the error that the protocol makes of it."""

    def redirect_request(self, *arguments: object) -> None:
        return None


def open_with_password(user: str, password: str) -> OpenerDirector:
    """An opener that answers when a server asks for a password, in whichever of the two ways it asks."""
    passwords = HTTPPasswordMgrWithDefaultRealm()
    passwords.add_password(None, HOST, user, password)  # None: in every realm of that host
    return build_opener(HTTPBasicAuthHandler(passwords), HTTPDigestAuthHandler(passwords))


def visit() -> None:
    opener = open_with_password(ANN.user, ANN.password)
    for way in ("basic", "digest"):
        with opener.open(f"{HOST}/{way}/secret.txt", timeout=10) as answer:
            print(f"{way}:", answer.status, answer.read().decode().strip())

    request = Request(f"{HOST}/lines.txt", headers={"Range": "bytes=0-6", "User-Agent": "socketlab"})
    with urlopen(request, timeout=10) as answer:
        print("a range:", answer.status, answer.headers["Content-Range"], answer.read())
    with urlopen(Request(f"{HOST}/lines.txt", method="HEAD"), timeout=10) as answer:
        print("a HEAD: ", answer.status, answer.headers["Content-Length"], "bytes, of which came", len(answer.read()))

    with urlopen(f"{HOST}/redirect", timeout=10) as answer:
        print("redirected to", answer.geturl())
    try:
        build_opener(StayHere).open(f"{HOST}/redirect", timeout=10)
    except HTTPError as error:  # an answer as well, with status, headers and a body
        print("or not:", error.code, error.headers["Location"])
        error.close()


def failures() -> Failures:
    yield "no password", lambda: urlopen(f"{HOST}/basic/secret.txt")
    stranger = open_with_password(ANN.user, WRONG_PASSWORD)
    yield "wrong password (Basic)", lambda: stranger.open(f"{HOST}/basic/secret.txt")
    yield "wrong password (Digest)", lambda: stranger.open(f"{HOST}/digest/secret.txt")
    yield "missing file", lambda: urlopen(f"{HOST}/missing")
    yield "unknown host", lambda: urlopen(f"http://{UNKNOWN_HOST}/")
    yield "an untrusted certificate", lambda: urlopen("https://gallery_web/", context=ssl.create_default_context())
    with breaking_off(b"", b"") as port:
        yield "server gone before it answered", lambda: urlopen(f"http://127.0.0.1:{port}/")
    with silent() as port:
        yield "no answer in time", lambda: urlopen(f"http://127.0.0.1:{port}/", timeout=SHORT)
