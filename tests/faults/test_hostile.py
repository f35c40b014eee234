"""Hostile clients of every model. Whatever one does, another client's PING must be answered.

If a model declares that it cannot do that (`lab.limit.overlap`, `lab.limit.slow-clients` in compose.yaml), the test
must fail, strictly. No time is asserted; what a hostile client leaves behind (memory, descriptors, threads, children)
is counted.
"""

import socket
import struct
from collections.abc import Iterator
from contextlib import ExitStack, suppress
from dataclasses import dataclass

import psutil
import pytest

from lab.clients.reference import answer
from loadtests.sockets.connection import BlockingConnection
from loadtests.sockets.errors import NoAnswerError, WrongAnswerError
from tests.faults.conftest import CATALOGUE, TIMEOUT
from tests.support.reading import read_all
from tests.support.servers import Server, held, is_asleep
from tests.support.waiting import settled, wait_until

PONG = b"+PONG\r\n"


def ask(server: Server, client_timeout: float = TIMEOUT, transport: str = "tcp") -> None:
    """Send a PING, as a well-behaved client."""
    with server.connect(transport=transport, timeout=client_timeout) as link:
        link.send(b"PING\r\n")
        assert link.receive() == PONG


def reset(link: BlockingConnection) -> None:
    """End a connection with a reset instead of a FIN; discard unread data."""
    link.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    link.close()


@dataclass(frozen=True, slots=True)
class Resources:
    """Sums over a model and its child processes."""

    processes: int = 0
    zombies: int = 0
    descriptors: int = 0
    threads: int = 0


def count_resources(server: Server) -> Resources:
    processes = zombies = descriptors = threads = 0
    for process in server.family():
        with suppress(psutil.NoSuchProcess, psutil.AccessDenied):
            processes += 1
            if process.status() == psutil.STATUS_ZOMBIE:
                zombies += 1
                continue
            descriptors += process.num_fds()
            threads += process.num_threads()
    return Resources(processes, zombies, descriptors, threads)


def begin_handshake(server: Server) -> socket.socket:
    """Send the first bytes of a ClientHello, and nothing after them."""
    where = server.address("command", "tls")
    link = socket.create_connection((where.host, where.port), timeout=TIMEOUT)
    link.sendall(b"\x16\x03\x01\x02\x00\x01\x00")
    return link


@pytest.mark.capability("overlap")
@pytest.mark.capability("slow-clients")
def test_silent_clients_block_no_other_client(roomy: Server, client_timeout: float) -> None:
    with ExitStack() as stack:
        for number in range(40):
            stack.enter_context(begin_handshake(roomy))
            for data in (b"", b"*2\r\n$4\r\nEC"):
                stack.enter_context(roomy.connect()).send(data[: number % 12])
        ask(roomy, client_timeout)
        ask(roomy, client_timeout, "tls")


@pytest.mark.capability("overlap")
def test_slow_sender_blocks_no_other_client(roomy: Server, client_timeout: float) -> None:
    with roomy.connect(timeout=10 * TIMEOUT) as slow:
        for byte in b"*1\r\n$4\r\nPING\r\n":
            slow.send(bytes([byte]))
            ask(roomy, client_timeout)
        assert slow.receive() == PONG


@pytest.mark.capability("overlap")
def test_stopped_readers_cost_little_and_block_no_other_client(roomy: Server, client_timeout: float) -> None:
    wait_until(lambda: is_asleep(roomy))  # prefork serves before it has forked its last process
    with ExitStack() as stack:
        readers = []
        for service, request in (("chargen", b""), ("command", b"BLOB 60000000\r\n" * 4)) * 4:
            link = stack.enter_context(roomy.connect(service, timeout=client_timeout))
            link.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 65536)
            link.send(request)
            link.receive(1)
            readers.append(link)
        before = held(roomy)
        wait_until(lambda: is_asleep(roomy))  # the buffers are full
        grown = (held(roomy) - before) / len(readers)
        assert grown < 2_000_000, f"grew by {grown:.0f} bytes for each"
        ask(roomy, client_timeout)
        for link in readers:
            reset(link)


DATA_BEFORE_RESET = (b"", b"PING\r\n", b"*2\r\n$4\r\nECHO\r\n$100\r\nabc", b"BLOB 10000000\r\n", b"QUIT\r\n")


def test_many_resets_leave_nothing_behind(roomy: Server, unit: float) -> None:
    """Resets before accept, during a frame, during a reply, and during the close."""
    ask(roomy)
    before = settled(lambda: count_resources(roomy), unit)
    for number in range(100):
        with roomy.connect() as link:
            link.send(DATA_BEFORE_RESET[number % len(DATA_BEFORE_RESET)])
            reset(link)
        if number % 4 == 0:
            hello = begin_handshake(roomy)
            hello.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            hello.close()
    ask(roomy)
    ask(roomy, transport="tls")
    wait_until(lambda: count_resources(roomy) == before)


STREAM = b"*2\r\n$4\r\nECHO\r\n$3\r\na\r\n\r\nPING\r\n*1\r\n$4\r\nQUIT\r\n"


@pytest.mark.parametrize("transport", ["tcp", "tls"])
def test_half_close_after_each_byte_is_answered_like_the_reference(roomy: Server, transport: str) -> None:
    for end in range(len(STREAM) + 1):
        with roomy.connect(transport=transport) as link:
            link.send(STREAM[:end])
            link.half_close()
            assert read_all(link) == answer("command", STREAM[:end]).sent, f"after {end} bytes"


INVALID_FRAMES = {
    "array-without-number": b"*x\r\n",
    "array-too-long": b"*1025\r\n",
    "array-of-a-hundred-digits": b"*" + b"9" * 100 + b"\r\n",
    "bulk-negative": b"*1\r\n$-1\r\n",
    "bulk-too-large": b"*1\r\n$1048577\r\n",
    "bulk-of-a-hundred-digits": b"*1\r\n$" + b"9" * 100 + b"\r\n",
    "bulk-without-end": b"*1\r\n$4\r\nPINGPING\r\n",
    "request-too-large": b"*4\r\n" + b"$1048576\r\n%b\r\n" % bytes(1048576) * 2 + b"$1\r\n",
    "line-too-long": b"x" * 70_000,
    "line-of-zeros": bytes(70_000),
    "quotes-without-end": b'ECHO "\r\n',
    "a-handshake": b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n",
    "http": b"GET / HTTP/1.1\r\nHost: example.test\r\n\r\n",
    "a-form": b"POST / HTTP/1.1\r\nHost: example.test\r\n\r\nBURN 2000000\r\n",
    "three-bulks-too-large": b"*4\r\n" + b"$900000\r\n%b\r\n" % bytes(900_000) * 2 + b"$900000\r\n",
}


def test_invalid_frame_gets_an_error_and_closes(roomy: Server) -> None:
    """The error arrives although the client continues to send, and nothing arrives after it."""
    for name, frame in INVALID_FRAMES.items():
        stream = b"PING\r\n" + frame + b"PING\r\n"
        with roomy.connect(timeout=2 * TIMEOUT) as link:
            link.send(stream)
            wanted = answer("command", stream)
            if not wanted.ended:  # not an error for the reference: the connection stays open
                link.half_close()
            assert read_all(link) == wanted.sent, name


def test_datagram_flood_leaves_nothing_behind(roomy: Server, unit: float) -> None:
    """Datagrams of every size, whose sender reads no reply."""
    ask(roomy)
    before = settled(lambda: count_resources(roomy), unit)
    kinds = [(socket.AF_INET, "udp"), (socket.AF_UNIX, "unixgram")]
    for family, transport in kinds:
        with socket.socket(family, socket.SOCK_DGRAM) as flood:
            flood.setblocking(False)
            for service in ("greet", "echo", "discard", "command"):
                where = roomy.address(service, transport)
                place = where.path if where.transport.is_unix else (where.host, where.port)
                for number in range(20):
                    with suppress(BlockingIOError):  # the queue is full
                        flood.sendto((b"", b"\xff", b"PING\r\n", bytes(1400), bytes(65_507))[number % 5], place)
    ask(roomy)
    wait_until(lambda: is_answered_over_udp(roomy))
    wait_until(lambda: count_resources(roomy) == before)


def is_answered_over_udp(server: Server) -> bool:
    """Return whether a PING over UDP is answered. It may be lost while the socket's queue is full."""
    try:
        ask(server, 1.0, "udp")
    except NoAnswerError:
        return False
    return True


def has_free_connection(server: Server) -> bool:
    """Return whether a new client is served. The server may not have noticed recent disconnects yet."""
    return next(fill(server))


def count_connections(server: Server) -> int:
    """Return how many clients a server accepts at the same time."""
    limits = CATALOGUE[server.description["model"]].limits
    return 1 if "overlap" in limits else server.description["limits"]["connections"]


def test_churn_beyond_the_limit_frees_all_connections(tight: Server) -> None:
    for _ in range(4):
        with ExitStack() as stack:
            for number in range(2 * count_connections(tight) + 1):
                link = stack.enter_context(tight.connect())
                with suppress(WrongAnswerError):  # refused
                    link.send(b"PING\r\n")
                if number % 2:
                    reset(link)
    wait_until(lambda: all(is_held for is_held in fill(tight)))


def fill(server: Server) -> Iterator[bool]:
    """Open as many connections as the server accepts; yield for each whether it was served."""
    with ExitStack() as stack:
        for _ in range(count_connections(server)):
            try:
                link = stack.enter_context(server.connect(timeout=1.0))
                link.send(b"PING\r\n")
                yield link.receive() == PONG
            except (NoAnswerError, WrongAnswerError):
                yield False


def test_idle_client_is_disconnected(tight: Server, unit: float) -> None:
    """A client is disconnected wherever it stops, and its resources are freed."""
    wait_until(lambda: has_free_connection(tight))
    before = settled(lambda: count_resources(tight), unit)
    idle = tight.log.read_text().count("was idle for")
    with ExitStack() as stack:
        stack.enter_context(begin_handshake(tight))
        for service, data in (
            ("command", b""),
            ("command", b"*1\r\n$4\r\nPI"),
            ("command", b"BLOB 60000000\r\n"),
            ("chargen", b""),
            ("command", b"QUIT\r\n"),  # a client that does not close its half has the linger time
        ):
            stack.enter_context(tight.connect(service)).send(data)
        wait_until(lambda: tight.log.read_text().count("was idle for") == idle + 5)
        wait_until(lambda: count_resources(tight) == before)
    wait_until(lambda: has_free_connection(tight))
