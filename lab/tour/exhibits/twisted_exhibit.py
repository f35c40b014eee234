"""An event loop with protocols on it, fifteen years before asyncio: callbacks of one reactor, and deferred results.

Python 2: twisted.internet
Python 3: twisted.internet
Gone since: -
Use instead: Twisted still where its protocols are used (SSH, DNS, IMAP); asyncio for a new program of one's own
Servers: twisted_reactor
"""

import threading
from typing import Any

from twisted.internet import reactor as the_reactor
from twisted.internet.defer import Deferred
from twisted.internet.endpoints import TCP4ClientEndpoint, connectProtocol
from twisted.internet.protocol import Protocol
from twisted.internet.threads import blockingCallFromThread
from twisted.python.failure import Failure

from lab.tour.faulty import UNKNOWN_HOST, Failures, breaking_off

reactor: Any = the_reactor  # a module that turns into an object when it is imported


class Conversation(Protocol):
    """Says something, hears all that comes, and gives it when the connection ends."""

    transport: Any

    def __init__(self, words: bytes) -> None:
        self.words = words
        self.heard = b""
        self.done: Deferred[bytes] = Deferred()

    def connectionMade(self) -> None:
        self.transport.write(self.words)

    def dataReceived(self, data: bytes) -> None:
        self.heard += data

    def connectionLost(self, reason: Failure = Failure(Exception())) -> None:  # noqa: B008 - as Twisted has it
        # A close in good order is reported as ConnectionDone; everything else is a failure of the result.
        self.done.callback(self.heard) if self.heard.endswith(b"\r\n") else self.done.errback(reason)


def converse(host: str, port: int, words: bytes) -> bytes:
    """A conversation from outside of the reactor's thread, which is the only one that may touch a protocol."""

    def start() -> "Deferred[bytes]":
        protocol = Conversation(words)
        endpoint = TCP4ClientEndpoint(reactor, host, port, timeout=10)
        return connectProtocol(endpoint, protocol).addCallback(lambda _: protocol.done)

    result: bytes = blockingCallFromThread(reactor, start)
    return result


def visit() -> None:
    # A reactor runs once in the life of a process, usually in its main thread, until the program ends.
    threading.Thread(target=reactor.run, kwargs={"installSignalHandlers": False}, daemon=True).start()
    print("greet:  ", converse("twisted_reactor", 1234, b""))
    print("command:", converse("twisted_reactor", 6379, b"PING\r\nECHO deferred\r\nQUIT\r\n"))


def failures() -> Failures:
    yield "unknown host", lambda: converse(UNKNOWN_HOST, 7, b"")
    yield "nobody listens", lambda: converse("twisted_reactor", 9999, b"")
    with breaking_off(b"half a li") as port:
        yield "server gone in mid-transfer", lambda: converse("127.0.0.1", port, b"")
    reactor.callFromThread(reactor.stop)
