"""A host with several addresses, of which only the last one is a server's: every client finds it."""

import _socket
import contextlib
import json
import os
import socket
import tempfile
import textwrap
from collections import deque
from pathlib import Path
from uuid import uuid4

import pytest

from lab.clients.call import call
from lab.clients.slow_clients import connect_all
from lab.load.generator import PersistentGenerator
from lab.servers.catalogue import Catalogue
from lab.servers.process_helpers import find_port
from lab.servers.processes import Processes
from lab.servers.readiness import wait_ready
from loadtests.sockets import addresses
from loadtests.sockets.connection import BlockingConnection
from loadtests.sockets.errors import UnreachableError
from services.protocol import Address, Transport
from tests.support.load_fixtures import run_load
from tests.support.ports import closed_port

# Put in front of whatever asks for a name: gevent's resolver and Python's both end in `_socket`.
RESOLVER = """
    import json, os, socket, _socket

    real, failed = _socket.getaddrinfo, []

    def getaddrinfo(host, port, *arguments, **options):
        # A load has its own variables, and is a fork of the process that has loaded this.
        is_literal = (arguments + (0,) * 4)[3] & _socket.AI_NUMERICHOST
        if "ADDRESSES" not in os.environ or host not in (b"localhost", "localhost") or is_literal:
            return real(host, port, *arguments, **options)
        asked = json.loads(os.environ["ADDRESSES"])
        if len(failed) < len(asked["failures"]):
            failed.append(asked["failures"][len(failed)])
            raise _socket.gaierror(getattr(_socket, failed[-1]), "made up")
        return [found for place in asked["places"] for found in real(place, port, *arguments, **options)]

    def connect(stream, where):
        if json.loads(os.environ.get("ADDRESSES", "{}")).get("is_itself"):
            stream.bind(where)
        return _socket.socket.connect(stream, where)

    _socket.getaddrinfo, socket.socket.connect = getaddrinfo, connect
"""
# An address of a family that may be missing, one that refuses, and the server's.
PLACES = ("::1", "127.0.0.2", "127.0.0.1")
# A place at which no test has a server.
LONELY = ("127.0.0.77", 40_077)


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


@contextlib.contextmanager
def open_black_hole(port):
    """A listener with a full backlog: the kernel silently drops requests for a connection."""
    with contextlib.ExitStack() as stack:
        listener = stack.enter_context(socket.create_server(("127.0.0.2", port), backlog=0))
        for _ in range(3):
            client = stack.enter_context(socket.socket())
            client.setblocking(False)
            client.connect_ex(listener.getsockname())
        yield


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


# They share a generator.
IN_ONE_WORKER = pytest.mark.xdist_group("addresses")


@pytest.fixture(scope="module")
def load_by_name(tmp_path_factory):
    """Load a server at `localhost`, which resolves to `places`, from processes with a fake resolver."""
    folder = tmp_path_factory.mktemp("resolver")
    (folder / "sitecustomize.py").write_text(textwrap.dedent(RESOLVER))

    def run(url, *arguments, places=PLACES, failures=(), is_itself=False, **options):
        environ = {"ADDRESSES": json.dumps({"places": places, "failures": failures, "is_itself": is_itself})}
        urls = {"it": url.replace("127.0.0.1", "localhost")}
        return run_load(generator, urls, *arguments, environ=environ, **options)["it"]

    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", str(folder))
        with PersistentGenerator(Processes(f"t{uuid4().hex[:8]}", Catalogue.load()).helpers) as generator:
            yield run


@IN_ONE_WORKER
@pytest.mark.parametrize(
    ("transport", "arguments"),
    [
        ("tcp", ()),
        ("tcp", ("--workload", "churn", "--loop", "open", "--rate", "50")),
        ("tcp", ("--workload", "think")),  # a user that drives its own connection
        ("tls", ()),
        ("udp", ()),
    ],
)
def test_engine_finds_the_server_at_the_last_address(transport, arguments, server, load_by_name):
    url = server.url("command", transport)
    found = load_by_name(url, "--transport", transport, *arguments, users=3, seconds=0.7)
    assert found.failures == {}
    assert found.answered > 0


@IN_ONE_WORKER
def test_engine_gives_each_address_a_part_of_its_time(server, load_by_name):
    url = server.url("command", "tcp")
    with open_black_hole(int(url.rpartition(":")[2])):
        found = load_by_name(url, "--timeout", "2", places=["127.0.0.2", "127.0.0.1"], seconds=3)
    assert found.failures == {}
    assert found.answered > 0


@IN_ONE_WORKER
@pytest.mark.parametrize("transport", ["tcp", "udp"])
def test_engine_reports_that_all_addresses_refuse(transport, load_by_name):
    with closed_port() as port:
        found = load_by_name(f"{transport}://localhost:{port}", "--transport", transport, seconds=1.5)
    assert set(found.failures) == {"connection refused"}
    assert found.failures["connection refused"] >= 2


@IN_ONE_WORKER
@pytest.mark.parametrize("transport", ["tcp", "udp"])
def test_engine_does_not_take_itself_for_the_server(transport, load_by_name):
    """The kernel gave the client the very port that it connects to."""
    url = f"{transport}://localhost:{LONELY[1]}"
    arguments = ("--transport", transport, "--workload", "echo_1k")
    found = load_by_name(url, *arguments, places=LONELY[:1], is_itself=True, seconds=0.5)
    assert (set(found.failures), found.answered) == ({"connection refused"}, 0)


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


@IN_ONE_WORKER
def test_engine_continues_after_a_failure_of_the_resolver(server, load_by_name):
    url = server.url("command", "tcp")
    found = load_by_name(url, failures=["EAI_AGAIN"], seconds=0.5)
    assert found.failures == {}
    assert found.answered > 0
    # A name that is not known yet is a failure, and the next attempt finds it.
    found = load_by_name(url, failures=["EAI_NONAME"], seconds=3)
    assert set(found.failures) <= {"unknown host"}
    assert found.answered > 0
