"""The rule of what is idle, by itself: what the kernel tells, and what follows from it."""

import socket
from collections.abc import Iterator
from contextlib import suppress

import pytest

from services.serving.idle import LOOKS, IdleWatch, unsent
from tests.support.waiting import wait_until


@pytest.fixture(params=["tcp", "unix"])
def pair(request: pytest.FixtureRequest) -> Iterator[tuple[socket.socket, socket.socket]]:
    """A server's socket, whose sends do not block, and its client's."""
    if request.param == "unix":
        ours, theirs = socket.socketpair()
    else:
        with socket.create_server(("127.0.0.1", 0)) as listener:
            theirs = socket.socket()
            theirs.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 16384)
            theirs.connect(listener.getsockname())
            ours, _ = listener.accept()
    with ours, theirs:
        ours.setblocking(False)
        theirs.settimeout(10)
        yield ours, theirs


def fill(ours: socket.socket) -> int:
    """Send until the kernel takes no more; returns how much it has taken."""
    taken = 0
    with suppress(BlockingIOError):
        while True:
            taken += ours.send(bytes(65536))
    return taken


def read(theirs: socket.socket, size: int) -> None:
    while size > 0:
        size -= len(theirs.recv(size))


def test_kernel_tells_what_the_peer_has_not_taken(pair: tuple[socket.socket, socket.socket]) -> None:
    ours, theirs = pair
    assert unsent(ours.fileno()) == 0
    taken = fill(ours)
    full = unsent(ours.fileno())
    assert full > 0
    read(theirs, 150_000)
    wait_until(lambda: unsent(ours.fileno()) < full)
    read(theirs, taken - 150_000)
    wait_until(lambda: unsent(ours.fileno()) == 0)


def test_kernel_tells_nothing_of_a_closed_socket() -> None:
    ours, theirs = socket.socketpair()
    ours.send(b"x")
    number = ours.fileno()
    ours.close()
    theirs.close()
    assert unsent(number) == unsent(-1) == 0


def looks(watch: IdleWatch, *states: tuple[int, int], monkeypatch: pytest.MonkeyPatch) -> list[bool]:
    """The verdicts of looks that see this much in the kernel, and this much in the model's library."""
    verdicts = []
    for queued, held in states:
        monkeypatch.setattr("services.serving.idle.unsent", lambda descriptor, queued=queued: queued)
        verdicts.append(watch.is_idle(7, held))
    return verdicts


def test_idle_is_what_more_looks_than_fit_into_the_idle_time_say(monkeypatch: pytest.MonkeyPatch) -> None:
    assert LOOKS == 4
    watch = IdleWatch()
    assert looks(watch, *[(0, 0)] * 5, monkeypatch=monkeypatch) == [False, False, False, False, True]
    watch.news()
    assert looks(watch, *[(0, 0)] * 5, monkeypatch=monkeypatch) == [False, False, False, False, True]


@pytest.mark.parametrize(
    ("fourth", "fifth"),
    [
        ((100, 50), (100, 50)),  # nothing moves: the only one that is idle
        ((99, 50), (99, 50)),  # the kernel has handed over a byte
        ((100, 49), (100, 49)),  # the library has
        ((120, 30), (120, 30)),  # from the library to the kernel: so the peer has made room
        ((80, 70), (80, 70)),  # the peer takes, while a reply is added
    ],
)
def test_queue_that_shrinks_is_news(
    fourth: tuple[int, int], fifth: tuple[int, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    watch = IdleWatch()
    verdicts = looks(watch, *[(100, 50)] * 3, fourth, fifth, monkeypatch=monkeypatch)
    assert verdicts == [False] * 4 + [fourth == (100, 50)]


def test_queue_that_grows_is_no_news(monkeypatch: pytest.MonkeyPatch) -> None:
    watch = IdleWatch()
    verdicts = looks(watch, *[(number, number) for number in range(5)], monkeypatch=monkeypatch)
    assert verdicts == [False, False, False, False, True]


@pytest.mark.parametrize(
    ("first", "second", "is_taking"),
    [
        ((100, 0), (99, 0), True),
        ((100, 0), (100, 0), False),  # it takes nothing
        ((100, 0), (0, 0), False),  # it has taken everything: nothing is left to wait for
        ((0, 0), (0, 0), False),
        ((0, 9), (0, 8), True),
        ((0, 9), (9, 0), True),
    ],
)
def test_peer_is_taking_while_something_is_left_and_less_than_before(
    first: tuple[int, int], second: tuple[int, int], is_taking: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    watch = IdleWatch()
    monkeypatch.setattr("services.serving.idle.unsent", lambda descriptor: first[0])
    watch.is_taking(7, first[1])
    monkeypatch.setattr("services.serving.idle.unsent", lambda descriptor: second[0])
    assert watch.is_taking(7, second[1]) is is_taking


def test_queue_that_shrinks_starts_the_idle_time_again(monkeypatch: pytest.MonkeyPatch) -> None:
    watch = IdleWatch()
    states = [(9, 0), (8, 0)] + [(8, 0)] * 5  # the second look sees news; four without are few enough, five are not
    assert looks(watch, *states, monkeypatch=monkeypatch) == [False] * 6 + [True]


@pytest.mark.parametrize(("queued", "held"), [(0, 5), (5, 0)])
def test_peer_of_which_nothing_is_known_is_not_taking(queued: int, held: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("services.serving.idle.unsent", lambda descriptor: queued)
    assert not IdleWatch().is_taking(7, held)
