"""URLs: split, assembled, and resolved against the page that contains them.

Python 2: urlparse
Python 3: urllib.parse
Gone since: -
Use instead: still urllib.parse; yarl or httpx's URL in a program that uses them
Servers: gallery_web
"""

from html.parser import HTMLParser
from urllib.parse import parse_qs, quote, unquote, urldefrag, urlencode, urljoin, urlsplit, urlunsplit
from urllib.request import urlopen

from lab.tour.faulty import Failures

PAGE = "http://gallery_web/"


class Links(HTMLParser):
    """Collect the addresses of a page's links."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self.found += [value for name, value in attributes if tag == "a" and name == "href" and value]


def visit() -> None:
    parts = urlsplit("http://ann@Gallery_Web:8080/cgi-bin/form.py?name=Ann+%26+Bob&n=1&n=2#end")
    print(parts)
    print("host and port:", parts.hostname, parts.port, "for", parts.username)
    print("query:", parse_qs(parts.query))
    print("assembled:", urlunsplit(parts._replace(netloc="gallery_web", query=urlencode({"n": [3, 4]}, doseq=True))))
    print("without its fragment:", urldefrag("http://gallery_web/#end").url)
    print("quoted and unquoted:", quote("grün & blau/"), unquote("gr%C3%BCn"))

    base = "http://gallery_web/docs/a/b.html"
    for link in ("c.html", "../c.html", "/c.html", "//other/c.html", "?page=2", "#end", "mailto:ann@gallery.test"):
        print(f"  {link:24} {urljoin(base, link)}")

    with urlopen(PAGE, timeout=10) as page:
        links = Links()
        links.feed(page.read().decode())
    print("links of the page:")
    for link in links.found:
        print(" ", urljoin(PAGE, link))


def failures() -> Failures:
    yield "port that is not a number", lambda: urlsplit("http://gallery_web:http/").port
    yield "port out of range", lambda: urlsplit("http://gallery_web:65536/").port
    yield "incomplete IPv6 address", lambda: urlsplit("http://[::1/")
    yield "field without a value, in strict mode", lambda: parse_qs("name", strict_parsing=True)
    yield "too many fields", lambda: parse_qs("a=1&a=2&a=3", max_num_fields=2)
