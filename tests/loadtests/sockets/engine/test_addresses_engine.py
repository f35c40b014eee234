"""The engine with a host of several addresses, of which only the last one is a server's: each generator finds it."""

import json
import textwrap
from uuid import uuid4

import pytest

from lab.load.generator import PersistentGenerator
from lab.servers.catalogue import Catalogue
from lab.servers.processes import Processes
from tests.support.load_fixtures import run_load
from tests.support.ports import LONELY, PLACES, closed_port, open_black_hole

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
