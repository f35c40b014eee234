"""What must hold for the core, whatever a peer sends. `check` raises AssertionError where it does not.

Three oracles, none of them written by whoever wrote the parser:

* itself: how a stream is cut into pieces changes nothing;
* hiredis, the parser that most clients share: it reads every reply, and of requests it reads the arrays that we read;
* the promises of docs/protocol.md: an end to every stream, one reply to a datagram, no more memory than the limits say.
"""

from dataclasses import dataclass, field
from itertools import pairwise

import hiredis

from services.protocol import (
    DATAGRAM_SIZE,
    SERVICES,
    Close,
    Compute,
    Connection,
    Conversation,
    DatagramConnection,
    Limits,
    PeerError,
    Send,
    Wait,
)
from services.protocol.resp import RequestReader

# Small, so that inputs of a few dozen bytes reach every one of them.
LIMITS = Limits(line=80, bulk=60, array=6, request=100, sleep_ms=50, burn=20, blob=200, pipeline=7)

# What stands before a null, a set or a push in a reply. To us a line like `$-1` is an inline command; to hiredis it is
# nothing at all, or empty, as the arrays are that our reader skips.
_OTHER_TYPES = (b"$", b"_", b"~", b">")

# The first bytes of an input say where the rest of it is cut.
CUTS = 4


@dataclass(slots=True)
class Outcome:
    """What a conversation has asked for, added up."""

    sent: bytes = b""
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
            case Wait(seconds):
                outcome.waits.append(seconds)
            case Compute(rounds) as work:
                outcome.rounds.append(rounds)
                conversation.receive_digest(work.run())
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
    whole = _serve([stream] if stream else [])
    borders = sorted({0, len(stream), *(place % (len(stream) + 1) for place in data[:CUTS])})
    pieces = _serve([stream[start:end] for start, end in pairwise(borders)])
    assert whole == pieces, f"cut at {borders}: {pieces}, whole: {whole}"
    _check_replies(whole.sent)
    _check_requests(stream)
    for service in SERVICES:
        if SERVICES[service].over_datagrams:
            _check_datagram(service, stream)


def _serve(pieces: list[bytes]) -> Outcome:
    """Everything that `command` makes of a stream, up to and with its end."""
    connection = Connection("command", limits=LIMITS)
    outcome = Outcome()
    for piece in pieces:
        connection.receive_data(piece)
        pull(connection, outcome)
    connection.receive_eof()
    pull(connection, outcome)
    assert outcome.closed, "a stream that has ended was not closed"
    assert connection.next_event() == Close()
    return outcome


def _check_replies(sent: bytes) -> None:
    reader = hiredis.Reader()
    reader.feed(sent)
    while reader.gets() is not False:
        pass
    assert not reader.has_data(), f"no whole number of replies: {sent!r}"


def _check_requests(stream: bytes) -> None:
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


def _check_datagram(service: str, data: bytes) -> None:
    conversation = DatagramConnection(service, data, limits=LIMITS)
    sends = rounds = 0
    seconds = 0.0
    while (event := conversation.next_event()) != Close():
        match event:
            case Send(reply):
                sends += 1
                assert len(reply) <= DATAGRAM_SIZE
            case Wait():
                seconds += event.seconds
            case Compute() as work:
                rounds += work.rounds
                conversation.receive_digest(work.run())
            case _:
                raise AssertionError(f"{event} for a datagram")
    assert sends <= 1
    assert rounds <= LIMITS.burn
    assert round(seconds * 1000) <= LIMITS.sleep_ms
