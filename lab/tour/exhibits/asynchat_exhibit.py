"""asyncore for line-based protocols: it collects input until a terminator, and sends what is pushed.

Python 2: asynchat
Python 3: asynchat
Gone since: 3.12
Use instead: asyncio's streams, shown here too; asynchat itself comes from the back-port pyasynchat
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
    """Send the next line each time that one has arrived."""

    def __init__(self, host: str, port: int) -> None:
        super().__init__()
        self.set_terminator(b"\r\n")  # or a number of bytes
        self.collected: list[bytes] = []
        self.received: list[bytes] = []
        self.unsent = list(LINES)
        self.create_socket(socket.AF_INET, socket.SOCK_STREAM)
        self.connect((host, port))

    def collect_incoming_data(self, data: bytes) -> None:
        self.collected.append(data)  # a part of a line, or all of it

    def found_terminator(self) -> None:
        self.received.append(b"".join(self.collected))
        self.collected.clear()
        if self.unsent:
            self.push(self.unsent.pop(0) + b"\r\n")

    def handle_error(self) -> None:
        raise  # the default prints a traceback, closes the channel and continues


async def converse(host: str, port: int) -> list[bytes]:
    """Hold the same conversation with the successor: the code has the order of the events."""
    reader, writer = await asyncio.open_connection(host, port)
    received = [await reader.readuntil(b"\r\n")]
    for line in LINES:
        writer.write(line + b"\r\n")
        received.append(await reader.readuntil(b"\r\n"))
    writer.close()
    await writer.wait_closed()
    return [line.rstrip() for line in received]


def run_old(host: str, port: int) -> list[bytes]:
    client = OldClient(host, port)
    asyncore.loop(timeout=SHORT)
    return client.received


def visit() -> None:
    print("asynchat:", run_old(HOST, PORT))
    print("asyncio: ", asyncio.run(converse(HOST, PORT)))


def failures() -> Failures:
    yield "closed port", lambda: run_old(HOST, 9999)
    asyncore.close_all(ignore_all=True)
    yield "closed port, asyncio", lambda: asyncio.run(converse(HOST, 9999))
    with breaking_off(b"half a li") as port:
        # asynchat reports no error: it closes the channel, and the incomplete line stays in `collected`.
        yield "server closes in mid-line, asyncio", lambda: asyncio.run(converse("127.0.0.1", port))
