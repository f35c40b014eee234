"""What asyncio's streams leave to their user."""

import asyncio
import gc
import socket
import struct
from typing import Any

import pytest

from services.models.asyncio_streams import Server
from services.protocol import Address, Limits
from services.serving.listeners import Listener


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
