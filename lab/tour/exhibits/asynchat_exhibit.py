"""asyncore for protocols of lines: it gathers what comes until a terminator, and sends what is pushed.

Python 2: asynchat
Python 3: asynchat
Gone since: 3.12
Use instead: asyncio's streams, which stand beside it here; asynchat runs from the back-port pyasynchat
Servers: gallery_asynchat
"""

import asynchat
import asyncio
import asyncore
import socket

from lab.tour.faulty import SHORT, Failures, breaking_off

HOST, PORT = "gallery_asynchat", 7000
LINES = [b"hello", b"/who", b"/quit"]


class OldClient(asynchat.async_chat):
    """A conversation by lines: says the next when one has come."""

    def __init__(self, host: str, port: int) -> None:
        super().__init__()
        self.set_terminator(b"\r\n")  # or a number, for so many bytes
        self.collected: list[bytes] = []
        self.heard: list[bytes] = []
        self.left = list(LINES)
        self.create_socket(socket.AF_INET, socket.SOCK_STREAM)
        self.connect((host, port))

    def collect_incoming_data(self, data: bytes) -> None:
        self.collected.append(data)  # a piece of a line, or all of it

    def found_terminator(self) -> None:
        self.heard.append(b"".join(self.collected))
        self.collected.clear()
        if self.left:
            self.push(self.left.pop(0) + b"\r\n")

    def handle_error(self) -> None:
        raise


async def converse(host: str, port: int) -> list[bytes]:
    """The successor: the same conversation, written down in the order in which it happens."""
    reader, writer = await asyncio.open_connection(host, port)
    heard = [await reader.readuntil(b"\r\n")]
    for line in LINES:
        writer.write(line + b"\r\n")
        heard.append(await reader.readuntil(b"\r\n"))
    writer.close()
    await writer.wait_closed()
    return [line.rstrip() for line in heard]


def run_old(host: str, port: int) -> list[bytes]:
    client = OldClient(host, port)
    asyncore.loop(timeout=SHORT)
    return client.heard


def visit() -> None:
    print("asynchat:", run_old(HOST, PORT))
    print("asyncio: ", asyncio.run(converse(HOST, PORT)))


def failures() -> Failures:
    yield "nobody listens", lambda: run_old(HOST, 9999)
    asyncore.close_all(ignore_all=True)
    yield "nobody listens, asyncio", lambda: asyncio.run(converse(HOST, 9999))
    with breaking_off(b"half a li") as port:
        # asynchat says nothing of it: the channel closes, and the piece stays where it was collected.
        yield "server gone in mid-line, asyncio", lambda: asyncio.run(converse("127.0.0.1", port))
