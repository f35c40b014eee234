"""The header of a cookie, parsed and built: as a server writes it, and as a client sends it back.

Python 2: Cookie
Python 3: http.cookies
Gone since: -
Use instead: still http.cookies in a plain CGI or WSGI program; web frameworks have their own
Servers: gallery_web
"""

from http.client import HTTPConnection
from http.cookies import SimpleCookie

from lab.tour.faulty import Failures


def fetch(cookies: SimpleCookie) -> tuple[SimpleCookie, str]:
    """Send a request with these cookies; return the cookies of the reply, and its text."""
    connection = HTTPConnection("gallery_web", timeout=10)
    # A client sends only names and values: the attributes are instructions for itself.
    pairs = "; ".join(f"{name}={morsel.coded_value}" for name, morsel in cookies.items())
    connection.request("GET", "/cgi-bin/cookies.py", headers={"Cookie": pairs} if pairs else {})
    reply = connection.getresponse()
    received = SimpleCookie()
    for header in reply.headers.get_all("Set-Cookie") or []:
        received.load(header)
    text = reply.read().decode()
    connection.close()
    return received, " ".join(text.split())


def visit() -> None:
    cookies, text = fetch(SimpleCookie())
    print("first: ", text)
    for name, morsel in cookies.items():
        attributes = {key: value for key, value in morsel.items() if value}
        print(f"  {name} = {morsel.value!r} {attributes}")
    print("second:", fetch(cookies)[1])

    ours = SimpleCookie()
    ours["flavour"] = 'oat; "raisin"'  # characters that a header cannot carry are quoted
    ours["flavour"]["path"] = "/cgi-bin/"
    ours["flavour"]["httponly"] = True
    ours["flavour"]["samesite"] = "Lax"
    print("a server writes:", ours.output())
    print("a client reads: ", SimpleCookie(ours["flavour"].OutputString())["flavour"].value)

    malformed = SimpleCookie("good=1; what is this; lost=2")
    print("from a malformed header:", dict(malformed))  # no exception: all cookies are dropped


def failures() -> Failures:
    yield "invalid name", lambda: SimpleCookie({"a b": "1"})
    yield "attribute as a name", lambda: SimpleCookie({"expires": "never"})

    def misspell() -> None:
        cookies = SimpleCookie({"a": "1"})
        cookies["a"]["same-site"] = "Lax"

    yield "unknown attribute", misspell
