"""Clients that are connected, while nothing is left to accept with: how long a PING takes them, beside a quiet moment.

    python -m benchmarks.exhaustion [MODEL ...] [--rounds 5] [--seconds 3]

Each model as a process, with as many held clients as it serves at once, at most four. A round is two quiet phases and
one in which each process of the model is at its limit of descriptors (RLIMIT_NOFILE, so EMFILE) and eight clients wait
in its backlog. In each phase the held clients ask PING one after the other, 500 times a second. Prints for each model
the median over the rounds of p99, and of its ratio to that of the quiet phase of the same round. The ratio of the two
quiet phases is the noise. Exit code 1: a ratio above 2 that is not noise.
"""

import argparse
import itertools
import os
import resource
import socket
import sys
import time
from collections.abc import Sequence
from contextlib import ExitStack, suppress
from pathlib import Path
from statistics import median

import psutil

from benchmarks.figures import list_ratios, percentile
from lab.metrics.process import open_process_meter
from lab.servers.catalogue import Catalogue
from lab.servers.open import open_backend
from lab.servers.processes import Processes
from loadtests.sockets.connection import BlockingConnection
from services.protocol import Address

HELD = 4
WAITING = 8
RATE = 500
MOST = 2.0


def limit(processes: list[psutil.Process], *, more: bool) -> None:
    """Let each process open descriptors, or not one more."""
    for process in processes:
        with suppress(FileNotFoundError, ProcessLookupError):  # the child of a client that has gone
            used = {int(each.name) for each in Path(f"/proc/{process.pid}/fd").iterdir()}
            _, most = resource.prlimit(process.pid, resource.RLIMIT_NOFILE)
            lowest_free = next(number for number in itertools.count() if number not in used)
            resource.prlimit(process.pid, resource.RLIMIT_NOFILE, (most if more else lowest_free, most))


def ask(held: list[BlockingConnection], seconds: float) -> float:
    """Have the held clients ask PING in turn; returns the p99 in seconds."""
    times = []
    begin = time.perf_counter()
    for number in range(round(seconds * RATE)):
        time.sleep(max(begin + number / RATE - time.perf_counter(), 0))
        link = held[number % len(held)]
        link.reset_deadline()
        sent = time.perf_counter()
        link.send(b"PING\r\n")
        if link.receive() != b"+PONG\r\n":
            sys.exit("a held client got a wrong answer")
        times.append(time.perf_counter() - sent)
    return percentile(times, 0.99)


def measure(model: str, rounds: int, seconds: float) -> tuple[list[float], list[float], list[float], float]:
    """Return the p99 of both quiet phases and of the exhausted one, by round, and its cores without any request."""
    backend = open_backend("process", f"exhaustion-{os.getpid()}")
    assert isinstance(backend, Processes)  # noqa: S101 - for mypy: it was opened as one
    quiet: list[float] = []
    again: list[float] = []
    exhausted: list[float] = []
    with ExitStack() as stack:
        stack.callback(backend.down)
        backend.up([model])
        where = next(
            Address.parse(item.address)
            for item in backend.targets()
            if (item.service, item.transport) == ("command", "tcp")
        )
        held = [stack.enter_context(BlockingConnection(where, timeout=30)) for _ in range(HELD)]
        ask(held, 1.0)  # libuv opens a descriptor for its first client, and what is cold gets warm
        pid = backend.pid(model)
        if pid is None:
            sys.exit(f"{model} has no process")
        main = psutil.Process(pid)
        for _ in range(rounds):
            quiet.append(ask(held, seconds))
            again.append(ask(held, seconds))
            family = [main, *main.children(recursive=True)]
            said = backend.logs(model).count(" exhausted: ")
            limit(family, more=False)
            with ExitStack() as crowd:
                for _ in range(WAITING):
                    crowd.enter_context(socket.create_connection((where.host, where.port), timeout=30))
                while backend.logs(model).count(" exhausted: ") == said:
                    time.sleep(0.1)
                exhausted.append(ask(held, seconds))
                meter = open_process_meter(pid)
                before = meter.read().cpu_seconds
                time.sleep(seconds)
                after = meter.read().cpu_seconds
                if before is None or after is None:
                    sys.exit(f"{model}: its CPU cannot be read; has it ended?")
                cores = (after - before) / seconds
                limit([main, *main.children(recursive=True)], more=True)
            time.sleep(0.5)
    return quiet, again, exhausted, cores


def judge(quiet: Sequence[float], again: Sequence[float], exhausted: Sequence[float]) -> tuple[float, float, bool]:
    """Return the ratio of the exhausted phase to the quiet one, the noise, and whether the ratio is too large."""
    ratio, noise = median(list_ratios(exhausted, quiet)), median(list_ratios(again, quiet))
    return ratio, noise, ratio > MOST * max(noise, 1.0)


def show(model: str, quiet: Sequence[float], exhausted: Sequence[float], ratio: float, noise: float) -> str:
    """Return the line of a model, without its cores."""
    return (
        f"{model:<24}p99 quiet {median(quiet) * 1e6:>7,.0f} µs, exhausted "
        f"{median(exhausted) * 1e6:>7,.0f} µs, ratio {ratio:.2f} (noise {noise:.2f})"
    )


def main() -> None:
    """One model after the other."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n\n")[0])
    parser.add_argument("models", nargs="*", metavar="MODEL", help="default: all that serve more than one at a time")
    parser.add_argument("--rounds", type=int, default=5, help="default: %(default)s")
    parser.add_argument("--seconds", type=float, default=3.0, help="of each phase (default: %(default)s)")
    options = parser.parse_args()
    failed = False
    for model in Catalogue.load().select(options.models):
        if "overlap" in model.limits:  # it accepts nothing while a client is connected
            continue
        quiet, again, exhausted, cores = measure(model.name, options.rounds, options.seconds)
        ratio, noise, is_too_large = judge(quiet, again, exhausted)
        failed |= is_too_large
        print(f"{show(model.name, quiet, exhausted, ratio, noise)}, {cores:.3f} cores", flush=True)
    sys.exit(int(failed))


if __name__ == "__main__":
    main()
