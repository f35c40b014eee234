"""An account of every request by its id: `python -m lab.clients.request_log ADDRESS`, an instrument that others tell
what to do.

It holds some connections to `command`, keeps a few requests under way on each, and knows of every reply whose it is:
the next that its own connection is owed, or else one too many, out of order, or somebody else's. It says `begun` when
it is served; on `mark` it notes what has been sent so far, and says `marked`; on `end` it closes its halves and waits
for what it is owed. When all of its connections have ended it prints the account, a line of JSON.

What counts as lost is left to whoever broke what: after a SIGTERM, every request that was sent before it on a
connection that was being served must have been answered. After a SIGKILL it must only be known which were not.
"""

import json
import random
import selectors
import socket
import sys
import time
from collections import Counter, deque
from collections.abc import Callable
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from math import inf
from typing import TextIO

import click

from lab.clients.call import ReplyReader, Value, pack
from loadtests.sockets.connection import BlockingConnection
from loadtests.sockets.errors import SocketsError
from services.protocol import Address

# Whoever has stopped sending waits so many seconds at most for what it is owed.
_END_SECONDS = 5.0

# Under way on each connection: more than one, so that an order can be wrong; few, so that all fit into any buffer, and
# what `send` has taken is with the server.
DEPTH = 8

# So many requests apart, one waits for 2 ms: whatever comes finds a server with something begun, and more behind it.
_SLEEP_EVERY = 16

_SEND_SIZE = 64 * 1024
_NOTHING = ReplyReader().gets()  # what the reader says when there is no whole reply


@dataclass(slots=True)
class Account:
    """What became of the requests.

    Args:
        connections: how many were opened.
        served: how many of them had been answered at least once when the mark was set.
        sent, answered: requests.
        lost: of those that were sent before the mark on a served connection, how many were never answered.
        wrong: replies that were not the next one owed, by what was wrong with them.
        ends: connections by how they ended: `end` of the stream, `broken`, or `open` to the last.
        silence: seconds, the longest from one reply to the next, on any connection, that ended after the mark.
    """

    connections: int
    served: int = 0
    sent: int = 0
    answered: int = 0
    lost: int = 0
    wrong: dict[str, int] = field(default_factory=dict)
    ends: dict[str, int] = field(default_factory=dict)
    silence: float = 0.0

    @property
    def unanswered(self) -> int:
        """Requests that are known to have got no answer."""
        return self.sent - self.answered

    @classmethod
    def from_json(cls, line: str) -> "Account":
        """Read what the ledger has printed.

        Raises:
            ValueError, TypeError: it is no account.
        """
        return cls(**json.loads(line))


class Page:
    """One connection's part of the ledger.

    Args:
        number: of the connection.
        seed: of the whole ledger; the same seed makes the same requests.
    """

    def __init__(self, number: int, seed: int) -> None:
        self._prefix = b"%d-%d-" % (seed, number)
        self._sizes = random.Random(f"{seed}-{number}")  # noqa: S311 - of no use to anybody who guesses it
        self._owed: deque[bytes] = deque()
        self.sent = self.answered = self.sent_before_mark = 0
        self.was_served = False
        self.wrong: Counter[str] = Counter()

    @property
    def under_way(self) -> int:
        """Requests that are still owed a reply."""
        return len(self._owed)

    def next_request(self) -> bytes:
        """One more, which counts as sent from now on."""
        self.sent += 1
        if self.sent % _SLEEP_EVERY == 0:
            self._owed.append(b"OK")
            return pack([b"SLEEP", b"2"])
        text = b"%b%d %b" % (self._prefix, self.sent, b"x" * self._sizes.randrange(200))
        self._owed.append(text)
        return pack([b"ECHO", text])

    def take(self, reply: Value) -> None:
        """Enter a reply."""
        if self._owed and reply == self._owed[0]:
            self._owed.popleft()
            self.answered += 1
        elif not isinstance(reply, bytes):
            self.wrong["no reply to any of them"] += 1
        elif reply in self._owed:
            self.wrong["out of order"] += 1
        elif reply == b"OK" or reply.startswith(self._prefix):
            self.wrong["one too many"] += 1
        else:
            self.wrong["somebody else's"] += 1

    def mark(self, sent: int) -> None:
        """So many have been handed over in full before whatever comes now."""
        self.sent_before_mark = sent
        self.was_served = self.answered > 0

    @property
    def lost(self) -> int:
        """Sent before the mark, on a connection that was served, and not answered."""
        return max(0, self.sent_before_mark - self.answered) if self.was_served else 0


class _Client:
    """A connection, and its page."""

    def __init__(self, link: BlockingConnection, page: Page) -> None:
        self.page = page
        self.socket = link.socket
        self.socket.setblocking(False)
        self.end = "open"
        self._reader = ReplyReader()
        self._unsent = b""
        self._takes_more = True

    def advance(self, *, more: bool) -> None:
        """Receive what there is; then, if there is to be more, have as many under way as there should be."""
        try:
            self._receive()
        except OSError:
            self.end = "broken"
        if more and self.end == "open" and self._takes_more:
            try:
                self._send()
            except BlockingIOError:
                pass
            except OSError:
                # A Unix socket tells at once when the server reads no more. What it owes may be under way nevertheless.
                self._takes_more = False

    def mark(self) -> None:
        """Note what has been handed over in full."""
        self.page.mark(self.page.sent - bool(self._unsent))

    def finish(self) -> None:
        """Say that nothing more comes. What was never handed over in full gets no answer, and is not owed one."""
        with suppress(OSError):  # it is broken, which the next `recv` tells
            self.socket.shutdown(socket.SHUT_WR)

    def _receive(self) -> None:
        while True:
            try:
                data = self.socket.recv(_SEND_SIZE)
            except BlockingIOError:
                return
            if not data:
                self.end = "end"
                return
            self._reader.feed(data)
            while (reply := self._reader.gets()) is not _NOTHING:
                self.page.take(reply)

    def _send(self) -> None:
        while not self._unsent and self.page.under_way < DEPTH:
            self._unsent += self.page.next_request()
            self._unsent = self._unsent[self.socket.send(self._unsent) :]
        if self._unsent:
            self._unsent = self._unsent[self.socket.send(self._unsent) :]


class Ledger:
    """All pages, over one server.

    Args:
        links: connections to `command`, over TCP or a Unix socket; they are closed by whoever gave them.
        seed: see `Page`.
    """

    def __init__(self, links: list[BlockingConnection], seed: int) -> None:
        self._clients = [_Client(link, Page(number, seed)) for number, link in enumerate(links)]
        self._is_ending = False
        self._answered = 0
        self._since = inf  # when somebody was answered last
        self._silence: float | None = None  # not looked at before the mark

    @property
    def pages(self) -> list[Page]:
        """Of all connections."""
        return [client.page for client in self._clients]

    def mark(self) -> None:
        """What has been sent so far has been sent before whatever comes now."""
        for client in self._clients:
            client.mark()
        self._silence = 0.0

    def end(self) -> None:
        """Send no more; also a second time."""
        if not self._is_ending:
            self._is_ending = True
            for client in self._clients:
                if client.end == "open":
                    client.finish()

    def turn(self, selector: selectors.BaseSelector) -> bool:
        """Give every connection a turn; returns whether any is still open."""
        for client in self._clients:
            if client.end == "open":
                client.advance(more=not self._is_ending)
                if client.end != "open":
                    selector.unregister(client.socket)
        answered = sum(page.answered for page in self.pages)
        if answered > self._answered:
            now = time.monotonic()
            if self._silence is not None:
                self._silence = max(self._silence, now - self._since)
            self._answered, self._since = answered, now
        return any(client.end == "open" for client in self._clients)

    def watch(self, selector: selectors.BaseSelector) -> None:
        """Have a selector wake up for any of the connections."""
        for client in self._clients:
            selector.register(client.socket, selectors.EVENT_READ)

    def account(self) -> Account:
        """The sum of all pages."""
        pages = self.pages
        return Account(
            connections=len(pages),
            served=sum(page.was_served for page in pages),
            sent=sum(page.sent for page in pages),
            answered=sum(page.answered for page in pages),
            lost=sum(page.lost for page in pages),
            wrong=dict(sum((page.wrong for page in pages), Counter())),
            ends=dict(Counter(client.end for client in self._clients)),
            silence=self._silence or 0.0,
        )


def keep(
    ledger: Ledger, commands: TextIO, say: Callable[[str], object], seconds: float, *, requests: int = 0
) -> Account:
    """Keep the ledger until all connections have ended, which they do some time after it was told to end.

    Args:
        commands: a file with a descriptor, of lines: `mark`, `end`. Its end is an `end`.
        say: called with `begun` and `marked`.
        seconds: after so many it is given up, and what is owed stays owed.
        requests: `begun` is not said before so many have been answered.
    """
    deadline = time.monotonic() + seconds
    served_by = time.monotonic() + 1.0  # who has had no answer until then waits in the backlog
    has_begun = False
    with selectors.DefaultSelector() as selector:
        ledger.watch(selector)
        selector.register(commands, selectors.EVENT_READ)
        while ledger.turn(selector) and time.monotonic() < deadline:
            if not has_begun:
                answered = [page.answered for page in ledger.pages]
                is_served = all(answered) or (any(answered) and time.monotonic() > served_by)
                if is_served and sum(answered) >= requests:
                    has_begun = True
                    say("begun")
            for key, _ in selector.select(0.05):
                if key.fileobj is commands:
                    line = commands.readline().strip()
                    if line == "mark":
                        ledger.mark()
                        say("marked")
                    else:
                        ledger.end()
                        selector.unregister(commands)
                        deadline = min(deadline, time.monotonic() + _END_SECONDS)
    return ledger.account()


@click.command(help=__doc__)
@click.argument("address")
@click.option("--connections", default=8)
@click.option("--seed", default=1)
@click.option("--seconds", default=60.0, help="after so many it is given up")
@click.option("--requests", default=0, help="say `begun` when so many have been answered")
def main(address: str, connections: int, seed: int, seconds: float, requests: int) -> None:
    """Exit code 2: it could not be kept."""
    links: list[BlockingConnection] = []
    try:
        for _ in range(connections):
            links.append(BlockingConnection(Address.parse(address), timeout=10))
        account = keep(Ledger(links, seed), sys.stdin, lambda word: print(word, flush=True), seconds, requests=requests)
        print(json.dumps(asdict(account)), flush=True)
    except SocketsError as error:
        print(f"ledger: {error}", file=sys.stderr)
        sys.exit(2)
    finally:
        for link in links:
            link.close()


if __name__ == "__main__":
    main()
