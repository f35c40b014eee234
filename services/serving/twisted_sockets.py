"""Sockets for Twisted's reactor: a listening one that pauses, and one for datagrams of any kind."""

import errno
from typing import Any, cast

from twisted.internet import reactor as _reactor
from twisted.internet.abstract import FileDescriptor

from services.serving.callbacks import Conversations, retry_accept
from services.serving.listeners import Accepted, Listener

# The reactor is a module attribute whose interfaces depend on the platform; no type describes it.
reactor = cast(Any, _reactor)


class Gate:
    """A port's listening socket. While the process is exhausted, it returns no connection, and the port pauses.

    Twisted's own policy is to accept with a reserve descriptor, and to close the connection.
    """

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
        if retry_accept(self._listener.shortage, reactor.callLater, self._accept_again):
            self._port.stopReading()
        raise BlockingIOError(errno.EAGAIN, "nothing to accept")

    def _accept_again(self) -> None:
        if self._port.connected and not self._port.disconnecting:
            self._port.startReading()
            self._port.doRead()


class DatagramReader(FileDescriptor):
    """A datagram socket. `adoptDatagramPort` takes UDP sockets, but no Unix ones."""

    def __init__(self, conversations: Conversations, listener: Listener) -> None:
        super().__init__(reactor)
        self._conversations = conversations
        self._listener = listener

    def fileno(self) -> int:
        return self._listener.socket.fileno()

    def doRead(self) -> None:
        self._conversations.receive(self._listener)
