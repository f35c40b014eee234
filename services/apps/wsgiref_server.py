"""The standard library's `wsgiref.simple_server`: one request after the other, and HTTP/1.0, a connection for each."""

import signal
import sys
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer, make_server

from services.apps.wsgi import application

PORT = 8080


class Handler(WSGIRequestHandler):
    """Without a line of log per request, as the other servers run."""

    def log_message(self, *args: object) -> None:
        """Log nothing."""


class Server(WSGIServer):
    """With a backlog as the other servers have; the library's is 5."""

    request_queue_size = 1024


def main() -> None:
    """Serve until SIGTERM."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    with make_server("", PORT, application, Server, Handler) as server:
        server.serve_forever()


if __name__ == "__main__":
    main()
