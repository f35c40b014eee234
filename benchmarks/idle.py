"""Measure what an idle client costs in memory, and whether a new client is still answered.

    python -m benchmarks.idle [MODEL ...]                                 RESP, in containers
    python -m benchmarks.idle --websocket --backend process [MODEL ...]   WebSocket, as processes of this machine

Each model, alone, gets as many idle connections as it is made for (`COUNTS`). Then new clients come, one after the
other, and each asks PING. At last each idle client asks PING, so none was dropped. Prints a line for each model, and
writes `idle` or `websockets` in docs/data/measured.json. Both sides need a descriptor for each connection: `ulimit -Hn`
must be at least 16384.
"""

import argparse
import json
import os
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from benchmarks.figures import percentile
from lab.base.paths import ROOT
from lab.experiments.environment import describe_environment
from lab.experiments.published import MEASURED_FILE, Idle
from lab.metrics.sample import Meter
from lab.servers.catalogue import Catalogue, Model
from lab.servers.docker.containers import Containers
from lab.servers.processes import Processes
from services.protocol import BLOCKING_WORKERS, Address, Transport, port_of

# By `Model.concurrency`: how many connections, and why as many.
COUNTS = {
    "loop": (10_000, ""),
    "loops": (10_000, ""),
    "thread each": (1_000, "a thread each, of at most 1,100 clients"),
    "process each": (200, "a process each, of at most 220"),
    "threads": (BLOCKING_WORKERS - 1, f"a thread each, of a pool of {BLOCKING_WORKERS}"),
    "processes": (BLOCKING_WORKERS - 1, f"a process each, of {BLOCKING_WORKERS}"),
}
VISITS = 100


@dataclass(frozen=True, slots=True)
class Dialect:
    """What the clients say.

    Args:
        part: the part of the file with figures that is written.
        greeting: sent once; its reply ends in an empty line. Empty: nothing is sent.
        ping, pong: a question and its whole answer.
    """

    part: str
    service: str
    greeting: bytes
    ping: bytes
    pong: bytes


RESP = Dialect("idle", "command", b"", b"PING\r\n", b"+PONG\r\n")
WEBSOCKET = Dialect(
    "websockets",
    "http",
    b"GET /ws HTTP/1.1\r\nHost: lab.test\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
    b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n",
    b"\x81\x84\0\0\0\0PING",
    b"\x81\x04PONG",
)

# Connections are opened in batches below the backlog of any listener, and asked all at once: with one at a time, a loop
# that looks at each of its connections in each turn would need many minutes.
HOLD = """
import json, resource, socket, sys, time
host, port, count, visits = sys.argv[1], *map(int, sys.argv[2:5])
greeting, ping, pong = map(bytes.fromhex, sys.argv[5:])
_, most = resource.getrlimit(resource.RLIMIT_NOFILE)
resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))

def dial(number):
    links = [socket.create_connection((host, port), timeout=60) for _ in range(number)]
    if greeting:
        for link in links:
            link.sendall(greeting)
        for link in links:
            reply = b""
            while not reply.endswith(b"\\r\\n\\r\\n"):
                part = link.recv(1000)
                assert part, reply
                reply += part
    ask(links)  # accepted, and not merely in the backlog
    return links

def ask(links):
    for link in links:
        link.sendall(ping)
    for link in links:
        assert (reply := link.recv(100)) == pong, reply

dial(1)[0].close()  # what the first client loads is no cost of the others
print("warm", flush=True)
sys.stdin.readline()
held = []
while len(held) < count:
    held += dial(min(50, count - len(held)))
print("held", flush=True)
sys.stdin.readline()
times = []
for _ in range(visits):
    begin = time.perf_counter()
    with dial(1)[0]:
        times.append(time.perf_counter() - begin)
ask(held)
print(json.dumps(times), flush=True)
"""


def hold(backend: Containers | Processes, model: str, dialect: Dialect, count: int, why: str) -> Idle:
    """Hold idle connections to a model that runs, and measure it."""
    meter = backend.meter(model)
    words = [each.hex() for each in (dialect.greeting, dialect.ping, dialect.pong)]
    command = [*start_client(backend, model, dialect.service), str(count), str(VISITS), *words]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as client:  # noqa: S603
        if client.stdin is None or client.stdout is None:
            sys.exit("no pipes")  # for mypy
        memory = []
        for state in ("warm", "held"):
            if client.stdout.readline() != f"{state}\n":
                sys.exit(f"{model} does not hold {count} connections")
            memory.append(settle(meter))
            client.stdin.write("\n")
            client.stdin.flush()
        times = json.loads(client.stdout.readline() or "[]")
    if client.returncode or not times:
        sys.exit(f"{model} did not answer every client while it held {count} connections")
    before, after = memory
    return summarize(count, before, after, times, why)


def summarize(count: int, before: int, after: int, times: Sequence[float], why: str) -> Idle:
    """Return the figures of a model: of its bytes without and with the connections, and of seconds of new clients."""
    return Idle(
        connections=count,
        bytes_per_connection=round((after - before) / count),
        p50_us=round(percentile(times, 0.5) * 1e6),
        p99_us=round(percentile(times, 0.99) * 1e6),
        why=why,
    )


def merge(
    data: Mapping[str, Any], part: str, found: Mapping[str, Idle], environment: Mapping[str, str | None]
) -> dict[str, Any]:
    """Return the file with figures with those of one part replaced; models that were not measured stay."""
    models = {name: asdict(idle) for name, idle in found.items()}
    return {**data, part: data.get(part, {}) | models, f"{part}_environment": dict(environment)}


def start_client(backend: Containers | Processes, model: str, service: str) -> list[str]:
    """Return the command of a client, with host and port, where the model can be reached."""
    if isinstance(backend, Containers):
        shell = f"{backend.project}-shell-1"
        port = port_of(service, Transport.TCP)
        return ["docker", "exec", "--interactive", shell, "python", "-c", HOLD, model, str(port)]
    address = next(
        Address.parse(each.address)
        for each in backend.targets()
        if (each.model, each.service, each.transport) == (model, service, Transport.TCP)
    )
    return [sys.executable, "-c", HOLD, address.host, str(address.port)]


def settle(meter: Meter) -> int:
    """Return the memory of a server in bytes, once it has stopped changing."""
    seen: list[int] = []
    while len(seen) < 3 or max(seen[-3:]) - min(seen[-3:]) > 100_000:
        time.sleep(0.3)
        memory = meter.read().memory_bytes
        if memory is None:
            sys.exit("the memory of a server cannot be read here")
        seen.append(memory)
    return seen[-1]


def measure(catalogue: Catalogue, model: Model, backend: Containers | Processes, dialect: Dialect) -> Idle | None:
    """Start a model, measure it, and stop it; None if it holds one connection at a time, or not here."""
    if model.concurrency not in COUNTS or (model.only_in_container and isinstance(backend, Processes)):
        return None
    try:
        backend.up([model.name])
        return hold(backend, model.name, dialect, *COUNTS[model.concurrency])
    finally:
        backend.down()


def main() -> None:
    """Measure one model after the other."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("models", nargs="*", metavar="MODEL")
    parser.add_argument("--websocket", action="store_true", help="idle WebSockets instead of RESP")
    parser.add_argument("--backend", choices=("docker", "process"), default="docker")
    options = parser.parse_args()
    # On a busy machine it takes minutes to open so many.
    os.environ.setdefault("LAB_IDLE_SECONDS", "3600")
    dialect = WEBSOCKET if options.websocket else RESP
    catalogue = Catalogue.load()
    project = f"bench-idle-{os.getpid()}"
    backend = Containers(project, catalogue) if options.backend == "docker" else Processes(project, catalogue)
    found = {}
    for model in catalogue.select(options.models):
        if (idle := measure(catalogue, model, backend, dialect)) is None:
            continue
        found[model.name] = idle
        print(f"{model.name:<24}" + "  ".join(f"{key} {value}" for key, value in asdict(idle).items()), flush=True)
    data = json.loads(MEASURED_FILE.read_text()) if MEASURED_FILE.exists() else {}
    data = merge(data, dialect.part, found, describe_environment(backend.describe()))
    MEASURED_FILE.write_text(json.dumps(data, indent=1) + "\n")
    print(f"written to {MEASURED_FILE.relative_to(ROOT)}; `make docs` puts it into the page")


if __name__ == "__main__":
    main()
