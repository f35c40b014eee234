"""What the recorder of `LAB_XRAY` costs a server at 5,000 requests per second: CPU for each request, and latency.

    python -m benchmarks.recorder [MODEL]...

One server with the recorder and one without answer PINGs on eight connections at a fixed rate, one after the other,
several times in turn. The medians are printed, and what share of a core the recorder takes.
"""

import json
import os
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass

import psutil

RATE, SECONDS, ROUNDS, CONNECTIONS = 5_000, 3, 5, 8
MODELS = ("selector_loop", "asyncio_streams", "socketserver_threading")


@dataclass(frozen=True)
class Round:
    """CPU of the server and median latency in microseconds, and requests per second."""

    cpu: float
    latency: float
    rate: float


def run_server(model: str, folder: str | None) -> Round:
    """Start a server, ask it for some seconds, and stop it.

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
        streams = [_connect(int(address.rpartition(":")[2])) for _ in range(CONNECTIONS)]
        ask(streams, RATE)
        process = psutil.Process(server.pid)
        before = process.cpu_times()
        latency, rate = ask(streams, RATE * SECONDS)
        after = process.cpu_times()
        server.terminate()
        used = after.user + after.system - before.user - before.system
        return Round(used / (RATE * SECONDS) * 1e6, latency, rate)


def _connect(port: int) -> socket.socket:
    stream = socket.create_connection(("127.0.0.1", port))
    stream.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return stream


def ask(streams: list[socket.socket], count: int) -> tuple[float, float]:
    """Send PINGs at the rate; return the median latency in microseconds, and the rate."""
    times = []
    begin = time.perf_counter()
    for number in range(count):
        while time.perf_counter() < begin + number / RATE:
            pass
        stream = streams[number % len(streams)]
        sent = time.perf_counter()
        stream.send(b"PING\r\n")
        stream.recv(100)
        times.append(time.perf_counter() - sent)
    return statistics.median(times) * 1e6, count / (time.perf_counter() - begin)


def main() -> None:
    """Compare, and print a line for each model."""
    for model in sys.argv[1:] or MODELS:
        rounds: dict[bool, list[Round]] = {False: [], True: []}
        with tempfile.TemporaryDirectory() as folder:
            for _ in range(ROUNDS):
                for is_on, found in rounds.items():
                    found.append(run_server(model, folder if is_on else None))
        off, on = (statistics.median(each.cpu for each in rounds[is_on]) for is_on in (False, True))
        before, after = (statistics.median(each.latency for each in rounds[is_on]) for is_on in (False, True))
        print(
            f"{model}: {off:.2f} -> {on:.2f} CPU us/request ({(on - off) * RATE / 1e4:+.1f} % of a core), "
            f"p50 {before:.1f} -> {after:.1f} us, {min(each.rate for each in rounds[True]):.0f} requests/s"
        )


if __name__ == "__main__":
    main()
