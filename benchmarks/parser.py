"""What a request costs: this project's parser against hiredis, alone and inside the whole core.

    python -m benchmarks.parser
    python -m benchmarks.parser --baseline ../socketlab-before      # a checkout to compare the core with

Columns: `reader` is `RequestReader` alone; `hiredis` is `hiredis.Reader` alone, used for requests; `core` is what a
model pays, from `receive_data` to `next_event` returning None; `core+hiredis` is the same core with hiredis in the
reader's place. hiredis knows no inline commands, so those rows have no figure.

Method: each figure is the median over repeats of the time for one request. Within a repeat all contestants run one
after the other in a shuffled order, so that a busy moment of the machine hits them alike. `spread` is half the
interquartile range of `core` in percent of its median: two figures that are closer than that are a tie.
"""

import argparse
import gc
import importlib
import os
import platform
import statistics
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from types import ModuleType
from typing import Any

import hiredis

from benchmarks.figures import Contestant, time_calls
from lab.experiments.environment import read_processor
from services.protocol import Connection, Limits, Send
from services.protocol.resp import RequestReader


@dataclass(frozen=True, slots=True)
class Case:
    """Requests as they arrive: in `chunks`, one `receive_data` each."""

    name: str
    chunks: tuple[bytes, ...]
    requests: int
    inline: bool = False


def array(*arguments: bytes) -> bytes:
    """One request as a client library sends it."""
    return b"*%d\r\n" % len(arguments) + b"".join(b"$%d\r\n%b\r\n" % (len(text), text) for text in arguments)


def cases() -> list[Case]:
    """What is measured: the figures that the project promises, and a bulk in many fragments."""
    ping, inline, echo = array(b"PING"), b"PING\r\n", array(b"ECHO", b"x" * 1024)
    found = []
    for name, request in (("PING array", ping), ("PING inline", inline), ("ECHO 1 KiB", echo)):
        for depth in (1, 16, 1000):
            found.append(Case(f"{name}, depth {depth}", (request * depth,), depth, inline=request is inline))
    bulk = array(b"ECHO", b"x" * 2**20)
    for count in (1, 1000, 8000):
        size = -(-len(bulk) // count)
        chunks = tuple(bulk[start : start + size] for start in range(0, len(bulk), size))
        found.append(Case(f"ECHO 1 MiB in {len(chunks)} fragments", chunks, 1))
    return found


class HiredisRequests:
    """hiredis.Reader in the place of `RequestReader`, as far as well-formed arrays go."""

    def __init__(self) -> None:
        reader = hiredis.Reader()
        self.feed = reader.feed
        self._gets = reader.gets
        self.is_between_requests = True

    def next_request(self) -> list[bytes] | None:
        """The next request; None if it has not arrived in full."""
        request = self._gets()
        return None if request is False else request


# A contestant takes the chunks of a case once and returns how many requests (or bytes of replies) it saw, as a check.


def run_reader(case: Case) -> Callable[[], int]:
    """Our parser alone."""
    reader = RequestReader(Limits())

    def run() -> int:
        seen = 0
        for chunk in case.chunks:
            reader.feed(chunk)
            while reader.next_request() is not None:
                seen += 1
        return seen

    return run


def run_hiredis(case: Case) -> Callable[[], int]:
    """The C parser alone."""
    reader = hiredis.Reader()

    def run() -> int:
        seen = 0
        for chunk in case.chunks:
            reader.feed(chunk)
            while reader.gets() is not False:
                seen += 1
        return seen

    return run


def run_core(case: Case, connection: Any, send: type = Send) -> Callable[[], int]:
    """A connection as a model drives it."""

    def run() -> int:
        size = 0
        for chunk in case.chunks:
            connection.receive_data(chunk)
            while (event := connection.next_event()) is not None:
                if isinstance(event, send):
                    size += len(event.data)  # type: ignore[attr-defined]  # the Send of the core that is measured
        return size

    return run


def with_hiredis(connection: Connection) -> Connection:
    """Put hiredis into a connection's core."""
    service: Any = connection._service
    service._reader = HiredisRequests()
    service.receive_data = service._reader.feed
    service._next_request = service._reader.next_request
    return connection


def load_core(root: Path) -> ModuleType:
    """Import `services.protocol` of another checkout beside ours."""
    mine = {name: sys.modules.pop(name) for name in list(sys.modules) if name.partition(".")[0] == "services"}
    sys.path.insert(0, str(root))
    try:
        module = importlib.import_module("services.protocol")
    finally:
        sys.path.remove(str(root))
        for name in [name for name in sys.modules if name.partition(".")[0] == "services"]:
            del sys.modules[name]
        sys.modules.update(mine)
    if module.__file__ is None or not Path(module.__file__).is_relative_to(root):
        raise SystemExit(f"{root} holds no services/protocol")
    return module


def measure(
    contestants: dict[str, Callable[[], int]], requests: int, repeats: int, seconds: float
) -> dict[str, list[float]]:
    """Nanoseconds a request, one figure a repeat, for each contestant."""
    timed = {}
    for name, run in contestants.items():
        if (first := run()) != run() or not first:
            raise SystemExit(f"{name} does not give the same answer twice")
        start = time.perf_counter()
        for _ in range(3):
            run()
        timed[name] = Contestant(run, max(1, round(seconds / ((time.perf_counter() - start) / 3))))
    found = time_calls(timed, repeats, time.perf_counter)
    return {name: [value * 1000 / requests for value in values] for name, values in found.items()}


def make_row(name: str, found: Mapping[str, Sequence[float]], columns: Sequence[str]) -> str:
    """Return the row of a case: the median of each column, and half the interquartile range of `core`."""
    medians = [f"{statistics.median(found[name]):,.0f}" if name in found else "-" for name in columns]
    low, middle, high = statistics.quantiles(found["core"], n=4)
    return f"{name:34}" + "".join(f"{text:>14}" for text in medians) + f"{50 * (high - low) / middle:>13.0f}%"


def main() -> None:
    """Measure and print the table."""
    parser = argparse.ArgumentParser(
        description=__doc__.partition("\n")[0], epilog="Figures are nanoseconds a request: the lower the better."
    )
    parser.add_argument("--repeats", type=int, default=15, help="figures behind each median (default: %(default)s)")
    parser.add_argument("--seconds", type=float, default=0.02, help="length of one figure (default: %(default)s)")
    parser.add_argument("--baseline", type=Path, metavar="DIR", help="a checkout whose core is measured beside ours")
    options = parser.parse_args()

    columns = ["reader", "hiredis", "core", "core+hiredis"]
    baseline = None
    if options.baseline:
        baseline = load_core(options.baseline.resolve())
        columns.append("baseline")
    print(
        f"{datetime.now(UTC):%Y-%m-%d %H:%M} UTC; {read_processor() or 'unknown'}, "
        f"{os.cpu_count()} CPUs, load {os.getloadavg()[0]:.1f}; "
        f"{platform.python_implementation()} {platform.python_version()}, hiredis {hiredis.__version__}; "
        f"median of {options.repeats} x {options.seconds * 1000:g} ms; ns a request\n"
    )
    print(f"{'':34}" + "".join(f"{name:>14}" for name in [*columns, "spread"]))
    gc.disable()  # none of the contestants makes cycles
    for case in cases():
        contestants = {"reader": run_reader(case), "core": run_core(case, Connection("command"))}
        if not case.inline:
            contestants["hiredis"] = run_hiredis(case)
            contestants["core+hiredis"] = run_core(case, with_hiredis(Connection("command")))
        if baseline is not None:
            contestants["baseline"] = run_core(case, baseline.Connection("command"), baseline.Send)
        found = measure(contestants, case.requests, options.repeats, options.seconds)
        print(make_row(case.name, found, columns))


if __name__ == "__main__":
    main()
