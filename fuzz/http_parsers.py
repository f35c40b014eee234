"""Three parsers of HTTP behind one function each: ours, h11, and llhttp (httptools, which Node and uvicorn use)."""

from collections.abc import Callable
from dataclasses import dataclass, field

import h11
import httptools

from services.protocol import Limits
from services.protocol.clock import StoppedClock
from services.protocol.http.body import Body
from services.protocol.http.errors import HttpError
from services.protocol.http.head import HeadReader

# The fields that decide something. Ours keeps no others.
FIELDS = frozenset((b"host", b"content-length", b"transfer-encoding", b"connection", b"expect", b"upgrade", b"accept"))

# How a stream ends: behind its last request, within one, at something that is none, at the end of the connection.
MORE, REFUSED, LAST = "more", "refused", "last"

_CLOCK, _LIMITS = StoppedClock(), Limits()


@dataclass(slots=True)
class Request:
    """A request, as a parser has read it.

    Args:
        end: the place in the stream behind it.
        target: as it was sent; of ours, its decoded path.
        is_kept: another request may follow.
    """

    method: bytes = b""
    target: bytes = b""
    fields: dict[bytes, list[bytes]] = field(default_factory=dict)
    body: bytes = b""
    end: int = 0
    is_kept: bool = True

    def add(self, name: bytes, value: bytes) -> None:
        """Add a field, if it decides something; h11 writes codings in lower case."""
        if name in FIELDS:
            self.fields.setdefault(name, []).append(value.lower() if name == b"transfer-encoding" else value)


@dataclass(slots=True)
class Parsed:
    """The requests of a stream.

    Args:
        ending: one of `MORE`, `REFUSED`, `LAST`.
        reason: of the refusal.
    """

    requests: list[Request] = field(default_factory=list)
    ending: str = MORE
    reason: str = ""


Parse = Callable[[bytes], Parsed]


def parse_own(stream: bytes) -> Parsed:
    parsed = Parsed()
    reader = HeadReader(_LIMITS, _CLOCK)
    reader.feed(stream)
    try:
        while (head := reader.next_head()) is not None:
            request = Request(head.method, head.path, is_kept=head.is_kept)
            for name, values in head.fields.values.items():
                for value in values:
                    request.add(name, value)
            body = Body(head.fields.length, reader, _LIMITS, _CLOCK)
            while not body.is_over:
                request.body += body.read()
                if body.is_starved and not body.is_over:
                    return parsed
            request.end = len(stream) - reader.left
            parsed.requests.append(request)
            if not head.is_kept:
                parsed.ending = LAST
                break
    except HttpError as error:
        parsed.ending, parsed.reason = REFUSED, str(error)
    return parsed


def parse_h11(stream: bytes) -> Parsed:
    parsed = Parsed()
    place = 0
    try:
        while place < len(stream):
            connection = h11.Connection(h11.SERVER, max_incomplete_event_size=1 << 20)
            connection.receive_data(stream[place:])
            request = Request()
            while not isinstance(event := connection.next_event(), h11.EndOfMessage):
                if isinstance(event, h11.Request):
                    request.method, request.target = event.method, event.target
                    for name, value in event.headers:
                        request.add(name, value)
                elif isinstance(event, h11.Data):
                    request.body += event.data
                else:
                    return parsed
            place = request.end = len(stream) - len(connection.trailing_data[0])
            # Until there is a reply, it leaves open what an Upgrade makes of the connection.
            connection.send(h11.Response(status_code=200, headers=[(b"Content-Length", b"0")]))
            request.is_kept = connection.their_state is not h11.MUST_CLOSE
            parsed.requests.append(request)
            if not request.is_kept:
                parsed.ending = LAST
                break
    except h11.RemoteProtocolError as error:
        parsed.ending, parsed.reason = REFUSED, str(error)
    return parsed


class _Calls:
    """What httptools calls."""

    def __init__(self) -> None:
        self.request = Request()
        self.parser = httptools.HttpRequestParser(self)
        self.is_complete = self._has_head = False

    def on_url(self, url: bytes) -> None:
        self.request.target += url

    def on_header(self, name: bytes, value: bytes) -> None:
        if not self._has_head:  # else it is a trailer
            self.request.add(name.lower(), value.strip(b" \t"))

    def on_headers_complete(self) -> None:
        self._has_head = True

    def on_body(self, body: bytes) -> None:
        self.request.body += body

    def on_message_complete(self) -> None:
        self.is_complete = True
        # It forgets this at the end of a message, which is behind this call.
        self.request.is_kept = self.parser.should_keep_alive()


def parse_httptools(stream: bytes) -> Parsed:
    """It does not tell where a request ends, so it gets one byte after the other."""
    parsed = Parsed()
    calls = _Calls()
    for place in range(len(stream)):
        is_upgrade = False
        try:
            calls.parser.feed_data(stream[place : place + 1])
        except httptools.HttpParserUpgrade:
            is_upgrade = True
        except httptools.HttpParserError as error:
            parsed.ending, parsed.reason = REFUSED, str(error)
            break
        if calls.is_complete:
            request = calls.request
            request.end, request.method = place + 1, calls.parser.get_method()
            request.is_kept = request.is_kept or is_upgrade
            parsed.requests.append(request)
            if not request.is_kept:
                parsed.ending = LAST
                break
            calls = _Calls()
    return parsed


OTHERS: dict[str, Parse] = {"h11": parse_h11, "httptools": parse_httptools}
