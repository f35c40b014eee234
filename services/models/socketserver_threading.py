"""The library's servers with `ThreadingMixIn`: a thread for each client.

Unit of concurrency: a thread, which starts with a client and ends with it; a datagram gets one too.
What blocks whom: waiting blocks no client, since a thread that waits for the network or sleeps has released the GIL.
Computing delays all: one thread at a time runs Python, and it releases the GIL every 5 ms (`sys.getswitchinterval`).
What runs out first: the number of threads (`pids_limit`), then memory for their stacks. The mixin itself has no limit;
this model stops accepting at `LAB_MAX_CONNECTIONS`, and clients wait in the backlog.

What each server inherits: `ThreadingMixIn` stands before one of the library's four servers and replaces its
`process_request`, which starts a thread, and `server_close`, which joins them all unless `block_on_close` is off.
"""

from socketserver import BaseServer, TCPServer, ThreadingMixIn, UDPServer, UnixDatagramServer, UnixStreamServer
from typing import Any

from services.protocol import Transport
from services.serving.blocking import Conversations, StopSignal
from services.serving.closing import stop_accepting
from services.serving.listeners import Listener
from services.serving.socketservers import make_server, serve_until


class CountedMixIn(ThreadingMixIn, BaseServer):
    """Counts a client from before its thread starts until its socket is closed."""

    # `server_close` would join each thread, also one that could not be started. A drain waits for the conversations.
    block_on_close = False
    conversations: Conversations

    def process_request(self, request: Any, client_address: Any) -> None:
        self.conversations.begin()
        try:
            super().process_request(request, client_address)
        except BaseException:
            self.conversations.end()  # no thread was started that could
            raise

    def process_request_thread(self, request: Any, client_address: Any) -> None:
        try:
            super().process_request_thread(request, client_address)
        finally:
            self.conversations.end()


class ThreadingTCPServer(CountedMixIn, TCPServer):
    """A thread for each connection."""


class ThreadingUDPServer(CountedMixIn, UDPServer):
    """A thread for each datagram."""


class ThreadingUnixStreamServer(CountedMixIn, UnixStreamServer):
    """A thread for each connection."""


class ThreadingUnixDatagramServer(CountedMixIn, UnixDatagramServer):
    """A thread for each datagram."""


CLASSES: dict[Transport, type[TCPServer]] = {
    Transport.TCP: ThreadingTCPServer,
    Transport.UDP: ThreadingUDPServer,
    Transport.UNIX: ThreadingUnixStreamServer,
    Transport.UNIXGRAM: ThreadingUnixDatagramServer,
}


def serve(listeners: list[Listener]) -> None:
    """Serve until a stop signal.

    Raises:
        SystemExit: with code 1, if conversations were still going when the grace period ended.
    """
    limits = listeners[0].limits
    stop = StopSignal()
    conversations = Conversations()
    servers = []
    for listener in listeners:
        server = make_server(listener, CLASSES, conversations.serve_stream, conversations.serve_datagram)
        server.conversations = conversations  # type: ignore[attr-defined]  # CountedMixIn's
        servers.append((listener, server))
    serve_until(stop, servers, has_room=lambda: len(conversations) < limits.connections)
    stop_accepting(listeners)
    if not conversations.drain(limits.grace):
        raise SystemExit(1)
    for _, server in servers:
        server.server_close()
    stop.close()
