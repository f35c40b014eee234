"""Load generators of others: each measures a case of the run too, as a check of ours.

They run where ours runs, with the same connections, on the same cores. What is not installed is reported as such.
"""

import csv
import io
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass

CONNECTIONS = 16

# h2load and hey count requests; wrk takes whole seconds.
_LEAST_SECONDS = 1

_RATE = re.compile(r"^ *Requests/sec:\s+([\d.]+)", re.MULTILINE)
_WRK_REQUESTS = re.compile(r"^\s+(\d+) requests in ", re.MULTILINE)
_WRK_ERRORS = re.compile(r"^\s+(Socket errors|Non-2xx or 3xx responses): (.*)", re.MULTILINE)
_H2LOAD = re.compile(r"^finished in .*?, ([\d.]+) req/s", re.MULTILINE)
_H2LOAD_REQUESTS = re.compile(r"^requests: .*, (\d+) succeeded, (\d+) failed", re.MULTILINE)
_HEY_STATUS = re.compile(r"^\s+\[(\d+)\]\s+(\d+) responses", re.MULTILINE)


@dataclass(frozen=True, slots=True)
class Reading:
    """The result of an independent client.

    Args:
        rate: requests per second.
        requests: their number; None if it was not printed, and all were sent that were asked for.
    """

    rate: float
    requests: int | None


@dataclass(frozen=True, slots=True)
class IndependentClient:
    """A load generator of others.

    Args:
        workload: of `plan.WORKLOADS`: what it measures too.
        make_command: host, port, requests, seconds -> its command.
        read: its output -> the result; None if it has none, or some requests failed.
    """

    name: str
    workload: str
    make_command: Callable[[str, str, int, float], Sequence[str]]
    read: Callable[[str], Reading | None]


def read_redis_benchmark(output: str) -> Reading | None:
    """Read what redis-benchmark prints with --csv."""
    rows = [row for row in csv.DictReader(io.StringIO(output)) if (row.get("test") or "").startswith("PING")]
    return Reading(float(rows[0]["rps"]), None) if rows else None


def read_wrk(output: str) -> Reading | None:
    """Read what wrk prints."""
    rate, requests = _RATE.search(output), _WRK_REQUESTS.search(output)
    if rate is None or requests is None or _WRK_ERRORS.search(output):
        return None
    return Reading(float(rate[1]), int(requests[1]))


def _read_h2load(output: str) -> Reading | None:
    rate, requests = _H2LOAD.search(output), _H2LOAD_REQUESTS.search(output)
    if rate is None or requests is None or requests[2] != "0":
        return None
    return Reading(float(rate[1]), int(requests[1]))


def _read_hey(output: str) -> Reading | None:
    rate, statuses = _RATE.search(output), _HEY_STATUS.findall(output)
    if rate is None or [status for status, _ in statuses] != ["200"] or "Error distribution" in output:
        return None
    return Reading(float(rate[1]), int(statuses[0][1]))


def _url(host: str, port: str) -> str:
    return f"http://{host}:{port}/ping"


_COUNT = str(CONNECTIONS)
CLIENTS = (
    IndependentClient(
        "redis-benchmark",
        "ping",
        lambda host, port, requests, seconds: [
            *("redis-benchmark", "-h", host, "-p", port, "-t", "ping_mbulk", "--csv"),
            *("-c", _COUNT, "-n", str(requests)),
        ],
        read_redis_benchmark,
    ),
    IndependentClient(
        "wrk",
        "http_ping",
        lambda host, port, requests, seconds: [
            *("wrk", "--threads", "1", "--connections", _COUNT),
            *("--duration", f"{max(round(seconds), _LEAST_SECONDS)}s", _url(host, port)),
        ],
        read_wrk,
    ),
    IndependentClient(
        "h2load",
        "http_ping",
        lambda host, port, requests, seconds: [
            *("h2load", "--h1", "--threads=1", f"--clients={_COUNT}", f"--requests={requests}", _url(host, port)),
        ],
        _read_h2load,
    ),
    IndependentClient(
        "hey",
        "http_ping",
        lambda host, port, requests, seconds: [
            "hey",
            "-cpus",
            "1",
            "-c",
            _COUNT,
            "-n",
            str(requests),
            _url(host, port),
        ],
        _read_hey,
    ),
)
