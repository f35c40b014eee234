"""What a small GET costs without I/O: this project's parser, httptools and h11.

    python -m benchmarks.http_parser

Install the other two where it runs: `pip install httptools h11`; what is missing has no row.

Columns, in microseconds of CPU time: `head` takes the head apart; `core` is what a model pays for the request and its
reply, from `receive_data` to `next_event` returning None, or the same for the other parsers with a reply made by hand
(h11: by h11). `repeated` is a client that sends the same fields each time, as clients do; with `varied` no two heads in
a row are alike. Each figure is the median over repeats; all contestants run one after the other within a repeat, in a
shuffled order.
"""

import argparse
import importlib
import importlib.util
import platform
from collections.abc import Callable, Sequence
from itertools import cycle
from statistics import median
from typing import Any

from benchmarks.figures import Contestant, time_calls
from services.protocol import Connection, Limits
from services.protocol.clock import StoppedClock
from services.protocol.http.head import HeadReader

_HEAD = (
    b"GET /ping HTTP/1.1\r\nHost: 127.0.0.1:8080\r\nUser-Agent: python-requests/2.32.3\r\n"
    b"Accept-Encoding: gzip, deflate\r\nAccept: */*\r\nConnection: keep-alive\r\nX-Request-Id: %04d\r\n\r\n"
)
_DATE = b"Thu, 01 Jan 1970 00:00:00 GMT"
_BODY = b"PONG\n"
_REPLY = b"HTTP/1.1 200 OK\r\nDate: %b\r\nContent-Type: text/plain; charset=utf-8\r\nContent-Length: %d\r\n\r\n%b"

Run = Callable[[bytes], object]


def own_head() -> Run:
    """Read heads with this project's reader."""
    reader = HeadReader(Limits(), StoppedClock())

    def run(data: bytes) -> object:
        reader.feed(data)
        return reader.next_head()

    return run


def own_core() -> Run:
    """Answer requests with this project's core."""
    connection = Connection("http")

    def run(data: bytes) -> object:
        connection.receive_data(data)
        event = connection.next_event()
        connection.next_event()
        return event

    return run


class _Collected:
    """What httptools calls back: as much as a server has to keep."""

    def __init__(self) -> None:
        self.url = b""
        self.headers: list[tuple[bytes, bytes]] = []
        self.is_over = False

    def on_url(self, url: bytes) -> None:
        self.url += url

    def on_header(self, name: bytes, value: bytes) -> None:
        self.headers.append((name.lower(), value))

    def on_message_complete(self) -> None:
        self.is_over = True


def httptools_head(*, with_reply: bool = False) -> Run:
    """Read heads with httptools."""
    make: Any = importlib.import_module("httptools").HttpRequestParser
    collected = _Collected()
    parser = make(collected)

    def run(data: bytes) -> object:
        collected.url = b""
        collected.headers = []
        parser.feed_data(data)
        method, keep, version = parser.get_method(), parser.should_keep_alive(), parser.get_http_version()
        if with_reply:
            return _REPLY % (_DATE, len(_BODY), _BODY)
        return method, keep, version

    return run


def httptools_core() -> Run:
    """Answer requests with httptools, and no check of Host, limit or route."""
    return httptools_head(with_reply=True)


def h11_head(*, with_reply: bool = False) -> Run:
    """Read heads with h11."""
    h11: Any = importlib.import_module("h11")
    connection = h11.Connection(h11.SERVER)
    fields = [("Date", _DATE), ("Content-Type", "text/plain; charset=utf-8"), ("Content-Length", str(len(_BODY)))]

    def run(data: bytes) -> object:
        connection.receive_data(data)
        request = connection.next_event()
        connection.next_event()
        if not with_reply:
            # Nothing else makes it ready for the next request.
            connection.__init__(h11.SERVER)
            return request
        reply = connection.send(h11.Response(status_code=200, headers=fields))
        reply += connection.send(h11.Data(data=_BODY)) + connection.send(h11.EndOfMessage())
        connection.start_next_cycle()
        return reply

    return run


def h11_core() -> Run:
    """Answer requests with h11."""
    return h11_head(with_reply=True)


def measure(runs: dict[str, Run], requests: Sequence[bytes], repeats: int) -> dict[str, float]:
    """Return the median of microseconds per request for each contestant."""
    contestants = {name: Contestant(feed(run, requests), 2000) for name, run in runs.items()}
    return {name: median(values) for name, values in time_calls(contestants, repeats).items()}


def feed(run: Run, requests: Sequence[bytes]) -> Callable[[], object]:
    """Return a function that gives a contestant the next request each time, over and over."""
    source = cycle(requests)
    return lambda: run(next(source))


def main() -> None:
    """Print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=21)
    options = parser.parse_args()
    names = ["own", *(name for name in ("httptools", "h11") if importlib.util.find_spec(name))]
    makers: dict[str, dict[str, Callable[[], Run]]] = {
        "head": {"own": own_head, "httptools": httptools_head, "h11": h11_head},
        "core": {"own": own_core, "httptools": httptools_core, "h11": h11_core},
    }
    streams = {"repeated": [_HEAD % 0], "varied": [_HEAD % number for number in range(100)]}
    print(f"Python {platform.python_version()}, {platform.machine()}; microseconds per request")
    columns = [(what, kind) for what in makers for kind in streams]
    print(f"{'':10}" + "".join(f"{f'{what} {kind}':>16}" for what, kind in columns))
    figures = {
        column: measure({name: makers[column[0]][name]() for name in names}, streams[column[1]], options.repeats)
        for column in columns
    }
    for name in names:
        print(f"{name:10}" + "".join(f"{figures[column][name]:16.2f}" for column in columns))


if __name__ == "__main__":
    main()
