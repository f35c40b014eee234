"""Twisted: protocols whose methods the reactor calls, all in one thread.

Unit of concurrency: a protocol object. There is no coroutine to suspend: what has to be remembered between two calls
is an attribute, and waiting is `callLater`.
What blocks whom: waiting blocks nobody. Computing blocks everyone: while one method runs, the reactor calls no other.
What runs out first: the one core that the reactor has. Without descriptors to accept with, Twisted by itself accepts
with one that it keeps in reserve, and closes; here clients stay in the backlog, as with the other models (`Gate`).
"""

import errno
import logging
import signal
import socket
from dataclasses import replace
from typing import Any, cast

from twisted.internet import reactor as _reactor
from twisted.internet.defer import Deferred
from twisted.internet.error import ConnectionDone
from twisted.internet.interfaces import IHalfCloseableProtocol, IPushProducer, IReadDescriptor
from twisted.internet.protocol import Factory, Protocol
from twisted.logger import STDLibLogObserver, globalLogBeginner
from twisted.protocols.policies import TimeoutMixin
from twisted.python.failure import Failure
from zope.interface import implementer

from services.protocol import Close, Compute, DatagramConnection, Send, Wait
from services.serving.accepting import LOOK_AFTER
from services.serving.idle import LOOKS, IdleWatch
from services.serving.isolation import isolated
from services.serving.listeners import Accepted, Listener, arrived
from services.serving.signals import stop_signals

log = logging.getLogger("services")

LIBRARIES = ("twisted",)
# Twisted accepts by itself, and does so above the limit too: there is nothing left but to refuse.
WHEN_FULL = "refuse"

# A pipeline that asks for one computation after the other never fills the transport's buffer. After so many events in
# a row it is the other clients' turn.
_TURN = 4

# The reactor is a module attribute whose interfaces depend on the platform; no type describes it.
reactor = cast(Any, _reactor)


def event_loop() -> str:
    """What turns, for the server's first line."""
    return f"{type(reactor).__module__}.{type(reactor).__qualname__}"


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
        signal.signal(number, lambda *_: reactor.callFromThread(server.stop))
    reactor.callWhenRunning(server.start)
    reactor.addSystemEventTrigger("before", "shutdown", server.drain)
    reactor.run(installSignalHandlers=False)
    if server.cut:
        raise SystemExit(1)


class Server:
    """The conversations of the reactor."""

    def __init__(self, listeners: list[Listener]) -> None:
        self._listeners = listeners
        self.limits = listeners[0].limits
        self.streams: set[StreamProtocol] = set()
        self.datagrams = 0
        self.cut = False
        self._ports: list[Any] = []
        self._readers: list[DatagramReader] = []
        self._is_stopping = False
        self._drained: Deferred[None] | None = None
        self._deadline: Any = None  # an IDelayedCall

    @property
    def is_full(self) -> bool:
        """Whether the number of conversations is at the limit."""
        return len(self.streams) + self.datagrams >= self.limits.connections

    @property
    def is_draining(self) -> bool:
        """Whether the server is about to stop."""
        return self._drained is not None

    def start(self) -> None:
        """Give the sockets to the reactor."""
        for listener in self._listeners:
            if listener.is_datagram:
                self._readers.append(DatagramReader(self, listener))
                reactor.addReader(self._readers[-1])
            else:
                factory = StreamFactory(self, listener)
                port = reactor.adoptStreamPort(listener.socket.fileno(), listener.socket.family, factory)
                listener.socket.close()  # the reactor has made a copy, and is to be the only one who listens
                port.socket = Gate(port, replace(listener, socket=port.socket))
                self._ports.append(port)

    def stop(self) -> None:
        """Stop the reactor; called once or more."""
        if not self._is_stopping:
            self._is_stopping = True
            reactor.stop()

    def drain(self) -> Deferred[None]:
        """Let every conversation answer what it has been asked; the reactor stops when the result fires."""
        self._drained = Deferred()
        self._listeners[0].shortage.forget()
        for port in self._ports:
            port.stopListening()
        for reader in self._readers:
            reactor.removeReader(reader)
        for stream in list(self.streams):
            stream.end_reading()
        self._deadline = reactor.callLater(self.limits.grace, self._cut_off)
        drained = self._drained
        self.one_less()
        return drained

    def one_less(self) -> None:
        """A conversation has ended; when draining, the last one ends the server."""
        if self._drained is not None and not self.streams and not self.datagrams:
            if self._deadline is not None and self._deadline.active():
                self._deadline.cancel()
            drained, self._drained = self._drained, None
            drained.callback(None)

    def _cut_off(self) -> None:
        count = len(self.streams) + self.datagrams
        log.warning("the grace period of %g s is over: %d conversations are cut off", self.limits.grace, count)
        self.cut = True
        self.datagrams = 0
        for stream in list(self.streams):
            stream.abort()
        self.one_less()


@implementer(IHalfCloseableProtocol, IPushProducer)
class StreamProtocol(Protocol, TimeoutMixin):
    """A client. It is the consumer of what the client sends, and the producer of the replies."""

    transport: Any  # ITCPTransport or the like; the interfaces do not tell that they are producers too

    def __init__(self, server: Server, listener: Listener) -> None:
        self._server = server
        self._listener = listener
        self._is_full = False  # the transport holds as many replies as it wants to
        self._is_waiting = False
        self._is_reading = True
        self._is_closing = False
        self._is_lingering = False
        self._peer_is_done = False
        self._idle = IdleWatch()

    @isolated
    def connectionMade(self) -> None:
        """A client has come."""
        if self._server.is_full:
            self.transport.write(self._listener.refusal())
            self.transport.loseConnection()
            self._is_closing = True
            return
        peer = self.transport.getPeer()
        name = (peer.host, peer.port) if hasattr(peer, "port") else peer.name
        self._connection = self._listener.connection(name)
        self._server.streams.add(self)
        # The transport calls pauseProducing when its buffer is above 64 KiB, resumeProducing when it is empty.
        self.transport.registerProducer(self, True)
        self._watch()
        if self._server.is_draining:
            self.end_reading()
        self._advance()

    def dataReceived(self, data: bytes) -> None:
        """The client has sent something."""
        if not self._is_closing:
            self._idle.news()
            self.resetTimeout()
            self._connection.receive_data(data)
            self._advance()

    def readConnectionLost(self) -> None:
        """The client has ended its half; it still gets its replies."""
        self._peer_is_done = True
        if self._is_closing:
            self.transport.loseConnection()
        else:
            self._connection.receive_eof()
            self._advance()

    def writeConnectionLost(self) -> None:
        """Our own half is closed; part of the interface."""

    def connectionLost(self, reason: Failure = Failure(ConnectionDone())) -> None:  # noqa: B008  # Twisted's signature
        """The connection is gone, for whatever reason."""
        self._is_closing = True
        self.setTimeout(None)
        self._server.streams.discard(self)
        self._server.one_less()

    def pauseProducing(self) -> None:
        """The client does not read as fast as we write."""
        self._is_full = True

    @isolated
    def resumeProducing(self) -> None:
        """The client has read what there was."""
        self._is_full = False
        self._idle.news()
        self.resetTimeout()
        self._advance()

    def stopProducing(self) -> None:
        """The transport is closing."""
        self._is_closing = True

    def timeoutConnection(self) -> None:
        """TimeoutMixin: nothing was heard for a part of the idle time; or the linger time is over."""
        if self._is_lingering:
            if self._idle.is_taking(*self._untaken()) and not self._server.is_draining:
                self.setTimeout(self._server.limits.linger)
                return
            self._is_lingering = False
        elif not self._idle.is_idle(*self._untaken()):
            self._watch()
            return
        elif self._is_closing:
            self.abort()  # what is still to be written nobody takes
            return
        else:
            log.info("closed a connection that was idle for %g s", self._server.limits.idle)
            self._is_closing = True
            self.transport.unregisterProducer()
        self.transport.loseConnection()  # which waits for what is still to be written
        self._watch()

    def end_reading(self) -> None:
        """Answer what has been asked, then close: the kernel gives what has arrived, then the end of the stream."""
        if not self._is_closing:
            self._connection.drain(arrived(self.transport.fileno()))
            self._shut_down(socket.SHUT_RD)

    def break_off(self) -> None:
        """Part of `Breakable`."""
        self.abort()

    def abort(self) -> None:
        """Close without any more stages."""
        self.transport.abortConnection()

    def _advance(self) -> None:
        left = _TURN
        while not (self._is_full or self._is_waiting or self._is_closing):
            match self._connection.next_event():
                case None:
                    self._read(True)
                    return
                case Send(data):
                    self.transport.write(data)
                case Wait(seconds):
                    self._continue_in(seconds)
                case Compute() as work:
                    self._connection.receive_digest(work.run())
                case Close():
                    self._close()
                    return
            left -= 1
            if not left and not self._is_waiting:
                self._continue_in(0)
        self._read(False)

    def _continue_in(self, seconds: float) -> None:
        self._is_waiting = True
        self.setTimeout(None)  # it is we who are quiet
        reactor.callLater(seconds, self._continue)

    @isolated
    def _continue(self) -> None:
        self._is_waiting = False
        if not self._is_closing:
            self._idle.news()
            self._watch()
            self._advance()

    def _read(self, wanted: bool) -> None:
        """Have the reactor read from the client, or not: nothing is read while replies are to be sent."""
        if wanted != self._is_reading and not self._peer_is_done:
            self._is_reading = wanted
            if wanted:
                self.transport.resumeProducing()
            else:
                self.transport.pauseProducing()

    def _close(self) -> None:
        self._is_closing = True
        self.transport.unregisterProducer()
        if self._peer_is_done:
            self.transport.loseConnection()
        else:
            # In stages: end our half, then read what still comes, so that no reset overtakes the last reply.
            self._read(True)
            self.transport.loseWriteConnection()
            self._is_lingering = True
            self._idle.is_taking(*self._untaken())  # what it takes from now on
            self.setTimeout(self._server.limits.linger)

    def _watch(self) -> None:
        """Look at the connection a part of the idle time from now; `resetTimeout` puts it off."""
        self.setTimeout(self._server.limits.idle / (LOOKS + 1))

    def _untaken(self) -> tuple[int, int]:
        """What an `IdleWatch` looks at."""
        return self.transport.fileno(), len(self.transport.dataBuffer) - self.transport.offset

    def _shut_down(self, how: int) -> None:
        try:
            self.transport.getHandle().shutdown(how)
        except OSError as error:
            log.debug("the peer is gone: %s", error.strerror)


class Gate:
    """A port's listening socket. When there is nothing left to accept with, it says that nobody is there, and waits."""

    def __init__(self, port: Any, listener: Listener) -> None:
        self._port = port
        self._listener = listener

    def __getattr__(self, name: str) -> Any:
        return getattr(self._listener.socket, name)

    def accept(self) -> Accepted:
        """Accept a connection.

        Raises:
            BlockingIOError: there is none, or it cannot be accepted; the port ends its turn.
        """
        if accepted := self._listener.accept():
            return accepted
        if pause := self._listener.shortage.pause:
            self._port.stopReading()
            reactor.callLater(pause, self._accept_again)
            reactor.callLater(LOOK_AFTER, self._listener.shortage.look)
        raise BlockingIOError(errno.EAGAIN, "nothing to accept")

    def _accept_again(self) -> None:
        if self._port.connected and not self._port.disconnecting:
            self._port.startReading()
            self._port.doRead()


class StreamFactory(Factory):
    """Makes a protocol for each client of one listener."""

    noisy = False

    def __init__(self, server: Server, listener: Listener) -> None:
        self._server = server
        self._listener = listener

    def buildProtocol(self, addr: object) -> StreamProtocol:
        """A client is about to come."""
        return StreamProtocol(self._server, self._listener)


@implementer(IReadDescriptor)
class DatagramReader:
    """A datagram socket as the reactor wants a thing to read from.

    `adoptDatagramPort` takes UDP sockets but no Unix datagram sockets; this takes both.
    """

    def __init__(self, server: Server, listener: Listener) -> None:
        self._server = server
        self._listener = listener

    def fileno(self) -> int:
        """The socket's descriptor."""
        return self._listener.socket.fileno()

    def logPrefix(self) -> str:
        """Part of the interface."""
        return "datagrams"

    def connectionLost(self, reason: Failure) -> None:
        """Part of the interface; a datagram socket has no connection to lose."""

    def doRead(self) -> None:
        """There is a datagram."""
        if (received := self._listener.receive()) and not self._server.is_full:
            data, peer = received
            self._server.datagrams += 1
            self._advance(self._listener.datagram(data, peer), peer)

    def _advance(self, connection: DatagramConnection, peer: object) -> None:
        seconds = self._listener.answer(connection, peer)
        if seconds is None:
            self._server.datagrams -= 1
            self._server.one_less()
        else:
            reactor.callLater(seconds, self._advance, connection, peer)
