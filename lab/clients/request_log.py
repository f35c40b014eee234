"""Keep a log of every request by its id: `python -m lab.clients.request_log ADDRESS`.

It opens connections to `command`, keeps several requests in flight on each, and checks every reply: it must be the next
one that is due on its connection. Any other reply is counted as wrong: out of order, a duplicate, or another
connection's.

A parent process controls it by messages (`lab.base.messages`). It sends `Begun` when it is being served. `Mark` notes
what has been sent so far, and is confirmed by `Marked`. `End`, or the end of stdin, closes the sending halves and waits
for the replies that are due. When all connections have ended, it sends the totals as an `Account`.

The caller decides which missing replies matter. After a SIGTERM, every request that was sent before it on a served
connection must have been answered. After a SIGKILL, it must only be known which requests were not.
"""

import random
import selectors
import socket
import sys
import time
from collections import Counter, deque
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from math import inf

import click

from lab.base.messages import Inbox, Message, say
from lab.clients.call import ReplyReader, Value, pack
from loadtests.sockets.connection import BlockingConnection
from loadtests.sockets.errors import SocketsError
from services.protocol import Address

_END_SECONDS = 5.0  # how long to wait for due replies after `end`

# Requests in flight per connection. More than one, so that replies can be out of order. Few, so that all fit into any
# socket buffer: what `send` has accepted is then with the server.
DEPTH = 8

# Every 16th request is a SLEEP of 2 ms, so that a fault finds a request in progress and others queued behind it.
_SLEEP_EVERY = 16

_SEND_SIZE = 64 * 1024
_NOTHING = ReplyReader().gets()  # returned by the reader while a reply is incomplete


@dataclass(frozen=True, slots=True)
class Begun(Message):
    """The server answers."""


@dataclass(frozen=True, slots=True)
class Mark(Message):
    """Note what has been sent so far."""


@dataclass(frozen=True, slots=True)
class Marked(Message):
    """It is noted."""


@dataclass(frozen=True, slots=True)
class End(Message):
    """Stop sending."""


@dataclass(frozen=True, slots=True)
class Account(Message):
    """Totals of a request log.

    Args:
        connections: number opened.
        served: connections with at least one reply when the mark was set.
        sent, answered: requests.
        lost: requests sent before the mark on a served connection and never answered.
        wrong: replies that were not the next one due, by kind.
        ends: connections by how they ended: `end` of the stream, `broken`, or still `open`.
        silence: seconds, the longest gap between two replies, over all connections, that ended after the mark.
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
        return self.sent - self.answered


class ConnectionLog:
    """The requests of one connection.

    Args:
        number: of the connection.
        seed: of the whole request log; the same seed makes the same requests.
    """

    def __init__(self, number: int, seed: int) -> None:
        self._prefix = b"%d-%d-" % (seed, number)
        self._sizes = random.Random(f"{seed}-{number}")  # noqa: S311 - sizes are no secret
        self._due: deque[bytes] = deque()
        self.sent = self.answered = self.sent_before_mark = 0
        self.was_served = False
        self.wrong: Counter[str] = Counter()

    @property
    def in_flight(self) -> int:
        return len(self._due)

    def next_request(self) -> bytes:
        """Make the next request, and count it as sent."""
        self.sent += 1
        if self.sent % _SLEEP_EVERY == 0:
            self._due.append(b"OK")
            return pack([b"SLEEP", b"2"])
        text = b"%b%d %b" % (self._prefix, self.sent, b"x" * self._sizes.randrange(200))
        self._due.append(text)
        return pack([b"ECHO", text])

    def record_reply(self, reply: Value) -> None:
        """Compare a reply with the next one that is due."""
        if self._due and reply == self._due[0]:
            self._due.popleft()
            self.answered += 1
        elif not isinstance(reply, bytes):
            self.wrong["not a reply to any request"] += 1
        elif reply in self._due:
            self.wrong["out of order"] += 1
        elif reply == b"OK" or reply.startswith(self._prefix):
            self.wrong["duplicate"] += 1
        else:
            self.wrong["another connection's"] += 1

    def mark(self, sent: int) -> None:
        self.sent_before_mark = sent
        self.was_served = self.answered > 0

    @property
    def lost(self) -> int:
        """Return how many requests before the mark got no reply; 0 if the connection was not served."""
        return max(0, self.sent_before_mark - self.answered) if self.was_served else 0


class _Client:
    """A connection and its log."""

    def __init__(self, connection: BlockingConnection, log: ConnectionLog) -> None:
        self.log = log
        self.socket = connection.socket
        self.socket.setblocking(False)
        self.end = "open"
        self._reader = ReplyReader()
        self._unsent = b""
        self._can_send = True

    def advance(self, *, more: bool) -> None:
        """Receive what has arrived; with `more`, send until `DEPTH` requests are in flight."""
        try:
            self._receive()
        except OSError:
            self.end = "broken"
        if more and self.end == "open" and self._can_send:
            try:
                self._send()
            except BlockingIOError:
                pass
            except OSError:
                # On a Unix socket, `send` fails as soon as the server has stopped reading. Replies may still arrive.
                self._can_send = False

    def mark(self) -> None:
        """Set the mark after the requests that have been sent in full."""
        self.log.mark(self.log.sent - bool(self._unsent))

    def finish(self) -> None:
        """Close the sending half. A request that was sent in part gets no reply, and none is due."""
        with suppress(OSError):  # the connection is broken, and the next `recv` reports it
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
                self.log.record_reply(reply)

    def _send(self) -> None:
        while not self._unsent and self.log.in_flight < DEPTH:
            self._unsent += self.log.next_request()
            self._unsent = self._unsent[self.socket.send(self._unsent) :]
        if self._unsent:
            self._unsent = self._unsent[self.socket.send(self._unsent) :]


class RequestLog:
    """The log of all connections to one server.

    Args:
        connections: to `command`, over TCP or a Unix socket. The caller closes them.
        seed: see `ConnectionLog`.
    """

    def __init__(self, connections: list[BlockingConnection], seed: int) -> None:
        self._clients = [
            _Client(connection, ConnectionLog(number, seed)) for number, connection in enumerate(connections)
        ]
        self._is_ending = False
        self._answered = 0
        self._since = inf  # the time of the last reply
        self._silence: float | None = None  # None before the mark

    @property
    def connection_logs(self) -> list[ConnectionLog]:
        return [client.log for client in self._clients]

    def mark(self) -> None:
        """Set the mark: requests sent until now come before it."""
        for client in self._clients:
            client.mark()
        self._silence = 0.0

    def end(self) -> None:
        """Stop sending. May be called again."""
        if not self._is_ending:
            self._is_ending = True
            for client in self._clients:
                if client.end == "open":
                    client.finish()

    def advance(self, selector: selectors.BaseSelector) -> bool:
        """Receive and send on every connection; return whether any is still open."""
        for client in self._clients:
            if client.end == "open":
                client.advance(more=not self._is_ending)
                if client.end != "open":
                    selector.unregister(client.socket)
        answered = sum(log.answered for log in self.connection_logs)
        if answered > self._answered:
            now = time.monotonic()
            if self._silence is not None:
                self._silence = max(self._silence, now - self._since)
            self._answered, self._since = answered, now
        return any(client.end == "open" for client in self._clients)

    def register(self, selector: selectors.BaseSelector) -> None:
        for client in self._clients:
            selector.register(client.socket, selectors.EVENT_READ)

    def account(self) -> Account:
        """Return the totals over all connections."""
        logs = self.connection_logs
        return Account(
            connections=len(logs),
            served=sum(log.was_served for log in logs),
            sent=sum(log.sent for log in logs),
            answered=sum(log.answered for log in logs),
            lost=sum(log.lost for log in logs),
            wrong=dict(sum((log.wrong for log in logs), Counter())),
            ends=dict(Counter(client.end for client in self._clients)),
            silence=self._silence or 0.0,
        )


def run(
    log: RequestLog, commands: int, say: Callable[[Message], object], seconds: float, *, requests: int = 0
) -> Account:
    """Send requests and check replies until all connections have ended.

    Args:
        commands: a descriptor with the messages `Mark` and `End`. The end of the file is an `End`.
        say: called with `Begun` and `Marked`.
        seconds: timeout; replies that are still due then count as missing.
        requests: say `Begun` only after this number of replies.
    """
    deadline = time.monotonic() + seconds
    served_by = time.monotonic() + 1.0  # a connection without a reply until then is in the backlog
    has_begun = False
    inbox = Inbox(commands, Mark, End)
    with selectors.DefaultSelector() as selector:
        log.register(selector)
        selector.register(inbox, selectors.EVENT_READ)
        while log.advance(selector) and time.monotonic() < deadline:
            if not has_begun:
                answered = [each.answered for each in log.connection_logs]
                is_served = all(answered) or (any(answered) and time.monotonic() > served_by)
                if is_served and sum(answered) >= requests:
                    has_begun = True
                    say(Begun())
            for key, _ in selector.select(0.05):
                if key.fileobj is not inbox:
                    continue
                received = inbox.receive()
                if received is None:
                    selector.unregister(inbox)
                for message in [End()] if received is None else received:
                    if isinstance(message, Mark):
                        log.mark()
                        say(Marked())
                    else:
                        log.end()
                        deadline = min(deadline, time.monotonic() + _END_SECONDS)
    return log.account()


@click.command(help=__doc__)
@click.argument("address")
@click.option("--connections", default=8)
@click.option("--seed", default=1)
@click.option("--seconds", default=60.0, help="timeout")
@click.option("--requests", default=0, help="say Begun after this number of replies")
def main(address: str, connections: int, seed: int, seconds: float, requests: int) -> None:
    """Exit with code 2 if a connection cannot be opened."""
    opened: list[BlockingConnection] = []
    try:
        for _ in range(connections):
            opened.append(BlockingConnection(Address.parse(address), timeout=10))
        log = RequestLog(opened, seed)
        say(run(log, sys.stdin.fileno(), say, seconds, requests=requests))
    except SocketsError as error:
        print(f"request log: {error}", file=sys.stderr)
        sys.exit(2)
    finally:
        for connection in opened:
            connection.close()


if __name__ == "__main__":
    main()
