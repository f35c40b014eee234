"""What is idle, in every model and over every stream: a slow client is not, a reader that takes nothing is."""

import socket
import time
from collections.abc import Iterator
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field

from loadtests.sockets.connection import BlockingConnection
from loadtests.sockets.errors import ClientError
from loadtests.sockets.tls import client_context
from services.protocol import Address, Transport
from tests.support.waiting import wait_until

STREAMS = ("tcp", "tls", "unix")
PATTERN = bytes(range(32, 127))

# 400 kB/s, by a client with a small buffer: too slow for a TCP socket of 4 MB to become writable again within the idle
# time below (a third of it must be free), and fast enough to be seen at work several times in it (a Unix socket frees
# pieces of 64 KiB).
STEP_BYTES = 20_000
STEP_UNITS = 0.5
IDLE_UNITS = 6
SLOW_STEPS = 24  # twice the idle time


def blob(size: int) -> bytes:
    return b"$%d\r\n%b\r\n" % (size, (PATTERN * (size // 95 + 1))[:size])


def open_link(where: Address) -> socket.socket:
    """A connection whose client has room for little. Its buffer must be small before it connects: shrunk later, the
    window that was offered first stays, and moves in jumps.
    """
    if where.transport is Transport.UNIX:
        link = socket.socket(socket.AF_UNIX)
        link.connect(where.path)
    else:
        link = socket.socket()
        link.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 16384)
        link.connect((where.host, where.port))
        if where.transport is Transport.TLS:
            link = client_context().wrap_socket(link, server_hostname=where.host)
    link.settimeout(20)
    return link


@dataclass
class Reader:
    """A client that asks, and reads the reply slowly."""

    link: socket.socket
    kind: str
    goes_on: bool  # sends while it reads
    rest: bytes = b""  # of its request: it sends a byte in each step
    got: bytearray = field(default_factory=bytearray)
    lost: str = ""

    def step(self, size: int = STEP_BYTES) -> bool:
        """Read a little; whether there may be more."""
        if self.lost or len(self.got) == len(REPLIES[self.kind]):
            return False
        try:
            if self.rest:
                self.link.sendall(self.rest[:1])
                self.rest = self.rest[1:]
                return True
            data = self.link.recv(size)
            if self.goes_on:
                self.link.sendall(b"!")  # a server that has closed its socket answers with a reset
        except OSError as error:
            data, self.lost = b"", str(error)
        self.got += data
        return bool(data)


# "typing": the server waits for the rest of the request. "handing": the server has more than the kernel takes.
# "waiting": on a TCP socket the kernel has all of it, and the server waits for the next request. "closing": it closes
# in stages.
REQUESTS = {
    "typing": b"PING ",
    "handing": b"BLOB 5000000\r\n",
    "waiting": b"BLOB 1000000\r\n",
    "closing": b"BLOB 1000000\r\nQUIT\r\n",
}
TYPED = b"x" * (SLOW_STEPS - 2)
RESTS = {"typing": TYPED + b"\r\n"}  # a byte for each step
REPLIES = {
    "handing": blob(5_000_000),
    "waiting": blob(1_000_000) + b"+PONG\r\n",
    "closing": blob(1_000_000) + b"+OK\r\n",
    "typing": b"$%d\r\n%b\r\n" % (len(TYPED), TYPED),
}


@dataclass
class Pace:
    """The longest time for which the readers themselves read nothing: where that is long, they are idle."""

    last: float = field(default_factory=time.monotonic)
    longest: float = 0.0

    def step(self, readers: list[Reader], size: int = STEP_BYTES) -> bool:
        """Read a little by each; whether there may be more."""
        self.longest = max(self.longest, time.monotonic() - self.last)
        self.last = time.monotonic()
        return any([reader.step(size) for reader in readers])  # noqa: C419 - by each, and not until one has more


def read_slowly(readers: list[Reader], pace: Pace, unit: float, steps: int = SLOW_STEPS) -> None:
    for _ in range(steps):
        pace.step(readers)
        time.sleep(STEP_UNITS * unit)


def test_slow_client_is_not_idle(start, unit: float, is_sequential: bool) -> None:
    """It is served to the end: in mid-request, in mid-reply, while it is not asking, while the server closes, and in a
    drain.
    """
    # Where the machine made the reader late, the server was right to close: then all is five times as slow.
    if not is_served_slowly(start, unit, is_sequential):
        assert is_served_slowly(start, 5 * unit, is_sequential), "the reader was late itself"


def is_served_slowly(start, unit: float, is_sequential: bool) -> bool:
    """Return False where not all was served, and the reader was late itself; fail where it was not."""
    longest = 0.0
    environ = {"LAB_IDLE_SECONDS": str(IDLE_UNITS * unit), "LAB_LINGER_SECONDS": str(IDLE_UNITS * unit)}
    with start(**environ, LAB_GRACE_SECONDS="60") as server, ExitStack() as stack:

        def converse(ways: list[tuple[str, str]], *, stop: bool) -> list[Reader]:
            nonlocal longest
            readers, pace = [], Pace()
            for transport, kind in ways:
                link = stack.enter_context(open_link(server.address("command", transport)))
                link.sendall(REQUESTS[kind])
                readers.append(Reader(link, kind, goes_on=kind == "closing", rest=RESTS.get(kind, b"")))
            read_slowly(readers, pace, unit)
            for reader in readers:
                if reader.kind == "waiting":
                    with suppress(OSError):  # `lost` will tell
                        reader.link.sendall(b"PING\r\n")
            if stop:
                for reader in readers:
                    reader.goes_on = False
                server.terminate()
                read_slowly(readers, pace, unit, SLOW_STEPS // 2)
            while pace.step(readers, 65536):
                pass
            for reader in readers:
                reader.link.close()
            longest = max(longest, pace.longest)
            return readers

        ways = [(transport, kind) for kind in ("typing", "waiting", "closing", "handing") for transport in STREAMS]
        if is_sequential:  # one after the other; the kinds differ in code, the transports hardly
            ways = [way for way in ways if way[0] == "tcp" or way[1] == "handing"]
            readers = [reader for way in ways for reader in converse([way], stop=way is ways[-1])]
        else:
            readers = converse(ways, stop=True)
        ends = {
            way: (reader.lost, len(reader.got), reader.got == REPLIES[reader.kind])
            for way, reader in zip(ways, readers, strict=True)
        }
        wanted = {(transport, kind): ("", len(REPLIES[kind]), True) for transport, kind in ways}
        if ends != wanted and longest > IDLE_UNITS * unit / 2:
            return False
        assert ends == wanted
        assert server.wait_end() == 0
        assert "closed a connection" not in server.log.read_text()
        return True


def test_reader_that_takes_nothing_is_idle(start, unit: float, is_sequential: bool) -> None:
    """However much is left to send to it: more than all buffers hold, or a little more than the kernel's."""
    with start(LAB_IDLE_SECONDS=str(3 * unit)) as server:

        def is_cut_off(links: list[BlockingConnection], closed_before: int) -> bool:
            log: str = server.log.read_text()
            return log.count("closed a connection that was idle") == closed_before + len(links)

        def stop_reading(transports: tuple[str, ...], closed_before: int) -> None:
            with ExitStack() as stack:
                links = [stack.enter_context(server.connect(transport=each)) for each in transports]
                for link in links:
                    link.send(b"BLOB 60000000\r\n")
                wait_until(lambda: is_cut_off(links, closed_before))
                for link in links:
                    assert count_rest(link) < 60_000_000

        if is_sequential:
            for number, transport in enumerate(STREAMS):
                stop_reading((transport,), number)
        else:
            stop_reading(STREAMS, 0)
        with server.connect() as link:
            link.send(b"PING\r\n")
            assert link.receive() == b"+PONG\r\n"
        server.terminate()
        assert server.wait_end() == 0  # nothing of them is left that a drain would wait for


def count_rest(link: BlockingConnection) -> int:
    def pieces() -> Iterator[int]:
        with suppress(ClientError):  # the server broke the connection off
            while data := link.receive():
                yield len(data)

    return sum(pieces())
