"""The gallery's XML-RPC server: xmlrpc.server, a thread for each client.

Its input is not trusted: defusedxml refuses entities, which a parser would expand to any size, and the size of a
request is limited.
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
LARGEST = 1024 * 1024  # largest request, in bytes
DIVISION_BY_ZERO = 100  # a fault code of this server


class Handler(SimpleXMLRPCRequestHandler):
    """Serve /RPC2 over HTTP/1.1 with persistent connections."""

    protocol_version = "HTTP/1.1"
    rpc_paths = ("/RPC2",)
    timeout = 60
    # A reply is two writes; Nagle's algorithm delays the second until the client has acknowledged the first.
    disable_nagle_algorithm = True

    def do_POST(self) -> None:  # noqa: N802 - the name that http.server calls
        length = ",".join(self.headers.get_all("Content-Length", []))  # of several, none is believed
        # `isdigit` is true for a superscript, which is no number, and int() fails from 4300 digits on.
        # Chunks are not read, and of two lengths a proxy would believe the other one.
        is_number = length.isdecimal() and "Transfer-Encoding" not in self.headers
        if not is_number or len(length) > 19 or int(length) > LARGEST:
            # The unread body would be taken for the next request.
            self.close_connection = True
            self.send_error(413 if is_number else 411)
            return
        super().do_POST()


class Server(ThreadingMixIn, SimpleXMLRPCServer):
    """A thread for each client; no thread delays the exit."""

    daemon_threads = True


def add(a: float, b: float) -> float:
    """Return the sum of two numbers."""
    return a + b


def divide(a: float, b: float) -> float:
    """Return a divided by b, or a fault if b is zero."""
    if b == 0:
        raise Fault(DIVISION_BY_ZERO, "division by zero")
    return a / b


def now() -> DateTime:
    """Return the time in UTC."""
    return DateTime(datetime.now(UTC))


def reverse(data: Binary) -> Binary:
    """Return the bytes in reverse order."""
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
