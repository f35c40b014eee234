"""The turns of a connection."""

import itertools

from loadtests.sockets.exchange import Exchange

TURNS = ((b"12345678ask", b"12345678reply"), (b"12345678", b"12345678x"))


def test_exchange_is_one_request_on_a_connection_that_is_kept_unless_it_says_otherwise() -> None:
    found = Exchange(TURNS)
    assert (found.depth, found.pause, found.numbered) == (1, 0.0, False)
    assert (found.half_close, found.until_close, found.endless) == (False, False, False)
    assert found.holds_connection
    assert not Exchange(TURNS, per_connection=1).holds_connection


def test_turns_follow_in_their_order_and_begin_again() -> None:
    assert list(itertools.islice(Exchange(TURNS).open_turns(), 3)) == [*TURNS, TURNS[0]]


def test_numbered_turns_differ_and_keep_their_size() -> None:
    found = list(itertools.islice(Exchange(TURNS, numbered=True).open_turns(), 258))
    assert found[:2] == [(bytes(8) + b"ask", bytes(8) + b"reply"), (bytes(7) + b"\1", bytes(7) + b"\1x")]
    assert found[257] == (bytes(6) + b"\1\1", bytes(6) + b"\1\1x")
