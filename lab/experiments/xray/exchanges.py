"""Make the same exchange many times, one after the other on one connection, and say when: for counting.

    python -m lab.experiments.xray.exchanges '{"legs": [["PING", "127.0.0.1", 6379], ...], "count": 200}'

It prints JSON: for each leg its name, and its begin and end by CLOCK_REALTIME and CLOCK_MONOTONIC, in nanoseconds.
Before and after it, the connection is open and nothing happens, for long enough that a look at the server meets this
time.
"""

import json
import socket
import sys
import time
from pathlib import Path
from typing import Any

# What is sent, and how many bytes of reply it has; the service that answers it.
EXCHANGES = {
    "PING": ("command", b"PING\r\n", 7),
    "echo 1 KiB": ("echo", bytes(1024), 1024),
    "echo 64 KiB": ("echo", bytes(64 * 1024), 64 * 1024),
}
SETTLE = 0.15
_WARM_UP = 20
_TIMEOUT = 10.0


def exchange(stream: socket.socket, request: bytes, size: int, buffer: memoryview) -> None:
    """Make one exchange.

    Raises:
        OSError: it broke.
    """
    stream.sendall(request)
    received = 0
    while received < size:
        count = stream.recv_into(buffer)
        if not count:
            raise ConnectionError("the server closed the connection")
        received += count


def run_leg(name: str, host: str, port: int, count: int) -> dict[str, Any]:
    """Make the exchanges of one leg."""
    _, request, size = EXCHANGES[name]
    buffer = memoryview(bytearray(1 << 20))
    with socket.create_connection((host, port), _TIMEOUT) as stream:
        stream.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for _ in range(_WARM_UP):
            exchange(stream, request, size, buffer)
        time.sleep(SETTLE)
        begin = time.time_ns(), time.monotonic_ns()
        for _ in range(count):
            exchange(stream, request, size, buffer)
        end = time.time_ns(), time.monotonic_ns()
        time.sleep(SETTLE)
    return {"name": name, "count": count, "begin": begin, "end": end}


def main() -> int:
    """Run the legs of the request in the first argument."""
    request = json.loads(sys.argv[1])
    try:
        legs = [run_leg(name, host, port, request["count"]) for name, host, port in request["legs"]]
    except OSError as error:
        print(json.dumps({"error": str(error.strerror or error)}))
        return 1
    finally:
        if request.get("done"):
            Path(request["done"]).touch()
    print(json.dumps({"legs": legs}))
    return 0


if __name__ == "__main__":
    sys.exit(main())
