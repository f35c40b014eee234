"""Servers of the standard library: a handler class for one conversation, a server class for the concurrency.

Python 2: SocketServer
Python 3: socketserver
Gone since: -
Use instead: still socketserver for a few clients; asyncio for thousands
Servers: socketserver_sequential, socketserver_threading
"""

import socket
import socketserver
import threading

from lab.tour.faulty import Failures


class Shout(socketserver.StreamRequestHandler):
    """Send each line back in capitals."""

    timeout = 10  # without it, a silent client keeps its thread for ever

    def handle(self) -> None:
        for line in self.rfile:
            self.wfile.write(line.upper())


class Server(socketserver.ThreadingTCPServer):
    """A thread for each client. A TCPServer without the mixin serves one client at a time."""

    allow_reuse_address = True
    daemon_threads = True


def ask(host: str, port: int, line: bytes) -> bytes:
    """Send a line and return the reply."""
    with socket.create_connection((host, port), timeout=10) as link, link.makefile("rwb") as stream:
        stream.write(line)
        stream.flush()
        return stream.readline()


def visit() -> None:
    with Server(("127.0.0.1", 0), Shout) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        print("a server of its own:", ask(*server.server_address[:2], b"is it on?\n"))
        server.shutdown()
        thread.join()

    for model in ("socketserver_sequential", "socketserver_threading"):
        with socket.create_connection((model, 6379), timeout=10) as first:  # is served, and stays silent
            try:
                with socket.create_connection((model, 6379), timeout=1) as second:
                    second.sendall(b"PING\r\n")
                    print(f"{model}: the second client gets {second.recv(100)!r} while the first is silent")
            except TimeoutError:
                print(f"{model}: the second client waits until the first disconnects")
            first.sendall(b"QUIT\r\n")


def failures() -> Failures:
    with Server(("127.0.0.1", 0), Shout) as server:
        yield "address in use", lambda: socketserver.TCPServer(server.server_address, Shout)
    yield "address of another machine", lambda: Server(("192.0.2.1", 0), Shout)  # reserved for documentation, RFC 5737
