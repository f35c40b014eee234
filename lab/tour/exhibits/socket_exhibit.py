"""The textbook's client and server: bytes between two processes, and nothing on top.

Python 2: socket
Python 3: socket
Gone since: -
Use instead: socket still, wherever the bytes are your own; asyncio's streams for many connections in one program
Servers: plain_socket
"""

import socket
import threading

from lab.tour.faulty import SHORT, UNKNOWN_HOST, Failures, breaking_off, silent


def serve(listener: socket.socket) -> None:
    """The textbook's server, for one client: a greeting, and it closes."""
    client, _ = listener.accept()
    with client:
        client.sendall(b"Thank you for connecting\r\n")


def read_all(host: str, port: int) -> bytes:
    """The textbook's client, made whole: one recv() gives what has come, not what was sent. Only b"" is the end."""
    chunks = []
    with socket.create_connection((host, port), timeout=10) as link:
        while chunk := link.recv(1024):
            chunks.append(chunk)
    return b"".join(chunks)


def read_exactly(link: socket.socket, size: int) -> bytes:
    """What a client does that knows how much is to come."""
    data = b""
    while len(data) < size:
        chunk = link.recv(size - len(data))
        if not chunk:
            raise EOFError(f"the connection ended after {len(data)} of {size} bytes")
        data += chunk
    return data


def visit() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=serve, args=[listener])
        thread.start()
        print("a server of our own:", read_all(*listener.getsockname()))
        thread.join()

    print("a model of the lab: ", read_all("plain_socket", 1234))

    with socket.create_connection(("plain_socket", 7), timeout=10) as link:
        link.sendall(b"echo, " * 3)
        link.shutdown(socket.SHUT_WR)  # nothing more from here, and the answer still comes
        print("an echo:            ", read_exactly(link, 18), link.recv(1))


def failures() -> Failures:
    yield "unknown host", lambda: read_all(UNKNOWN_HOST, 7)
    yield "nobody listens", lambda: read_all("plain_socket", 9999)
    with breaking_off(b"hal") as port, socket.create_connection(("127.0.0.1", port)) as link:
        yield "server gone in mid-transfer", lambda: read_exactly(link, 4)
    with silent() as port, socket.create_connection(("127.0.0.1", port), timeout=SHORT) as link:
        yield "no answer in time", lambda: link.recv(1)
