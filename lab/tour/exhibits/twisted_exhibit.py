"""An event loop with protocols, fifteen years before asyncio: callbacks from one reactor, and deferred results.

Python 2: twisted.internet
Python 3: twisted.internet
Gone since: -
Use instead: still Twisted for its protocols (SSH, DNS, IMAP); asyncio for a new program
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

reactor: Any = the_reactor  # Twisted replaces this module by an object at import


class Conversation(Protocol):
    """Send a request, collect the reply, and deliver it when the connection ends."""

    transport: Any

    def __init__(self, request: bytes) -> None:
        self.request = request
        self.received = b""
        self.done: Deferred[bytes] = Deferred()

    def connectionMade(self) -> None:
        self.transport.write(self.request)

    def dataReceived(self, data: bytes) -> None:
        self.received += data

    def connectionLost(self, reason: Failure = Failure(Exception())) -> None:  # noqa: B008 - the signature of Twisted
        # `reason` is ConnectionDone after an orderly close too, so only the reply shows whether it is complete.
        self.done.callback(self.received) if self.received.endswith(b"\r\n") else self.done.errback(reason)


def converse(host: str, port: int, request: bytes) -> bytes:
    """Hold a conversation in the reactor's thread, the only one that may touch a protocol."""

    def start() -> "Deferred[bytes]":
        protocol = Conversation(request)
        endpoint = TCP4ClientEndpoint(reactor, host, port, timeout=10)
        return connectProtocol(endpoint, protocol).addCallback(lambda _: protocol.done)

    result: bytes = blockingCallFromThread(reactor, start)
    return result


def visit() -> None:
    # A reactor can run only once in a process. Usually it runs in the main thread until the program ends.
    threading.Thread(target=reactor.run, kwargs={"installSignalHandlers": False}, daemon=True).start()
    print("greet:  ", converse("twisted_reactor", 1234, b""))
    print("command:", converse("twisted_reactor", 6379, b"PING\r\nECHO deferred\r\nQUIT\r\n"))


def failures() -> Failures:
    yield "unknown host", lambda: converse(UNKNOWN_HOST, 7, b"")
    yield "closed port", lambda: converse("twisted_reactor", 9999, b"")
    with breaking_off(b"half a li") as port:
        yield "server closes in mid-transfer", lambda: converse("127.0.0.1", port, b"")
    reactor.callFromThread(reactor.stop)
