"""What the three socketserver models share: the handlers, and a loop over several of the library's servers.

The library's own loop, `serve_forever`, watches one socket. A model has eighteen, and a thread for each loop would make
even the sequential model serve eighteen clients at a time. So one loop watches them all and takes the documented steps
of `BaseServer.handle_request`: `get_request`, `verify_request`, `process_request`. Where that would call `accept`, the
listener does, as in all models.
"""

import selectors
import socket
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from socketserver import BaseRequestHandler, TCPServer
from typing import Any

from services.protocol import Transport
from services.serving.accepting import FIRST_PAUSE
from services.serving.blocking import StopSignal, serve_datagram
from services.serving.listeners import RECEIVE_SIZE, Listener

ServeStream = Callable[[Listener, socket.socket, object], None]
ServeDatagram = Callable[[Listener, bytes, object], None]


def stream_handler(listener: Listener, serve_stream: ServeStream) -> type[BaseRequestHandler]:
    """Return a handler class for the library, which makes an instance for each connection and calls its `handle`."""

    class StreamHandler(BaseRequestHandler):
        def handle(self) -> None:
            serve_stream(listener, self.request, self.client_address)

    return StreamHandler


def datagram_handler(listener: Listener, serve: ServeDatagram = serve_datagram) -> type[BaseRequestHandler]:
    """Return a handler class for datagrams, whose request is the pair of data and socket."""

    class DatagramHandler(BaseRequestHandler):
        def handle(self) -> None:
            data, _ = self.request
            serve(listener, data, self.client_address)

    return DatagramHandler


def make_server(
    listener: Listener,
    classes: dict[Transport, type[TCPServer]],
    serve_stream: ServeStream,
    serve: ServeDatagram = serve_datagram,
) -> TCPServer:
    """Wrap a socket that is bound and listens already in one of the library's four servers."""
    handler = datagram_handler(listener, serve) if listener.is_datagram else stream_handler(listener, serve_stream)
    server = classes[listener.address.transport.carrier](
        listener.socket.getsockname(), handler, bind_and_activate=False
    )
    server.socket.close()  # the one it made for itself
    server.socket = listener.socket
    # The library's 8192 would cut longer datagrams short, without a word. Only UDPServer looks at it.
    setattr(server, "max_packet_size", RECEIVE_SIZE)  # noqa: B010  # typeshed calls it a class variable
    return server


def serve_until(
    stop: StopSignal, servers: Sequence[tuple[Listener, TCPServer]], has_room: Callable[[], bool] = lambda: True
) -> None:
    """Serve the clients of all these servers until the stop signal.

    Nothing is accepted while `has_room` returns False, or while an accepted client waits for a process or a thread that
    cannot be started yet. Clients then wait in the backlog.
    """
    shortage = servers[0][0].shortage
    kept: Request | None = None
    with selectors.DefaultSelector() as everything, selectors.DefaultSelector() as signals_only:
        for listener, server in servers:
            everything.register(server, selectors.EVENT_READ, (listener, server))
        for selector in (everything, signals_only):
            selector.register(stop, selectors.EVENT_READ, None)
        while not stop.is_set:
            if kept and kept.process():
                kept = None
            if shortage.pause:
                ready = signals_only.select(shortage.pause)
                shortage.pause = 0.0
            elif has_room():
                ready = shortage.select(everything)
            else:
                ready = signals_only.select(FIRST_PAUSE)
            for key, _ in ready:
                if key.data is None:
                    stop.clear()
                elif not stop.is_set and not kept and not shortage.pause and has_room():
                    request = _accept(*key.data)
                    if request and not request.process():
                        kept = request
            for _, server in servers:
                server.service_actions()  # where ForkingMixIn collects its dead children
    if kept:
        kept.server.shutdown_request(kept.request)


@dataclass(frozen=True, slots=True)
class Request:
    """A client or a datagram that was accepted and has not been served."""

    listener: Listener
    server: TCPServer
    request: Any
    client_address: Any

    def process(self) -> bool:
        """Serve it; return False if that has to be tried again, for lack of a process or a thread."""
        try:
            if self.server.verify_request(self.request, self.client_address):
                self.server.process_request(self.request, self.client_address)
                self.listener.shortage.look()
                return True
        except (OSError, RuntimeError) as error:  # no new process, or no new thread
            self.listener.shortage.failed(f"no process or thread for a client of {self.listener.address}: {error}")
            return False
        except Exception:
            # As the library does: the traceback goes to stderr, and the server on to the next client.
            self.server.handle_error(self.request, self.client_address)
        self.server.shutdown_request(self.request)
        return True


def _accept(listener: Listener, server: TCPServer) -> Request | None:
    """Take a request, as `handle_request` does, which however hides that there is no descriptor."""
    if listener.is_datagram:
        try:
            return Request(listener, server, *server.get_request())
        except BlockingIOError:
            return None
    accepted = listener.accept()
    return Request(listener, server, *accepted) if accepted else None
