"""What `serve(listeners)` promises, in every model: bounded memory, a drain, nothing left behind."""

import signal
import socket
import ssl
from collections.abc import Callable
from contextlib import ExitStack, suppress

import psutil
import pytest

from lab.servers.catalogue import Catalogue
from lab.servers.certificates import CA, ensure_certificates
from loadtests.sockets.connection import BlockingConnection
from loadtests.sockets.errors import NoAnswerError, WrongAnswerError
from tests.support.reading import read_all
from tests.support.servers import Server, held, listens, queued, worked
from tests.support.waiting import settled, wait_until

Start = Callable[..., Server]
STREAMS = ("tcp", "tls", "unix")


def ping(server: Server, transport: str = "tcp") -> bytes:
    with server.connect(transport=transport) as link:
        link.send(b"PING\r\n")
        return link.receive()


def test_sigterm_lets_a_request_in_flight_finish(start, unit: float, is_sequential: bool) -> None:
    """Over each transport; at once, if the model serves clients at once."""
    for transports in [(each,) for each in STREAMS] if is_sequential else [STREAMS]:
        with start(LAB_WORKERS=str(len(STREAMS))) as server, ExitStack() as stack:
            links = [stack.enter_context(server.connect(transport=each)) for each in transports]
            for link in links:
                link.send(b"PING\r\nSLEEP %d\r\nECHO last\r\n" % (5000 * unit))
                assert link.receive() == b"+PONG\r\n"  # so the rest has come as well, in the same segment
            server.terminate()
            for link in links:
                assert read_all(link) == b"+OK\r\n$4\r\nlast\r\n"
            assert server.wait_end() == 0


def test_sigterm_closes_whoever_is_silent(start) -> None:
    with start() as server, server.connect() as link:
        link.send(b"PING\r\n*2\r\n$4\r\nEC")  # and half a request
        assert link.receive() == b"+PONG\r\n"
        server.terminate()
        assert read_all(link) == b""
        assert server.wait_end() == 0


def test_sigterm_ends_an_endless_stream(start) -> None:
    with start() as server, server.connect("chargen") as link:
        assert link.receive()
        server.terminate()
        read_all(link)  # comes to an end
        assert server.wait_end() == 0


def test_sigterm_waits_for_a_datagram_in_work(start, unit: float) -> None:
    """And for no other: one that comes later is not received."""
    with start() as server, server.connect(transport="udp") as link, server.connect(transport="udp") as late:
        link.send(b"SLEEP %d\r\n" % (5000 * unit))
        wait_until(lambda: not queued(server.address("command", "udp")))
        server.terminate()
        wait_until(lambda: not listens(server.address("command", "tcp")))
        late.send(b"PING\r\n")
        assert link.receive() == b"+OK\r\n"
        assert server.wait_end() == 0
        late.socket.setblocking(False)
        with pytest.raises((BlockingIOError, ConnectionRefusedError)):  # no reply, and no server any more
            late.socket.recv(100)


def test_sigint_while_nobody_is_there_stops_as_sigterm_does(start) -> None:
    with start() as server:
        server.process.send_signal(signal.SIGINT)
        assert server.wait_end() == 0


def test_the_grace_period_ends(start, unit: float) -> None:
    """Who still sleeps then is cut off, and the exit code says so."""
    with start(LAB_GRACE_SECONDS=str(3 * unit)) as server, server.connect() as link:
        link.send(b"PING\r\nSLEEP 60000\r\n")
        assert link.receive() == b"+PONG\r\n"  # so the rest has come as well, in the same segment
        server.terminate()
        assert server.wait_end() == 1
        assert "grace period" in server.log.read_text()


def test_an_idle_connection_is_closed(start, unit: float) -> None:
    """Also one for which the server has worked; and a handshake that never ends."""
    with start(LAB_IDLE_SECONDS=str(3 * unit)) as server:
        for number, transport in enumerate(STREAMS, 1):
            with server.connect(transport=transport) as link:
                link.send(b"SLEEP 1\r\n")
                assert link.receive() == b"+OK\r\n"
                assert link.socket.recv(100) == b""  # TLS: without a word more
                wait_until(lambda: server.log.read_text().count("was idle for") == number)  # noqa: B023  # called here
            assert ping(server) == b"+PONG\r\n"
        where = server.address("command", "tls")
        with socket.create_connection((where.host, where.port), timeout=10) as silent:
            assert silent.recv(100) == b""
        assert ping(server, "tls") == b"+PONG\r\n"


def test_sigterm_closes_whoever_is_in_a_handshake(start) -> None:
    with start() as server:
        where = server.address("command", "tls")
        with socket.create_connection((where.host, where.port), timeout=10) as silent:
            silent.sendall(b"\x16\x03\x01")
            wait_until(lambda: not queued(where))  # it has been accepted
            server.terminate()
            assert len(silent.recv(100)) < 10  # at most an alert
            assert server.wait_end() == 0


def test_a_failed_handshake_is_one_line_in_the_log(start) -> None:
    with start() as server:
        where = server.address("command", "tls")
        assert ping(server, "tls") == b"+PONG\r\n"
        before = len(server.log.read_text().splitlines())
        with socket.create_connection((where.host, where.port), timeout=10) as link:
            link.sendall(b"hi\n")  # fewer bytes than the header of a record: it is not waited for
            said = b"".join(iter(lambda: link.recv(100), b""))
            assert said == bytes([21, 3, 1, 0, 2, 2, 10])  # an alert, fatal: unexpected_message
        assert ping(server, "tls") == b"+PONG\r\n"
        lines = server.log.read_text().splitlines()[before:]
        assert len(lines) == 1
        assert "TLS handshake with 127.0.0.1:" in lines[0]
        assert lines[0].endswith(r"failed: it does not speak TLS, but began with b'hi\n'")
        server.terminate()
        assert server.wait_end() == 0


def test_mutual_tls_lets_in_only_who_has_a_certificate(start) -> None:
    certificates = ensure_certificates(Catalogue.load().names)
    with start(LAB_TLS_CLIENT_CA=str(certificates / CA)) as server:
        assert ping(server, "tls") == b"+PONG\r\n"  # the lab's own client shows one
        where = server.address("command", "tls")
        nobody = ssl.create_default_context(cafile=str(certificates / CA))
        with (
            socket.create_connection((where.host, where.port), timeout=10) as link,
            nobody.wrap_socket(link, server_hostname=where.host) as tls,  # TLS 1.3: the server looks only now
            pytest.raises((ssl.SSLError, ConnectionError)),
        ):
            tls.recv(100)
        wait_until(lambda: "TLS handshake with" in server.log.read_text())
        assert ping(server, "tls") == b"+PONG\r\n"


def test_work_is_not_idleness(start, unit: float) -> None:
    """A SLEEP longer than the idle time is the server's own silence."""
    with start(LAB_IDLE_SECONDS=str(2 * unit)) as server, server.connect() as link:
        link.send(b"SLEEP %d\r\n" % (6000 * unit))
        assert link.receive() == b"+OK\r\n"


def test_a_reader_that_stops_does_not_grow_the_server(start, unit: float) -> None:
    """Two hundred megabytes are asked for and not read. What the server holds of them is a few buffers."""
    with start() as server:
        assert ping(server) == b"+PONG\r\n"
        settled(lambda: len(server.family()), unit)  # workers may still be starting
        for service, request in (("chargen", b""), ("command", b"BLOB 60000000\r\n" * 4)):
            with server.connect(service) as link:
                link.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 65536)
                if request:
                    link.send(request)
                link.receive(1)
                before = held(server)
                # Until the server has stopped working: its buffers are full, and it waits.
                settled(lambda: worked(server), unit)
                after = held(server)
                assert after - before < 2_000_000, f"{service}: grew by {after - before} bytes"


def test_what_a_client_can_make_a_server_hold_is_bounded(start, unit: float, is_sequential: bool) -> None:
    """By INFO's `connection_bytes`: half a request without an end, behind a pipeline whose replies nobody reads."""
    bulk = b"*2\r\n$4\r\nECHO\r\n$100000\r\n%b\r\n" % bytes(100_000)

    def fill(server, links: list[BlockingConnection]) -> int:
        for link in links:
            link.socket.settimeout(3 * unit)
            with suppress(TimeoutError):  # the server takes no more
                for _ in range(500):
                    link.socket.sendall(bulk)
                pytest.fail("the server takes fifty megabytes of a client who reads nothing")
        settled(lambda: worked(server), unit)
        return held(server)

    with start(LAB_MAX_REQUEST="200000", LAB_MAX_BULK="100000") as server, ExitStack() as stack:
        links = [stack.enter_context(server.connect()) for _ in range(1 if is_sequential else 6)]
        for link in links:
            link.send(b"PING\r\n")
            assert link.receive() == b"+PONG\r\n"
        settled(lambda: len(server.family()), unit)
        # What the first two make grow is also the process's own, once: arenas, and the heap that it keeps for the next.
        first, rest = ([], links) if is_sequential else (links[:2], links[2:])
        before = fill(server, first)
        grown = (fill(server, rest) - before) / len(rest)
        assert grown < server.description["limits"]["connection_bytes"], f"grew by {grown:.0f} bytes for each"


def test_a_pipeline_of_computations_is_not_done_in_one_go(start, is_sequential: bool) -> None:
    """Between one and the next, others get their turn: also where the client's reading never stops the server."""
    count = 20 if is_sequential else 500
    with start() as server, server.connect() as greedy, server.connect(timeout=30) as other:
        greedy.send(b"BURN 20000\r\n" * count)
        greedy.receive(1)  # it has been begun
        other.send(b"PING\r\n")
        if is_sequential:
            greedy.half_close()
        assert other.receive() == b"+PONG\r\n"
        answered = (1 + len(greedy.receive())) / 71
        if is_sequential:
            assert answered == count
            return
        assert answered < count / 2, "most of the pipeline was computed before anybody else was answered"
        greedy.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\x01\0\0\0\0\0\0\0")  # and it stops


def _answers(server) -> bool:
    """Whether it serves; a refusal or silence, for want of descriptors, is a no, and anything else an error."""
    try:
        return ping(server) == b"+PONG\r\n"
    except (NoAnswerError, WrongAnswerError):
        return False


def test_holds_no_more_connections_than_its_limit(start, unit: float, is_sequential: bool) -> None:
    """As INFO says: the client waits in the backlog, or it is refused, with words if the protocol has any."""
    with start(LAB_MAX_CONNECTIONS="2") as server, ExitStack() as stack:
        held = [stack.enter_context(server.connect()) for _ in range(1 if is_sequential else 2)]
        for link in held:
            link.send(b"PING\r\n")
            assert link.receive() == b"+PONG\r\n"
        one_more = stack.enter_context(server.connect())
        one_more.send(b"PING\r\n")
        if server.description["when_full"] == "refuse":
            assert one_more.receive() == b"-ERR this server holds 2 connections, which is its limit\r\n"
            held.pop().close()
        else:
            assert server.description["when_full"] == "wait"
            one_more.socket.settimeout(3 * unit)
            with pytest.raises(TimeoutError):
                one_more.socket.recv(1000)
            held.pop().close()
            assert one_more.receive() == b"+PONG\r\n"
        one_more.close()
        wait_until(lambda: _answers(server))


def test_leaves_nothing_of_a_connection(start, unit: float) -> None:
    """Descriptors, threads and children are back where they were after a hundred clients of every kind."""

    def account() -> tuple[tuple[int, int, int], ...]:
        # A child that has just ended has none of these; `family` does not list it the next time.
        family = []
        for process in server.family():
            with suppress(psutil.NoSuchProcess, psutil.AccessDenied):
                family.append((process.pid, process.num_fds(), process.num_threads()))
        return tuple(sorted(family))

    def visit() -> None:
        for number in range(25):
            for transport in STREAMS:
                with server.connect(transport=transport) as link:
                    link.send(b"PING\r\n")
                    assert link.receive() == b"+PONG\r\n"
                    if number % 3 == 0:
                        link.half_close()
                        assert link.receive() == b""
                    if number % 3 == 1 and transport == "tcp":  # a reset
                        link.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\x01\0\0\0\0\0\0\0")
            with server.connect(transport="udp") as link:
                link.send(b"PING\r\n")
                assert link.receive() == b"+PONG\r\n"

    with start() as server:
        for transport in (
            "tcp",
            "udp",
        ):  # answered, so it has started in full; libuv opens one more for its first client
            with server.connect(transport=transport) as link:
                link.send(b"PING\r\n")
                assert link.receive() == b"+PONG\r\n"
        before = settled(account, unit)  # and that datagram's thread or child is gone
        visit()
        wait_until(lambda: account() == before)
        assert not [child for child in server.family() if child.status() == psutil.STATUS_ZOMBIE]
        server.terminate()
        assert server.wait_end() == 0
        assert "Traceback" not in server.log.read_text()


def test_a_killed_server_can_be_started_again_in_the_same_place(start, model: str) -> None:
    """kill -9 leaves the files of Unix sockets behind; they must not keep the next server from starting."""
    with start() as first:
        for process in reversed(first.family()):
            process.kill()
        first.process.wait()
        assert list(first.directory.glob("*.sock"))
        with type(first)(model, first.directory, {}) as second:
            assert ping(second, "unix") == b"+PONG\r\n"
            second.terminate()
            assert second.wait_end() == 0
