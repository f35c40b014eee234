"""Twisted: protocols whose methods the reactor calls, all in one thread.

Unit of concurrency: a protocol object, without a coroutine. Its attributes keep the state between two calls, and it
waits with `callLater`.
What blocks whom: waiting blocks no client. Computing blocks all: while one method runs, the reactor calls no other.
What runs out first: the reactor's single core. Without free descriptors, Twisted's own policy is to accept with a
reserve descriptor and close; here clients stay in the backlog, as with the other models (`Gate`).
"""

import signal
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from functools import partial
from typing import Any, cast

from twisted.internet.defer import Deferred
from twisted.internet.error import ConnectionDone, ReactorNotRunning
from twisted.internet.interfaces import IHalfCloseableProtocol, IPushProducer
from twisted.internet.protocol import Factory, Protocol
from twisted.internet.task import deferLater
from twisted.logger import STDLibLogObserver, globalLogBeginner
from twisted.python.failure import Failure
from zope.interface import implementer

from services.protocol import Close, Compute, GiveWay, Send, StreamConversation, Wait
from services.serving.callbacks import Conversations, resume
from services.serving.closing import stop_reading
from services.serving.idle import IdleWatch
from services.serving.isolation import isolated
from services.serving.listeners import Listener
from services.serving.signals import stop_signals
from services.serving.states import CLOSED, READING, SENDING, WAITING, State
from services.serving.twisted_sockets import DatagramReader, Gate, reactor

LIBRARIES = ("twisted",)
# Twisted accepts by itself, and does so above the limit too: there is nothing left but to refuse.
WHEN_FULL = "refuse"

LOOP = type(reactor)


def serve(listeners: list[Listener]) -> None:
    """Serve until a stop signal.

    Raises:
        SystemExit: with code 1, if conversations were still going when the grace period ended.
    """
    globalLogBeginner.beginLoggingTo([cast(Any, STDLibLogObserver("services"))], redirectStandardIO=False)
    server = Server(listeners)
    # Not the reactor's own handlers: it sets them while it starts, and what a handler from before raises meanwhile is
    # logged and forgotten. callFromThread keeps the call until the reactor turns, and wakes it.
    for number in stop_signals():
        signal.signal(number, lambda *_: reactor.callFromThread(stop))
    reactor.callWhenRunning(server.start)
    reactor.addSystemEventTrigger("before", "shutdown", server.drain)
    reactor.run(installSignalHandlers=False)
    if server.was_cut:
        raise SystemExit(1)


def stop() -> None:
    """Stop the reactor; called once or more."""
    with suppress(ReactorNotRunning):
        reactor.stop()


class Server:
    """The conversations of the reactor."""

    def __init__(self, listeners: list[Listener]) -> None:
        self._listeners = listeners
        self.conversations = Conversations(listeners[0].limits, reactor.callLater, self._end_if_drained)
        self.was_cut = False
        self._stops: list[Callable[[], object]] = []  # one for each listening socket
        self._drained: Deferred[None] = Deferred()

    def start(self) -> None:
        """Give the sockets to the reactor."""
        for listener in self._listeners:
            if listener.is_datagram:
                reader = DatagramReader(self.conversations, listener)
                reader.startReading()
                self._stops.append(reader.stopReading)
            else:
                factory = Factory.forProtocol(cast(Any, partial(StreamProtocol, self.conversations, listener)))
                factory.noisy = False
                port = reactor.adoptStreamPort(listener.socket.fileno(), listener.socket.family, factory)
                listener.socket.close()  # the reactor has made a copy, and only this copy listens
                port.socket = Gate(port, replace(listener, socket=port.socket))
                self._stops.append(port.stopListening)

    def drain(self) -> Deferred[None]:
        """Let every conversation answer complete requests; the reactor stops when the result fires."""
        self._listeners[0].shortage.forget()
        for stop_listening in self._stops:
            stop_listening()
        self.conversations.drain()
        self._end_if_drained()
        return self._drained.addTimeout(self.conversations.limits.grace, reactor).addErrback(self._cut_off)

    def _end_if_drained(self) -> None:
        if self.conversations.is_draining and not self.conversations.count and not self._drained.called:
            self._drained.callback(None)

    def _cut_off(self, reason: Failure) -> Deferred[None]:
        self.was_cut = True
        self.conversations.cut_off()
        return deferLater(reactor, 0)  # when each connectionLost has been called


@implementer(IHalfCloseableProtocol, IPushProducer)
class StreamProtocol(Protocol):
    """A client. It is the consumer of what the client sends, and the producer of the replies."""

    transport: Any  # ITCPTransport or the like; the interfaces do not tell that they are producers too
    connection: StreamConversation

    def __init__(self, conversations: Conversations, listener: Listener) -> None:
        self._conversations = conversations
        self._listener = listener
        self.idle = IdleWatch()
        self.state: State = READING

    @isolated
    def connectionMade(self) -> None:
        if not self._conversations.begin(self):
            self.state = CLOSED
            self.transport.write(self._listener.refusal())
            self.transport.loseConnection()
            return
        peer = self.transport.getPeer()
        name = (peer.host, peer.port) if hasattr(peer, "port") else peer.name
        self.connection = self._listener.connection(name)
        # The transport calls pauseProducing when its buffer is above 64 KiB, resumeProducing when it is empty.
        self.transport.registerProducer(self, True)
        if self._conversations.is_draining:
            stop_reading(self.transport.fileno(), self.connection)
        self.advance()

    def dataReceived(self, data: bytes) -> None:
        self.idle.news()
        if self.state.is_open:
            self.connection.receive_data(data)
            self.advance()

    def readConnectionLost(self) -> None:
        """Note that the client has ended its half; it still gets its replies."""
        if self.state.is_open:
            self.connection.receive_eof()
            self.advance()
        else:
            self.transport.loseConnection()

    def writeConnectionLost(self) -> None:
        """Our own half is closed; part of the interface."""

    def connectionLost(self, reason: Failure = Failure(ConnectionDone())) -> None:  # noqa: B008  # Twisted's signature
        self.state = CLOSED
        if self in self._conversations.streams:  # and not one that was refused
            self._conversations.end(self)

    def pauseProducing(self) -> None:
        """Stop reading: the client takes less than it asks for."""
        self.state = SENDING

    @isolated
    def resumeProducing(self) -> None:
        """Continue: the client has taken everything."""
        self.idle.news()
        if self.state is SENDING:
            self.state = READING
            self.advance()

    def stopProducing(self) -> None:
        self.state = CLOSED

    def advance(self) -> None:
        while self.state is READING:
            match self.connection.next_event():
                case None:
                    self.transport.resumeProducing()
                    return
                case Send() as send:
                    self.transport.write(send.data)
                case Wait(seconds):
                    self.state = WAITING
                    reactor.callLater(seconds, resume, self)
                case GiveWay():
                    self.state = WAITING
                    reactor.callLater(0, resume, self)
                case Compute() as work:
                    self.connection.receive_digest(work.run())
                case Close(at_eof):
                    self._close_in_stages(at_eof)
                    return
        self.transport.pauseProducing()  # nothing is read while replies are to be sent

    def _close_in_stages(self, at_eof: bool) -> None:
        """End our half, then read what still comes, so that no reset overtakes the last reply."""
        if at_eof:
            self.close()
        else:
            self.transport.unregisterProducer()
            self.transport.resumeProducing()
            self.transport.loseWriteConnection()
            self._conversations.linger(self)

    def untaken(self) -> tuple[int, int]:
        return self.transport.fileno(), len(self.transport.dataBuffer) - self.transport.offset

    def close(self) -> None:
        """Close when what is left has been written. A second call does not wait for that: the client is idle."""
        if self.state is CLOSED:
            self.break_off()
        else:
            self.state = CLOSED
            self.transport.unregisterProducer()
            self.transport.loseConnection()

    def break_off(self) -> None:
        """Close the connection at once, whatever is left to send."""
        self.transport.abortConnection()
