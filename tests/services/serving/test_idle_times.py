"""When conversations that block, and those over coroutines, give up on a silent client. The clock is the test's."""

import asyncio
import socket
import struct
from types import SimpleNamespace
from typing import Any, cast

import pytest

from services.protocol import Connection, Limits
from services.serving import blocking
from services.serving.blocking import serve_stream, set_kernel_timeouts
from services.serving.coroutines import watch_idle
from services.serving.idle import LOOKS, IdleWatch

LIMITS = Limits(idle=10.0, linger=3.0)


class SilentClient:
    """A socket on which nothing comes: each call waits for the timeout that was set last.

    Args:
        data: what comes first.
    """

    def __init__(self, data: bytes = b"") -> None:
        self.now, self.timeout = 100.0, 0.0
        self.data = data
        self.sent = b""
        self.ended: list[float] = []

    def set_timeouts(self, _: object, seconds: float) -> None:
        self.timeout = seconds

    def monotonic(self) -> float:
        return self.now

    def recv(self, _: int) -> bytes:
        if self.data:
            data, self.data = self.data, b""
            return data
        self.now += self.timeout
        raise BlockingIOError

    def send(self, data: bytes) -> int:
        self.sent += data
        return len(data)

    def shutdown(self, _: int) -> None:
        self.ended.append(self.now)

    def fileno(self) -> int:
        return -1


def converse(client: SilentClient, monkeypatch: pytest.MonkeyPatch, **options: float) -> float:
    """Hold a conversation; return the seconds that it took."""
    monkeypatch.setattr(blocking, "time", client)
    begin = client.now
    serve_stream(
        cast(Any, client), Connection("command"), LIMITS, set_timeouts=client.set_timeouts, **cast(Any, options)
    )
    return client.now - begin


# A call waits a fifth of the idle time, or with at most 0.7 s in each, 14 calls fit into it and one more.
@pytest.mark.parametrize(
    ("options", "call"), [({}, 2.0), ({"longest_call": 0.7}, 10 / 15), ({"longest_call": 3.0}, 2.0)]
)
def test_silent_client_is_left_after_the_idle_time(
    monkeypatch: pytest.MonkeyPatch, options: dict[str, float], call: float
) -> None:
    client = SilentClient()
    assert converse(client, monkeypatch, **options) == pytest.approx(LIMITS.idle)
    assert client.timeout == pytest.approx(call)
    assert client.ended == []


def test_idle_time_begins_again_with_what_comes(monkeypatch: pytest.MonkeyPatch) -> None:
    client = SilentClient(b"PING\r\n")
    assert converse(client, monkeypatch) == pytest.approx(LIMITS.idle)
    assert client.sent == b"+PONG\r\n"


def test_client_that_does_not_close_is_left_after_the_linger_time(monkeypatch: pytest.MonkeyPatch) -> None:
    client = SilentClient(b"QUIT\r\n")
    assert converse(client, monkeypatch) == pytest.approx(LIMITS.linger)
    # The sending half was closed at once.
    assert client.ended == [100.0]


def test_timeouts_of_the_kernel_have_microseconds() -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        set_kernel_timeouts(ours, 2.25)
        for option in (socket.SO_RCVTIMEO, socket.SO_SNDTIMEO):
            seconds, micros = struct.unpack("@ll", ours.getsockopt(socket.SOL_SOCKET, option, 16))
            # The kernel rounds to its ticks, of at most 10 ms.
            assert seconds + micros / 1e6 == pytest.approx(2.25, abs=0.02)


def test_coroutines_look_four_times_in_the_idle_time_and_close_at_the_next() -> None:
    slept: list[float] = []
    closed: list[tuple[str, int]] = []

    def make_stream(name: str, *, is_working: bool) -> SimpleNamespace:
        return SimpleNamespace(
            idle=IdleWatch(),
            is_working=is_working,
            untaken=lambda: (-1, 0),
            close=lambda: closed.append((name, len(slept))),
        )

    streams = [make_stream("silent", is_working=False), make_stream("working", is_working=True)]

    async def sleep(seconds: float) -> None:
        if len(slept) == LOOKS + 1:
            raise asyncio.CancelledError
        slept.append(seconds)

    with pytest.raises(asyncio.CancelledError):
        asyncio.run(watch_idle(cast(Any, streams), 10.0, sleep))
    assert slept == [2.5] * 5
    assert closed == [("silent", 5)]
