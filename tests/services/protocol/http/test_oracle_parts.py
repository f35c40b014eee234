"""The parts of the fuzzer of HTTP: what each takes for right and for wrong, at its limits."""

from types import SimpleNamespace
from typing import Any

import pytest

import fuzz.http_oracle as oracle
from fuzz.http_oracle import LIMITS, Client, check, check_cuts, check_drain, check_order, divide, divide_bytes
from fuzz.http_replies import Reply, Said, check_frames, read
from services.protocol import SEND_SIZE, AdapterError, Close, Compute, Connection, GiveWay, Send, Wait

GET = b"GET /ping HTTP/1.1\r\nHost: a\r\n\r\n"


class Scripted:
    """A connection that says what a test has written down, and notes what it is told.

    Args:
        events: one after the other; None makes the client read.
        left: whether the client's turn is over, as `Connection._left` says it.
        forgives: raise no AdapterError.
    """

    def __init__(self, *events: Any, left: int = 0, forgives: str = "") -> None:
        self._events = list(events)
        self._left = left
        self._forgives = forgives
        self._is_due = self._has_ended = False
        self.mistakes: list[str] = []
        self.told: list[object] = []

    def receive_data(self, data: bytes) -> None:
        if self._has_ended:
            self._refuse("data")
        self.told.append(data)

    def receive_eof(self) -> None:
        self._has_ended = True
        self.told.append("end")

    def receive_digest(self, digest: bytes) -> None:
        if not self._is_due:
            self._refuse("digest")
        self._is_due = False

    def drain(self, arrived: int = 0) -> None:
        self.told.append(("drain", arrived))

    def next_event(self) -> Any:
        if self._is_due:
            self._refuse("event")
        event = self._events.pop(0) if self._events else Close()
        self._is_due = isinstance(event, Compute)
        self.told.append(event)
        return event

    def _refuse(self, mistake: str) -> None:
        self.mistakes.append(mistake)
        if mistake != self._forgives:
            raise AdapterError(mistake)


@pytest.fixture
def open_client(monkeypatch: pytest.MonkeyPatch) -> Any:
    def start(*events: Any, left: int = 0, forgives: str = "", **options: Any) -> tuple[Client, Scripted]:
        connection = Scripted(*events, left=left, forgives=forgives)
        monkeypatch.setattr(oracle, "Connection", lambda *arguments, **limits: connection)
        return Client(**options), connection

    return start


def test_limits_are_so_small_that_inputs_reach_them() -> None:
    """And the bytes before a stream mean what they meant when the corpus was made."""
    known = (LIMITS.http_line, LIMITS.http_headers, LIMITS.http_header_bytes, LIMITS.http_body, LIMITS.http_requests)
    assert known == (80, 8, 300, 90, 9)
    assert (LIMITS.pipeline, LIMITS.sleep_ms, LIMITS.burn, LIMITS.blob) == (5, 50, 20, 700)
    assert (LIMITS.ws_frame, LIMITS.ws_message, LIMITS.ws_inflated) == (150, 200, 300)
    assert (oracle.HEAD, oracle.UPGRADED, oracle.COMPRESSED, oracle.BYTEWISE_DRAIN) == (6, 1, 2, 4)
    # A line, the fields and a chunk's line; a frame, its head and a message.
    assert (oracle._MOST_OF_HTTP, oracle._MOST_OF_SOCKET) == (80 + 300 + 258, 150 + 14 + 200)


def test_client_does_what_it_is_asked_for(open_client: Any) -> None:
    most = bytes(2 * SEND_SIZE - 1)
    events = [Send(b"a"), Wait(0.0), Wait(0.05), Compute(0), Compute(20), GiveWay(), Send(most), None]
    client, connection = open_client(*events)
    client.pull()
    assert connection.told == events
    assert client.outcome.sent == b"a" + most
    assert (client.outcome.waits, client.outcome.rounds, client.outcome.closed) == ([0.0, 0.05], [0, 20], False)
    # It makes no mistake and starts no drain unless it is told to.
    assert connection.mistakes == []
    client.drain(7)
    assert connection.told[len(events) :] == [("drain", 7), Close()]
    assert client.outcome.closed


@pytest.mark.parametrize(
    "event",
    [Send(b""), Send(bytes(2 * SEND_SIZE)), Wait(0.051), Wait(-0.001), Compute(21)],
    ids=["nothing", "too much", "too long", "backwards", "too many rounds"],
)
def test_event_beyond_the_limits_is_seen(event: object, open_client: Any) -> None:
    client, _ = open_client(event)
    with pytest.raises(AssertionError):
        client.pull()


def test_events_without_an_end_are_seen(open_client: Any) -> None:
    client, _ = open_client(*[GiveWay()] * 19_999, None)
    client.pull()
    client, _ = open_client(*[GiveWay()] * 20_000, None)
    with pytest.raises(AssertionError, match="no end of events"):
        client.pull()


@pytest.mark.parametrize("left", [0, 1])
def test_careless_client_makes_each_mistake(left: int, open_client: Any) -> None:
    client, connection = open_client(Send(b"a"), Compute(1), Wait(0.0), None, left=left, careless=True)
    client.pull()
    # A digest that was not asked for; behind a Compute the next event, unless that is a GiveWay, which any may ask for.
    assert connection.mistakes == ["digest", *["event"] * left, "digest"]
    client, connection = open_client(Compute(1), left=left)
    client.pull()
    assert connection.mistakes == []


@pytest.mark.parametrize("mistake", ["digest", "event"])
def test_mistake_that_is_let_pass_is_seen(mistake: str, open_client: Any) -> None:
    client, _ = open_client(Compute(1), Send(b"a"), left=1, forgives=mistake, careless=True)
    with pytest.raises(AssertionError, match="a mistake was not noticed"):
        client.pull()


def test_drain_begins_behind_an_event(open_client: Any) -> None:
    client, connection = open_client(Send(b"a"), Send(b"b"), Send(b"c"), None, drains_after=2)
    client.pull()
    assert connection.told == [Send(b"a"), Send(b"b"), ("drain", 0), Send(b"c"), None]


def test_end_of_a_stream_is_checked(open_client: Any) -> None:
    client, connection = open_client(Send(b"a"), Close())
    assert not client.closed_early
    client.end(b"last")
    # Close stays the last event, and data behind the end is a mistake.
    assert connection.told == [b"last", "end", Send(b"a"), Close(), Close()]
    assert connection.mistakes == ["data"]
    assert not client.closed_early
    client, connection = open_client(Close())
    client.pull()
    client.end(b"")
    assert client.closed_early
    assert connection.told[1:] == ["end", Close(), Close()]
    client, _ = open_client(Close(), forgives="data")
    with pytest.raises(AssertionError, match="a mistake was not noticed"):
        client.end(b"")
    client, _ = open_client(Send(b"a"), None)
    with pytest.raises(AssertionError, match="was not closed"):
        client.end(b"")
    client, _ = open_client(Close(), Send(b"a"))
    with pytest.raises(AssertionError):
        client.end(b"")


def hold(buffer: int, position: int = 0, trailer: int | None = None) -> Client:
    """A client of a server that holds a part of a request; of its buffer the bytes before a position have been used."""
    client = Client()
    client.receive(b"GET")
    service: Any = client._connection._service
    service._reader._buffer, service._reader._position = bytes(buffer), position
    if trailer is not None:
        service._upload = (None, SimpleNamespace(_trailer=bytes(trailer)))
    return client


def hold_messages(buffer: int, position: int, message: int) -> Client:
    client = hold(0)
    service: Any = client._connection._service
    service._socket = SimpleNamespace(_buffer=bytes(buffer), _position=position, _message=bytes(message), _replies=[])
    return client


def test_memory_up_to_the_limits_is_right() -> None:
    hold(638)._check_memory(0)
    hold(648, 10)._check_memory(10)
    hold(600, trailer=38)._check_memory(0)
    hold(0)._check_memory(0)
    hold_messages(264, 0, 100)._check_memory(0)
    hold_messages(374, 110, 100)._check_memory(10)
    drained = hold(5, 5)
    drained._connection.drain()
    drained._check_memory(0)


@pytest.mark.parametrize(
    ("client", "said"),
    [
        (hold(639), "639 bytes are held, of 638"),
        (hold(600, trailer=39), "639 bytes are held, of 638"),
        (hold(648, 10), "a buffer of 648 bytes, of 638 and the last 9"),
        (hold(5, 5), "a buffer is kept that has been used"),
        (hold_messages(265, 0, 100), "365 bytes are held, of 364"),
        (hold_messages(374, 110, 100), "a buffer of 374 bytes, of 364 and the last 9"),
        (hold_messages(5, 5, 0), "a buffer is kept that has been used"),
    ],
)
def test_memory_beyond_the_limits_is_seen(client: Client, said: str) -> None:
    with pytest.raises(AssertionError, match=said):
        client._check_memory(9)


def test_replies_that_wait_are_seen() -> None:
    client = hold(0)
    service: Any = client._connection._service
    service._replies.append(b"x")
    with pytest.raises(AssertionError, match="replies wait"):
        client._check_memory(0)
    client = hold_messages(0, 0, 0)
    service = client._connection._service
    service._socket._replies.append(b"x")
    with pytest.raises(AssertionError, match="replies wait"):
        client._check_memory(0)


def test_memory_is_checked_behind_each_piece_until_the_close(monkeypatch: pytest.MonkeyPatch) -> None:
    sizes: list[int] = []
    monkeypatch.setattr(Client, "_check_memory", lambda self, size: sizes.append(size))
    client = Client()
    client.receive(GET[:5])
    client.receive(GET[5:])
    client.receive(b"BAD\r\n\r\n")
    assert sizes == [5, len(GET) - 5]


@pytest.mark.parametrize("flags", range(8))
def test_bytes_before_a_stream_say_what_is_checked(flags: int, monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[tuple[Any, ...]] = []
    for name in ("check_cuts", "check_drain", "check_order"):
        monkeypatch.setattr(oracle, name, lambda *arguments, name=name, **more: made.append((name, arguments, more)))
    check(b"abcd" + bytes((flags,)))
    assert made == []
    check(b"abcd" + bytes((flags, 7)) + GET)
    prefix = b""
    if flags & 3:
        prefix = oracle.HANDSHAKE + (oracle.DEFLATE if flags & 2 else b"") + b"\r\n"
    stream, start, drains = prefix + GET, len(prefix), flags >= 4
    assert made == [
        ("check_cuts", (stream, b"abcd"), {"bytewise_from": None if drains else start}),
        ("check_drain", (stream, b"abcd", 7), {"bytewise_from": start if drains else None}),
        ("check_order", (stream, b"abcd", 7), {}),
    ]
    # A stream may be empty.
    made.clear()
    check(b"abcd" + bytes((flags, 7)))
    assert [arguments[0] for _, arguments, _ in made] == [prefix] * 3


def test_streams_are_divided() -> None:
    # Modulo the length and one, so that a cut at the end, which is none, can be asked for.
    assert divide(b"hello", b"\x01\x03\x05\x09") == [b"h", b"el", b"lo"]
    assert divide(b"", b"\x01\x02\x03\x04") == []
    assert divide_bytes(b"hello", 3) == [b"hel", b"l", b"o"]
    assert divide_bytes(b"hi", 0) == [b"h", b"i"]
    assert divide_bytes(b"", 3) == []


class Noting(Connection):
    """Notes the pieces that a server gets, and what it is told."""

    played: list[list[object]] = []  # noqa: RUF012  # emptied by the fixture

    def __init__(self, *arguments: Any, **limits: Any) -> None:
        super().__init__(*arguments, **limits)
        self.played.append([])

    def receive_data(self, data: bytes) -> None:
        super().receive_data(data)  # raises where the client makes a mistake
        self.played[-1].append(data)

    def drain(self, arrived: int = 0) -> None:
        self.played[-1].append(arrived)
        super().drain(arrived)


@pytest.fixture
def played(monkeypatch: pytest.MonkeyPatch) -> list[list[object]]:
    monkeypatch.setattr(Noting, "played", [])
    monkeypatch.setattr(oracle, "Connection", Noting)
    return Noting.played


def test_stream_is_played_as_a_whole_and_in_pieces(played: list[list[object]]) -> None:
    check_cuts(GET, b"\x02\x04", bytewise_from=None)
    assert played == [[GET], [GET[:2], GET[2:4], GET[4:]]]
    played.clear()
    check_cuts(GET, b"\x02\x04", bytewise_from=len(GET) - 2)
    assert played == [[GET], [GET[:-2], b"\r", b"\n"]]
    played.clear()
    check_cuts(b"", b"\x02\x04", bytewise_from=0)
    assert played == [[], []]


def test_drain_begins_at_a_place_with_the_rest_to_come(played: list[list[object]]) -> None:
    size = len(GET)
    check_drain(GET, b"\x01\x09", size - 3, bytewise_from=None)
    before = [GET[:1], GET[1:9], GET[9 : size - 3]]
    # Of three bytes 1 and 9 modulo 4 are the same place.
    assert played == [[*before, 3, GET[-3:]], [*before, 3, GET[-3:-2], GET[-2:]]]
    played.clear()
    check_drain(GET, b"\x01\x09", size - 3, bytewise_from=size - 2)
    assert played[1] == [*before, 3, GET[-3:-2], b"\r", b"\n"]
    played.clear()
    # From a place before the drain on, so all of it.
    check_drain(GET, b"\x01\x09", size - 3, bytewise_from=1)
    assert played[1] == [*before, 3, *(GET[at : at + 1] for at in range(size - 3, size))]
    played.clear()
    # The moment is modulo the length and one, so the drain can begin behind the stream.
    check_drain(GET, b"\x01\x09", size, bytewise_from=0)
    assert played == [[GET[:1], GET[1:9], GET[9:], 0]] * 2
    played.clear()
    check_drain(GET, b"\x01\x09", size + 1, bytewise_from=0)
    assert played == [[size, GET], [size, *(GET[at : at + 1] for at in range(size))]]


def test_end_may_be_known_before_the_first_answer(played: list[list[object]]) -> None:
    check_order(GET * 3, b"\x02\x02", 9)
    pieces = [GET[:2], GET[2:] + GET * 2]
    # The drain begins behind the second event, 1 + 9 % 8, which is Close.
    assert played == [pieces, [GET * 3], [*pieces, 0]]
    played.clear()
    check_order(GET, b"\x02\x02", 10)
    assert played == [[GET[:2], GET[2:]], [GET], [GET[:2], GET[2:]]]
    played.clear()
    check_order(GET, b"\x02\x02", 8)
    assert played == [[GET[:2], GET[2:]], [GET], [GET[:2], GET[2:], 0]]
    played.clear()
    check_order(b"", b"\x02\x02", 0)
    assert played[:2] == [[], []]


def test_each_way_of_a_stream_is_played_and_compared(monkeypatch: pytest.MonkeyPatch) -> None:
    """One with all mistakes of a model, and where the server drains, as such."""
    made: list[object] = []

    def note(**options: Any) -> Client:
        made.append(options)
        return Client(**options)

    monkeypatch.setattr(oracle, "Client", note)
    monkeypatch.setattr(oracle, "_compare", lambda one, other, *, drains=False: made.append(("compare", drains)))
    monkeypatch.setattr(oracle, "_check_end", lambda client, said, *, drains: made.append(drains))
    check_cuts(GET, b"\x02\x04", bytewise_from=None)
    assert made == [{"careless": False}, False, {"careless": True}, False, ("compare", False)]
    made.clear()
    check_drain(GET, b"\x02\x04", 5, bytewise_from=None)
    assert made == [{"careless": False}, True, {"careless": True}, True, ("compare", True)]
    made.clear()
    check_order(GET, b"\x02\x04", 5)
    assert made == [{"careless": False}, False, {}, False, ("compare", False), {"drains_after": 6}, True]


CLOSING = {b"connection": b"close"}
ECHO = {b"content-type": b"application/octet-stream"}


def reply(status: int = 200, body: bytes = b"", *, is_whole: bool = True, **fields: dict[bytes, bytes]) -> Reply:
    return Reply(status, {key: value for each in fields.values() for key, value in each.items()}, body, is_whole)


PLAIN, LAST = reply(), reply(more=CLOSING)
TORN = reply(more=ECHO, is_whole=False)


@pytest.mark.parametrize(
    ("replies", "frames", "closed_early", "drains", "said"),
    [
        ([PLAIN, PLAIN], None, False, False, ""),
        ([PLAIN, LAST], None, True, False, ""),
        ([PLAIN, TORN], None, True, False, ""),
        ([PLAIN], b"", True, False, ""),
        ([PLAIN], None, True, True, ""),
        ([], None, False, False, ""),
        ([], None, True, True, ""),
        ([], None, True, False, "closed without a word"),
        ([TORN, PLAIN], None, False, False, "a reply behind one that is not whole"),
        ([LAST, PLAIN], None, False, False, "a reply behind one with Connection: close"),
        ([PLAIN, reply(is_whole=False)], None, False, False, "a reply that is not whole"),
        ([PLAIN, PLAIN], None, True, False, "the last reply does not say so"),
    ],
)
def test_last_reply_says_that_it_is_the_last(
    replies: list[Reply], frames: bytes | None, closed_early: bool, drains: bool, said: str
) -> None:
    client: Any = SimpleNamespace(closed_early=closed_early)
    if not said:
        oracle._check_end(client, Said(replies, frames), drains=drains)
        return
    with pytest.raises(AssertionError, match=said):
        oracle._check_end(client, Said(replies, frames), drains=drains)


def play(
    *replies: Reply, frames: bytes | None = None, waits: tuple[float, ...] = (), rounds: tuple[int, ...] = ()
) -> Any:
    outcome = SimpleNamespace(waits=list(waits), rounds=list(rounds))
    return SimpleNamespace(outcome=outcome), Said(list(replies), frames)


BROKEN = reply(400, more=CLOSING)


def test_two_ways_of_a_stream_are_compared() -> None:
    oracle._compare(play(PLAIN, LAST, waits=(0.01,), rounds=(3,)), play(PLAIN, LAST, waits=(0.01,), rounds=(3,)))
    oracle._compare(play(frames=b"a"), play(frames=b"a"))
    oracle._compare(play(PLAIN, BROKEN), play(PLAIN, reply(431, more=CLOSING)))
    for one, other in [
        (play(PLAIN), play(PLAIN, PLAIN)),
        (play(PLAIN), play(reply(204))),
        (play(PLAIN, waits=(0.01,)), play(PLAIN)),
        (play(PLAIN, rounds=(1,)), play(PLAIN)),
        (play(PLAIN, frames=b"a"), play(PLAIN, frames=b"b")),
        (play(PLAIN), play(reply(400))),
    ]:
        with pytest.raises(AssertionError):
            oracle._compare(one, other)
        with pytest.raises(AssertionError):
            oracle._compare(one, other, drains=True)


@pytest.mark.parametrize("status", [400, 413, 414, 431, 501, 505])
def test_of_two_mistakes_in_a_head_either_may_be_seen_first(status: int) -> None:
    refusal = reply(status, more=CLOSING)
    assert oracle._is_alike(refusal, reply(400, more=CLOSING))
    # One that does not end the connection is no refusal, and neither is another status.
    assert not oracle._is_alike(refusal, reply(status))
    assert not oracle._is_alike(refusal, reply(404, more=CLOSING))


def test_wrong_body_may_break_off_or_be_refused() -> None:
    assert oracle._is_alike(TORN, BROKEN)
    assert oracle._is_alike(BROKEN, TORN)
    assert not oracle._is_alike(reply(more=ECHO), BROKEN)
    assert not oracle._is_alike(TORN, PLAIN)
    # Only an echo may be torn.
    assert not oracle._is_alike(reply(is_whole=False), BROKEN)


def test_echoes_that_break_off_have_the_same_beginning() -> None:
    def torn(body: bytes) -> Reply:
        return reply(200, body, is_whole=False, more=ECHO)

    assert oracle._is_alike(torn(b"ab"), torn(b"abc"))
    assert oracle._is_alike(torn(b"abc"), torn(b"ab"))
    assert not oracle._is_alike(torn(b"ab"), torn(b"ac"))
    assert not oracle._is_alike(torn(b"ab"), reply(200, b"ab", more=ECHO))


def test_echo_during_a_drain_may_close_or_not() -> None:
    """Its head had to be sent before it was known to be the last one; then a refusal may follow, or nothing."""
    echo, last = reply(200, b"ab", more=ECHO), reply(200, b"ab", more=ECHO | CLOSING)
    for wanted, found in [
        ([last], [echo]),
        ([echo], [last]),
        ([PLAIN, last], [PLAIN, echo]),
        ([last], [echo, BROKEN]),
        ([last], [last, BROKEN]),
        ([PLAIN, PLAIN, last], [PLAIN, PLAIN, last, BROKEN]),
    ]:
        assert oracle._as_drained(found, wanted) == wanted
        oracle._compare(play(*wanted), play(*found), drains=True)
        with pytest.raises(AssertionError):
            oracle._compare(play(*wanted), play(*found))
    for wanted, found in [
        ([], [echo]),
        ([last], []),
        ([PLAIN], [LAST]),
        ([echo], [PLAIN]),
        ([PLAIN], [echo]),
        ([LAST], [echo]),
        ([last], [PLAIN]),
        ([echo], [echo, BROKEN]),
        ([last], [last, reply(400)]),
        ([last], [last, reply(404, more=CLOSING)]),
        ([last], [last, BROKEN, BROKEN]),
    ]:
        assert oracle._as_drained(found, wanted) == found


# What a server has sent.

DATED = b"HTTP/1.1 200 OK\r\nDate: x\r\n"
TEXT = b"Content-Type: text/plain\r\n"
OCTETS = b"Content-Type: application/octet-stream\r\n"
CHUNKS = b"Transfer-Encoding: chunked\r\n"
PONG = DATED + b"Content-Length: 5\r\n\r\nPONG\n"


def test_replies_are_taken_apart() -> None:
    interim = b"HTTP/1.1 100 Continue\r\n\r\n"
    empty = b"HTTP/1.1 204 No Content\r\nDate: x\r\n\r\n"
    chunked = DATED + CHUNKS + b"\r\n3\r\nabc\r\n1a\r\n" + b"d" * 26 + b"\r\n0\r\n\r\n"
    other = PONG.replace(b"Date: x", b"Date: x\r\nConnection: not-close, closed")
    last = DATED + b"Connection: x\r\nConnection: close\r\n\r\nup to the end"
    said = read(interim + empty + chunked + PONG + other + last, has_heads=False)
    assert [(each.status, each.body, each.is_whole, each.closes) for each in said.replies] == [
        (204, b"", True, False),
        (200, b"abc" + b"d" * 26, True, False),
        (200, b"PONG\n", True, False),
        (200, b"PONG\n", True, False),
        (200, b"up to the end", True, True),
    ]
    assert said.frames is None


@pytest.mark.parametrize(
    ("body", "received", "is_whole"), [(b"3\r\nabc\r\n", b"abc", False), (b"", b"", False), (b"0\r\n\r\n", b"", True)]
)
def test_chunks_may_break_off_between_two(body: bytes, received: bytes, is_whole: bool) -> None:
    (reply,) = read(DATED + OCTETS + CHUNKS + b"\r\n" + body, has_heads=False).replies
    assert (reply.body, reply.is_whole) == (received, is_whole)


@pytest.mark.parametrize("length", [CHUNKS, b"Content-Length: 5\r\n"])
def test_reply_to_head_has_no_body(length: bytes) -> None:
    """But an echo, which is a reply to POST, has broken off."""
    said = read((DATED + TEXT + length + b"\r\n") * 2, has_heads=True)
    assert [(each.body, each.is_whole) for each in said.replies] == [(b"", True)] * 2
    (echo,) = read(DATED + OCTETS + length + b"\r\n", has_heads=True).replies
    assert (echo.body, echo.is_whole) == (b"", False)
    # A reply to GET has its body, also if another request was HEAD.
    body = b"5\r\nPONG\n\r\n0\r\n\r\n" if length is CHUNKS else b"PONG\n"
    said = read(DATED + TEXT + length + b"\r\n" + body + DATED + TEXT + length + b"\r\n", has_heads=True)
    assert [each.body for each in said.replies] == [b"PONG\n", b""]


def test_body_is_missing_where_no_request_was_head() -> None:
    """It has broken off, or takes the next reply for its body."""
    first = read(DATED + TEXT + b"Content-Length: 5\r\n\r\n", has_heads=False).replies[0]
    assert (first.body, first.is_whole) == (b"", False)
    with pytest.raises(AssertionError, match=r"^no (reply|chunk) begins at"):
        read(DATED + TEXT + CHUNKS + b"\r\n" + PONG, has_heads=False)
    with pytest.raises(AssertionError, match=r"^no reply begins at b'1\.1 200 OK"):
        read(DATED + TEXT + b"Content-Length: 5\r\n\r\n" + PONG, has_heads=False)


def test_bytes_that_cannot_be_read_are_shown() -> None:
    with pytest.raises(AssertionError, match=rf"^no reply begins at b'{'x' * 60}'"):
        read(PONG + b"x" * 61, has_heads=False)
    with pytest.raises(AssertionError, match=rf"^no chunk begins at b'{'x' * 20}'"):
        read(DATED + OCTETS + CHUNKS + b"\r\n" + b"x" * 21, has_heads=False)


@pytest.mark.parametrize(
    "head",
    [
        PONG.replace(b"HTTP/1.1", b"HTTP/1.0"),
        PONG.replace(b"200 OK", b"600 OK"),
        PONG.replace(b"200 OK", b"200"),
        PONG.replace(b"200 OK", b"200 "),
        PONG.replace(b"200 OK\r\n", b"200 OK\n"),
        PONG.replace(b"Date: x\r\n", b"Date: x\n"),
        PONG.replace(b"Date: x", b"Date:x"),
        PONG.replace(b"Date: x", b"Date : x"),
        PONG.replace(b"Date: x", b"Date: \x80"),
        PONG.replace(b"Date: x", b"Date: x\r\n y"),
        PONG.replace(b"Date", b"D ate"),
    ],
)
def test_head_that_a_client_could_read_differently_is_none(head: bytes) -> None:
    assert head != PONG
    with pytest.raises(AssertionError, match=r"^no reply begins at"):
        read(head, has_heads=False)


@pytest.mark.parametrize("chunk", [b"A\r\n0123456789\r\n", b"1;a\r\nx\r\n", b"1 \r\nx\r\n", b"1\nx\r\n", b"\r\n"])
def test_chunk_that_a_client_could_read_differently_is_none(chunk: bytes) -> None:
    """This server writes sizes in lower case, and no extensions."""
    with pytest.raises(AssertionError, match=r"^no chunk begins at"):
        read(DATED + OCTETS + CHUNKS + b"\r\n" + chunk + b"0\r\n\r\n", has_heads=False)


def test_length_that_is_not_reached_breaks_off() -> None:
    (reply,) = read(PONG[:-1], has_heads=False).replies
    assert (reply.body, reply.is_whole) == (b"PONG", False)


@pytest.mark.parametrize(
    ("size", "shortest", "longer"),
    [
        (125, "7d", "7e007d"),
        (126, "7e007e", "7f000000000000007e"),
        (65535, "7effff", "7f000000000000ffff"),
        (65536, "7f0000000000010000", ""),
    ],
)
def test_length_of_a_frame_is_in_its_shortest_form(size: int, shortest: str, longer: str) -> None:
    check_frames(b"\x82" + bytes.fromhex(shortest) + bytes(size))
    if longer:
        with pytest.raises(AssertionError, match="a length that is not in its shortest form"):
            check_frames(b"\x82" + bytes.fromhex(longer) + bytes(size))


def test_masked_frame_of_a_server_is_seen() -> None:
    for size in (0, 1):
        with pytest.raises(AssertionError, match="a frame of the server is masked"):
            check_frames(bytes((0x82, 0x80 | size)) + b"abcd" + bytes(size))
