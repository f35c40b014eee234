"""What the three socketserver models share: the handlers, and a loop over several of the library's servers.

The library's own loop, `serve_forever`, watches one socket. A model has eighteen, and a thread for each loop would make
even the sequential model serve eighteen clients at a time. So one loop watches them all and takes the documented steps
of `BaseServer.handle_request`: `get_request`, `verify_request`, `process_request`.
"""

import logging
import selectors
import socket
import time
from collections.abc import Callable, Sequence
from socketserver import BaseRequestHandler, TCPServer

from services.blocking import StopSignal, serve_datagram
from services.listeners import ACCEPT_PAUSE, RECEIVE_SIZE, Listener
from services.protocol import Transport

log = logging.getLogger("services")

ServeStream = Callable[[Listener, socket.socket, object], None]
ServeDatagram = Callable[[Listener, bytes, object], None]


def stream_handler(listener: Listener, serve_stream: ServeStream) -> type[BaseRequestHandler]:
    """A handler class, as the library wants one: it is made anew for each connection and does its work in `handle`."""

    class StreamHandler(BaseRequestHandler):
        def handle(self) -> None:
            serve_stream(listener, self.request, self.client_address)

    return StreamHandler


def datagram_handler(listener: Listener, serve: ServeDatagram = serve_datagram) -> type[BaseRequestHandler]:
    """The same for datagrams, where a request is the pair of data and socket."""

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
    """One of the library's four servers, around a socket that is bound and listens already."""
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
    """Serve what comes to any of the servers until the stop signal.

    While `has_room` says no, nothing is accepted: clients wait in the backlog.
    """
    with selectors.DefaultSelector() as everything, selectors.DefaultSelector() as signals_only:
        for listener, server in servers:
            everything.register(server, selectors.EVENT_READ, (listener, server))
        for selector in (everything, signals_only):
            selector.register(stop, selectors.EVENT_READ, None)
        while not stop.is_set:
            room = has_room()
            for key, _ in (everything if room else signals_only).select(None if room else ACCEPT_PAUSE):
                if key.data is None:
                    stop.clear()
                elif not stop.is_set and has_room():
                    _serve_one(*key.data)
            for _, server in servers:
                server.service_actions()  # where ForkingMixIn collects its dead children


def _serve_one(listener: Listener, server: TCPServer) -> None:
    try:
        request, client_address = server.get_request()
    except BlockingIOError:
        return
    except OSError as error:
        # `handle_request` returns here without a word, and a loop around it then spins for as long as there is no
        # descriptor to be had.
        time.sleep(listener.accept_failed(error))
        return
    try:
        if server.verify_request(request, client_address):
            server.process_request(request, client_address)
            return
    except (OSError, RuntimeError) as error:  # no new process, or no new thread
        log.warning("%s: no way to serve one more client: %s", listener.address, error)
        time.sleep(ACCEPT_PAUSE)
    except Exception:
        server.handle_error(request, client_address)  # the library's step: it writes the traceback to stderr
    server.shutdown_request(request)
