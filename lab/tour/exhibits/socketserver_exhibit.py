"""Servers of the standard library: a handler class for one conversation, and a server class that decides who waits.

Python 2: SocketServer
Python 3: socketserver
Gone since: -
Use instead: socketserver still for a few clients; asyncio for thousands of them
Servers: socketserver_sequential, socketserver_threading
"""

import socket
import socketserver
import threading

from lab.tour.faulty import Failures


class Shout(socketserver.StreamRequestHandler):
    """Sends each line back in capitals."""

    timeout = 10  # without it, a client that says nothing keeps its thread for ever

    def handle(self) -> None:
        for line in self.rfile:
            self.wfile.write(line.upper())


class Server(socketserver.ThreadingTCPServer):
    """A thread for each client. Without the mixin: one client at a time, and all others wait."""

    allow_reuse_address = True
    daemon_threads = True


def ask(host: str, port: int, line: bytes) -> bytes:
    """One line there, one back."""
    with socket.create_connection((host, port), timeout=10) as link, link.makefile("rwb") as stream:
        stream.write(line)
        stream.flush()
        return stream.readline()


def visit() -> None:
    with Server(("127.0.0.1", 0), Shout) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        print("a server of our own:", ask(*server.server_address[:2], b"who is there?\n"))
        server.shutdown()
        thread.join()

    for model in ("socketserver_sequential", "socketserver_threading"):
        with socket.create_connection((model, 6379), timeout=10) as first:  # is served, and keeps silent
            try:
                with socket.create_connection((model, 6379), timeout=1) as second:
                    second.sendall(b"PING\r\n")
                    print(f"{model}: the second client hears {second.recv(100)!r} while the first says nothing")
            except TimeoutError:
                print(f"{model}: the second client waits until the first has gone")
            first.sendall(b"QUIT\r\n")


def failures() -> Failures:
    with Server(("127.0.0.1", 0), Shout) as server:
        yield "the address is in use", lambda: socketserver.TCPServer(server.server_address, Shout)
    yield "a host that is not ours", lambda: Server(("192.0.2.1", 0), Shout)  # an address for documentation, RFC 5737
