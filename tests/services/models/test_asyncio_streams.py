"""What asyncio's streams leave to their user."""

import asyncio
import gc
import socket
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from services.models.asyncio_streams import Server
from services.protocol import Address, Limits
from services.serving.listeners import Listener, open_listeners, parse_listens


@pytest.mark.parametrize("limit", [0, 1], ids=["refused", "served"])
def test_reset_of_a_peer_is_taken_note_of(limit: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """The loop logs an exception that was never retrieved, with a traceback.

    The library's own guard against that works or not by the order in which the collector takes a cycle apart; here it
    is gone.
    """
    monkeypatch.delattr(asyncio.StreamReaderProtocol, "__del__")
    unretrieved: list[dict[str, Any]] = []

    async def serve_a_reset() -> None:
        asyncio.get_running_loop().set_exception_handler(lambda loop, context: unretrieved.append(context))
        with socket.create_server(("127.0.0.1", 0)) as listening:
            listening.setblocking(False)
            host, port = listening.getsockname()
            address = Address.parse(f"tcp://{host}:{port}")
            listener = Listener("command", address, listening, Limits(connections=limit), str)
            acceptor = Server([listener])._listen(listener)
            with socket.create_connection((host, port)) as client:
                client.send(b"PING\r\n")
                client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            async with asyncio.timeout(10):
                while not (tasks := asyncio.all_tasks() - {asyncio.current_task()}):
                    await asyncio.sleep(0)
            await asyncio.wait(tasks)
            acceptor.close()

    loop = asyncio.new_event_loop()
    try:
        loop.run_until_complete(serve_a_reset())
        gc.collect()
    finally:
        loop.close()
    assert not unretrieved


@contextmanager
def connected(server: Server) -> Iterator[socket.socket]:
    """A client of a server whose loop runs; it does not block."""
    (listener,) = server._listeners
    acceptor = server._listen(listener)
    with socket.create_connection(listener.socket.getsockname()) as client:
        client.setblocking(False)
        yield client
    acceptor.close()


@pytest.fixture
def listener() -> Iterator[Listener]:
    wanted = parse_listens(["command=tcp://127.0.0.1:0"], "m")
    with open_listeners(wanted, Limits(connections=1), lambda: "") as listeners:
        yield listeners[0]


def test_datagram_in_work_takes_a_place(listener: Listener) -> None:
    """The limit is for all conversations."""

    async def run() -> bytes:
        server = Server([listener])
        work = asyncio.create_task(asyncio.sleep(3600))
        server._keep(work)
        with connected(server) as client:
            async with asyncio.timeout(10):
                said = await asyncio.get_running_loop().sock_recv(client, 100)
        work.cancel()
        return said

    assert asyncio.run(run()) == b"-ERR this server holds 1 connections, which is its limit\r\n"


def test_client_that_gets_its_task_in_a_drain_is_read_to_its_end(listener: Listener) -> None:
    """It was accepted just before. Otherwise a silent client would keep the server until the grace period is over."""

    async def run() -> bytes:
        server = Server([listener])
        server._draining = True
        with connected(server) as client:
            async with asyncio.timeout(10):
                return await asyncio.get_running_loop().sock_recv(client, 100)

    assert asyncio.run(run()) == b""


def test_drain_waits_for_a_client_whose_task_has_not_run_yet(listener: Listener) -> None:
    ours, theirs = socket.socketpair()

    async def run() -> tuple[bool, bool]:
        server = Server([listener])
        reader, writer = await asyncio.open_connection(sock=ours)
        task = asyncio.create_task(server._begin(listener, reader, writer))
        return await server._drain(), task.done()

    with theirs:
        assert asyncio.run(run()) == (True, True)
        assert theirs.recv(1) == b""


@pytest.mark.parametrize("ends", [True, False])
def test_drain_waits_for_the_grace_period_and_then_cuts_off(ends: bool, caplog: pytest.LogCaptureFixture) -> None:
    """Whatever is in work; the count is that of those that are left."""

    async def run(listeners: list[Listener]) -> tuple[bool, bool, list[bool]]:
        server = Server(listeners)
        tasks = [asyncio.create_task(asyncio.sleep(seconds)) for seconds in ((0, 0, 0) if ends else (0, 3600, 3600))]
        for task in tasks:
            server._keep(task)
        is_clean = await server._drain()
        return is_clean, server._draining, [task.cancelled() for task in tasks]

    wanted = parse_listens(["command=tcp://127.0.0.1:0"], "m")
    with open_listeners(wanted, Limits(grace=60.0 if ends else 0.01), str) as listeners:
        assert asyncio.run(run(listeners)) == (ends, True, [False, not ends, not ends])
    said = "the grace period of 0.01 s is over: 2 conversations are cut off"
    assert caplog.messages == ([] if ends else [said])
