"""What must hold for the core, whatever a peer sends. `check` raises AssertionError where it does not.

Four oracles, none of them written by whoever wrote the parser:

* `lab.clients.reference`, a second implementation: every byte of every answer, and the work that is asked for;
* itself: how a stream is cut into pieces changes nothing;
* hiredis, the parser that most clients share: it reads every reply, and of requests it reads the arrays that we read;
* the promises of docs/protocol.md: an end to every stream, one reply to a datagram, no more memory than the limits say.
"""

from dataclasses import dataclass, field
from itertools import pairwise

import hiredis

from lab.clients.reference import Bounds, answer, answer_datagram
from services.protocol import (
    DATAGRAM_SIZE,
    SERVICES,
    Close,
    Compute,
    Connection,
    Conversation,
    DatagramConnection,
    GiveWay,
    Limits,
    PeerError,
    Send,
    Wait,
)
from services.protocol.resp import RequestReader

# Small, so that inputs of a few dozen bytes reach every one of them.
LIMITS = Limits(line=80, bulk=60, array=6, request=100, transaction=700, sleep_ms=50, burn=20, blob=200, pipeline=7)
BOUNDS = Bounds(line=80, bulk=60, array=6, request=100, transaction=700, sleep_ms=50, burn=20, blob=200)

# What stands before a null, a set or a push in a reply. To us a line like `$-1` is an inline command; to hiredis it is
# nothing at all, or empty, as the arrays are that our reader skips.
_OTHER_TYPES = (b"$", b"_", b"~", b">")

# The first bytes of an input say where the rest of it is cut.
CUTS = 4


@dataclass(slots=True)
class Outcome:
    """What a conversation has asked for, added up."""

    sent: bytes = b""
    sends: int = field(default=0, compare=False)  # in how many parts, which is the server's affair
    waits: list[float] = field(default_factory=list)
    rounds: list[int] = field(default_factory=list)
    closed: bool = False


def pull(conversation: Conversation, outcome: Outcome | None = None) -> Outcome:
    """Do what a model does until there is nothing to do but to read on, or until Close."""
    outcome = Outcome() if outcome is None else outcome
    while True:
        match conversation.next_event():
            case Send(data):
                outcome.sent += data
                outcome.sends += 1
            case Wait(seconds):
                outcome.waits.append(seconds)
            case Compute(rounds) as work:
                outcome.rounds.append(rounds)
                conversation.receive_digest(work.run())
            case GiveWay():
                pass
            case Close():
                outcome.closed = True
                return outcome
            case None:
                return outcome


def check(data: bytes) -> None:
    """Put one input to every oracle.

    Args:
        data: where the stream is cut, `CUTS` bytes, then the stream.

    Raises:
        AssertionError: something does not hold.
    """
    stream = data[CUTS:]
    check_stream(stream)
    check_cuts(stream, data[:CUTS])
    check_replies(stream)
    check_requests(stream)
    for service in SERVICES:
        if SERVICES[service].over_datagrams:
            check_datagram(service, stream)


def check_stream(stream: bytes) -> None:
    """What is sent, and the work that is asked for, are what the reference says; and every stream comes to its end."""
    for service in ("greet", "echo", "discard", "command"):
        found, wanted = serve(service, [stream] if stream else []), answer(service, stream, BOUNDS)
        assert found.closed, "a stream that has ended was not closed"
        if wanted.is_known:
            assert (found.sent, found.waits, found.rounds) == (wanted.sent, wanted.waits, wanted.rounds), service


def check_cuts(stream: bytes, cuts: bytes) -> None:
    """A stream in pieces is answered as the whole is."""
    whole = serve("command", [stream] if stream else [])
    borders = sorted({0, len(stream), *(place % (len(stream) + 1) for place in cuts)})
    pieces = serve("command", [stream[start:end] for start, end in pairwise(borders)])
    assert whole == pieces, f"cut at {borders}: {pieces}, whole: {whole}"


def serve(service: str, pieces: list[bytes]) -> Outcome:
    """Everything that a service makes of a stream, up to and with its end."""
    connection = Connection(service, limits=LIMITS)
    outcome = Outcome()
    for piece in pieces:
        connection.receive_data(piece)
        pull(connection, outcome)
    connection.receive_eof()
    pull(connection, outcome)
    assert connection.next_event() == Close()
    return outcome


def check_replies(stream: bytes) -> None:
    """Hiredis reads every reply, and nothing is left over."""
    sent = serve("command", [stream] if stream else []).sent
    reader = hiredis.Reader()
    reader.feed(sent)
    while reader.gets() is not False:
        pass
    assert not reader.has_data(), f"no whole number of replies: {sent!r}"


def check_requests(stream: bytes) -> None:
    """Arrays, one after the other, as long as both parsers take them for such."""
    ours, theirs = RequestReader(LIMITS), hiredis.Reader()
    ours.feed(stream)
    theirs.feed(stream)
    while True:
        try:
            request = ours.next_request()
        except PeerError:
            # Of what is broken hiredis may read what comes before the break, and knows no limits.
            return
        held = len(ours._buffer) - ours._position + ours._waiting_size
        held += sum(map(len, ours._partial[0])) if ours._partial else 0
        assert held <= len(stream)
        if request is None:
            return
        assert request, "a request without a name"
        assert len(request) <= LIMITS.array
        assert sum(map(len, request)) <= max(LIMITS.request, LIMITS.line)
        if len(request) == 1 and request[0][:1] in _OTHER_TYPES:
            return
        try:
            reply = theirs.gets()
            while reply is None or reply == []:  # null and empty arrays are skipped by our reader
                reply = theirs.gets()
        except hiredis.ProtocolError:
            return  # an inline command, or a length with zeros before it
        if not isinstance(reply, list) or not all(isinstance(item, bytes) for item in reply):
            return  # a line that means something else in a reply
        assert request == reply


def check_datagram(service: str, data: bytes) -> None:
    """At most one goes back, as the reference says, of a size that fits; no more work is asked for than is allowed."""
    found, wanted = pull(DatagramConnection(service, data, limits=LIMITS)), answer_datagram(service, data, BOUNDS)
    assert found.closed
    assert found.sends <= 1, f"{found.sends} <= 1"
    assert len(found.sent) <= DATAGRAM_SIZE, f"{len(found.sent)} <= {DATAGRAM_SIZE}"
    assert sum(found.rounds) <= LIMITS.burn
    assert round(sum(found.waits) * 1000) <= LIMITS.sleep_ms
    if wanted.is_known:
        assert (found.sent, found.waits, found.rounds) == (wanted.sent, wanted.waits, wanted.rounds), service
