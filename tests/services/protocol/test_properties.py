"""What must hold for any input: hypothesis looks for the one for which it does not."""

from collections.abc import Callable
from itertools import pairwise
from typing import Any

import hiredis
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fuzz.oracle import BOUNDS, LIMITS
from lab.clients.reference import answer, answer_datagram
from services.protocol import DATAGRAM_SIZE, SERVICES, Close, Connection, DatagramConnection, Limits, Send
from services.protocol.command import Command
from services.protocol.resp import RequestReader

Pull = Callable[..., Any]

# A busy machine is no finding.
no_deadline = settings(deadline=None)

names = st.sampled_from(
    b"PING echo SLEEP BURN BLOB INFO HELLO CONFIG CLIENT NOPE SELECT AUTH MULTI EXEC DISCARD RESET".split()
)
texts = st.one_of(st.binary(max_size=70), st.integers(-5, 300).map(b"%d".__mod__), names)


def array(arguments: list[bytes]) -> bytes:
    return b"*%d\r\n" % len(arguments) + b"".join(b"$%d\r\n%b\r\n" % (len(text), text) for text in arguments)


arrays = st.lists(texts, min_size=1, max_size=7).map(array)
lines = st.lists(st.text("aB 1\"'\\x\t", max_size=20).map(str.encode), max_size=3).map(
    lambda words: b"ECHO " + b" ".join(words) + b"\r\n"
)
headers = st.builds(
    lambda kind, number, end: kind + number + end,
    st.sampled_from([b"*", b"$", b":", b""]),
    st.one_of(st.integers(-2, 200).map(b"%d".__mod__), st.binary(max_size=4)),
    st.sampled_from([b"\r\n", b"\n", b"\r", b""]),
)
typed = st.lists(names, min_size=1, max_size=3).map(lambda words: b" ".join(words) + b"\n")
in_transactions = st.lists(st.one_of(arrays, typed), max_size=5).map(
    lambda some: b"MULTI\n" + b"".join(some) + b"EXEC\n"
)
fragments = st.one_of(arrays, arrays, lines, headers, typed, in_transactions, st.binary(max_size=40), st.just(b"\r\n"))
# Something like what peers send, with every kind of mistake in it.
streams = st.lists(fragments, max_size=8).map(b"".join)


def cut(data: bytes, places: list[int]) -> list[bytes]:
    """`data` in pieces, none of them empty."""
    borders = sorted({0, len(data), *(place % (len(data) + 1) for place in places)})
    return [data[start:end] for start, end in pairwise(borders)]


@pytest.mark.parametrize("service", ["greet", "echo", "discard", "command"])
@no_deadline
@given(stream=streams)
def test_stream_is_answered_as_the_reference_says(pull: Pull, service: str, stream: bytes) -> None:
    connection = Connection(service, limits=LIMITS)
    if stream:
        connection.receive_data(stream)
    connection.receive_eof()
    found, wanted = pull(connection), answer(service, stream, BOUNDS)
    if wanted.is_known:
        assert (found.sent, found.waits, found.rounds) == (wanted.sent, wanted.waits, wanted.rounds)


@pytest.mark.parametrize("service", [name for name, service in SERVICES.items() if service.over_datagrams])
@no_deadline
@given(data=streams)
def test_datagram_is_answered_as_the_reference_says(pull: Pull, service: str, data: bytes) -> None:
    found = pull(DatagramConnection(service, data, limits=LIMITS))
    wanted = answer_datagram(service, data, BOUNDS)
    if wanted.is_known:
        assert (found.sent, found.waits, found.rounds) == (wanted.sent, wanted.waits, wanted.rounds)


@no_deadline
@given(sizes=st.lists(st.integers(0, 60), min_size=1, max_size=6))
def test_sizes_of_all_arguments_count_for_the_limit_of_a_request(pull: Pull, sizes: list[int]) -> None:
    """The first length that takes the sum over 100 is refused, before its bytes have come."""
    stream, total = b"*%d\r\n" % len(sizes), 0
    expected = b"-ERR unknown command '" + b"x" * sizes[0] + b"'\r\n"
    for size in sizes:
        total += size
        stream += b"$%d\r\n" % size
        if total > 100:
            expected = b"-ERR Protocol error: request of %d bytes is over the limit of 100\r\n" % total
            break
        stream += b"x" * size + b"\r\n"
    connection = Connection("command", limits=LIMITS)
    connection.receive_data(stream)
    outcome = pull(connection)
    assert outcome.sent == expected
    assert outcome.closed == (total > 100)


@no_deadline
@given(stream=streams, places=st.lists(st.integers(0, 10_000), max_size=12))
def test_how_a_stream_is_cut_up_changes_nothing(pull: Pull, stream: bytes, places: list[int]) -> None:
    whole = Connection("command", limits=LIMITS)
    if stream:
        whole.receive_data(stream)
    expected = pull(whole)
    pieces = Connection("command", limits=LIMITS)
    found = None
    for piece in cut(stream, places):
        pieces.receive_data(piece)
        found = pull(pieces, found)
    assert (found or pull(pieces)) == expected


@pytest.mark.parametrize("service", ["greet", "echo", "discard", "command"])
@no_deadline
@given(stream=streams)
def test_any_stream_comes_to_its_end(pull: Pull, service: str, stream: bytes) -> None:
    connection = Connection(service, limits=LIMITS)
    connection.receive_data(stream)
    connection.receive_eof()
    assert pull(connection).closed


@pytest.mark.parametrize("service", [name for name, service in SERVICES.items() if service.over_datagrams])
@no_deadline
@given(data=streams)
def test_any_datagram_gets_at_most_one_back(pull: Pull, service: str, data: bytes) -> None:
    conversation = DatagramConnection(service, data, limits=LIMITS)
    sends = 0
    while (event := conversation.next_event()) != Close():
        assert event is not None
        if isinstance(event, Send):
            assert len(event.data) <= DATAGRAM_SIZE
            sends += 1
        elif hasattr(event, "run"):
            conversation.receive_digest(event.run())
    assert sends <= 1


@no_deadline
@given(stream=streams)
def test_a_client_can_read_every_reply(pull: Pull, stream: bytes) -> None:
    """hiredis, the parser that most clients share, reads all that is sent, and nothing is left over."""
    connection = Connection("command", limits=LIMITS)
    connection.receive_data(stream)
    outcome = pull(connection)
    reader = hiredis.Reader()
    reader.feed(outcome.sent)
    replies = 0
    while reader.gets() is not False:
        replies += 1
    assert not reader.has_data()
    assert bool(replies) == bool(outcome.sent)


# Requests beside the only right answer, written down without the core.
pairs = st.one_of(
    st.just((array([b"PING"]), b"+PONG\r\n")),
    st.just((b"PING\r\n", b"+PONG\r\n")),
    st.binary(max_size=50).map(lambda text: (array([b"ECHO", text]), b"$%d\r\n%b\r\n" % (len(text), text))),
    st.integers(0, 200).map(
        lambda size: (b"BLOB %d\n" % size, b"$%d\r\n%b\r\n" % (size, bytes(32 + index % 95 for index in range(size))))
    ),
    st.integers(0, 50).map(lambda milliseconds: (b"SLEEP %d\r\n" % milliseconds, b"+OK\r\n")),
    st.integers(51, 999).map(
        lambda over: (array([b"SLEEP", b"%d" % over]), b"-ERR SLEEP takes 0 to 50 ms, not '%d'\r\n" % over)
    ),
    st.from_regex(rb"[a-z]{12}", fullmatch=True).map(
        lambda name: (name + b"\n", b"-ERR unknown command '%b'\r\n" % name)
    ),
)


@no_deadline
@given(pipeline=st.lists(pairs, max_size=30), places=st.lists(st.integers(0, 10_000), max_size=5))
def test_pipeline_is_answered_in_its_order(pull: Pull, pipeline: list[tuple[bytes, bytes]], places: list[int]) -> None:
    connection = Connection("command", limits=LIMITS)
    outcome = pull(connection)
    for piece in cut(b"".join(request for request, _ in pipeline), places):
        connection.receive_data(piece)
        pull(connection, outcome)
    assert outcome.sent == b"".join(reply for _, reply in pipeline)
    assert not outcome.closed


@no_deadline
@given(arguments=st.lists(st.binary(min_size=1, max_size=15), min_size=1, max_size=5))
def test_quoted_line_means_what_the_array_means(arguments: list[bytes]) -> None:
    """Any bytes can be typed: `\\xHH` in double quotes."""
    typed = b" ".join(b'"' + b"".join(b"\\x%02x" % byte for byte in text) + b'"' for text in arguments)
    reader = RequestReader(Limits())
    reader.feed(typed + b"\n" + array(arguments))
    assert reader.next_request() == reader.next_request() == arguments


def held_bytes(reader: RequestReader) -> int:
    """What a reader keeps of what it was fed."""
    arguments = reader._partial[0] if reader._partial else []
    return len(reader._buffer) + sum(map(len, reader._waiting)) + sum(map(len, arguments))


@no_deadline
@given(stream=streams, size=st.integers(1, 50))
def test_what_a_reader_holds_is_bounded(pull: Pull, stream: bytes, size: int) -> None:
    """A request, the chunk that ended it, and no more; between two requests nothing at all."""
    connection = Connection("command", limits=LIMITS)
    assert isinstance(connection._service, Command)
    reader = connection._service._reader
    for start in range(0, len(stream), size):
        connection.receive_data(stream[start : start + size])
        if pull(connection).closed:
            return
        assert held_bytes(reader) <= 2 * LIMITS.request + 16 + size
        assert bool(held_bytes(reader)) or reader._partial or reader.is_between_requests
        if reader.is_between_requests:
            assert held_bytes(reader) == 0
