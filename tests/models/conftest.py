"""A model as a process of its own, for what a conformance test cannot do to a server that others use too."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import psutil
import pytest

from lab.catalogue import Catalogue
from lab.certificates import SERVER, provide
from lab.client import Link
from lab.errors import WrongAnswerError
from services.protocol import Address


def last_words(link: Link) -> bytes:
    """Return what comes next on a connection; nothing at its end, also where that is a reset."""
    try:
        return link.receive()
    except WrongAnswerError:
        return b""


def is_over(link: Link) -> bool:
    """Return whether nothing more comes: an end, or a reset."""
    return last_words(link) == b""


def queued(address: Address) -> int:
    """Bytes of datagrams, or clients to accept, that the kernel has and the server has not taken, proc(5)."""
    table = Path("/proc/net/udp" if address.transport.is_datagram else "/proc/net/tcp").read_text()
    rows = [row.split() for row in table.splitlines()[1:]]
    # The remote address of a socket that has none is 0.
    (waiting,) = (int(row[4][-8:], 16) for row in rows if row[1:3] == [f"0100007F:{address.port:04X}", "00000000:0000"])
    return waiting


def settled(look: Callable[[], object], unit: float) -> object:
    """What `look` sees, once it has seen the same for a while."""
    seen = [look()]
    while len(seen) < 4 or len(set(seen[-4:])) > 1:
        time.sleep(unit)
        seen.append(look())
    return seen[-1]


class Server:
    """One model, started by `services.run`. To be used with `with`; what it left behind is looked at afterwards."""

    def __init__(self, model: str, directory: Path, environ: dict[str, str]) -> None:
        listens = [
            "all=tcp://127.0.0.1:0",
            "all=tls://127.0.0.1:0",
            "all=udp://127.0.0.1:0",
            f"all=unix://{directory}",
            f"all=unixgram://{directory}",
        ]
        arguments = [word for listen in listens for word in ("--listen", listen)]
        command = [sys.executable, "-W", "error", "-m", "services.run", "--model", model, *arguments]
        self.directory = directory
        self.log = directory.with_suffix(".log")
        certificates = provide(Catalogue.load().names)
        environ = {"LAB_TLS_CERT": str(certificates / SERVER), **environ}
        with self.log.open("w") as log:
            self.process = subprocess.Popen(
                command, stdout=subprocess.PIPE, stderr=log, text=True, env=os.environ | environ, start_new_session=True
            )
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        assert line, self.log.read_text()
        self.description: dict[str, Any] = json.loads(line)

    def __enter__(self) -> "Server":
        return self

    def __exit__(self, *exception: object) -> None:
        if self.process.poll() is None:
            self.process.kill()
        for other in self._others():  # children of a forking model that was killed
            with suppress(psutil.NoSuchProcess):  # it has just ended by itself
                other.kill()
        self.process.wait()
        assert self.process.stdout is not None
        self.process.stdout.close()

    def connect(self, service: str = "command", transport: str = "tcp", timeout: float = 10.0) -> Link:
        """A client; to be used with `with`."""
        return Link(self.address(service, transport), timeout=timeout)

    def address(self, service: str, transport: str) -> Address:
        """Where it listens."""
        for listener in self.description["listeners"]:
            if (listener["service"], listener["transport"]) == (service, transport):
                return Address.parse(listener["address"])
        raise LookupError(service, transport)

    def terminate(self) -> None:
        """SIGTERM, to the main process alone, as Docker does it."""
        self.process.send_signal(signal.SIGTERM)

    def wait_end(self) -> int:
        """Wait for the end, see that nothing is left of the server, and return the exit code."""
        code = self.process.wait(20)
        assert not self._others(), "processes are left behind"
        assert not list(self.directory.glob("*")), "the files of sockets are left behind"
        return code

    def family(self) -> list[psutil.Process]:
        """The main process and its children."""
        main = psutil.Process(self.process.pid)
        return [main, *main.children(recursive=True)]

    def _others(self) -> list[psutil.Process]:
        """Processes of the server's session other than the main one, zombies included."""
        return [
            process
            for process in psutil.process_iter()
            if process.pid != self.process.pid and _session(process.pid) == self.process.pid
        ]


def _session(pid: int) -> int:
    try:
        return os.getsid(pid)
    except ProcessLookupError:
        return -1


@pytest.fixture(params=[model.name for model in Catalogue.load().select()])
def model(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def start(model: str, tmp_path: Path) -> Iterator[Any]:
    servers: list[Server] = []

    def start(**environ: str) -> Server:
        directory = tmp_path / f"s{len(servers)}"
        directory.mkdir()
        servers.append(Server(model, directory, environ))
        return servers[-1]

    yield start
    for server in servers:
        server.__exit__()


@pytest.fixture
def is_sequential(model: str) -> bool:
    return "overlap" in Catalogue.load()[model].limits
