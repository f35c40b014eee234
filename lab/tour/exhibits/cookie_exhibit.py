"""The header of a cookie, taken apart and put together: what a server writes, and what a client sends back.

Python 2: Cookie
Python 3: http.cookies
Gone since: -
Use instead: http.cookies still in a bare CGI or WSGI program; every web framework has its own
Servers: gallery_web
"""

from http.client import HTTPConnection
from http.cookies import SimpleCookie

from lab.tour.faulty import Failures


def fetch(cookies: SimpleCookie) -> tuple[SimpleCookie, str]:
    """One request with these cookies; the cookies of the answer, and its text."""
    link = HTTPConnection("gallery_web", timeout=10)
    # A client names and values them, and no more: attributes are for its eyes only.
    pairs = "; ".join(f"{name}={morsel.coded_value}" for name, morsel in cookies.items())
    link.request("GET", "/cgi-bin/cookies.py", headers={"Cookie": pairs} if pairs else {})
    answer = link.getresponse()
    received = SimpleCookie()
    for header in answer.headers.get_all("Set-Cookie") or []:
        received.load(header)
    text = answer.read().decode()
    link.close()
    return received, " ".join(text.split())


def visit() -> None:
    cookies, text = fetch(SimpleCookie())
    print("first: ", text)
    for name, morsel in cookies.items():
        attributes = {key: value for key, value in morsel.items() if value}
        print(f"  {name} = {morsel.value!r} {attributes}")
    print("second:", fetch(cookies)[1])

    ours = SimpleCookie()
    ours["flavour"] = 'oat; "raisin"'  # what a header cannot carry is quoted, and unquoted when it comes back
    ours["flavour"]["path"] = "/cgi-bin/"
    ours["flavour"]["httponly"] = True
    ours["flavour"]["samesite"] = "Lax"
    print("a server writes:", ours.output())
    print("a client reads: ", SimpleCookie(ours["flavour"].OutputString())["flavour"].value)

    torn = SimpleCookie("good=1; what is this; lost=2")
    print("of a header that is none:", dict(torn))  # it gives up in silence


def failures() -> Failures:
    yield "a name that cannot be one", lambda: SimpleCookie({"a b": "1"})
    yield "an attribute as a name", lambda: SimpleCookie({"expires": "never"})

    def misspell() -> None:
        cookies = SimpleCookie({"a": "1"})
        cookies["a"]["same-site"] = "Lax"

    yield "an attribute that there is not", misspell
