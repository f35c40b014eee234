"""The turns of a connection."""

import itertools

from loadtests.sockets.exchange import Exchange

TURNS = ((b"12345678ask", b"12345678reply"), (b"12345678", b"12345678x"))


def test_turns_follow_in_their_order_and_begin_again() -> None:
    assert list(itertools.islice(Exchange(TURNS).open_turns(), 3)) == [*TURNS, TURNS[0]]


def test_numbered_turns_differ_and_keep_their_size() -> None:
    found = list(itertools.islice(Exchange(TURNS, numbered=True).open_turns(), 258))
    assert found[:2] == [(bytes(8) + b"ask", bytes(8) + b"reply"), (bytes(7) + b"\1", bytes(7) + b"\1x")]
    assert found[257] == (bytes(6) + b"\1\1", bytes(6) + b"\1\1x")
