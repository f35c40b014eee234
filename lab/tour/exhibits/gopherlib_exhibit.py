"""Menus, texts and searches from before the web: a request is one line, a reply ends when the server closes.

Python 2: gopherlib
Python 3: -
Gone since: 2.6
Use instead: a socket, as here: the protocol (RFC 1436) needs no library
Servers: gallery_gopher
"""

import socket
from collections.abc import Iterator
from dataclasses import dataclass

from lab.tour.faulty import SHORT, UNKNOWN_HOST, Failures, breaking_off, silent

HOST = "gallery_gopher"
KINDS = {"0": "text", "1": "menu", "7": "search", "9": "binary", "i": "note"}


@dataclass(frozen=True)
class Item:
    """A line of a menu: its kind, its title, and the address that it links to."""

    kind: str
    title: str
    selector: str
    host: str
    port: int


def ask(selector: str, words: str = "", *, host: str = HOST, port: int = 70, timeout: float = 10) -> bytes:
    """Send a request and return the reply, as gopherlib's send_selector and send_query did."""
    request = f"{selector}\t{words}" if words else selector
    with socket.create_connection((host, port), timeout=timeout) as stream:
        stream.sendall(request.encode() + b"\r\n")
        return b"".join(iter(lambda: stream.recv(4096), b""))


def menu(reply: bytes) -> Iterator[Item]:
    """Parse a menu. Its last line is a dot.

    Raises:
        LookupError: an error of the server. The protocol has no status, so it arrives as an item or as plain text.
        EOFError: the last line is missing, so other lines may be missing as well.
    """
    for line in reply.decode().splitlines():
        if line == ".":
            return
        if line.startswith("3") or "\t" not in line:
            raise LookupError(line.lstrip("3").split("\t")[0])
        title, selector, host, port = line[1:].split("\t")[:4]
        yield Item(KINDS.get(line[0], line[0]), title, selector, host, int(port))
    raise EOFError("the menu ends without its last line")


def visit() -> None:
    items = list(menu(ask("")))
    for item in items:
        print(f"{item.kind:7} {item.title:40} {item.selector if item.kind != 'note' else ''}".rstrip())
    text = next(item for item in items if item.kind == "text")
    print(f"\n{text.title}:", ask(text.selector).decode().splitlines()[0])
    search = next(item for item in items if item.kind == "search")
    print("\nfound:", [item.title for item in menu(ask(search.selector, "gopher")) if item.kind != "note"])


def failures() -> Failures:
    yield "unknown selector", lambda: list(menu(ask("/none")))
    yield "search without a result", lambda: list(menu(ask("/cgi-bin/search.sh", "zebra")))
    yield "unknown host", lambda: ask("", host=UNKNOWN_HOST)
    yield "closed port", lambda: ask("", port=9999)
    with breaking_off(b"", b"0A text\t/a\tgallery_gopher\t70\r\n") as port:
        yield "server closes in mid-transfer", lambda: list(menu(ask("", host="127.0.0.1", port=port)))
    with silent() as port:
        yield "no reply before the timeout", lambda: ask("", host="127.0.0.1", port=port, timeout=SHORT)
