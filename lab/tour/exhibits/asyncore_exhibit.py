"""The standard library's first event loop: an object for each socket, which is asked whether it wants to read or write.

Python 2: asyncore
Python 3: asyncore
Gone since: 3.12
Use instead: asyncio, whose Protocol stands beside it here; asyncore runs from the back-port pyasyncore
Servers: asyncore_loop
"""

import asyncio
import asyncore
import socket

from lab.tour.faulty import SHORT, UNKNOWN_HOST, Failures

REQUEST = b"PING\r\nECHO %s\r\nQUIT\r\n"


class OldClient(asyncore.dispatcher):
    """A channel. Its methods are called when the loop finds that something can be done."""

    def __init__(self, host: str, port: int, words: bytes) -> None:
        super().__init__()
        self.unsent, self.heard = words, b""
        self.create_socket(socket.AF_INET, socket.SOCK_STREAM)
        self.connect((host, port))

    def writable(self) -> bool:
        return bool(self.unsent) or not self.connected  # a connect that is done shows as writable

    def handle_write(self) -> None:
        self.unsent = self.unsent[self.send(self.unsent) :]

    def handle_read(self) -> None:
        self.heard += self.recv(4096)

    def handle_close(self) -> None:
        self.close()

    def handle_error(self) -> None:
        raise  # by default it prints a trace, closes the channel, and goes on


class NewClient(asyncio.Protocol):
    """The same, method by method: what asyncio calls, and when."""

    def __init__(self, words: bytes) -> None:
        self.words, self.heard = words, b""
        self.closed = asyncio.get_running_loop().create_future()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.WriteTransport)  # noqa: S101 - for mypy; TCP's is one
        transport.write(self.words)  # all of it, however much: the transport keeps what does not go yet

    def data_received(self, data: bytes) -> None:
        self.heard += data

    def connection_lost(self, error: Exception | None) -> None:
        self.closed.set_result(None) if error is None else self.closed.set_exception(error)


def run_old(host: str, port: int, words: bytes) -> bytes:
    client = OldClient(host, port, words)
    asyncore.loop(timeout=SHORT)  # until no channel is left: one loop for all that the process has
    return client.heard


async def run_new(host: str, port: int, words: bytes) -> bytes:
    _, client = await asyncio.get_running_loop().create_connection(lambda: NewClient(words), host, port)
    await client.closed
    return client.heard


def visit() -> None:
    print("asyncore:", run_old("asyncore_loop", 6379, REQUEST % b"old"))
    print("asyncio: ", asyncio.run(run_new("asyncore_loop", 6379, REQUEST % b"new")))


def failures() -> Failures:
    yield "unknown host", lambda: run_old(UNKNOWN_HOST, 6379, b"")
    yield "unknown host, asyncio", lambda: asyncio.run(run_new(UNKNOWN_HOST, 6379, b""))
    yield "nobody listens", lambda: run_old("asyncore_loop", 9999, b"x")
    asyncore.close_all(ignore_all=True)
    yield "nobody listens, asyncio", lambda: asyncio.run(run_new("asyncore_loop", 9999, b"x"))
