"""What the recorder of `LAB_XRAY` costs a server at 5,000 requests per second: CPU for each request.

    python -m benchmarks.recorder [MODEL]...

One server with the recorder and one without answer PINGs on eight connections at a fixed rate, in many short slices in
turn. The medians are printed, and the median of the slices' ratios with its quartiles: on a busy machine, what disturbs
one slice mostly disturbs its neighbour too.
"""

import json
import os
import random
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from benchmarks.figures import list_ratios

RATE, SECONDS, SLICES, CONNECTIONS = 5_000, 0.1, 200, 8
MODELS = ("selector_loop", "asyncio_streams", "socketserver_threading")
_OFF, _ON = "without", "with"


@dataclass(frozen=True)
class Server:
    """A running server, and connections to it."""

    pid: int
    streams: list[socket.socket]

    def read_cpu(self) -> float:
        """Return the microseconds that its threads have been on a core."""
        return read_cpu(Path(f"/proc/{self.pid}/task"))

    def ask(self, count: int) -> None:
        """Send PINGs at the rate."""
        begin = time.perf_counter()
        for number in range(count):
            while time.perf_counter() < begin + number / RATE:
                pass
            stream = self.streams[number % len(self.streams)]
            stream.send(b"PING\r\n")
            stream.recv(100)


def read_cpu(folder: Path) -> float:
    """Return the microseconds on a core of a process's folder of threads: the first figure of each, in ns, proc(5)."""
    return sum(int(file.read_text().split()[0]) for file in folder.glob("*/schedstat")) / 1000


@contextmanager
def running(model: str, folder: str | None) -> Iterator[Server]:
    """Run a server for the length of the block.

    Args:
        folder: for the recorder; None: without.
    """
    environ = {name: value for name, value in os.environ.items() if name != "LAB_XRAY"}
    if folder:
        environ["LAB_XRAY"] = folder
    command = [sys.executable, "-m", "services.run", "--model", model, "--listen", "command=tcp://127.0.0.1:0"]
    with subprocess.Popen(  # noqa: S603 - the lab's own server
        command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, env=environ
    ) as server:
        assert server.stdout  # noqa: S101 - a pipe
        address = json.loads(server.stdout.readline())["listeners"][0]["address"]
        try:
            yield Server(server.pid, [_connect(int(address.rpartition(":")[2])) for _ in range(CONNECTIONS)])
        finally:
            server.terminate()


def _connect(port: int) -> socket.socket:
    stream = socket.create_connection(("127.0.0.1", port), timeout=30)
    stream.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return stream


def measure(servers: dict[str, Server]) -> dict[str, list[float]]:
    """Return the CPU microseconds for each request of every slice, in random order within a pair."""
    found: dict[str, list[float]] = {name: [] for name in servers}
    count = int(RATE * SECONDS)
    for server in servers.values():
        server.ask(RATE)
    for _ in range(SLICES):
        for name in random.sample(list(servers), len(servers)):
            before = servers[name].read_cpu()
            servers[name].ask(count)
            found[name].append((servers[name].read_cpu() - before) / count)
    return found


def show(model: str, found: Mapping[str, Sequence[float]]) -> str:
    """Return the line of a model, of the CPU microseconds for each request of every slice."""
    before, after = (statistics.median(found[name]) for name in (_OFF, _ON))
    ratios = list_ratios(found[_ON], found[_OFF])
    low, middle, high = (100 * (each - 1) for each in statistics.quantiles(ratios, n=4))
    return (
        f"{model}: {before:.2f} -> {after:.2f} CPU us/request, {middle:+.1f} % "
        f"(quartiles {low:+.1f} and {high:+.1f}), {(after - before) * RATE / 1e4:+.1f} % of a core"
    )


def main() -> None:
    """Compare, and print a line for each model."""
    for model in sys.argv[1:] or MODELS:
        with tempfile.TemporaryDirectory() as folder, running(model, None) as off, running(model, folder) as on:
            found = measure({_OFF: off, _ON: on})
        print(show(model, found))


if __name__ == "__main__":
    main()
