"""When conversations that block, and those over coroutines, give up on a silent client. The clock is the test's."""

import asyncio
import math
import socket
import struct
from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any, cast

import pytest

from services.protocol import Connection, Limits
from services.serving import blocking, idle
from services.serving.blocking import serve_stream, set_kernel_timeouts
from services.serving.coroutines import watch_idle
from services.serving.idle import LOOKS, IdleWatch

LIMITS = Limits(idle=10.0, linger=3.0)
_DIGEST = b"$64\r\n66687aadf862bd776c8fc18b8e9f8e20089714856ee233b3902a591d0d5f2925\r\n"


class SlowClient:
    """A socket whose calls take the time until something happens, and at most the timeout that was set last.

    Args:
        comes: what comes, and seconds from the begin; nothing is the end of the stream.
        takes: seconds from the begin at which the client takes three bytes, once each; None: it takes all at once.
        error: what receiving fails with at last.
    """

    def __init__(
        self,
        *comes: tuple[float, bytes],
        takes: Sequence[float] | None = None,
        error: Exception | None = None,
    ) -> None:
        self.now, self.timeout = 100.0, 0.0
        self.comes = list(comes)
        self.takes = None if takes is None else list(takes)
        self.error = error
        self.sent = b""
        self.ended: list[float] = []

    def set_timeouts(self, _: object, seconds: float) -> None:
        self.timeout = seconds

    def monotonic(self) -> float:
        return self.now

    def _wait_until(self, seconds: float) -> None:
        if 100.0 + seconds > self.now + self.timeout:
            self.now += self.timeout
            raise BlockingIOError
        self.now = max(self.now, 100.0 + seconds)

    def recv(self, _: int) -> bytes:
        if self.error and not self.comes:
            raise self.error
        self._wait_until(self.comes[0][0] if self.comes else math.inf)
        return self.comes.pop(0)[1]

    def send(self, data: bytes) -> int:
        if self.takes is not None:
            self._wait_until(self.takes[0] if self.takes else math.inf)
            self.takes.pop(0)
            data = data[:3]
        self.sent += data
        return len(data)

    def shutdown(self, _: int) -> None:
        self.ended.append(self.now)

    def fileno(self) -> int:
        return -1


def converse(client: SlowClient, monkeypatch: pytest.MonkeyPatch, **options: Any) -> float:
    """Hold a conversation; return the seconds that it took."""
    monkeypatch.setattr(blocking, "time", client)
    begin = client.now
    serve_stream(cast(Any, client), Connection("command"), LIMITS, set_timeouts=client.set_timeouts, **options)
    return client.now - begin


# A call waits a fifth of the idle time, or with at most 0.7 s in each, 14 calls fit into it and one more.
@pytest.mark.parametrize(
    ("options", "call"), [({}, 2.0), ({"longest_call": 0.7}, 10 / 15), ({"longest_call": 3.0}, 2.0)]
)
def test_silent_client_is_left_after_the_idle_time(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, options: dict[str, float], call: float
) -> None:
    caplog.set_level("INFO")
    client = SlowClient()
    assert converse(client, monkeypatch, **options) == pytest.approx(LIMITS.idle)
    assert client.timeout == pytest.approx(call)
    assert client.ended == []
    assert caplog.messages == ["closed a connection that was idle for 10 s"]


def test_idle_time_begins_again_with_what_comes(monkeypatch: pytest.MonkeyPatch) -> None:
    client = SlowClient((9.0, b"PI"), (18.0, b"NG\r\n"))
    assert converse(client, monkeypatch) == pytest.approx(18.0 + LIMITS.idle)
    assert client.sent == b"+PONG\r\n"


@pytest.mark.parametrize(("takes", "sent"), [([], b""), ([9.0], b"+PO"), ([9.0, 17.0, 18.0], b"+PONG\r\n")])
def test_idle_time_begins_again_with_what_is_taken(
    monkeypatch: pytest.MonkeyPatch, takes: list[float], sent: bytes
) -> None:
    client = SlowClient((0.0, b"PING\r\n"), takes=takes)
    assert converse(client, monkeypatch) == pytest.approx(max(takes, default=0.0) + LIMITS.idle)
    assert client.sent == sent


@pytest.mark.parametrize(
    ("comes", "seconds"),
    [
        ([], 3.0),  # it does not close
        ([(1.0, b"")], 1.0),
        # What comes meanwhile is read, and makes the time no longer.
        ([(0.5, b"x"), (2.5, b"x")], 3.0),
        ([(0.5, b"x"), (2.5, b"")], 2.5),
    ],
)
def test_client_is_left_when_it_has_closed_or_after_the_linger_time(
    monkeypatch: pytest.MonkeyPatch, comes: list[tuple[float, bytes]], seconds: float
) -> None:
    client = SlowClient((0.0, b"QUIT\r\n"), *comes)
    assert converse(client, monkeypatch) == pytest.approx(seconds)
    # The sending half was closed at once.
    assert client.ended == [100.0]


def test_linger_time_begins_again_for_a_client_that_takes_what_was_sent(monkeypatch: pytest.MonkeyPatch) -> None:
    held = iter([5, 4, 4])
    monkeypatch.setattr(idle, "unsent", lambda _: next(held))
    assert converse(SlowClient((0.0, b"QUIT\r\n")), monkeypatch) == pytest.approx(2 * LIMITS.linger)


@pytest.mark.parametrize(
    ("error", "line"),
    [
        (ConnectionResetError(104, "Connection reset by peer"), "the peer is gone: Connection reset by peer"),
        (ValueError("a bug"), "a conversation ended in an error"),
    ],
)
def test_error_ends_the_conversation_and_is_logged(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, error: Exception, line: str
) -> None:
    caplog.set_level("DEBUG")
    assert converse(SlowClient(error=error), monkeypatch) == 0.0
    assert caplog.messages == [line]


def test_conversation_sleeps_computes_and_gives_way(monkeypatch: pytest.MonkeyPatch) -> None:
    slept: list[float] = []
    ways: list[int] = []
    client = SlowClient((0.0, b"SLEEP 250\r\n" + b"BURN 1\r\n" * 9), (0.0, b""))
    converse(client, monkeypatch, sleep=slept.append, give_way=lambda: ways.append(len(client.sent)))
    assert slept == [0.25]
    assert client.sent == b"+OK\r\n" + _DIGEST * 9
    assert ways  # after each four events in a row


def test_timeouts_of_the_kernel_have_microseconds() -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        set_kernel_timeouts(ours, 2.25)
        for option in (socket.SO_RCVTIMEO, socket.SO_SNDTIMEO):
            seconds, micros = struct.unpack("@ll", ours.getsockopt(socket.SOL_SOCKET, option, 16))
            # The kernel rounds to its ticks, of at most 10 ms.
            assert seconds + micros / 1e6 == pytest.approx(2.25, abs=0.02)


def test_coroutines_look_four_times_in_the_idle_time_and_close_at_the_next(
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level("INFO")
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
    assert caplog.messages == ["closed a connection that was idle for 10 s"]
