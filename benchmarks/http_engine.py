"""The load engine beside wrk: who drives an HTTP server hardest from one core.

    python -m benchmarks.http_engine [--rounds N] [--seconds S]

Needs nginx and wrk on this machine. nginx answers GET /ping with five bytes from its configuration, on the machine's
last core; the generators alternate on the first, with 50 kept connections. wrk counts replies and checks no body; a
WireUser checks status, framing and body of each, and keeps full histograms. Prints medians, ratios and spreads of the
requests per second, and of the requests per second of the generator's own CPU time.

The aim: a WireUser at 0.8 of wrk's rate per core.
"""

import argparse
import json
import os
import random
import re
import resource
import sys
import tempfile
from collections import defaultdict
from pathlib import Path
from statistics import median

from benchmarks.engine import CONNECTIONS, Rates, run, serve
from lab.experiments.environment import describe_environment
from loadtests.contract import LoadResult

WRK, WIRE = "wrk", "WireUser"
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
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    text = run([*command, f"http://127.0.0.1:{port}/ping"], core)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    found = re.search(r"(\d+) requests in ([\d.]+)s", text)
    if found is None or "Non-2xx" in text:
        sys.exit(text)
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return int(found[1]) / float(found[2]), int(found[1]) / cpu


def drive_wire_user(port: int, core: int, seconds: float) -> Rates:
    """Of what was answered right."""
    targets = json.dumps([{"model": "it", "listeners": [{"service": "http", "address": f"tcp://127.0.0.1:{port}"}]}])
    command = [sys.executable, "-m", "locust", "-f", "loadtests/locustfile.py", "--headless", "--only-summary"]
    command += ["--workload", "http_ping", "--users", str(CONNECTIONS), "--spawn-rate", "1000", "--loglevel", "ERROR"]
    text = run([*command, "--window", str(seconds)], core, LAB_TARGETS=targets)
    (found,) = LoadResult.find_all(text)
    if found.failures:
        sys.exit(f"failures: {found.failures}")
    return found.rate, found.rate / (found.generator_cores or 1.0)


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
                    drive = drive_wrk if name == WRK else drive_wire_user
                    rates[name].append(drive(port, cores[0], options.seconds))
                each = ", ".join(f"{name} {rates[name][-1][0]:,.0f}" for name in (WRK, WIRE))
                print(f"round {number + 1} of {options.rounds}: {each}", flush=True)
    for key, value in describe_environment().items():
        print(f"{key}: {value}")
    for which, unit in enumerate(("requests/s", "requests/s of its CPU")):
        print(f"\n{unit}, medians of {options.rounds}")
        figures = {name: [each[which] for each in rates[name]] for name in (WRK, WIRE)}
        for name, values in figures.items():
            ratio = median(ours / other for ours, other in zip(figures[WIRE], values, strict=True))
            spread = f"({min(values):,.0f} to {max(values):,.0f})"
            print(f"  {name:<20}{median(values):>12,.0f}  {spread:<26} WireUser: {ratio:.2f} of it")


if __name__ == "__main__":
    main()
