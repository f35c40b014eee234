"""Whatever a peer sends: nothing raises, every stream ends, and where it is cut changes nothing."""

import re
from collections.abc import Callable
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fuzz.oracle import Outcome, pull
from services.protocol import Connection, Limits
from tests.support.http_cases import CASES
from tests.support.ws_cases import ANSWERED, FAILED, FAILED_OURS
from tests.support.ws_link import handshake

# Small, so that short inputs reach them.
HTTP = {"http_line": 64, "http_headers": 4, "http_header_bytes": 300, "http_body": 64, "http_requests": 6}
WEBSOCKET = {"ws_frame": 200, "ws_message": 300, "ws_inflated": 300}
LIMITS = Limits(**HTTP, **WEBSOCKET, sleep_ms=50, burn=20, blob=300, pipeline=3)

WORDS = [
    b"GET ", b"POST ", b"HEAD ", b"/", b"/echo", b"/ping", b"/blob/200", b"/sleep/1", b"/burn/2", b"/stream/2", b"/ws",
    b" HTTP/1.1\r\n", b" HTTP/1.0\r\n", b"Host: a\r\n", b"Content-Length: 3\r\n", b"Transfer-Encoding: chunked\r\n",
    b"Connection: close\r\n", b"Expect: 100-continue\r\n", b"\r\n", b"\r", b"\n", b"3\r\nabc\r\n", b"0\r\n", b"abc",
    b": ", b";a=b", b"\0",
]  # fmt: skip
REQUESTS = [case.request for case in CASES if len(case.request) < 500]
SENT = [case.sent for case in ANSWERED] + [case.sent for case in [*FAILED, *FAILED_OURS]]
FRAMES = [sent for sent in SENT if len(sent) < 500]
DEFLATE = handshake(more=["Sec-WebSocket-Extensions: permessage-deflate"])

http_streams = st.lists(st.sampled_from(WORDS + REQUESTS) | st.binary(max_size=6), max_size=12).map(b"".join)
ws_streams = st.lists(st.sampled_from(FRAMES) | st.binary(max_size=12), max_size=8).map(b"".join)


def answer(pieces: list[bytes], *, drains_before: int | None = None) -> Outcome:
    connection = Connection("http", limits=LIMITS)
    outcome = Outcome()
    for number, piece in enumerate(pieces):
        if number == drains_before:
            connection.drain(arrived=1_000_000)
        if piece:
            connection.receive_data(piece)
        pull(connection, outcome)
    connection.receive_eof()
    pull(connection, outcome)
    assert outcome.closed
    return outcome


def cut(stream: bytes, places: list[int]) -> list[bytes]:
    ends = [0, *sorted(place % (len(stream) + 1) for place in places), len(stream)]
    return [stream[start:end] for start, end in pairwise(ends)]


@settings(deadline=None)
@given(stream=http_streams, places=st.lists(st.integers(0, 10_000), max_size=6))
def test_http_is_cut_anywhere(stream: bytes, places: list[int]) -> None:
    """What is answered, and what is refused. A head with two faults is refused for the one that is seen first."""
    whole, pieces, bytewise = answer([stream]), answer(cut(stream, places)), answer(cut(stream, [*range(len(stream))]))
    for other in (pieces, bytewise):
        assert (other.waits, other.rounds) == (whole.waits, whole.rounds)
        found, wanted = statuses(other), statuses(whole)
        assert found == wanted or (
            len(found) == len(wanted) and found[:-1] == wanted[:-1] and min(found[-1], wanted[-1]) >= 400
        )


def statuses(outcome: Outcome) -> list[int]:
    """Those of all replies, but for 100, which depends on whether the body has come."""
    found = re.findall(rb"HTTP/1.1 (\d{3}) .*\r\n(?:.+\r\n)*\r\n", outcome.sent)
    return [int(status) for status in found if status != b"100"]


@settings(deadline=None)
@given(stream=ws_streams, places=st.lists(st.integers(0, 10_000), max_size=6), compressed=st.booleans())
def test_websocket_is_cut_anywhere(stream: bytes, places: list[int], compressed: bool) -> None:
    start = DEFLATE if compressed else handshake()
    whole = answer([start, stream])
    assert answer([start, *cut(stream, places)]) == whole
    assert answer([start + stream]) == whole


@settings(deadline=None)
@given(stream=http_streams, places=st.lists(st.integers(0, 10_000), max_size=4), when=st.integers(0, 5))
def test_drain_at_any_moment_loses_no_reply(stream: bytes, places: list[int], when: int) -> None:
    pieces = cut(stream, places)
    drained, whole = statuses(answer(pieces, drains_before=when)), statuses(answer(pieces))
    # The start of a request that is malformed is as little answered as any other start.
    assert drained == whole or (drained == whole[:-1] and whole[-1] >= 400)


@pytest.mark.parametrize("start", [b"", handshake(), DEFLATE], ids=["http", "websocket", "compressed"])
def test_bytes_of_no_meaning(pull: Callable[..., Outcome], start: bytes) -> None:
    for first in range(256):
        for second in range(0, 256, 5):
            assert answer([start + bytes((first, second)) * 40]).closed
