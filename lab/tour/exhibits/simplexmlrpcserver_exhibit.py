"""A server of procedures in ten lines: functions are registered by name, and any client can call them.

Python 2: SimpleXMLRPCServer
Python 3: xmlrpc.server
Gone since: -
Use instead: xmlrpc.server on a private network; FastAPI or another HTTP framework for the public
Servers: gallery_xmlrpc
"""

import threading
from socketserver import ThreadingMixIn
from xmlrpc.client import ServerProxy
from xmlrpc.server import SimpleXMLRPCRequestHandler, SimpleXMLRPCServer

from lab.tour.faulty import Failures


class Handler(SimpleXMLRPCRequestHandler):
    """Serve one path, and disconnect a client that is silent for ten seconds."""

    rpc_paths = ("/RPC2",)
    timeout = 10


class Server(ThreadingMixIn, SimpleXMLRPCServer):
    """A thread for each client: without the mixin, one slow client blocks all others."""

    daemon_threads = True


class Accounts:
    """An object whose methods are all offered, except those that begin with an underscore."""

    def __init__(self) -> None:
        self.balance = 0

    def deposit(self, amount: int) -> int:
        """Pay in and return the new balance."""
        self.balance += amount
        return self.balance

    def _audit(self) -> str:
        return "not offered"


def start() -> Server:
    """Start a server in a thread."""
    server = Server(("127.0.0.1", 0), Handler, logRequests=False, allow_none=True)
    server.register_introspection_functions()
    server.register_multicall_functions()
    server.register_function(pow)
    server.register_instance(Accounts())  # never with allow_dotted_names, which exposes the whole process
    threading.Thread(target=server.serve_forever, daemon=True).start()
    return server


def visit() -> None:
    with start() as server, ServerProxy(f"http://127.0.0.1:{server.server_address[1]}/RPC2") as ours:
        print("ours offers:   ", ours.system.listMethods())
        print("a function:    ", ours.pow(2, 10))
        print("an object:     ", ours.deposit(5), ours.deposit(7), ours.system.methodHelp("deposit"))
        server.shutdown()
    with ServerProxy("http://gallery_xmlrpc:8000/RPC2") as other:
        print("gallery offers:", other.system.listMethods())


def failures() -> Failures:
    with start() as server:
        port = server.server_address[1]
        proxy = ServerProxy(f"http://127.0.0.1:{port}/RPC2")
        yield "private method", lambda: proxy._audit()
        yield "exception in the procedure", lambda: proxy.pow("two", 10)
        yield "unknown path", lambda: ServerProxy(f"http://127.0.0.1:{port}/other").deposit(1)
        yield "address in use", lambda: Server(("127.0.0.1", port))
        server.shutdown()
