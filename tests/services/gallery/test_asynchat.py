"""The chat room of asynchat, over socket pairs and without its loop: each turn of that is the test's."""

import socket
from collections.abc import Callable, Iterator
from contextlib import ExitStack

import pytest

from services.gallery import gallery_asynchat
from services.gallery.gallery_asynchat import Member

Enter = Callable[[], tuple[socket.socket, Member]]


@pytest.fixture
def enter() -> Iterator[Enter]:
    """Add a client to one room; return its end of the connection, and the server's."""
    room: set[Member] = set()
    with ExitStack() as stack:

        def enter() -> tuple[socket.socket, Member]:
            ours, theirs = socket.socketpair()
            stack.enter_context(theirs)
            theirs.settimeout(20.0)
            member = Member(ours, len(room) + 1, room)
            stack.callback(member.close)
            return theirs, member

        yield enter


def take_turn() -> None:
    gallery_asynchat.asyncore.loop(timeout=0, use_poll=True, count=1)  # type: ignore[attr-defined]


def hear(client: socket.socket) -> list[str]:
    """Return the lines that have arrived."""
    return client.recv(65_536).decode().splitlines()


def test_client_that_leaves_with_unread_lines_is_not_here_any_more(enter: Enter) -> None:
    """It gets its lines and the last words when it reads, and is counted and addressed no more until then."""
    (slow, member), (other, _) = enter(), enter()
    heard = len(hear(slow)) + len(hear(other))
    assert heard == 2
    while not member.producer_fifo:  # type: ignore[attr-defined]  # missing in typeshed
        member.say("x" * 4000)
    slow.sendall(b"/quit\r\n")
    take_turn()
    other.sendall(b"/who\r\nhello\r\n")
    take_turn()
    assert hear(other) == ["1 here", "2: hello"]
    lines = b""
    while data := slow.recv(65_536):
        lines += data
        take_turn()
    assert lines.splitlines()[-2:] == [b"x" * 4000, b"Good-bye."]
