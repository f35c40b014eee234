"""Warm up servers before they are measured: the same number of short connections to each.

    python -m lab.experiments.bench.warm_up COUNT SERVICE=URL ...

A new server is slower: its memory is not laid out, its code is not specialised. Runs inside the lab's network and
prints a line of JSON: how many connections each URL has answered.
"""

import json
import sys
from collections.abc import Sequence

from lab.clients.call import call
from loadtests.sockets.errors import ClientError

# Enough that every worker of a pool serves some.
WARM_UP_VISITS = 200

# What is sent, by service; a server is warmed up through the first of them that it speaks.
ARGUMENTS = {"command": ["PING"], "echo": ["warm-up"], "http": ["/ping"]}


def visit(service: str, url: str, count: int) -> int:
    """Connect, send one request and close, `count` times.

    Returns:
        The number of replies; it stops at the first failure.
    """
    for number in range(count):
        try:
            call(service, url, ARGUMENTS[service], timeout=5.0)
        except ClientError as error:
            print(f"{url}: {error}", file=sys.stderr)
            return number
    return count


def main(argv: Sequence[str]) -> None:
    count, *targets = argv
    pairs = [target.partition("=")[::2] for target in targets]
    print(json.dumps({url: visit(service, url, int(count)) for service, url in pairs}))


if __name__ == "__main__":
    main(sys.argv[1:])
