"""Two servers, one client, in turns: which answers more requests in a second.

    python -m benchmarks.duel --client 'CMD {port}' --ours 'CMD {port}' --theirs 'CMD {port}' [--rounds N]

Both servers run all the while on the machine's last core, the client on its first, and each round lets both be asked,
the one that goes first changing. `{port}` stands for a free port; the last number before `requests/sec` in the client's
output, or alone on its last line, is the rate. Prints medians and their ratio. The foreign server is fetched by whoever
runs this. For uvloop's example (its source distribution, examples/bench):

    python -m benchmarks.duel \\
        --client 'python echoclient.py --addr 127.0.0.1:{port} --msize 1024 --workers 3 --num 60000' \\
        --ours 'python -m services.run --model uvloop_protocol --listen echo=tcp://127.0.0.1:{port}' \\
        --theirs 'python echoserver.py --addr 127.0.0.1:{port} --proto --uvloop'

For the example of socketserver's documentation, which answers one request on a connection and closes it, this file is
the client too (`--client 'python -m benchmarks.duel --visit {port}'`): connect, a line, what comes back, close, again,
for two seconds.
"""

import argparse
import os
import re
import shlex
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from statistics import median

from benchmarks.figures import in_turn, ratio_of_medians, show_range, us_per_request
from lab.metrics.process import open_process_meter
from lab.metrics.sample import Meter
from lab.servers.process_helpers import find_port

_RATE = re.compile(r"([\d.]+)\s*(?:requests/sec|$)")


def visit(port: int, seconds: float = 2.0) -> None:
    """One client after the other: connect, a line, what comes back, close."""
    count = 0
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        with socket.create_connection(("127.0.0.1", port), timeout=10) as link:
            link.sendall(b"hello\r\n")
            if not link.recv(1024):
                sys.exit("no answer")
        count += 1
    print(count / seconds)


def start(command: str, port: int, core: int, stack: ExitStack) -> Meter:
    """Run a server on a core until the stack is left; returns its meter when it accepts."""
    words = ["taskset", "--cpu-list", str(core), *shlex.split(command.format(port=port))]
    server = subprocess.Popen(words, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)  # noqa: S603
    stack.callback(server.wait)
    stack.callback(server.terminate)
    for _ in range(200):
        if server.poll() is not None:
            sys.exit(f"{command}: {server.communicate()[1].decode()}")
        try:
            socket.create_connection(("127.0.0.1", port)).close()
            return open_process_meter(server.pid)
        except OSError:
            time.sleep(0.05)
    sys.exit(f"{command}: nobody listens")


def ask(command: str, port: int, core: int, meter: Meter) -> tuple[float, float]:
    """Run the client; returns the rate that it printed, and the server's CPU microseconds for a request.

    The latter takes the client to have asked for as long as it ran; its own start is a constant part of that for both.
    """
    words = ["taskset", "--cpu-list", str(core), *shlex.split(command.format(port=port))]
    begin, before = time.monotonic(), meter.read().cpu_seconds
    done = subprocess.run(words, capture_output=True, text=True, check=False, timeout=120)  # noqa: S603
    seconds, after = time.monotonic() - begin, meter.read().cpu_seconds
    rate = read_rate(done.stdout)
    if done.returncode or rate is None:
        sys.exit(f"{command}: {done.stdout}{done.stderr}")
    if before is None or after is None:
        sys.exit(f"{command}: the server's CPU cannot be read; has it ended?")
    return rate, us_per_request(after - before, rate * seconds)


def read_rate(text: str) -> float | None:
    """Return the last rate that a client has printed; None if there is none."""
    found = _RATE.findall(text.strip())
    return float(found[-1]) if found else None


def list_lines(rates: Mapping[str, Sequence[float]], costs: Mapping[str, Sequence[float]]) -> Iterator[str]:
    """Yield the lines of the report: both sides, then the ratios."""
    for side, values in rates.items():
        spread = show_range(values)
        yield f"{side:<8}{median(values):>10,.0f} requests/s {spread:<22}{median(costs[side]):>8.1f} CPU µs/request"
    for what, found in (("requests/s", rates), ("CPU", costs)):
        yield f"ratio   {ratio_of_medians(found['ours'], found['theirs']):>10.2f} {what}"


def main() -> None:
    """Alternate, then print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--visit", type=int, metavar="PORT", help="be the client")
    for side in ("client", "ours", "theirs"):
        parser.add_argument(f"--{side}", metavar="CMD")
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    if options.visit:
        visit(options.visit)
        return
    if not (options.client and options.ours and options.theirs):
        parser.error("a duel takes --client, --ours and --theirs")
    cores = sorted(os.sched_getaffinity(0))
    sides = {"ours": find_port(), "theirs": find_port()}
    rates: dict[str, list[float]] = {"ours": [], "theirs": []}
    costs: dict[str, list[float]] = {"ours": [], "theirs": []}
    with ExitStack() as stack:
        meters = {side: start(getattr(options, side), port, cores[-1], stack) for side, port in sides.items()}
        for number in range(options.rounds + 1):
            for side in in_turn([*sides], number):
                rate, cost = ask(options.client, sides[side], cores[0], meters[side])
                if number:  # the first is for the history
                    rates[side].append(rate)
                    costs[side].append(cost)
    print(*list_lines(rates, costs), sep="\n")


if __name__ == "__main__":
    main()
