"""The rules of a site for programs that visit it: which pages they may fetch, and how often.

Python 2: robotparser
Python 3: urllib.robotparser
Gone since: -
Use instead: still urllib.robotparser; protego, part of Scrapy, supports wildcards too
Servers: gallery_web
"""

from urllib.robotparser import RobotFileParser

from lab.tour.faulty import UNKNOWN_HOST, Failures

SITE = "http://gallery_web"
AGENT = "socketlab"


def read(url: str) -> RobotFileParser:
    """Fetch the rules of a site."""
    rules = RobotFileParser(url)
    rules.read()
    return rules


def visit() -> None:
    rules = read(f"{SITE}/robots.txt")
    for path in ("/", "/lines.txt", "/private/", "/private/diary.txt"):
        print(f"{path:20} {'may' if rules.can_fetch(AGENT, SITE + path) else 'must not'} be fetched")
    print("seconds between requests:", rules.crawl_delay(AGENT))
    print("requests per seconds:    ", rules.request_rate(AGENT))
    print("site maps:               ", rules.site_maps())

    absent = read(f"{SITE}/missing")
    print("no robots.txt, no rules: ", absent.can_fetch(AGENT, f"{SITE}/private/"))
    locked = read(f"{SITE}/basic/secret.txt")
    print("behind a password:       ", locked.can_fetch(AGENT, f"{SITE}/"))
    unread = RobotFileParser(f"{SITE}/robots.txt")
    print("never read:              ", unread.can_fetch(AGENT, f"{SITE}/"))


def failures() -> Failures:
    # No status raises: 401 and 403 forbid every page, other 4xx allow every page.
    yield "unknown host", lambda: read(f"http://{UNKNOWN_HOST}/robots.txt")
    yield "closed port", lambda: read("http://gallery_web:9999/robots.txt")
    yield "untrusted certificate", lambda: read("https://gallery_web/robots.txt")
