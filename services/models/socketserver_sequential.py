"""The library's servers without a mixin: one client at a time.

Unit of concurrency: none. `TCPServer.process_request` runs the handler to its end before it returns to the loop.
What blocks whom: all clients wait for the current one; the library's documentation calls the server deaf.
What runs out first: the backlog, as with `plain_socket`. The library's defaults are five clients in the backlog
(`request_queue_size`) and 8192 bytes for a datagram (`max_packet_size`); this model sets both.

What each server inherits:

    BaseServer <- TCPServer <- UDPServer            (a TCPServer by inheritance only: it has no connections)
                  TCPServer <- UnixStreamServer     (address_family = AF_UNIX)
                               UDPServer <- UnixDatagramServer
"""

from socketserver import TCPServer, UDPServer, UnixDatagramServer, UnixStreamServer

from services.protocol import Transport
from services.serving.blocking import Drain
from services.serving.listeners import Listener
from services.serving.socketservers import make_server, serve_until

CLASSES: dict[Transport, type[TCPServer]] = {
    Transport.TCP: TCPServer,
    Transport.UDP: UDPServer,
    Transport.UNIX: UnixStreamServer,
    Transport.UNIXGRAM: UnixDatagramServer,
}


def serve(listeners: list[Listener]) -> None:
    """Serve until a stop signal.

    Raises:
        SystemExit: with code 1, if a conversation was still going when the grace period ended.
    """
    stop = Drain(listeners)
    servers = [
        (listener, make_server(listener, CLASSES, stop.serve_stream, stop.serve_datagram)) for listener in listeners
    ]
    serve_until(stop, servers)
    for _, server in servers:
        server.server_close()
    stop.close()
