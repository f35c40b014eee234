"""The service `http`: HTTP/1.1 and HTTP/1.0 (RFC 9110, RFC 9112), with the work of `command` as routes.

docs/protocol/http.md lists the routes. WebSocket begins here, with an Upgrade on /ws, and goes on in `websocket.py`.
"""

import json
import re
from collections.abc import Callable, Iterator

from services.protocol.base import Service
from services.protocol.chargen import LINES
from services.protocol.clock import Clock
from services.protocol.command import blob_bytes
from services.protocol.errors import AdapterError
from services.protocol.events import SEND_SIZE, Close, Compute, Event, Send, Wait
from services.protocol.greet import GREETING
from services.protocol.http import replies
from services.protocol.http.body import Body
from services.protocol.http.errors import HttpError, quote
from services.protocol.http.handshake import HandshakeError, shake_hands
from services.protocol.http.head import CHUNKED, METHODS, Head, HeadReader
from services.protocol.http.page import POLICY, page
from services.protocol.http.websocket import WebSocket
from services.protocol.limits import Limits

# A handler returns a whole reply; or None if it has set `_work`, which then makes the reply.
Handler = Callable[["Http", Head], bytes | None]

_NUMBER = re.compile(rb"0|[1-9][0-9]{0,17}")
_MODEL = re.compile(r"^model:(.*?)\r?$", re.MULTILINE)

# The largest piece of a blob, and of the lines of chargen. Each is a whole number of periods, so pieces can be joined.
_PATTERN = blob_bytes(SEND_SIZE // 95 * 95)
_LINE_SIZE = len(LINES[0])
_BLOCK_LINES = SEND_SIZE // _LINE_SIZE // len(LINES) * len(LINES)
_BLOCK = b"".join(LINES) * (_BLOCK_LINES // len(LINES))

# The default time between two server-sent events, in milliseconds; `?every=MS` sets another.
_EVERY = 100
_EVERY_QUERY = re.compile(rb"every=(0|[1-9][0-9]{0,9})")

_ALL_METHODS = b"GET, HEAD, OPTIONS, POST"


class Http(Service):
    """One connection. Requests are answered in the order in which they arrive (RFC 9112, 9.3.2).

    Args:
        peer: the client's address, for /info and the log.
        limits: what a client may ask for.
        info: returns the server's part of /info, as lines that end in CR LF.
        report: takes a line for the log about a client of another protocol.
        clock: for Date, and for the age of a head or a body.
    """

    port = 8080
    tls_port = 8443
    over_datagrams = False

    __slots__ = (
        "_answered",
        "_awaits_digest",
        "_clock",
        "_closing",
        "_digest",
        "_draining",
        "_echoes",
        "_has_begun",
        "_held",
        "_info",
        "_limits",
        "_peer",
        "_persist",
        "_reader",
        "_replies",
        "_report",
        "_socket",
        "_upload",
        "_work",
    )

    def __init__(
        self, peer: str, limits: Limits, info: Callable[[], str], report: Callable[[str], object], clock: Clock
    ) -> None:
        self._peer = peer
        self._limits = limits
        self._info = info
        self._report = report
        self._clock = clock
        self._reader = HeadReader(limits, clock)
        self._replies: list[bytes] = []  # not yet handed out
        self._upload: tuple[Head, Body] | None = None  # a request whose body is arriving
        self._echoes = False  # the body in hand is sent back as it arrives
        self._work: Iterator[Event] | None = None  # makes a reply, after those in `_replies`
        self._awaits_digest = False
        self._digest = b""
        self._has_begun = False  # the head of an echo, or of a reply that `_work` makes, has been handed out
        self._persist = b""  # the Connection field of the reply in hand
        self._closing = False
        self._answered = 0
        self._draining = False
        self._socket: WebSocket | None = None  # since the Upgrade
        self._held = b""  # while draining: a reply, or the start of one, that may be the last

    def receive_data(self, data: bytes) -> None:
        if self._socket is None:
            self._reader.feed(data)
        else:
            self._socket.receive_data(data)

    def receive_digest(self, digest: bytes) -> None:
        """Take the result of the last `Compute`.

        Raises:
            AdapterError: no `Compute` waits for its result.
        """
        if self._socket is not None:
            self._socket.receive_digest(digest)
            return
        if not self._awaits_digest:
            raise AdapterError("receive_digest without a Compute")
        self._awaits_digest = False
        self._digest = digest

    def drain(self) -> None:
        """Answer only the requests that have arrived. The last reply says `Connection: close` (RFC 9112, 9.6)."""
        self._draining = True

    def end(self) -> Event:
        """Return the next event after all requests are answered and no more input will come.

        While draining, this is the held reply, now with `Connection: close`, or the close frame of a WebSocket.
        """
        if self._held:
            data, self._held = replies.with_close(self._held), b""
            self._closing = True
            return Send(data)
        return Close() if self._socket is None else self._socket.end(going_away=self._draining)

    def next_event(self) -> Event | None:
        """Return the next event.

        Returns:
            The replies to complete requests, up to about `SEND_SIZE` bytes; the work that a request asks for; Close
            after the last reply; None if more input is needed.

        Raises:
            AdapterError: the last `Compute` was not answered by `receive_digest`.
        """
        if self._socket is not None:
            return self._socket.next_event()
        if self._awaits_digest:
            raise AdapterError("next_event before the digest of a Compute was received")
        if self._draining:
            return self._next_draining()
        return self._advance(self._limits.pipeline)

    def _next_draining(self) -> Event | None:
        """Return the next event, but hold each reply until it is known whether another one follows.

        RFC 9112, 9.6: no request may be answered after a reply with `Connection: close`.
        """
        if self._held:
            if not (self._reader.has_head or self._reader.is_full):
                return None  # either more input follows, or `end`
            data, self._held = self._held, b""
            return Send(data)
        if self._has_begun and (event := self._continue_work()) is not None:
            return event
        is_start = self._upload is None or not self._has_begun
        event = self._advance(1)
        # The echo of an incomplete upload is not held: its head must be sent now, without knowing whether it is the
        # last.
        is_over = self._upload is None and self._socket is None
        if is_start and is_over and isinstance(event, Send) and not self._closing:
            self._held = event.data
            return self._next_draining()
        return event

    def _advance(self, most: int) -> Event | None:
        pending = self._replies
        if self._work is not None:
            if (event := self._continue_work()) is not None:
                return event
            self._work = None
        if not self._closing:
            size = 0
            try:
                while most:
                    reply = self._next_reply()
                    if reply is None:
                        break
                    if reply:
                        pending.append(reply)
                        size += len(reply)
                        most -= 1
                    if size >= SEND_SIZE or self._closing or self._socket is not None:
                        break
            except HttpError as error:
                self._refuse(error)
        if pending:
            data = pending[0] if len(pending) == 1 else b"".join(pending)
            pending.clear()
            return Send(data)
        if self._work is not None:
            return self._continue_work()
        return Close() if self._closing else None

    def _continue_work(self) -> Event | None:
        event = None if self._work is None else next(self._work, None)
        self._has_begun = self._has_begun or isinstance(event, Send)
        return event

    def _refuse(self, error: HttpError) -> None:
        """Make the last reply from an error.

        If the reply in hand has begun, only close: this shows the client that it is incomplete.
        """
        self._closing = True
        if not self._answered and self._reader.is_tls:
            self._report(f"closed a connection from {self._peer!a}: it speaks TLS to the port of http")
        if not self._has_begun:
            date = self._clock.date()
            self._replies.append(replies.text(error.status, date, str(error), replies.CLOSE, is_head=error.is_head))

    # Requests. A result of `bytes | None` is bytes to send, possibly none; None means that more input is needed, or
    # that `_work` makes the reply.

    def _next_reply(self) -> bytes | None:
        if self._upload is not None:
            try:
                return self._continue_body(*self._upload)
            except HttpError as error:
                error.is_head = self._upload[0].method == b"HEAD"
                raise
        self._has_begun = False
        request = self._reader.next_head()
        if request is None:
            return None
        self._answered += 1
        if request.minor and request.fields.is_plain and self._answered < self._limits.http_requests:
            self._persist = b""
            return self._answer(request)
        try:
            return self._answer_special(request)
        except HttpError as error:
            error.is_head = request.method == b"HEAD"
            raise

    def _answer_special(self, request: Head) -> bytes | None:
        """Answer a request with a body, an expectation, another version than HTTP/1.1, or a Connection field.

        Raises:
            HttpError: 417 for an unknown expectation (RFC 9110, 10.1.1), 413 for a body over its limit.
        """
        fields = request.fields
        if not request.is_kept or self._answered >= self._limits.http_requests:
            self._persist = replies.CLOSE
        else:
            self._persist = b"" if request.minor else replies.KEEP_ALIVE
        expects = bool(request.minor) and b"expect" in fields.values  # RFC 9110, 10.1.1: not in HTTP/1.0
        if expects and fields.tokens(b"expect") != [b"100-continue"]:
            raise HttpError(417, "only 100-continue can be expected")
        self._echoes = request.path == b"/echo" and request.method == b"POST" and fields.has_length
        body = Body(fields.length, self._reader, self._limits, self._clock)
        self._upload = request, body
        # RFC 9110, 10.1.1: 100 is not needed if the body has begun to arrive.
        if expects and not (body.is_over or self._reader.left or self._draining):
            return replies.CONTINUE
        return self._continue_body(request, body)

    def _continue_body(self, request: Head, body: Body) -> bytes | None:
        """Read more of a body: echo this part, or answer after the end."""
        data = b"" if body.is_over else body.read()
        if body.is_over:
            self._upload = None
        elif not (data and self._echoes):
            return None if body.is_starved else b""
        if self._echoes:
            return self._echo(request.fields.length, data, is_over=body.is_over)
        return self._answer(request)

    def _echo(self, length: int, data: bytes, *, is_over: bool) -> bytes:
        self._closing = is_over and self._persist is replies.CLOSE
        if length == CHUNKED:
            framing = b"Transfer-Encoding: chunked\r\n"
            data = (replies.chunk(data) if data else b"") + (replies.LAST_CHUNK if is_over else b"")
        else:
            framing = b"Content-Length: %d\r\n" % length
        if self._has_begun:
            return data
        self._has_begun = True
        kind = b"Content-Type: %b\r\n" % replies.BYTES
        return replies.head(200, self._clock.date(), kind + framing + self._persist) + data

    def _answer(self, request: Head) -> bytes | None:
        """Answer a request after its body, if any, has been read."""
        self._closing = self._persist is replies.CLOSE
        path = request.path
        route = _ROUTES.get(path) or _ROUTES.get(path[: path.find(b"/", 1) + 1])
        if request.method == b"GET" and route is not None and route.handler is not None:
            return route.handler(self, request)
        return self._answer_other(request, route)

    def _answer_other(self, request: Head, route: "Route | None") -> bytes | None:
        """Answer any method but GET, or a GET without a route.

        Raises:
            HttpError: 411, for an echo without a length.
        """
        method = request.method
        is_head = method == b"HEAD"
        if method not in METHODS or method == b"CONNECT":
            return self._text(501, f"the method {quote(method)} is not implemented here")
        if request.path == b"*":
            return self._empty(_ALL_METHODS)
        if route is None:
            return self._text(404, f"there is no {quote(request.path)} here", is_head=is_head)
        if method == b"OPTIONS":
            return self._empty(route.allow)
        if method == b"POST" and request.path == b"/echo":
            raise HttpError(411, "POST /echo needs Content-Length or Transfer-Encoding: chunked")
        if not is_head or route.handler is None:
            allow = b"Allow: %b\r\n" % route.allow
            return self._text(405, f"{method.decode()} is not for {quote(request.path)}", allow, is_head=is_head)
        reply = route.handler(self, request)
        return None if reply is None else reply[: reply.find(b"\r\n\r\n") + 4]

    def _ok(self, kind: bytes, body: bytes) -> bytes:
        return replies.ok(self._clock.date(), kind, body, self._persist)

    def _text(self, status: int, reason: str, fields: bytes = b"", *, is_head: bool = False) -> bytes:
        return replies.text(status, self._clock.date(), reason, fields + self._persist, is_head=is_head)

    def _empty(self, allow: bytes) -> bytes:
        return replies.head(204, self._clock.date(), b"Allow: %b\r\n%b" % (allow, self._persist))

    def _start(self, work: Iterator[Event]) -> bytes | None:
        self._work = work
        return None

    # The routes, for GET. HEAD calls them too, and sends only the head of the reply.

    def _root(self, request: Head) -> bytes:
        vary = b"Vary: Accept\r\n" + self._persist
        if any(each.startswith(b"text/html") for each in request.fields.tokens(b"accept")):
            return replies.ok(self._clock.date(), replies.HTML, page(self._model()), POLICY + vary)
        return replies.ok(self._clock.date(), replies.TEXT, GREETING, vary)

    def _ping(self, request: Head) -> bytes:
        return replies.ok(self._clock.date(), replies.TEXT, b"PONG\n", self._persist)

    def _sleep(self, request: Head) -> bytes | None:
        number = self._number(request, self._limits.sleep_ms, "ms")
        if isinstance(number, bytes):
            return number
        return self._ok(replies.TEXT, b"OK\n") if request.method == b"HEAD" else self._start(self._sleeping(number))

    def _sleeping(self, milliseconds: int) -> Iterator[Event]:
        yield Wait(milliseconds / 1000)
        yield Send(self._ok(replies.TEXT, b"OK\n"))

    def _burn(self, request: Head) -> bytes | None:
        number = self._number(request, self._limits.burn, "rounds")
        if isinstance(number, bytes):
            return number
        # Each digest has 64 digits.
        return self._ok(replies.TEXT, bytes(65)) if request.method == b"HEAD" else self._start(self._burning(number))

    def _burning(self, rounds: int) -> Iterator[Event]:
        self._awaits_digest = True
        yield Compute(rounds)
        yield Send(self._ok(replies.TEXT, self._digest + b"\n"))

    def _blob(self, request: Head) -> bytes | None:
        number = self._number(request, self._limits.blob, "bytes")
        if isinstance(number, bytes):
            return number
        if number <= len(_PATTERN):
            return self._ok(replies.TEXT, _PATTERN[:number])
        fields = b"Content-Type: %b\r\nContent-Length: %d\r\n%b" % (replies.TEXT, number, self._persist)
        head = replies.head(200, self._clock.date(), fields)
        return head if request.method == b"HEAD" else self._start(_pieces(head, number))

    def _stream(self, request: Head) -> bytes | None:
        number = self._number(request, self._limits.blob // _LINE_SIZE, "lines")
        if isinstance(number, bytes):
            return number
        head = self._open_end(request, replies.TEXT)
        return head if request.method == b"HEAD" else self._start(_lines(head, number, is_chunked=bool(request.minor)))

    def _events(self, request: Head) -> bytes | None:
        number = self._number(request, self._limits.blob // _LINE_SIZE, "events")
        if isinstance(number, bytes):
            return number
        match = _EVERY_QUERY.fullmatch(request.query)
        every = int(match[1]) if match else _EVERY
        if every > self._limits.sleep_ms:
            return self._text(400, f"{every} ms between events is over the limit of {self._limits.sleep_ms}")
        head = self._open_end(request, replies.EVENTS, b"Cache-Control: no-store\r\n")
        if request.method == b"HEAD":
            return head
        return self._start(_sent_events(head, number, every, is_chunked=bool(request.minor)))

    def _ws(self, request: Head) -> bytes:
        try:
            fields, deflate = shake_hands(request)
        except HandshakeError as error:
            return self._text(error.status, str(error), error.fields)
        self._socket = WebSocket(self._limits, self._websocket_info, deflate)
        if self._reader.left:
            self._socket.receive_data(self._reader.take(self._reader.left))
        self._reader = HeadReader(self._limits, self._clock)  # the old one holds the handshake
        return replies.head(101, self._clock.date(), fields)

    def _websocket_info(self) -> bytes:
        return f"{self._info()}# Connection\r\npeer:{self._peer}\r\n".encode()

    def _info_json(self, request: Head) -> bytes:
        sections: dict[str, dict[str, object]] = {}
        for line in self._info().splitlines():
            if line.startswith("# "):
                section = sections.setdefault(line[2:].lower(), {})
            else:
                name, _, value = line.partition(":")
                section[name] = _as_json(value)
        sections["connection"] = {"peer": self._peer, "requests": self._answered}
        return self._ok(replies.JSON, json.dumps(sections, indent=1).encode("ascii") + b"\n")

    def _open_end(self, request: Head, kind: bytes, fields: bytes = b"") -> bytes:
        """Return the head of a reply of unknown length: in chunks; in HTTP/1.0 up to the close (RFC 9112, 6.3)."""
        if request.minor:
            fields += b"Transfer-Encoding: chunked\r\n"
        else:
            self._persist = replies.CLOSE
            self._closing = True
        kind = b"Content-Type: %b\r\n" % kind
        return replies.head(200, self._clock.date(), kind + fields + self._persist)

    def _number(self, request: Head, most: int, unit: str) -> int | bytes:
        """Return the number in the path; or a reply, 404 if it is no number, 400 if it is over `most`."""
        digits = request.path[request.path.find(b"/", 1) + 1 :]
        if not _NUMBER.fullmatch(digits):
            return self._text(404, f"there is no {quote(request.path)} here: a number of {unit} must follow")
        number = int(digits)
        if number > most:
            return self._text(400, f"{number} {unit} are over the limit of {most}")
        return number

    def _model(self) -> str:
        match = _MODEL.search(self._info())
        return match[1] if match else ""


def _pieces(head: bytes, size: int) -> Iterator[Event]:
    yield Send(head)
    turns, rest = divmod(size, len(_PATTERN))
    for _ in range(turns):
        yield Send(_PATTERN)
    if rest:
        yield Send(_PATTERN[:rest])


def _lines(head: bytes, number: int, *, is_chunked: bool) -> Iterator[Event]:
    while number:
        count = min(number, _BLOCK_LINES)
        number -= count
        block = _BLOCK[: count * _LINE_SIZE]
        yield Send(head + (replies.chunk(block) if is_chunked else block))
        head = b""
    yield from _end(head, is_chunked=is_chunked)


def _sent_events(head: bytes, number: int, every: int, *, is_chunked: bool) -> Iterator[Event]:
    for count in range(1, number + 1):
        if count > 1:
            yield Wait(every / 1000)
        event = b"id: %d\ndata: %d\n\n" % (count, count)
        yield Send(head + (replies.chunk(event) if is_chunked else event))
        head = b""
    yield from _end(head, is_chunked=is_chunked)


def _end(head: bytes, *, is_chunked: bool) -> Iterator[Event]:
    if last := head + (replies.LAST_CHUNK if is_chunked else b""):
        yield Send(last)


def _as_json(value: str) -> object:
    try:
        return json.loads(value)
    except ValueError:
        return value


class Route:
    """The answer to a path.

    Attributes:
        handler: for GET and HEAD; None if the path does not allow them.
        allow: all methods, in the form of the field Allow.
    """

    __slots__ = ("allow", "handler")

    def __init__(self, handler: Handler | None, allow: bytes = b"GET, HEAD, OPTIONS") -> None:
        self.handler = handler
        self.allow = allow


# A path that ends in a slash, except "/", needs a number behind it.
_ROUTES = {
    b"/": Route(Http._root),
    b"/ping": Route(Http._ping),
    b"/echo": Route(None, b"OPTIONS, POST"),
    b"/sleep/": Route(Http._sleep),
    b"/burn/": Route(Http._burn),
    b"/blob/": Route(Http._blob),
    b"/stream/": Route(Http._stream),
    b"/events/": Route(Http._events),
    b"/info": Route(Http._info_json),
    b"/ws": Route(Http._ws),
}
