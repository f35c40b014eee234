"""What trio leaves to its user: the places of conversations, and clients that come at a bad moment."""

import socket
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any, cast

import pytest
import trio

from services.models.trio_nursery import Server, Stream
from services.protocol import Limits
from services.serving.idle import LOOKS
from services.serving.listeners import Listener, open_listeners, parse_listens


@pytest.fixture
def listener() -> Iterator[Listener]:
    wanted = parse_listens(["command=tcp://127.0.0.1:0"], "m")
    with open_listeners(wanted, Limits(connections=3), lambda: "") as listeners:
        yield listeners[0]


def test_client_that_gets_its_task_in_a_drain_is_read_to_its_end(listener: Listener) -> None:
    """It was accepted just before. Otherwise a silent client would keep the server until the grace period is over."""
    ours, theirs = socket.socketpair()

    async def run() -> int:
        server = Server([listener])
        server._is_draining = True
        await server._room.acquire_on_behalf_of("a token")
        with trio.fail_after(10):
            await server._serve_stream(listener, ours, "", "a token")
        return int(server._room.borrowed_tokens)

    with theirs:
        assert trio.run(run) == 0
        assert theirs.recv(1) == b""


def test_place_is_free_again_though_there_was_nobody_to_accept(
    listener: Listener, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After the pause of a shortage, or at once: the client went away, or another process was quicker."""
    seen: list[tuple[float, int]] = []

    async def run() -> None:
        server = Server([listener])
        pauses = iter([0.25, 0.0])
        shortage = SimpleNamespace(timeout=None, pause=0.0)

        def accept() -> None:
            shortage.pause = next(pauses)

        async def sleep(seconds: float) -> None:
            seen.append((seconds, int(server._room.borrowed_tokens)))
            await trio.lowlevel.checkpoint()
            if len(seen) == 2:
                nursery.cancel_scope.cancel()

        monkeypatch.setattr(trio, "sleep", sleep)
        failing = SimpleNamespace(socket=listener.socket, accept=accept, shortage=shortage)
        with socket.create_connection(listener.socket.getsockname()), trio.fail_after(10):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(server._accept, cast(Any, failing), nursery)

    trio.run(run)
    assert seen == [(0.25, 0), (0.0, 0)]


def test_place_is_free_again_after_a_datagram(listener: Listener) -> None:
    """Also after one whose conversation fails."""

    async def run() -> list[int]:
        server = Server([listener])
        left = []
        for data, peer in ((b"PING\r\n", ""), (b"PING\r\n", object())):
            await server._room.acquire_on_behalf_of("a token")
            await server._serve_datagram(listener, data, peer, "a token")
            left.append(int(server._room.borrowed_tokens))
        return left

    assert trio.run(run) == [0, 0]


def test_client_that_takes_all_is_not_idle(listener: Listener) -> None:
    """If it is faster than the server, the kernel holds nothing at any look, so only this shows that it takes."""
    ours, theirs = socket.socketpair()

    async def run() -> bool:
        with trio.socket.from_stdlib_socket(ours) as socket_:
            stream = Stream(socket_, cast(Any, None))
            for _ in range(LOOKS):
                assert not stream.idle.is_idle(-1)
            await Server([listener])._send(stream, b"x")
            return stream.idle.is_idle(-1)

    with theirs:
        assert not trio.run(run)


@pytest.mark.parametrize(("is_draining", "looks"), [(False, 3), (True, 1)])
def test_client_that_still_takes_gets_another_linger_time_except_in_a_drain(is_draining: bool, looks: int) -> None:
    ours, theirs = socket.socketpair()
    left = [False, True, False]  # the first says only what is there at the beginning

    async def run(listener: Listener) -> None:
        server = Server([listener])
        server._is_draining = is_draining
        with trio.socket.from_stdlib_socket(ours) as socket_:
            idle: Any = SimpleNamespace(is_taking=lambda descriptor: left.pop(0))
            with trio.fail_after(10):
                await server._linger(Stream(socket_, cast(Any, None), idle=idle))

    with theirs, open_listeners(parse_listens(["echo=tcp://127.0.0.1:0"], "m"), Limits(linger=0.01), str) as listeners:
        trio.run(run, listeners[0])
    assert 3 - len(left) == looks
