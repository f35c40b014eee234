"""Cookies kept between requests, optionally on disk, and returned only to the sites that set them.

Python 2: cookielib
Python 3: http.cookiejar
Gone since: -
Use instead: still http.cookiejar with urllib.request; a Session of requests or a Client of httpx keeps its own
Servers: gallery_web
"""

import tempfile
from http.cookiejar import DefaultCookiePolicy, LWPCookieJar
from pathlib import Path
from urllib.request import HTTPCookieProcessor, build_opener

from lab.tour.faulty import UNKNOWN_HOST, Failures

COUNTER = "http://gallery_web/cgi-bin/cookies.py"


def fetch(jar: LWPCookieJar) -> str:
    """Return the reply of the counter to a client with these cookies."""
    with build_opener(HTTPCookieProcessor(jar)).open(COUNTER, timeout=10) as reply:
        return " ".join(reply.read().decode().split())


def visit() -> None:
    with tempfile.TemporaryDirectory() as directory:
        file = Path(directory) / "cookies.txt"
        jar = LWPCookieJar(str(file))
        print("first: ", fetch(jar))
        print("second:", fetch(jar))
        for cookie in jar:
            print(f"  {cookie.name}={cookie.value} for {cookie.domain}{cookie.path}")
        jar.save(ignore_discard=True)  # the default omits cookies without an expiry date

        later = LWPCookieJar(str(file))
        later.load(ignore_discard=True)
        print("another program with the file:", fetch(later))
        later.clear()
        print("without cookies:", fetch(later))

    refusing = LWPCookieJar(policy=DefaultCookiePolicy(allowed_domains=[]))
    fetch(refusing)
    print("cookies in a jar that accepts none:", len(refusing))


def failures() -> Failures:
    with tempfile.NamedTemporaryFile("w", suffix=".txt") as file:
        file.write("<html>not a jar</html>\n")
        file.flush()
        yield "file in another format", lambda: LWPCookieJar(file.name).load()
    yield "missing file", lambda: LWPCookieJar("/tmp/none.txt").load()  # noqa: S108 - it must not exist
    yield "unknown host", lambda: build_opener(HTTPCookieProcessor()).open(f"http://{UNKNOWN_HOST}/")
