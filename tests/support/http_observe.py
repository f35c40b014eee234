"""What servers make of each case of `http_cases`: for the tests, and for docs/http-servers.md.

    python -m tests.support.http_observe NAME=URL ...

Prints a line of JSON for each server and case. Runs where the servers can be reached.
"""

import json
import sys
from dataclasses import asdict, dataclass

from loadtests.sockets.connection import BlockingConnection
from loadtests.sockets.errors import ClientError, NoAnswerError
from services.protocol import Address
from tests.support.http_cases import CASES, NEXT, Case
from tests.support.http_link import HttpLink, Reply

# Replies take milliseconds; a server that has not answered by then is waiting for more.
_TIMEOUT = 3.0


@dataclass(frozen=True, slots=True)
class Observation:
    """What became of a request, and of the one behind it.

    Args:
        status: of the reply; None if there was none.
        following: the status of the reply to the request behind it; None if there was none.
        announced: whether the reply said that the connection ends.
        end: how it ended: `open`, `closed`, `silent` (no reply in time) or `no HTTP`.
    """

    status: int | None
    following: int | None
    end: str
    announced: bool = False

    @property
    def is_refused(self) -> bool:
        """Whether nothing behind the request was taken for a request."""
        return self.following is None and self.end == "closed"

    def __str__(self) -> str:
        if self.status is None:
            return {"closed": "closes without a reply", "silent": "waits"}.get(self.end, "answers, but not in HTTP")
        if self.following is not None:
            return f"{self.status}, then {self.following}"
        return f"{self.status}, " + {"closed": "closes", "silent": "then waits"}.get(self.end, "then no HTTP")


def observe(connection: BlockingConnection, case: Case) -> Observation:
    """Send a case and a request behind it, and return what comes."""
    link = HttpLink(connection)
    replies: list[Reply] = []
    try:
        link.send(case.request + NEXT)
        while len(replies) < 2 and (reply := link.read()) is not None:
            # RFC 9110, 15.2: any number of interim replies can precede the final one.
            if reply.status >= 200 or reply.status == 101:
                replies.append(reply)
        end = "open" if len(replies) == 2 else "closed"
    except NoAnswerError:
        end = "silent"
    except ClientError:
        end = "closed"
    except AssertionError:
        end = "no HTTP"
    statuses = [reply.status for reply in replies]
    announced = bool(replies) and replies[0].is_last
    return Observation(
        statuses[0] if statuses else None, statuses[1] if len(statuses) > 1 else None, end, announced=announced
    )


def is_right(case: Case, seen: Observation, *, persists: bool = False) -> bool:
    """Return whether a server did what the RFC says.

    Args:
        persists: the server is one of those that keep connections: it must go on behind a request that is accepted, and
            announce each close. The RFC allows a server to close whenever it says so (9112, 9.3), and asks it to say so
            (9112, 9.6: SHOULD).
    """
    if seen.status not in case.statuses:
        return False
    if case.goes_on:
        return seen.following == 200 or (seen.following is None and seen.announced and not persists)
    return seen.is_refused and (seen.announced or not persists)


def describe_right(case: Case) -> str:
    """Return what the RFC says of a case, as in `400, closes`."""
    statuses = " or ".join(map(str, sorted(case.statuses)))
    return f"{statuses}" if case.goes_on else f"{statuses}, closes"


def main(arguments: list[str]) -> None:
    for argument in arguments:
        name, _, url = argument.partition("=")
        address = Address.parse(url)
        for case in CASES:
            with BlockingConnection(address, timeout=_TIMEOUT) as connection:
                seen = observe(connection, case)
            row = {"server": name, "case": case.name, "right": is_right(case, seen), "ours": case.ours}
            print(json.dumps(row | {"seen": str(seen)} | asdict(seen)), flush=True)


if __name__ == "__main__":
    main(sys.argv[1:])
