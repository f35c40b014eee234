"""Cookies kept between requests, on disk if need be, and given back only to whom they belong.

Python 2: cookielib
Python 3: http.cookiejar
Gone since: -
Use instead: http.cookiejar still under urllib.request; a Session of requests or a Client of httpx keeps its own
Servers: gallery_web
"""

import tempfile
from http.cookiejar import DefaultCookiePolicy, LWPCookieJar
from pathlib import Path
from urllib.request import HTTPCookieProcessor, build_opener

from lab.tour.faulty import UNKNOWN_HOST, Failures

COUNTER = "http://gallery_web/cgi-bin/cookies.py"


def fetch(jar: LWPCookieJar) -> str:
    """What the counter answers to a client with these cookies."""
    with build_opener(HTTPCookieProcessor(jar)).open(COUNTER, timeout=10) as answer:
        return " ".join(answer.read().decode().split())


def visit() -> None:
    with tempfile.TemporaryDirectory() as directory:
        file = Path(directory) / "cookies.txt"
        jar = LWPCookieJar(str(file))
        print("first: ", fetch(jar))
        print("second:", fetch(jar))
        for cookie in jar:
            print(f"  {cookie.name}={cookie.value} for {cookie.domain}{cookie.path}")
        jar.save(ignore_discard=True)  # else without those that have no date of expiry

        later = LWPCookieJar(str(file))
        later.load(ignore_discard=True)
        print("another program, with the file:", fetch(later))
        later.clear()
        print("without cookies:", fetch(later))

    stubborn = LWPCookieJar(policy=DefaultCookiePolicy(allowed_domains=[]))
    fetch(stubborn)
    print("a jar that takes from nobody holds", len(stubborn), "cookies")


def failures() -> Failures:
    with tempfile.NamedTemporaryFile("w", suffix=".txt") as file:
        file.write("<html>not a jar</html>\n")
        file.flush()
        yield "a file that is no jar", lambda: LWPCookieJar(file.name).load()
    yield "no such file", lambda: LWPCookieJar("/tmp/none.txt").load()  # noqa: S108 - it is not there, nor shall be
    yield "unknown host", lambda: build_opener(HTTPCookieProcessor()).open(f"http://{UNKNOWN_HOST}/")
