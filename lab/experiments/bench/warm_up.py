"""The same history for every server before it is measured: so many clients who come, ask once, and go.

    python -m lab.experiments.bench.warm_up COUNT SERVICE=URL ...

A server that is new is not what it will be: its memory is not laid out, its code not yet specialised. Run inside the
lab's network; prints a line of JSON: how many visits each URL has answered.
"""

import json
import sys
from collections.abc import Sequence

from lab.clients.call import call
from loadtests.sockets.errors import ClientError

# Enough that every worker of a pool has had some.
VISITS = 200

_ARGUMENTS = {"command": ["PING"], "echo": ["history"]}


def visit(service: str, url: str, count: int) -> int:
    """Come, ask once, go, so many times.

    Returns:
        How often an answer came; it ends with the first that does not.
    """
    for number in range(count):
        try:
            call(service, url, _ARGUMENTS[service], timeout=5.0)
        except ClientError as error:
            print(f"{url}: {error}", file=sys.stderr)
            return number
    return count


def main(argv: Sequence[str]) -> None:
    """The command line."""
    count, *targets = argv
    pairs = [target.partition("=")[::2] for target in targets]
    print(json.dumps({url: visit(service, url, int(count)) for service, url in pairs}))


if __name__ == "__main__":
    main(sys.argv[1:])
