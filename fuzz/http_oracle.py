"""What must hold for the core of HTTP and WebSocket, whatever a peer sends; `check` raises AssertionError otherwise.

* How a stream is cut into pieces changes nothing, also while the server drains.
* `fuzz.http_replies`, which shares nothing with the core, can read everything that is sent, and finds a last reply
  where the connection ends.
* Every stream comes to its end, and Close stays the last event.
* A connection holds no more than the limits say, and no input that has been used, unless the server drains.
* A model's mistake raises AdapterError and has no other effect; nothing else is raised.
"""

from collections.abc import Callable
from dataclasses import replace
from itertools import pairwise

from fuzz.http_replies import Reply, Said, read
from fuzz.oracle import CUTS, Outcome
from services.protocol import SEND_SIZE, AdapterError, Close, Compute, Connection, GiveWay, Limits, Send, Wait
from services.protocol.http import Http

# Small, so that inputs of a few dozen bytes reach every one of them; but a handshake must fit.
LIMITS = Limits(
    http_line=80,
    http_headers=8,
    http_header_bytes=300,
    http_body=90,
    http_requests=9,
    pipeline=5,
    sleep_ms=50,
    burn=20,
    blob=700,
    ws_frame=150,
    ws_message=200,
    ws_inflated=300,
)

HANDSHAKE = (
    b"GET /ws HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
    b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"
)
DEFLATE = b"Sec-WebSocket-Extensions: permessage-deflate\r\n"

# The byte behind the cuts: the stream is what follows a handshake, without or with compression.
UPGRADED, COMPRESSED = 1, 2
# Byte by byte takes the most time, so it is done once: from the start of a drain on, or else of the stream.
BYTEWISE_DRAIN = 4
# The bytes before the stream: the cuts, that byte, and one that says when the server drains.
HEAD = CUTS + 2

# More than any input of a fuzzer can ask for.
_MOST_EVENTS = 20_000

# What a chunk's line may hold, and a frame's head.
_CHUNK_LINE, _FRAME_HEAD = 258, 14

# The most bytes that an idle connection may hold: before its handshake, and as a WebSocket.
_MOST_OF_HTTP = LIMITS.http_line + LIMITS.http_header_bytes + _CHUNK_LINE
_MOST_OF_SOCKET = LIMITS.ws_frame + _FRAME_HEAD + LIMITS.ws_message

_BYTES = [bytes((byte,)) for byte in range(256)]

# Of two mistakes in a head, the pieces decide which one is seen first.
_OF_A_HEAD = frozenset((400, 413, 414, 431, 501, 505))


class Client:
    """A connection's other side, which does what a model does.

    Args:
        careless: make every mistake that a model can make, at every event.
        drains_after: begin to drain after this event.

    Attributes:
        closed_early: the server has ended the connection.
    """

    def __init__(self, *, careless: bool = False, drains_after: int = -1) -> None:
        self._connection = Connection("http", "peer", limits=LIMITS)
        self._careless = careless
        self._drains_after = drains_after
        self._events = 0
        self.outcome = Outcome()
        self.closed_early = False

    def receive(self, piece: bytes) -> None:
        self._connection.receive_data(piece)
        self.pull()
        if not self.outcome.closed:
            self._check_memory(len(piece))

    def end(self, piece: bytes) -> None:
        """End the stream with its last piece, and check that the end is one."""
        self.closed_early = self.outcome.closed
        if piece:
            self._connection.receive_data(piece)
        self._connection.receive_eof()
        self.pull()
        assert self.outcome.closed, "a stream that has ended was not closed"
        assert self._connection.next_event() == Close()
        self._try(lambda: self._connection.receive_data(b"GET"))

    def drain(self, arrived: int) -> None:
        self._connection.drain(arrived)
        self.pull()

    def pull(self) -> None:
        """Do what is asked for, up to None or Close."""
        while (event := self._connection.next_event()) is not None:
            self._events += 1
            if self._events == self._drains_after:
                self._connection.drain()
            assert self._events < _MOST_EVENTS, "no end of events"
            if self._careless and not isinstance(event, Compute):
                self._try(lambda: self._connection.receive_digest(b""))
            match event:
                case Send(data):
                    assert not self.outcome.closed, "Close was not the last event"
                    assert 0 < len(data) < 2 * SEND_SIZE
                    self.outcome.sent += data
                case Wait(seconds):
                    assert 0 <= seconds * 1000 <= LIMITS.sleep_ms
                    self.outcome.waits.append(seconds)
                case Compute(rounds) as work:
                    assert rounds <= LIMITS.burn
                    self.outcome.rounds.append(rounds)
                    if self._careless and self._connection._left:
                        self._try(self._connection.next_event)
                    self._connection.receive_digest(work.run())
                case GiveWay():
                    pass
                case Close():
                    self.outcome.closed = True
                    return

    def _try(self, mistake: Callable[[], object]) -> None:
        try:
            mistake()
        except AdapterError:
            return
        raise AssertionError("a mistake was not noticed")

    def _check_memory(self, read_size: int) -> None:
        """Check what is held without events to come: this runs for each byte of an input, so it is lean."""
        service = self._connection._service
        assert isinstance(service, Http)
        assert not service._replies, "replies wait"
        if (socket := service._socket) is not None:
            assert not socket._replies, "replies wait"
            buffer = len(socket._buffer)
            unused = buffer - socket._position
            held, most = unused + len(socket._message), _MOST_OF_SOCKET
        else:
            reader = service._reader
            buffer = len(reader._buffer)
            held, most = (unused := buffer - reader._position), _MOST_OF_HTTP
            if service._upload:
                held += len(service._upload[1]._trailer)
        # A server that drains soon ends each connection, and holds a reply meanwhile.
        assert unused or not buffer or service._draining, "a buffer is kept that has been used"
        assert held <= most, f"{held} bytes are held, of {most}"
        assert buffer <= most + read_size, f"a buffer of {buffer} bytes, of {most} and the last {read_size}"


def check(data: bytes) -> None:
    """Put one input to every oracle.

    Args:
        data: where the stream is cut, how it begins, when the server drains, then the stream.

    Raises:
        AssertionError: something does not hold.
    """
    if len(data) < HEAD:
        return
    cuts, flags, moment, stream = data[:CUTS], data[CUTS], data[CUTS + 1], data[HEAD:]
    prefix = b""
    if flags & (UPGRADED | COMPRESSED):
        prefix = HANDSHAKE + (DEFLATE if flags & COMPRESSED else b"") + b"\r\n"
        stream = prefix + stream
    # The handshake is the same in each input: test_oracles.py cuts it into its bytes.
    bytewise_from = len(prefix)
    is_drain_bytewise = bool(flags & BYTEWISE_DRAIN)
    check_cuts(stream, cuts, bytewise_from=None if is_drain_bytewise else bytewise_from)
    check_drain(stream, cuts, moment, bytewise_from=bytewise_from if is_drain_bytewise else None)
    check_order(stream, cuts, moment)


def divide(stream: bytes, cuts: bytes) -> list[bytes]:
    borders = sorted({0, len(stream), *(place % (len(stream) + 1) for place in cuts)})
    return [stream[start:end] for start, end in pairwise(borders)]


def divide_bytes(stream: bytes, start: int) -> list[bytes]:
    """Return the bytes of a stream, one by one from a place on, and what precedes it as one piece."""
    before = [stream[:start]] if start and stream else []
    return [*before, *(_BYTES[byte] for byte in stream[start:])]


def check_cuts(stream: bytes, cuts: bytes, *, bytewise_from: int | None) -> None:
    """Check that a stream in pieces is answered as the whole is.

    Args:
        bytewise_from: cut into single bytes from this place on; None: cut at `cuts`.
    """
    whole = _play(stream, [stream] if stream else [])
    pieces = divide(stream, cuts) if bytewise_from is None else divide_bytes(stream, bytewise_from)
    played = _play(stream, pieces, careless=True)
    _compare(whole, played)
    assert played[0].closed_early == whole[0].closed_early


def check_drain(stream: bytes, cuts: bytes, moment: int, *, bytewise_from: int | None) -> None:
    """Check the same for a drain that begins in the middle, with the rest in the kernel's buffer; or ends there."""
    place = moment % (len(stream) + 1)
    before, after = divide(stream[:place], cuts), stream[place:]
    whole = _play(stream, before, [after] if after else [])
    pieces = divide(after, cuts) if bytewise_from is None else divide_bytes(after, max(bytewise_from - place, 0))
    _compare(whole, _play(stream, before, pieces, careless=True), drains=True)


def check_order(stream: bytes, cuts: bytes, moment: int) -> None:
    """The stream's end may be known before anything is answered; a drain may begin between any two events."""
    _compare(_play(stream, divide(stream, cuts)), _finish(Client(), stream, stream, drains=False))
    client = Client(drains_after=1 + moment % 8)
    *pieces, last = divide(stream, cuts) or [b""]
    for piece in pieces:
        client.receive(piece)
    _finish(client, stream, last, drains=True)


Played = tuple[Client, Said]


def _play(stream: bytes, pieces: list[bytes], drained: list[bytes] | None = None, *, careless: bool = False) -> Played:
    """Play a stream: its pieces, and those that come while the server drains; then its end."""
    client = Client(careless=careless)
    for piece in pieces:
        client.receive(piece)
    if drained is not None:
        client.drain(sum(map(len, drained)))
        for piece in drained:
            client.receive(piece)
    return _finish(client, stream, b"", drains=drained is not None)


def _finish(client: Client, stream: bytes, piece: bytes, *, drains: bool) -> Played:
    """End a stream with its last piece, and check what was sent."""
    client.end(piece)
    said = read(client.outcome.sent, has_heads=b"HEAD" in stream)
    _check_end(client, said, drains=drains)
    return client, said


def _check_end(client: Client, said: Said, *, drains: bool) -> None:
    """The last reply says that the connection ends, and no other does."""
    for reply in said.replies[:-1]:
        assert reply.is_whole, "a reply behind one that is not whole"
        assert not reply.closes, "a reply behind one with Connection: close"
    if not said.replies:
        assert drains or not client.closed_early, "closed without a word"
        return
    last = said.replies[-1]
    assert last.is_whole or last.is_echo, "a reply that is not whole"
    if client.closed_early and not drains and said.frames is None:
        assert last.closes or not last.is_whole, "the last reply does not say so"


def _compare(one: Played, other: Played, *, drains: bool = False) -> None:
    (client, said), (second, found) = one, other
    outcome, wanted = second.outcome, client.outcome
    assert (outcome.waits, outcome.rounds) == (wanted.waits, wanted.rounds)
    assert found.frames == said.frames, f"{found.frames!r} is not {said.frames!r}"
    if drains:
        found.replies = _as_drained(found.replies, said.replies)
    assert len(found.replies) == len(said.replies), f"{found} is not {said}"
    for left, right in zip(said.replies, found.replies, strict=True):
        assert left == right or _is_alike(left, right), f"{right} is not {left}"


def _as_drained(found: list[Reply], wanted: list[Reply]) -> list[Reply]:
    """Take out what the pieces explain while a server drains.

    An upload that came in one piece is known to be the last one, so its echo says that the connection ends, and what
    follows is not looked at. The head of one that came in several had to be sent before that was known.
    """
    place = min(len(found), len(wanted)) - 1
    if place < 0 or not (found[place].is_echo and wanted[place].is_echo):
        return found
    if len(found) == place + 2 and wanted[place].closes and found[-1].closes and found[-1].status in _OF_A_HEAD:
        found = found[:-1]
    if found[place].closes != wanted[place].closes:
        fields = {name: value for name, value in found[place].fields.items() if name != b"connection"}
        if wanted[place].closes:
            fields[b"connection"] = wanted[place].fields[b"connection"]
        found = [*found[:place], replace(found[place], fields=fields)]
    return found


def _is_alike(one: Reply, other: Reply) -> bool:
    """Whether the pieces explain that two last replies differ."""
    refusals = [each for each in (one, other) if each.status in _OF_A_HEAD and each.closes]
    echoes = [each for each in (one, other) if each.is_echo and not each.is_whole]
    if len(refusals) == 2:
        return True
    # A body becomes wrong: what precedes the mistake has gone back, or has not.
    if len(refusals) == len(echoes) == 1:
        return True
    return len(echoes) == 2 and (one.body.startswith(other.body) or other.body.startswith(one.body))
