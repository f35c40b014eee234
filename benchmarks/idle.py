"""Many clients who are merely there: what one costs in memory, and whether a new client is still answered.

    python -m benchmarks.idle [MODEL ...]

Each model, alone in its container, gets as many idle connections as it is made for (10,000 on a loop, 1,000 with a
thread for each, 200 with a process for each, and one less than the pool where there is one). Then new clients come, one
after the other, and each asks PING. Prints a line for each model, and writes `idle` in docs/data/measured.json.
"""

import json
import os
import subprocess
import sys
import time

from lab.base.paths import ROOT
from lab.experiments.environment import describe_environment
from lab.metrics.meters import open_container_meter
from lab.metrics.sample import Meter
from lab.servers.catalogue import Catalogue, Model
from lab.servers.docker.containers import Containers
from services.protocol import BLOCKING_WORKERS

FILE = ROOT / "docs" / "data" / "measured.json"
POOLS = ("thread_pool", "prefork")
FAMILIES = {"thread": 1_000, "process": 200, "readiness loop": 10_000, "event loop": 10_000, "coroutine": 10_000}
LOOPS_IN_PROCESSES = ("asyncio_prefork",)
VISITS = 100

HOLD = """
import json, socket, sys, time
host, port, count, visits = sys.argv[1], *map(int, sys.argv[2:])
held = []
for number in range(count):
    held.append(socket.create_connection((host, port), timeout=30))
    held[-1].sendall(b"PING\\r\\n")
    assert held[-1].recv(100) == b"+PONG\\r\\n", number  # accepted, and not merely in the backlog
print("held", flush=True)
sys.stdin.readline()
times = []
for _ in range(visits):
    begin = time.perf_counter()
    with socket.create_connection((host, port), timeout=30) as link:
        link.sendall(b"PING\\r\\n")
        assert link.recv(100) == b"+PONG\\r\\n"
    times.append(time.perf_counter() - begin)
for link in held:  # none of them was dropped meanwhile
    link.sendall(b"PING\\r\\n")
    assert link.recv(100) == b"+PONG\\r\\n"
print(json.dumps(sorted(times)), flush=True)
"""


def count_for(model: Model) -> int | None:
    """How many connections a model is to hold; None if it holds one at a time."""
    if model.name in POOLS:
        return BLOCKING_WORKERS - 1
    return FAMILIES["event loop"] if model.name in LOOPS_IN_PROCESSES else FAMILIES.get(model.family)


def hold(backend: Containers, model: str, count: int) -> dict[str, float]:
    """Hold idle connections to a model that runs.

    Returns:
        connections; bytes_per_connection; p50_us and p99_us of a new client's connect and PING meanwhile.
    """
    meter = open_container_meter(backend.container_name(model))
    shell = f"{backend.project}-shell-1"
    command = ["docker", "exec", "--interactive", shell, "python", "-c", HOLD, model, "6379", str(count), str(VISITS)]
    before = settle(meter)
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as client:  # noqa: S603
        if client.stdin is None or client.stdout is None:
            sys.exit("no pipes")  # for mypy
        if client.stdout.readline() != "held\n":
            sys.exit(f"{model} does not hold {count} connections")
        after = settle(meter)
        client.stdin.write("\n")
        client.stdin.close()
        times = json.loads(client.stdout.readline() or "[]")
    if client.returncode or not times:
        sys.exit(f"{model} did not answer everyone while it held {count} connections")
    return {
        "connections": count,
        "bytes_per_connection": round((after - before) / count),
        "p50_us": round(times[len(times) // 2] * 1e6),
        "p99_us": round(times[len(times) * 99 // 100 - 1] * 1e6),
    }


def settle(meter: Meter) -> int:
    """The memory of a container, once it has stopped to change."""
    seen: list[int] = []
    while len(seen) < 3 or max(seen[-3:]) - min(seen[-3:]) > 100_000:
        time.sleep(0.3)
        memory = meter.read().memory_bytes
        if memory is None:
            sys.exit("the memory of a container cannot be read here")
        seen.append(memory)
    return seen[-1]


def main() -> None:
    """One model after the other."""
    catalogue = Catalogue.load()
    found = {}
    for model in catalogue.select(sys.argv[1:]):
        if (count := count_for(model)) is None:
            continue
        backend = Containers(f"bench-idle-{os.getpid()}", catalogue)
        try:
            backend.up([model.name])
            found[model.name] = hold(backend, model.name, count)
        finally:
            backend.down()
        print(
            f"{model.name:<24}" + "  ".join(f"{key} {value:,}" for key, value in found[model.name].items()), flush=True
        )
    data = json.loads(FILE.read_text()) if FILE.exists() else {}
    data["idle"] = data.get("idle", {}) | found
    data["idle_environment"] = describe_environment(backend.describe())
    FILE.write_text(json.dumps(data, indent=1) + "\n")
    print(f"written to {FILE.relative_to(ROOT)}; `make docs` puts it into the page")


if __name__ == "__main__":
    main()
