"""Hostile clients of every model. Whatever one does, another client's PING must be answered.

If a model declares that it cannot do that (`lab.limit.overlap`, `lab.limit.slow_clients` in compose.yaml), the test
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
from tests.faults.conftest import CATALOGUE, PATIENCE
from tests.support.reading import read_all
from tests.support.servers import Server, held, worked
from tests.support.waiting import settled, wait_until

PONG = b"+PONG\r\n"


def ask(server: Server, patience: float = PATIENCE, transport: str = "tcp") -> None:
    """Somebody who knows how to behave."""
    with server.connect(transport=transport, timeout=patience) as link:
        link.send(b"PING\r\n")
        assert link.receive() == PONG


def reset(link: BlockingConnection) -> None:
    """End a connection by a reset instead of a FIN, and throw away what has come."""
    link.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    link.close()


@dataclass(frozen=True, slots=True)
class Account:
    """What a model and its children hold, added up."""

    processes: int = 0
    zombies: int = 0
    descriptors: int = 0
    threads: int = 0


def account(server: Server) -> Account:
    processes = zombies = descriptors = threads = 0
    for process in server.family():
        with suppress(psutil.NoSuchProcess, psutil.AccessDenied):
            processes += 1
            if process.status() == psutil.STATUS_ZOMBIE:
                zombies += 1
                continue
            descriptors += process.num_fds()
            threads += process.num_threads()
    return Account(processes, zombies, descriptors, threads)


def half_handshake(server: Server) -> socket.socket:
    """A TLS client that says that a ClientHello comes, and then nothing."""
    where = server.address("command", "tls")
    link = socket.create_connection((where.host, where.port), timeout=PATIENCE)
    link.sendall(b"\x16\x03\x01\x02\x00\x01\x00")
    return link


@pytest.mark.capability("overlap")
@pytest.mark.capability("slow_clients")
def test_a_silent_crowd_keeps_nobody_out(roomy: Server, patience: float) -> None:
    with ExitStack() as crowd:
        for number in range(40):
            crowd.enter_context(half_handshake(roomy))
            for said in (b"", b"*2\r\n$4\r\nEC"):
                crowd.enter_context(roomy.connect()).send(said[: number % 12])
        ask(roomy, patience)
        ask(roomy, patience, "tls")


@pytest.mark.capability("overlap")
def test_a_slow_sender_makes_nobody_wait(roomy: Server, patience: float) -> None:
    with roomy.connect(timeout=10 * PATIENCE) as slow:
        for byte in b"*1\r\n$4\r\nPING\r\n":
            slow.send(bytes([byte]))
            ask(roomy, patience)
        assert slow.receive() == PONG


@pytest.mark.capability("overlap")
def test_readers_that_stop_cost_little_and_make_nobody_wait(roomy: Server, patience: float, unit: float) -> None:
    with ExitStack() as stack:
        readers = []
        for service, request in (("chargen", b""), ("command", b"BLOB 60000000\r\n" * 4)) * 4:
            link = stack.enter_context(roomy.connect(service, timeout=patience))
            link.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 65536)
            link.send(request)
            link.receive(1)
            readers.append(link)
        before = held(roomy)
        settled(lambda: worked(roomy), unit)  # the buffers are full, and the model waits
        grown = (held(roomy) - before) / len(readers)
        assert grown < 2_000_000, f"grew by {grown:.0f} bytes for each"
        ask(roomy, patience)
        for link in readers:
            reset(link)


SAID_BEFORE_A_RESET = (b"", b"PING\r\n", b"*2\r\n$4\r\nECHO\r\n$100\r\nabc", b"BLOB 10000000\r\n", b"QUIT\r\n")


def test_a_storm_of_resets_leaves_nothing(roomy: Server, unit: float) -> None:
    """Before accept, in the middle of a frame, in the middle of a reply, in the stages of a close."""
    ask(roomy)
    before = settled(lambda: account(roomy), unit)
    for number in range(100):
        with roomy.connect() as link:
            link.send(SAID_BEFORE_A_RESET[number % len(SAID_BEFORE_A_RESET)])
            reset(link)
        if number % 4 == 0:
            hello = half_handshake(roomy)
            hello.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            hello.close()
    ask(roomy)
    ask(roomy, transport="tls")
    wait_until(lambda: account(roomy) == before)


STREAM = b"*2\r\n$4\r\nECHO\r\n$3\r\na\r\n\r\nPING\r\n*1\r\n$4\r\nQUIT\r\n"


@pytest.mark.parametrize("transport", ["tcp", "tls"])
def test_a_half_close_at_every_byte_is_answered_as_the_protocol_says(roomy: Server, transport: str) -> None:
    for end in range(len(STREAM) + 1):
        with roomy.connect(transport=transport) as link:
            link.send(STREAM[:end])
            link.half_close()
            assert read_all(link) == answer("command", STREAM[:end]).sent, f"after {end} bytes"


BROKEN = {
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


def test_a_broken_frame_gets_its_error_and_the_end(roomy: Server) -> None:
    """The error arrives, though the client goes on sending; and it is the last thing that does."""
    for name, frame in BROKEN.items():
        stream = b"PING\r\n" + frame + b"PING\r\n"
        with roomy.connect(timeout=2 * PATIENCE) as link:
            link.send(stream)
            wanted = answer("command", stream)
            if not wanted.ended:  # it was no error after all, and the stream goes on
                link.half_close()
            assert read_all(link) == wanted.sent, name


def test_a_flood_of_datagrams_leaves_nothing(roomy: Server, unit: float) -> None:
    """Of every size, with nobody behind them who would take an answer."""
    ask(roomy)
    before = settled(lambda: account(roomy), unit)
    kinds = [(socket.AF_INET, "udp"), (socket.AF_UNIX, "unixgram")]
    for family, transport in kinds:
        with socket.socket(family, socket.SOCK_DGRAM) as flood:
            flood.setblocking(False)
            for service in ("greet", "echo", "discard", "command"):
                where = roomy.address(service, transport)
                place = where.path if where.transport.is_unix else (where.host, where.port)
                for number in range(20):
                    with suppress(BlockingIOError):  # a full queue is the end of the flood
                        flood.sendto((b"", b"\xff", b"PING\r\n", bytes(1400), bytes(65_507))[number % 5], place)
    ask(roomy)
    wait_until(lambda: answers_a_datagram(roomy))
    wait_until(lambda: account(roomy) == before)


def answers_a_datagram(server: Server) -> bool:
    """Whether it does; the queue of a socket may still be full, and what does not fit is lost."""
    try:
        ask(server, 1.0, "udp")
    except NoAnswerError:
        return False
    return True


def has_a_place(server: Server) -> bool:
    """Whether somebody who comes now is served; those who have just gone may not have been missed yet."""
    return next(fill(server))


def places(server: Server) -> int:
    """How many clients it has room for at the same time."""
    limits = CATALOGUE[server.description["model"]].limits
    return 1 if "overlap" in limits else server.description["limits"]["connections"]


def test_churn_past_the_limit_costs_no_place(tight: Server) -> None:
    for _ in range(4):
        with ExitStack() as stack:
            for number in range(2 * places(tight) + 1):
                link = stack.enter_context(tight.connect())
                with suppress(WrongAnswerError):  # refused
                    link.send(b"PING\r\n")
                if number % 2:
                    reset(link)
    wait_until(lambda: all(is_held for is_held in fill(tight)))


def fill(server: Server) -> Iterator[bool]:
    """Take every place there is; yields, for each, whether it was to be had."""
    with ExitStack() as stack:
        for _ in range(places(server)):
            try:
                link = stack.enter_context(server.connect(timeout=1.0))
                link.send(b"PING\r\n")
                yield link.receive() == PONG
            except (NoAnswerError, WrongAnswerError):
                yield False


def test_whoever_neither_sends_nor_takes_is_let_go(tight: Server, unit: float) -> None:
    """Wherever he has stopped: and what he held is free again."""
    wait_until(lambda: has_a_place(tight))
    before = settled(lambda: account(tight), unit)
    idle = tight.log.read_text().count("was idle for")
    with ExitStack() as stack:
        stack.enter_context(half_handshake(tight))
        for service, said in (
            ("command", b""),
            ("command", b"*1\r\n$4\r\nPI"),
            ("command", b"BLOB 60000000\r\n"),
            ("chargen", b""),
            ("command", b"QUIT\r\n"),  # who does not close his half either has its linger time
        ):
            stack.enter_context(tight.connect(service)).send(said)
        wait_until(lambda: tight.log.read_text().count("was idle for") == idle + 5)
        wait_until(lambda: account(tight) == before)
    wait_until(lambda: has_a_place(tight))
