"""The load engine beside redis-benchmark and beside a plain Locust user: who drives a server hardest from one core.

    python -m benchmarks.engine [--rounds N] [--seconds S] [--server 'CMD {port}']

The generators are pinned to the machine's first core, the server to its last. Each round runs every generator once on
the same server, in an order of its own, with 50 connections that ask PING: redis-benchmark (C), a WireUser, and,
without a pipeline, a plain Locust user (a blocking socket, a comparison, `events.request.fire`). Both of Locust's
compare each reply; the WireUser keeps full histograms as well. Prints medians, ratios and spreads: of the requests per
second, and of the requests per second of the generator's own CPU time, which says the same on an idle machine, and
still says it on a busy one.

The aims: a WireUser at 1.15 of redis-benchmark without a pipeline and at 0.6 with one of 16; at 3 times the plain user.
"""

import argparse
import json
import os
import random
import shlex
import socket
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from statistics import median

from benchmarks.figures import list_ratios, print_facts, read_children_cpu, show_range
from lab.base.paths import ROOT
from lab.experiments.bench.independent_clients import read_redis_benchmark
from lab.experiments.environment import describe_environment
from lab.servers.process_helpers import find_port
from loadtests.contract import LoadResult

SERVER = "redis-server --port {port} --save '' --appendonly no"
CONNECTIONS = 50
WORKLOADS = {1: "ping", 16: "pipeline_16"}
REDIS, WIRE, PLAIN = "redis-benchmark", "WireUser", "plain Locust user"

# What somebody writes who follows Locust's page on other systems than HTTP.
PLAIN_USER = """
import os, socket, time
from locust import User, constant, events, task

begun = []

@events.spawning_complete.add_listener
def start(**_):
    begun.append((time.perf_counter(), time.process_time(), Plain.count))

@events.test_stopping.add_listener
def stop(**_):
    begin, cpu, count = begun[0]
    count = Plain.count - count
    print("RATES", count / (time.perf_counter() - begin), count / (time.process_time() - cpu))

class Plain(User):
    host = "x"
    wait_time = constant(0)
    count = 0

    def on_start(self):
        self.socket = socket.create_connection(("127.0.0.1", int(os.environ["PORT"])))
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    @task
    def ping(self):
        begin = time.perf_counter()
        self.socket.sendall(b"*1\\r\\n$4\\r\\nPING\\r\\n")
        reply = self.socket.recv(100)
        Plain.count += 1
        self.environment.events.request.fire(
            request_type="TCP", name="ping", response_time=(time.perf_counter() - begin) * 1000,
            response_length=len(reply), exception=None if reply == b"+PONG\\r\\n" else ValueError("wrong"), context={},
        )
"""


# Requests per second, and per second of the generator's CPU.
Rates = tuple[float, float]


@contextmanager
def serve(command: str, core: int) -> Iterator[int]:
    """Run a server on a core; gives its port when it accepts."""
    port = find_port()
    words = ["taskset", "--cpu-list", str(core), *shlex.split(command.format(port=port))]
    process = subprocess.Popen(words, cwd=ROOT, stdout=subprocess.DEVNULL)  # noqa: S603
    try:
        for _ in range(200):
            try:
                socket.create_connection(("127.0.0.1", port)).close()
                break
            except OSError:
                time.sleep(0.05)
        else:
            sys.exit(f"{command}: nobody listens")
        yield port
    finally:
        process.terminate()
        process.wait()


def run(command: list[str], core: int, **environ: str) -> str:
    """Run a generator on a core; returns what it printed."""
    words = ["taskset", "--cpu-list", str(core), *command]
    done = subprocess.run(  # noqa: S603
        words, cwd=ROOT, env=os.environ | environ, capture_output=True, text=True, check=False, timeout=300
    )
    if done.returncode not in (0, 1):
        sys.exit(f"{shlex.join(command)}: {done.stdout}{done.stderr}")
    return done.stdout


def drive_redis_benchmark(port: int, core: int, depth: int, seconds: float, guess: float) -> Rates:
    """It takes a number of requests, which `guess` a second makes of the time."""
    command = ["redis-benchmark", "-p", str(port), "-c", str(CONNECTIONS), "-t", "ping_mbulk", "--csv"]
    count = str(int(seconds * guess))
    before = read_children_cpu()
    text = run([*command, "-P", str(depth), "-n", count], core)
    cpu, found = read_children_cpu() - before, read_redis_benchmark(text)
    if found is None:
        sys.exit(f"redis-benchmark: {text}")
    return found.rate, int(count) / cpu


def drive_wire_user(port: int, core: int, service: str, workload: str, seconds: float) -> Rates:
    """Of what was answered right."""
    url = f"tcp://127.0.0.1:{port}"
    targets = json.dumps([{"model": "it", "listeners": [{"service": service, "address": url}]}])
    command = [sys.executable, "-m", "locust", "-f", "loadtests/locustfile.py", "--headless", "--only-summary"]
    command += ["--workload", workload, "--users", str(CONNECTIONS), "--spawn-rate", "1000"]
    return read_wire_user(run([*command, "--loglevel", "ERROR", "--window", str(seconds)], core, LAB_TARGETS=targets))


def read_wire_user(text: str) -> Rates:
    """Return the rates of the one result in what Locust prints."""
    (found,) = LoadResult.find_all(text)
    if found.failures or not found.generator_cores:
        sys.exit(f"failures: {found.failures}, cores of the generator: {found.generator_cores}")
    return found.rate, found.rate / found.generator_cores


def drive_plain_user(port: int, core: int, seconds: float) -> Rates:
    """Of whatever came."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "locustfile.py"
        path.write_text(PLAIN_USER)
        command = [sys.executable, "-m", "locust", "-f", str(path), "--headless", "--only-summary"]
        command += ["--users", str(CONNECTIONS), "--spawn-rate", "1000", "--loglevel", "ERROR"]
        text = run([*command, "--run-time", f"{seconds:.0f}s"], core, PORT=str(port))
    return read_plain_user(text)


def read_plain_user(text: str) -> Rates:
    """Return the rates that `PLAIN_USER` prints."""
    rate, of_cpu = text.partition("RATES ")[2].split()[:2]
    return float(rate), float(of_cpu)


def list_lines(rates: Mapping[str, Sequence[Rates]], title: str) -> Iterator[str]:
    """Yield the lines of the report: for both rates the generators, those with the largest median first."""
    for which, unit in enumerate(("requests/s", "requests/s of its CPU")):
        figures = {name: [each[which] for each in values] for name, values in rates.items()}
        yield f"\n{title}{unit}, medians of {len(figures[WIRE])}"
        for name, values in sorted(figures.items(), key=lambda item: -median(item[1])):
            ratio = median(list_ratios(figures[WIRE], values))
            yield f"  {name:<20}{median(values):>12,.0f}  {show_range(values):<26} WireUser: {ratio:.2f} of it"


def main() -> None:
    """Alternate, then print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--seconds", type=float, default=4.0, help="of each run")
    parser.add_argument("--server", default=SERVER, metavar="CMD")
    options = parser.parse_args()
    cores = sorted(os.sched_getaffinity(0))
    rates: dict[int, dict[str, list[Rates]]] = {1: defaultdict(list), 16: defaultdict(list)}
    with serve(options.server, cores[-1]) as port:
        for number in range(options.rounds):
            for depth, found in rates.items():
                names = [REDIS, WIRE, *([PLAIN] if depth == 1 else [])]
                random.shuffle(names)
                for name in names:
                    if name == REDIS:
                        guess = median(rate for rate, _ in found[REDIS]) if found[REDIS] else 60_000.0 * depth
                        rate = drive_redis_benchmark(port, cores[0], depth, options.seconds, guess)
                    elif name == WIRE:
                        rate = drive_wire_user(port, cores[0], "command", WORKLOADS[depth], options.seconds)
                    else:
                        rate = drive_plain_user(port, cores[0], options.seconds)
                    found[name].append(rate)
                each = ", ".join(f"{name} {found[name][-1][0]:,.0f}" for name in sorted(names))
                print(f"round {number + 1} of {options.rounds}, pipeline of {depth}: {each}", flush=True)
    print_facts(describe_environment())
    print(f"server: {options.server}")
    for depth, found in rates.items():
        print(*list_lines(found, f"pipeline of {depth}, "), sep="\n")


if __name__ == "__main__":
    main()
