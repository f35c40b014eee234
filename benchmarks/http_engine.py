"""The load engine beside wrk: who drives an HTTP server hardest from one core.

    python -m benchmarks.http_engine [--rounds N] [--seconds S]

Needs nginx and wrk on this machine. nginx answers GET /ping with five bytes from its configuration, on the machine's
last core; the generators alternate on the first, with 50 kept connections. wrk counts replies and checks no body; a
WireUser checks status, framing and body of each, and keeps full histograms. Prints medians, ratios and spreads of the
requests per second, and of the requests per second of the generator's own CPU time.

The aim: a WireUser at 0.8 of wrk's rate per core.
"""

import argparse
import os
import random
import sys
import tempfile
from collections import defaultdict
from pathlib import Path

from benchmarks.engine import CONNECTIONS, WIRE, Rates, drive_wire_user, list_lines, run, serve
from benchmarks.figures import print_facts, read_children_cpu
from lab.experiments.bench.independent_clients import read_wrk
from lab.experiments.environment import describe_environment

WRK = "wrk"
NGINX = """
daemon off; pid {folder}/pid; worker_processes 1; error_log stderr crit;
events {{ worker_connections 1024; }}
http {{
    access_log off; keepalive_requests 1000000000; default_type text/plain;
    client_body_temp_path {folder}/a; proxy_temp_path {folder}/b; fastcgi_temp_path {folder}/c;
    uwsgi_temp_path {folder}/d; scgi_temp_path {folder}/e;
    server {{ listen 127.0.0.1:PORT; location = /ping {{ return 200 "PONG\\n"; }} }}
}}
"""


def drive_wrk(port: int, core: int, seconds: float) -> Rates:
    """Of all replies, whatever they were."""
    command = ["wrk", "--threads", "1", "--connections", str(CONNECTIONS), "--duration", f"{seconds:.0f}s"]
    before = read_children_cpu()
    text = run([*command, f"http://127.0.0.1:{port}/ping"], core)
    return rate_wrk(text, read_children_cpu() - before)


def rate_wrk(text: str, cpu: float) -> Rates:
    """Return the rates of what wrk prints, given its seconds of CPU."""
    found = read_wrk(text)
    if found is None or found.requests is None:
        sys.exit(text)
    return found.rate, found.requests / cpu


def main() -> None:
    """Alternate, then print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--seconds", type=float, default=4.0, help="of each run")
    options = parser.parse_args()
    cores = sorted(os.sched_getaffinity(0))
    rates: dict[str, list[Rates]] = defaultdict(list)
    with tempfile.TemporaryDirectory() as folder:
        # `serve` chooses the port, and nginx takes its configuration only from a file.
        template, config = Path(folder) / "template", Path(folder) / "nginx.conf"
        template.write_text(NGINX.format(folder=folder))
        with serve(f"sh -c 'sed s/PORT/{{port}}/ {template} > {config} && exec nginx -c {config}'", cores[-1]) as port:
            for number in range(options.rounds):
                for name in random.sample([WRK, WIRE], 2):
                    rates[name].append(
                        drive_wrk(port, cores[0], options.seconds)
                        if name == WRK
                        else drive_wire_user(port, cores[0], "http", "http_ping", options.seconds)
                    )
                each = ", ".join(f"{name} {rates[name][-1][0]:,.0f}" for name in (WRK, WIRE))
                print(f"round {number + 1} of {options.rounds}: {each}", flush=True)
    print_facts(describe_environment())
    print(*list_lines(rates, ""), sep="\n")


if __name__ == "__main__":
    main()
