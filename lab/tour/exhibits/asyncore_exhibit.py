"""The standard library's first event loop: it asks an object for each socket whether it wants to read or write.

Python 2: asyncore
Python 3: asyncore
Gone since: 3.12
Use instead: asyncio, whose Protocol is shown here too; asyncore itself comes from the back-port pyasyncore
Servers: asyncore_loop
"""

import asyncio
import asyncore
import socket

from lab.tour.faulty import SHORT, UNKNOWN_HOST, Failures

REQUEST = b"PING\r\nECHO %s\r\nQUIT\r\n"


class OldClient(asyncore.dispatcher):
    """A channel: the loop calls its methods when its socket is ready."""

    def __init__(self, host: str, port: int, request: bytes) -> None:
        super().__init__()
        self.unsent, self.received = request, b""
        self.create_socket(socket.AF_INET, socket.SOCK_STREAM)
        self.connect((host, port))

    def writable(self) -> bool:
        return bool(self.unsent) or not self.connected  # a finished connect makes a socket writable

    def handle_write(self) -> None:
        self.unsent = self.unsent[self.send(self.unsent) :]

    def handle_read(self) -> None:
        self.received += self.recv(4096)

    def handle_close(self) -> None:
        self.close()

    def handle_error(self) -> None:
        raise  # the default prints a traceback, closes the channel and continues


class NewClient(asyncio.Protocol):
    """The same conversation through the methods that asyncio calls."""

    def __init__(self, request: bytes) -> None:
        self.request, self.received = request, b""
        self.closed = asyncio.get_running_loop().create_future()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.WriteTransport)  # noqa: S101 - for mypy; TCP's is one
        transport.write(self.request)  # any size: the transport buffers what the kernel does not take yet

    def data_received(self, data: bytes) -> None:
        self.received += data

    def connection_lost(self, error: Exception | None) -> None:
        self.closed.set_result(None) if error is None else self.closed.set_exception(error)


def run_old(host: str, port: int, request: bytes) -> bytes:
    client = OldClient(host, port, request)
    asyncore.loop(timeout=SHORT)  # one loop for all channels of the process; it returns when none is left
    return client.received


async def run_new(host: str, port: int, request: bytes) -> bytes:
    _, client = await asyncio.get_running_loop().create_connection(lambda: NewClient(request), host, port)
    await client.closed
    return client.received


def visit() -> None:
    print("asyncore:", run_old("asyncore_loop", 6379, REQUEST % b"old"))
    print("asyncio: ", asyncio.run(run_new("asyncore_loop", 6379, REQUEST % b"new")))


def failures() -> Failures:
    yield "unknown host", lambda: run_old(UNKNOWN_HOST, 6379, b"")
    yield "unknown host, asyncio", lambda: asyncio.run(run_new(UNKNOWN_HOST, 6379, b""))
    yield "closed port", lambda: run_old("asyncore_loop", 9999, b"x")
    asyncore.close_all(ignore_all=True)
    yield "closed port, asyncio", lambda: asyncio.run(run_new("asyncore_loop", 9999, b"x"))
