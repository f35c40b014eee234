"""Whether the load engine says what is true: against servers of which it is known, or follows on paper, what is right.

    python -m benchmarks.truth [delay] [stall] [rate] [crowd] [ramp] [soak]      (all but soak, which takes ten minutes)

delay   a server that holds each reply back by a lognormal time, and notes for how long it really did: p50, p99 and
        p99.9 of the times from the sending within 3 % of its own
stall   a server that stops once for a second, under 1000/s for 20 s: of 20,000 requests the 1000 that were due in it
        waited between 0 and 1 s, evenly, so the p99 from when they were due is 0.8 s; within 5 %
rate    20,000/s asked for 30 s: answered within 0.5 %, the time between two sendings wrong by less than 200 µs at p99
crowd   10,000 connections that are merely there, and 1000/s over them
ramp    5000 users come, ask and go in one process
soak    10,000/s for ten minutes: the process grows by less than 5 MB from its second minute on

The generator runs on the machine's first core, the server on its last, and as root both go before what else runs there:
they need little of a core, but that at once. Exit code 1 if something is not as it should be.
"""

import argparse
import json
import os
import random
import resource
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from heapq import heappop, heappush
from itertools import pairwise
from pathlib import Path

import psutil

from benchmarks.figures import percentile, print_facts
from lab.base.paths import ROOT
from lab.experiments.environment import describe_environment
from loadtests.contract import LoadResult

MEDIAN, SIGMA = 0.020, 0.5
MODEL = "{python} -m services.run --model uvloop_protocol --listen command=tcp://127.0.0.1:{port}"
SELF = "{python} -m benchmarks.truth --serve {kind} {port}"
PONG = b"+PONG\r\n"
# Samples of memory.
_A_MINUTE = 6

# The lab's locustfile, and every sending with the time at which it was due: what `rate` looks at.
WATCHED = """
import atexit, json, os, sys
from time import perf_counter
sys.path.insert(0, os.getcwd())
from loadtests.locustfile import *
from loadtests.sockets.engine.exchanges import ExchangeConnection
sent = []
begin = ExchangeConnection.begin

def watched(self, now, intended=None):
    begin(self, now, intended)
    if intended is not None:
        sent.append((perf_counter(), intended))

ExchangeConnection.begin = watched
atexit.register(lambda: json.dump(sent, open(os.environ["SENT"], "w")))
"""


def serve(kind: str, port: int) -> None:
    """Be the server. It sleeps until shortly before a reply is due, and then watches the clock."""
    import select
    import socket

    listener = socket.create_server(("127.0.0.1", port), backlog=1024)
    listener.setblocking(False)
    waiter = select.epoll()
    waiter.register(listener, select.EPOLLIN)
    links: dict[int, socket.socket] = {}
    due: list[tuple[float, int, float]] = []
    begun = 0.0
    stalled = False
    held: list[float] = []
    # What it says when it is asked to stop: for how long it has really held replies, in microseconds.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(print(json.dumps(sorted(held)))))
    while True:
        wait = due[0][0] - time.perf_counter() - 0.0001 if due else 0.01
        if wait > 0:
            select.select([waiter], [], [], wait)
        for fd, _ in waiter.poll(0):
            if fd == listener.fileno():
                link, _ = listener.accept()
                link.setblocking(False)
                link.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                links[link.fileno()] = link
                waiter.register(link, select.EPOLLIN)
                continue
            try:
                data = links[fd].recv(1000)
            except OSError:
                data = b""
            if not data:
                links.pop(fd).close()
            elif kind == "delay":
                came = time.perf_counter()
                heappush(due, (came + random.lognormvariate(0, SIGMA) * MEDIAN, fd, came))
            else:
                begun = begun or time.perf_counter()
                links[fd].send(PONG)
        # In the middle of the window of `stall`, whose warm-up is short.
        if kind == "stall" and begun and not stalled and time.perf_counter() > begun + 10:
            stalled = True
            time.sleep(1)
        while due and due[0][0] <= time.perf_counter():
            _, fd, came = heappop(due)
            if fd in links:
                held.append((time.perf_counter() - came) * 1e6)
                links[fd].send(PONG)


def place(core: int) -> list[str]:
    """In front of a command: on which core it runs, and, as root, before whom."""
    return [*(["nice", "-n", "-15"] if os.geteuid() == 0 else []), "taskset", "--cpu-list", str(core)]


@contextmanager
def open_server(command: str, kind: str = "", said: list[str] | None = None) -> Iterator[str]:
    """Run a server on the last core; gives its URL when it accepts, and `said` gets what it wrote in the end."""
    import socket

    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = int(probe.getsockname()[1])
    words = command.format(python=sys.executable, port=port, kind=kind).split()
    process = subprocess.Popen(  # noqa: S603
        [*place(max(os.sched_getaffinity(0))), *words],
        cwd=ROOT,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        stdout=subprocess.DEVNULL if said is None else subprocess.PIPE,
        text=True,
    )
    try:
        for _ in range(200):
            try:
                socket.create_connection(("127.0.0.1", port)).close()
                break
            except OSError:
                time.sleep(0.05)
        else:
            sys.exit(f"{command}: nobody listens")
        yield f"tcp://127.0.0.1:{port}"
    finally:
        process.terminate()
        text, _ = process.communicate()
        if said is not None:
            said.append(text)


def start(url: str, *arguments: str, file: str = "loadtests/locustfile.py", **environ: str) -> subprocess.Popen[str]:
    """Run the generator on the first core."""
    targets = json.dumps([{"model": "it", "listeners": [{"service": "command", "address": url}]}])
    command = place(min(os.sched_getaffinity(0)))
    command += [sys.executable, "-m", "locust", "-f", file, "--headless", "--only-summary", "--loglevel", "ERROR"]
    return subprocess.Popen(  # noqa: S603
        [*command, *arguments],
        cwd=ROOT,
        env=os.environ | {"LAB_TARGETS": targets} | environ,
        stdout=subprocess.PIPE,
        text=True,
    )


def finish(process: subprocess.Popen[str]) -> LoadResult:
    """Its result."""
    text, _ = process.communicate(timeout=900)
    for found in LoadResult.find_all(text):
        return found
    sys.exit(f"the generator gave no result: {text}")


def ask(users: int, rate: float, seconds: float) -> list[str]:
    """The arguments of an open loop."""
    found = ["--loop", "open", "--rate", str(rate), "--users", str(users), "--spawn-rate", "10000"]
    return [*found, "--window", str(seconds), "--warm-up", "1"]


def tell(what: str, value: float, right: float, within: float, unit: str) -> bool:
    """Print a figure beside what it should be."""
    off = value / right - 1
    print(
        f"  {what:<28}{value:>12,.1f} {unit:<4} right: {right:>12,.1f}  {off:+.2%} (at most {within:.1%})", flush=True
    )
    return abs(off) <= within


def tell_most(what: str, value: float, most: float, unit: str) -> bool:
    """Print a figure beside its upper bound."""
    print(f"  {what:<28}{value:>12,.1f} {unit:<4} at most {most:,.1f}", flush=True)
    return value <= most


def show(found: LoadResult) -> None:
    """Print the rest of a result."""
    print(
        f"  {found.answered:,} answered in {found.seconds:.2f} s, failures {found.failures}, "
        f"asked {found.asked}, late {found.late}, dropped {found.dropped}, "
        f"generator {found.generator_cores or 0.0:.0%} of a core"
    )


def check_delay() -> bool:
    """See the page's top, as for all that follow."""
    said: list[str] = []
    with open_server(SELF, "delay", said) as url:
        found = finish(start(url, *ask(256, 2000, 30)))
    show(found)
    held = json.loads(said[0])
    holds = not found.failures
    for name, share in (("p50", 0.5), ("p99", 0.99), ("p99.9", 0.999)):
        holds &= tell(name, found.service.percentile(share) or 0.0, percentile(held, share), 0.03, "µs")
    return holds


def check_stall() -> bool:
    with open_server(SELF, "stall") as url:
        found = finish(start(url, *ask(50, 1000, 20)))
    show(found)
    service = found.service.percentile(0.99) or 0.0
    holds = tell("p99 from when it was due", found.times.percentile(0.99) or 0.0, 800_000, 0.05, "µs")
    print(f"  {'p99 from the sending':<28}{service:>12,.1f} µs")
    return holds and service < 100_000 and not found.failures


def check_rate() -> bool:
    with open_server(MODEL) as url, tempfile.TemporaryDirectory() as folder:
        path, sent = Path(folder) / "locustfile.py", Path(folder) / "sent.json"
        path.write_text(WATCHED)
        found = finish(start(url, *ask(64, 20_000, 30), file=str(path), SENT=str(sent), PYTHONPATH=str(ROOT)))
        times = json.loads(sent.read_text())
    show(found)
    holds = tell("answered", found.rate, 20_000, 0.005, "/s")
    lags, errors = compare_with_schedule(times)
    print(f"  lag behind the schedule: p50 {percentile(lags, 0.5):.1f} µs, p99 {percentile(lags, 0.99):.1f} µs")
    return tell_most("inter-arrival error, p99", percentile(errors, 0.99), 200, "µs") and holds


def compare_with_schedule(times: Sequence[tuple[float, float]]) -> tuple[list[float], list[float]]:
    """Return how late each sending was, and how wrong the time between two was, in microseconds.

    Args:
        times: when something was sent, and when it was due, in seconds.
    """
    lags = [(at - due) * 1e6 for at, due in times]
    return lags, [abs(after - before) for before, after in pairwise(lags)]


def check_crowd() -> bool:
    with open_server(MODEL) as url:
        found = finish(start(url, *ask(10_000, 1000, 20)))
    show(found)
    p99 = found.service.percentile(0.99)
    print(f"  {found.users:.0f} connections, service p99 {p99} µs")
    return tell("answered", found.rate, 1000, 0.005, "/s") and found.users > 9_990


def check_ramp() -> bool:
    with open_server(MODEL) as url:
        process = start(url, "--users", "5000", "--spawn-rate", "500", "--window", "10", "--warm-up", "1")
        begin = time.monotonic()
        found = finish(process)
    show(found)
    print(f"  {found.users:.0f} users, {found.starved} of them starved, {time.monotonic() - begin:.1f} s in all")
    return not found.failures and not found.starved and found.users > 4_990 and process.returncode == 0


def check_soak() -> bool:
    with open_server(MODEL) as url:
        process = start(url, *ask(64, 10_000, 600))
        generator = psutil.Process(process.pid)
        samples = []
        for _ in range(10 * _A_MINUTE):
            time.sleep(60 / _A_MINUTE)
            samples.append(generator.memory_info().rss / 1e6)
        found = finish(process)
    show(found)
    print(f"  memory by the minute: {', '.join(f'{value:.1f}' for value in samples[_A_MINUTE - 1 :: _A_MINUTE])} MB")
    holds = tell("answered", found.rate, 10_000, 0.005, "/s")
    return tell_most("growth from the second minute", find_growth(samples), 5, "MB") and holds


def find_growth(samples: Sequence[float]) -> float:
    """Return the most that was added after the first minute."""
    return max(samples[_A_MINUTE:]) - samples[_A_MINUTE - 1]


CHECKS = {
    "delay": check_delay,
    "stall": check_stall,
    "rate": check_rate,
    "crowd": check_crowd,
    "ramp": check_ramp,
    "soak": check_soak,
}


def main() -> None:
    """Do what was asked for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("checks", nargs="*", metavar="CHECK", help=", ".join(CHECKS))
    parser.add_argument("--serve", nargs=2, metavar=("KIND", "PORT"), help="be a server")
    options = parser.parse_args()
    if options.serve:
        serve(options.serve[0], int(options.serve[1]))
    if unknown := set(options.checks) - set(CHECKS):
        parser.error(f"unknown: {', '.join(sorted(unknown))}")
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    print_facts(describe_environment())
    failed = []
    for name in options.checks or [name for name in CHECKS if name != "soak"]:
        print(name, flush=True)
        if not CHECKS[name]():
            failed.append(name)
    if failed:
        sys.exit(f"not as it should be: {', '.join(failed)}")


if __name__ == "__main__":
    main()
