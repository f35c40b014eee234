"""A host with several addresses, of which only the last one is a server's: every client finds it."""

import _socket
import contextlib
import os
import socket
import struct
import tempfile
from collections import deque
from pathlib import Path

import pytest

from lab.clients.call import call
from lab.clients.slow_clients import connect_all
from lab.servers.process_helpers import find_port
from lab.servers.readiness import wait_ready
from loadtests.sockets import addresses
from loadtests.sockets.connection import BlockingConnection
from loadtests.sockets.errors import SetupError, UnreachableError
from services.protocol import Address, Transport
from tests.support.ports import LONELY, PLACES, open_black_hole


@pytest.fixture(autouse=True)
def forgetful(monkeypatch):
    monkeypatch.setattr(addresses, "_worked", {})


@pytest.fixture
def resolve(monkeypatch):
    """Make a name resolve to given addresses in this process, after some failures; return the queries."""
    real = socket.getaddrinfo
    asked = []

    def resolve(*places, failures=()):
        left = deque(failures)

        def getaddrinfo(host, port, *arguments, **options):
            if host != "localhost":
                return real(host, port, *arguments, **options)
            asked.append(host)
            if left:
                raise socket.gaierror(left.popleft(), "made up")
            return [found for place in places for found in real(place, port, *arguments, **options)]

        monkeypatch.setattr(socket, "getaddrinfo", getaddrinfo)
        return asked

    return resolve


def test_families_alternate_and_each_address_is_tried_once():
    four, six = [(socket.AF_INET, number) for number in range(3)], [(socket.AF_INET6, number) for number in range(2)]
    assert addresses.interleave([*four, *six, four[0]]) == [four[0], six[0], four[1], six[1], four[2]]
    assert addresses.interleave([*six, *four]) == [six[0], four[0], six[1], four[1], four[2]]


@pytest.mark.parametrize(("writable", "where"), [("s/in", "s/in"), ("s", "s"), ("", None)])
def test_reply_path_is_where_the_server_can_see_it(tmp_path, monkeypatch, writable, where):
    """In the server's folder, else in the one above, which both share; else anywhere."""
    (tmp_path / "s" / "in").mkdir(parents=True)
    (tmp_path / "other").mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "other"))
    monkeypatch.setattr(os, "access", lambda path, mode: bool(writable) and path == tmp_path / writable)
    with addresses.reply_path(str(tmp_path / "s" / "in" / "sock")) as path:
        parent = tmp_path / (where or "other")
        assert Path(path).parent.parent == parent
        Path(path).touch()
        assert len(list(parent.glob("c-*"))) == 1
    assert not list(tmp_path.rglob("c-*"))
    # An exchange that fails, and no socket was bound there.
    with contextlib.suppress(TimeoutError), addresses.reply_path(str(tmp_path / "s" / "in" / "sock")):
        raise TimeoutError
    assert not list(tmp_path.rglob("c-*"))


def test_reply_path_without_a_folder_is_named(tmp_path, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "missing"))
    monkeypatch.setattr(os, "access", lambda path, mode: False)
    with (
        pytest.raises(SetupError, match=r"^no reply path can be made next to /s/sock: No such file or directory$"),
        addresses.reply_path("/s/sock"),
    ):
        pass


@pytest.mark.parametrize(
    "url",
    ["tcp:///s", "http:///s", "unix://s", "udp://h", "tcp://:7", "tcp://h:65536", "tcp://h:000080", "h:7"],
)
def test_what_is_no_address_is_refused(url):
    with pytest.raises(ValueError, match=f"^'{url}' is not tcp://HOST:PORT, "):
        addresses.Endpoint.parse(url)


def test_address_that_worked_is_tried_first(resolve):
    resolve("127.0.0.2", "127.0.0.3", "127.0.0.4")
    places = addresses.find_addresses("localhost", 7, socket.SOCK_STREAM)
    assert [where[0] for _, where in places] == ["127.0.0.2", "127.0.0.3", "127.0.0.4"]
    addresses.remember("localhost", 7, socket.SOCK_STREAM, places[1])
    places = addresses.find_addresses("localhost", 7, socket.SOCK_STREAM)
    assert [where[0] for _, where in places] == ["127.0.0.3", "127.0.0.2", "127.0.0.4"]
    # Of another port, or another kind, nothing is known.
    for port, kind in ((8, socket.SOCK_STREAM), (7, socket.SOCK_DGRAM)):
        assert addresses.find_addresses("localhost", port, kind)[0][1][0] == "127.0.0.2"


def test_resolver_is_asked_for_the_kind_of_the_socket():
    asked = []

    def getaddrinfo(host, port, **options):
        asked.append((host, port, options))
        if len(asked) == 1:
            raise socket.gaierror(socket.EAI_AGAIN, "made up")
        return [(socket.AF_INET, kind, 0, "", ("127.0.0.1", 7))]

    kind = socket.SOCK_DGRAM
    found = addresses.find_addresses("h", 7, kind, getaddrinfo)
    assert found == [(socket.AF_INET, ("127.0.0.1", 7))]
    assert asked == [("h", 7, {"type": kind})] * 2


def test_temporary_failure_of_the_resolver_is_retried_once(resolve):
    asked = resolve("127.0.0.1", failures=[socket.EAI_AGAIN])
    assert addresses.find_addresses("localhost", 7, socket.SOCK_STREAM)
    assert len(asked) == 2
    for failures in ([socket.EAI_AGAIN] * 2, [socket.EAI_NONAME]):
        resolve("127.0.0.1", failures=failures)
        with pytest.raises(socket.gaierror):
            addresses.find_addresses("localhost", 7, socket.SOCK_STREAM)


@pytest.mark.parametrize("transport", ["tcp", "tls", "udp"])
def test_client_finds_the_server_at_the_last_address(transport, server, resolve):
    url = server.url("command", transport).replace("127.0.0.1", "localhost")
    resolve(*PLACES)
    assert call("command", url, ["PING"], timeout=30).value == b"PONG"
    kind = socket.SOCK_DGRAM if transport == "udp" else socket.SOCK_STREAM
    # The next one begins there.
    assert addresses.find_addresses("localhost", int(url.rpartition(":")[2]), kind)[0][1][0] == "127.0.0.1"
    assert call("command", url, ["PING"], timeout=30).value == b"PONG"


def count_connected(crowd):
    with contextlib.ExitStack() as stack:
        for link in crowd:
            stack.enter_context(link)
        return [link.getpeername()[0] for link in crowd]


def test_slow_clients_connect_to_the_address_that_accepts(resolve):
    """An address of a missing family, one that refuses, one that does not answer, and the server's."""
    with contextlib.ExitStack() as stack:
        port = find_port()
        stack.enter_context(open_black_hole(port))
        stack.enter_context(socket.create_server(("127.0.0.1", port)))
        resolve("::1", "127.0.0.3", "127.0.0.2", "127.0.0.1")
        where = Address(Transport.TCP, "localhost", port)
        assert count_connected(connect_all(where, 5)) == ["127.0.0.1"] * 5
        assert addresses.find_addresses("localhost", port, socket.SOCK_STREAM)[0][1][0] == "127.0.0.1"


def test_slow_clients_that_are_refused_everywhere_remain(resolve):
    """A model that has ended: `send_slowly` continues with unconnected sockets."""
    resolve("127.0.0.2", "127.0.0.1")
    crowd = connect_all(Address(Transport.TCP, "localhost", find_port()), 3)
    assert len(crowd) == 3
    for link in crowd:
        link.close()


def test_client_gives_each_address_a_part_of_its_time(server, resolve):
    url = server.url("command", "tcp").replace("127.0.0.1", "localhost")
    resolve("127.0.0.2", "127.0.0.1")
    with open_black_hole(int(url.rpartition(":")[2])):
        assert call("command", url, ["PING"], timeout=6).value == b"PONG"


@pytest.mark.parametrize("transport", ["tcp", "udp"])
def test_client_reports_that_all_addresses_refuse(transport, resolve):
    resolve("127.0.0.2", "127.0.0.1")
    with pytest.raises(UnreachableError, match="Connection refused"):
        call("command", f"{transport}://localhost:{find_port()}", ["PING"], timeout=30)


def test_datagrams_keep_the_address_that_answered(resolve):
    with contextlib.ExitStack() as stack:
        first, second = (stack.enter_context(socket.socket(type=socket.SOCK_DGRAM)) for _ in range(2))
        first.bind(("127.0.0.2", 0))
        second.bind(("127.0.0.3", first.getsockname()[1]))  # where no other test has a server
        resolve("127.0.0.2", "127.0.0.3")
        link = stack.enter_context(BlockingConnection(addresses_of(first)))
        link.send(b"one")
        data, peer = first.recvfrom(10)
        first.sendto(data, peer)
        assert link.receive() == b"one"
        first.close()
        # It has gone, which the other one is no answer to.
        link.send(b"two")
        with pytest.raises(UnreachableError, match="Connection refused"):
            link.receive()
        second.setblocking(False)
        with pytest.raises(BlockingIOError):
            second.recv(10)


def addresses_of(server):
    return Address.parse(f"udp://localhost:{server.getsockname()[1]}")


def test_readiness_finds_the_server_at_the_last_address(server, resolve):
    url = server.url("command", "tcp").replace("127.0.0.1", "localhost")
    resolve(*PLACES)
    (outcome,) = wait_ready([("it", "command", url)], 60)
    assert outcome.ready, outcome


@pytest.mark.parametrize("transport", ["tcp", "udp"])
def test_client_does_not_take_itself_for_the_server(transport, monkeypatch):
    def connect(stream, where):
        stream.bind(where)
        return _socket.socket.connect(stream, where)

    monkeypatch.setattr(socket.socket, "connect", connect)
    address = Address.parse("{}://{}:{}".format(transport, *LONELY))
    with pytest.raises(UnreachableError, match="Connection refused"):
        BlockingConnection(address)
    # The port is free at once.
    monkeypatch.undo()
    with socket.socket() as server:
        server.bind(LONELY)


def test_client_with_the_port_of_its_server_at_another_address_is_none():
    with socket.socket(type=socket.SOCK_DGRAM) as server, socket.socket(type=socket.SOCK_DGRAM) as client:
        server.bind(LONELY)
        client.bind(("127.0.0.78", LONELY[1]))
        client.connect(LONELY)
        addresses.refuse_itself(client, LONELY)


def test_server_that_has_reset_its_client_is_not_its_client():
    """What is then to be done fails with the reset, and is reported as such."""
    with socket.create_server(("127.0.0.1", 0)) as server, socket.create_connection(server.getsockname()) as client:
        stream, _ = server.accept()
        stream.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        stream.close()
        addresses.refuse_itself(client, server.getsockname())
        with pytest.raises(ConnectionResetError):
            client.recv(1)
