"""The gallery's XML-RPC server: xmlrpc.server, a thread for each client.

What it reads comes from strangers: defusedxml refuses entities, which a parser would unfold to any size, and a request
has a largest size.
"""

import signal
from collections.abc import Callable
from datetime import UTC, datetime
from socketserver import ThreadingMixIn
from typing import Any
from xmlrpc.client import Binary, DateTime, Fault
from xmlrpc.server import SimpleXMLRPCRequestHandler, SimpleXMLRPCServer

from defusedxml.xmlrpc import monkey_patch

PORT = 8000
LARGEST = 1024 * 1024  # bytes of a request
DIVISION_BY_ZERO = 100  # the code of that fault


class Handler(SimpleXMLRPCRequestHandler):
    """One client at /RPC2, by HTTP/1.1: its connection is kept."""

    protocol_version = "HTTP/1.1"
    rpc_paths = ("/RPC2",)
    timeout = 60
    # The reply is two writes; Nagle would hold the second back until the client has acknowledged the first.
    disable_nagle_algorithm = True

    def do_POST(self) -> None:  # noqa: N802 - as http.server calls it
        length = self.headers.get("Content-Length", "")
        if not length.isdigit() or int(length) > LARGEST:
            # What was not read would be taken for the next request.
            self.close_connection = True
            self.send_error(413 if length.isdigit() else 411)
            return
        super().do_POST()


class Server(ThreadingMixIn, SimpleXMLRPCServer):
    """A thread for each client, none of which keeps the server from ending."""

    daemon_threads = True


def add(a: float, b: float) -> float:
    """The sum of two numbers."""
    return a + b


def divide(a: float, b: float) -> float:
    """a divided by b; a fault of our own where b is zero."""
    if b == 0:
        raise Fault(DIVISION_BY_ZERO, "division by zero")
    return a / b


def now() -> DateTime:
    """The time, in UTC."""
    return DateTime(datetime.now(UTC))


def reverse(data: Binary) -> Binary:
    """The bytes, last first."""
    return Binary(data.data[::-1])


FUNCTIONS: tuple[Callable[..., Any], ...] = (add, divide, now, reverse)


def main() -> None:
    """Serve until SIGTERM."""
    monkey_patch()
    with Server(("0.0.0.0", PORT), Handler, logRequests=False) as server:  # noqa: S104 - the lab's network is internal
        server.register_introspection_functions()
        server.register_multicall_functions()
        for function in FUNCTIONS:
            server.register_function(function)
        signal.signal(signal.SIGTERM, lambda *_: exit())
        print(f"XML-RPC at port {PORT}, path /RPC2", flush=True)
        server.serve_forever()


if __name__ == "__main__":
    main()
