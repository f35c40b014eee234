"""A model as a separate process, for tests that cannot share a server."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import psutil

from lab.servers.catalogue import Catalogue
from lab.servers.certificates import SERVER, ensure_certificates
from loadtests.sockets.connection import BlockingConnection
from services.protocol import Address
from tests.support.kernel import Kernel

NAMES = Catalogue.load().names


class Server:
    """A model, started by `services.run`; use it with `with`, which checks for leftovers at the end."""

    def __init__(self, model: str, directory: Path, environ: dict[str, str], kernel: Kernel | None = None) -> None:
        listens = [
            "all=tcp://127.0.0.1:0",
            "all=tls://127.0.0.1:0",
            "all=udp://127.0.0.1:0",
            f"all=unix://{directory}",
            f"all=unixgram://{directory}",
        ]
        arguments = [word for listen in listens for word in ("--listen", listen)]
        command = [sys.executable, "-W", "error", "-m", "services.run", "--model", model, *arguments]
        if kernel:
            command = kernel.command(*command)
        self.directory = directory
        self.log = directory.with_suffix(".log")
        # As made by `lab up`; the lab's clients trust its CA.
        environ = {"LAB_TLS_CERT": str(ensure_certificates(NAMES) / SERVER), **environ}
        with self.log.open("w") as log:
            self.process = subprocess.Popen(
                command,
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
                env=os.environ | environ,
                start_new_session=True,
                pass_fds=[kernel.theirs.fileno()] if kernel else [],
            )
        if kernel:
            kernel.theirs.close()
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
            with suppress(psutil.NoSuchProcess):  # it has just ended
                other.kill()
        self.process.wait()
        assert self.process.stdout is not None
        self.process.stdout.close()

    def connect(self, service: str = "command", transport: str = "tcp", timeout: float = 10.0) -> BlockingConnection:
        """Return a connected client; use it with `with`."""
        return BlockingConnection(self.address(service, transport), timeout=timeout)

    def address(self, service: str, transport: str) -> Address:
        """Return the address of a listener."""
        for listener in self.description["listeners"]:
            if (listener["service"], listener["transport"]) == (service, transport):
                return Address.parse(listener["address"])
        raise LookupError(service, transport)

    def terminate(self) -> None:
        """Send SIGTERM to the main process only, as Docker does."""
        self.process.send_signal(signal.SIGTERM)

    def wait_end(self) -> int:
        """Wait for the end, check for leftovers, and return the exit code."""
        code = self.process.wait(20)
        assert not self._others(), "processes are left behind"
        assert not list(self.directory.glob("*")), "the files of sockets are left behind"
        return code

    def family(self) -> list[psutil.Process]:
        """Return the main process and its children."""
        main = psutil.Process(self.process.pid)
        return [main, *main.children(recursive=True)]

    def _others(self) -> list[psutil.Process]:
        """Return the processes of the server's session except the main one, zombies included."""
        others = []
        for pid in psutil.pids():
            if pid != self.process.pid and _session(pid) == self.process.pid:
                with suppress(psutil.NoSuchProcess):  # it has just ended
                    others.append(psutil.Process(pid))
        return others


def _session(pid: int) -> int:
    try:
        return os.getsid(pid)
    except ProcessLookupError:
        return -1


def queued(address: Address) -> int:
    """Return the bytes of datagrams, or the number of clients, that wait in the server's queue, proc(5)."""
    table = Path("/proc/net/udp" if address.transport.is_datagram else "/proc/net/tcp").read_text()
    rows = [row.split() for row in table.splitlines()[1:]]
    # The remote address of a socket that has none is 0.
    (waiting,) = (int(row[4][-8:], 16) for row in rows if row[1:3] == [f"0100007F:{address.port:04X}", "00000000:0000"])
    return waiting


def listens(address: Address) -> bool:
    """Return whether a socket listens at a TCP, TLS or Unix address, proc(5)."""
    if address.path:
        rows = [row.split() for row in Path("/proc/net/unix").read_text().splitlines()[1:]]
        return any(row[7:] == [address.path] and int(row[3], 16) & 0x10000 for row in rows)
    rows = [row.split() for row in Path("/proc/net/tcp").read_text().splitlines()[1:]]
    return any(row[1] == f"0100007F:{address.port:04X}" and row[3] == "0A" for row in rows)


def held(server: Server) -> int:
    """Return the bytes of private memory of the server's processes."""
    return int(_sum_up(server, lambda process: process.memory_full_info().uss))


def is_asleep(server: Server) -> bool:
    """Return whether each thread of the server waits: none has work left, or waits for a core, proc(5)."""
    with suppress(FileNotFoundError):  # a thread has just ended
        states = [
            stat.read_text().rpartition(") ")[2][0]
            for process in server.family()
            for stat in Path(f"/proc/{process.pid}/task").glob("*/stat")
        ]
        return set(states) == {"S"}
    return False


def worked(server: Server) -> float:
    """Return the seconds of CPU time that the server's processes have used so far."""
    return _sum_up(server, lambda process: sum(process.cpu_times()[:2]))


def _sum_up(server: Server, read: Callable[[psutil.Process], float]) -> float:
    total = 0.0
    for process in server.family():
        with suppress(psutil.NoSuchProcess):  # it has just ended
            total += read(process)
    return total
