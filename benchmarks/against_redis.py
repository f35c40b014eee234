"""Models beside redis-server: PING as fast as it goes, with a pipeline and without, and what 20,000 a second cost.

    python -m benchmarks.against_redis [--rounds N] [MODEL ...]

In containers: servers on the machine's last core, the client on its first, in turns, and in each round in another
order. The client is redis-benchmark with 50 connections; for the fixed rate it is the loop below, which sends a little
every millisecond, whatever comes back. Prints a line for each figure: the median, its ratio to redis-server's, and its
spread. The aims, for the fastest model: 0.95 without a pipeline, 0.45 with one of 16, at most 1.5 of the CPU.
"""

import argparse
import os
import subprocess
import sys
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from statistics import median

from benchmarks.figures import (
    in_turn,
    print_facts,
    ratio_of_medians,
    show_range,
    us_per_request,
)
from lab.experiments.bench.independent_clients import read_redis_benchmark
from lab.experiments.environment import describe_environment
from lab.metrics.meters import open_container_meter
from lab.servers.catalogue import Catalogue
from lab.servers.docker.containers import Containers

PEER = "peer_redis"
MODELS = ("asyncio_protocol", "uvloop_protocol", "selector_loop", "uvloop_streams", "asyncio_streams")
RATE = 20_000
CONNECTIONS = 50
# Requests for each pipeline: some seconds of a server that answers 50,000 a second, and 500,000 with a pipeline.
REQUESTS = {1: 150_000, 16: 1_000_000}

# Sends PINGs at a rate over many connections for some seconds; prints how many were answered and by when it was done.
PACED = """
import selectors, socket, sys, time
host, port, count, rate, seconds = sys.argv[1], *map(int, sys.argv[2:])
ping, pong = b"*1\\r\\n$4\\r\\nPING\\r\\n", len(b"+PONG\\r\\n")
links = [socket.create_connection((host, port)) for _ in range(count)]
selector = selectors.DefaultSelector()
for link in links:
    link.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    link.setblocking(False)
    selector.register(link, selectors.EVENT_READ)
sent = received = 0
begin = time.monotonic()
while received < rate * seconds * pong:
    now = time.monotonic() - begin
    due = min(int(now * rate), rate * seconds)
    while sent < due:
        links[sent % count].send(ping)
        sent += 1
    for key, _ in selector.select(0.001):
        received += len(key.fileobj.recv(65536))
    if now > seconds + 5:
        break
print(received // pong, time.monotonic() - begin)
"""


def benchmark(backend: Containers, model: str, pipeline: int) -> tuple[float, float]:
    """Requests a second, and the server's CPU microseconds for one."""
    meter = open_container_meter(backend.container_name(model))
    before = meter.read().cpu_seconds
    requests = REQUESTS[pipeline]
    command = ["redis-benchmark", "-h", model, "-t", "ping_mbulk", "-c", str(CONNECTIONS), "-n", str(requests)]
    done = backend.helpers.run([*command, "-P", str(pipeline), "--csv"], capture=True, timeout=120)
    after = meter.read().cpu_seconds
    found = read_redis_benchmark(done.stdout)
    if done.returncode or found is None or before is None or after is None:
        sys.exit(f"{model}: {done.stdout}{done.stderr}")
    return found.rate, us_per_request(after - before, requests)


def pace(backend: Containers, model: str, seconds: int = 3) -> float:
    """The server's CPU microseconds for a request at the fixed rate."""
    meter = open_container_meter(backend.container_name(model))
    arguments = [model, "6379", str(CONNECTIONS), str(RATE), str(seconds)]
    before = meter.read().cpu_seconds
    done = backend.helpers.run(["python", "-", *arguments], stdin=PACED, capture=True, timeout=60)
    after = meter.read().cpu_seconds
    answered, took = done.stdout.split() or ("0", "0")
    if not kept_up(int(answered), float(took), seconds) or before is None or after is None:
        sys.exit(f"{model} did not keep up with {RATE} a second: {answered} answered in {took} s; {done.stderr}")
    return us_per_request(after - before, int(answered))


def kept_up(answered: int, took: float, seconds: int) -> bool:
    """Return whether all that was asked in `seconds` was answered, and soon after."""
    return answered == RATE * seconds and took <= seconds + 0.5


def list_lines(figures: Mapping[str, Mapping[str, Sequence[float]]]) -> Iterator[str]:
    """Yield the lines of the report: for each figure the models, those with the largest median first."""
    for title, found in figures.items():
        yield f"\n{title}"
        for name, values in sorted(found.items(), key=lambda item: -median(item[1])):
            ratio = ratio_of_medians(values, found[PEER])
            yield f"  {name:<20}{median(values):>12,.4g}   {ratio:>6.2f} of {PEER}   {show_range(values, ',.4g')}"


def main() -> None:
    """Alternate, then print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("models", nargs="*", default=MODELS, metavar="MODEL")
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    cores = sorted(os.sched_getaffinity(0))
    if len(cores) < 2:
        sys.exit("it takes two cores: one for the servers, one for the client")
    catalogue = Catalogue.load()
    names = [PEER, *(model.name for model in catalogue.select(options.models))]
    backend = Containers(f"bench-redis-{os.getpid()}", catalogue)
    figures: dict[str, dict[str, list[float]]] = defaultdict(lambda: defaultdict(list))
    try:
        backend.up(names)
        for name, core in ((backend.container_name(name), cores[-1]) for name in names):
            subprocess.run(["docker", "update", "--cpuset-cpus", str(core), name], check=True, capture_output=True)  # noqa: S603, S607
        shell = f"{backend.project}-shell-1"
        subprocess.run(["docker", "update", "--cpuset-cpus", str(cores[0]), shell], check=True, capture_output=True)  # noqa: S603, S607
        for name in names:  # the same history for all
            benchmark(backend, name, 1)
        for number in range(options.rounds):
            for name in in_turn(names, number):
                for pipeline in REQUESTS:
                    rate, cpu = benchmark(backend, name, pipeline)
                    figures[f"PING, pipeline of {pipeline}: requests/s"][name].append(rate)
                    figures[f"PING, pipeline of {pipeline}: CPU µs/request"][name].append(cpu)
                figures[f"PING at {RATE:,} a second: CPU µs/request"][name].append(pace(backend, name))
            print(f"round {number + 1} of {options.rounds}", file=sys.stderr, flush=True)
    finally:
        backend.down()
    print_facts(describe_environment(backend.describe()))
    print(*list_lines(figures), sep="\n")


if __name__ == "__main__":
    main()
