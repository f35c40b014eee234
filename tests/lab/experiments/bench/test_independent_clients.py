"""Independent clients: their commands, and their output as they really print it."""

import pytest

from lab.experiments.bench.independent_clients import CLIENTS, Reading

BY_NAME = {client.name: client for client in CLIENTS}

REDIS = '"test","rps","avg_latency_ms"\n"PING_MBULK","24390.24","0.343"\n'
WRK = """\
Running 1s test @ http://127.0.0.1:36365/ping
  1 threads and 16 connections
  Thread Stats   Avg      Stdev     Max   +/- Stdev
    Latency   552.19us  645.73us   6.09ms   93.37%
    Req/Sec    35.54k    20.56k   72.77k    80.00%
  35251 requests in 1.00s, 4.07MB read
Requests/sec:  35108.32
Transfer/sec:      4.05MB
"""
WRK_ERRORS = WRK.replace("Requests/sec", "  Non-2xx or 3xx responses: 36357\nRequests/sec")
WRK_SOCKETS = WRK.replace("Requests/sec", "  Socket errors: connect 0, read 3, write 0, timeout 0\nRequests/sec")
H2LOAD = """\
progress: 100% done

finished in 62.04ms, 48356.68 req/s, 5.58MB/s
requests: 3000 total, 3000 started, 3000 done, 3000 succeeded, 0 failed, 0 errored, 0 timeout
status codes: 3000 2xx, 0 3xx, 0 4xx, 0 5xx
"""
HEY = """
Summary:
  Total:	0.1761 secs
  Average:	0.0009 secs
  Requests/sec:	16988.7681

Status code distribution:
  [200]	2992 responses
"""


@pytest.mark.parametrize(
    ("name", "output", "reading"),
    [
        ("redis-benchmark", REDIS, Reading(24390.24, None)),
        ("redis-benchmark", REDIS.replace("PING_MBULK", "GET"), None),
        ("redis-benchmark", "Could not connect to Redis", None),
        ("wrk", WRK, Reading(35108.32, 35251)),
        ("wrk", WRK_ERRORS, None),
        ("wrk", WRK_SOCKETS, None),
        ("wrk", "unable to connect to 127.0.0.1:1 Connection refused", None),
        ("h2load", H2LOAD, Reading(48356.68, 3000)),
        ("h2load", H2LOAD.replace("3000 succeeded, 0 failed", "2999 succeeded, 1 failed"), None),
        ("h2load", "usage", None),
        # Only the one half of what is read.
        ("wrk", WRK.replace("Requests/sec", "Requests"), None),
        ("wrk", WRK.replace("requests in", "in"), None),
        ("h2load", H2LOAD.replace("req/s", "req"), None),
        ("h2load", H2LOAD.replace("requests:", "all:"), None),
        ("hey", HEY.replace("Requests/sec", "Requests"), None),
        ("hey", HEY, Reading(16988.7681, 2992)),
        ("hey", HEY.replace("[200]", "[503]"), None),
        ("hey", HEY + "  [503]\t8 responses\n", None),
        ("hey", HEY + "\nError distribution:\n  [8]\tGet: connection refused\n", None),
        ("hey", "usage", None),
    ],
)
def test_output_is_read(name: str, output: str, reading: Reading | None) -> None:
    assert BY_NAME[name].read(output) == reading


@pytest.mark.parametrize(
    ("name", "seconds", "command"),
    [
        ("redis-benchmark", 0.6, "redis-benchmark -h h -p 80 -t ping_mbulk --csv -c 16 -n 5000"),
        ("wrk", 0.3, "wrk --threads 1 --connections 16 --duration 1s http://h:80/ping"),
        ("wrk", 2.6, "wrk --threads 1 --connections 16 --duration 3s http://h:80/ping"),
        ("h2load", 0.6, "h2load --h1 --threads=1 --clients=16 --requests=5000 http://h:80/ping"),
        ("hey", 0.6, "hey -cpus 1 -c 16 -n 5000 http://h:80/ping"),
    ],
)
def test_command_has_the_same_connections(name: str, seconds: float, command: str) -> None:
    assert list(BY_NAME[name].make_command("h", "80", 5000, seconds)) == command.split(" ")
