"""loadtests/sockets works without the lab, and the parts that the lab imports load quickly."""

import json
import subprocess
import sys

import pytest

from lab.base.paths import ROOT
from loadtests.sockets.addresses import Endpoint
from loadtests.sockets.connection import BlockingConnection
from loadtests.sockets.errors import UnreachableError
from services.protocol import Address

MODULES = sorted(
    ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")
    for path in (ROOT / "loadtests" / "sockets").rglob("*.py")
)
# The lab imports these, and Locust patches the process that imports it.
WITHOUT_LOCUST = ["histogram", "addresses", "exchange", "tls", "schedule", "codec", "connection", "errors", "failures"]
# A readiness check imports these: ssl and tempfile take longer than an exchange.
LEAN = ["addresses", "connection", "errors"]


def import_alone(*modules: str) -> set[str]:
    """Import modules in a fresh process that has neither `lab` nor `services`; return what it has loaded."""
    script = f"""
import json, sys
for name in ("lab", "services"):
    sys.modules[name] = None
for name in {modules!r}:
    __import__(name)
print("LOADED", json.dumps([name for name, module in sys.modules.items() if module]))
"""
    done = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return set(json.loads(done.stdout.partition("LOADED ")[2]))


def test_package_imports_neither_lab_nor_services() -> None:
    loaded = import_alone(*MODULES)
    assert set(MODULES) <= loaded
    assert not [name for name in loaded if name.startswith("loadtests.") and not name.startswith("loadtests.sockets")]


def test_parts_that_the_lab_imports_load_no_locust() -> None:
    loaded = import_alone(*(f"loadtests.sockets.{name}" for name in WITHOUT_LOCUST))
    assert not loaded & {"locust", "gevent"}
    assert not import_alone(*(f"loadtests.sockets.{name}" for name in LEAN)) & {"locust", "gevent", "ssl", "tempfile"}


@pytest.mark.parametrize(
    "url", ["tcp://localhost:7", "tls://[::1]:65535", "udp://10.0.0.1:0", "unix:///run/a:b.sock", "unixgram:///x"]
)
def test_endpoint_parses_a_url_as_the_lab_does(url: str) -> None:
    found, wanted = Endpoint.parse(url), Address.parse(url)
    assert (found.transport, found.host, found.port, found.path) == (
        *(wanted.transport.value, wanted.host, wanted.port, wanted.path),
    )
    assert str(found) == str(wanted) == url


@pytest.mark.parametrize(
    "url",
    [
        "",
        "tcp://host",
        "tcp://:7",
        "tcp://host:x",
        "tcp://host:65536",
        f"tcp://h:{'9' * 5000}",
        "unix://x",
        "http://h:1",
    ],
)
def test_endpoint_refuses_an_invalid_address(url: str) -> None:
    with pytest.raises(ValueError, match=f"^{url!r} is not tcp://HOST:PORT"):
        Endpoint.parse(url)


def test_client_error_has_the_systems_error_as_its_cause() -> None:
    with pytest.raises(UnreachableError) as refused:
        BlockingConnection(Endpoint.parse("tcp://127.0.0.1:1"))
    assert isinstance(refused.value.cause, ConnectionRefusedError)
    with pytest.raises(UnreachableError, match="no port is given") as unclear:
        BlockingConnection(Endpoint("tcp", "127.0.0.1"))
    assert unclear.value.cause is None
