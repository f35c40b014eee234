"""The textbook's client and server: bytes between two processes, without a protocol on top.

Python 2: socket
Python 3: socket
Gone since: -
Use instead: still socket, for a protocol of your own; asyncio's streams for many connections in one program
Servers: plain_socket
"""

import socket
import threading

from lab.tour.faulty import SHORT, UNKNOWN_HOST, Failures, breaking_off, silent


def serve(listener: socket.socket) -> None:
    """Serve one client as the textbook does: send a greeting and close."""
    client, _ = listener.accept()
    with client:
        client.sendall(b"Thank you for connecting\r\n")


def read_all(host: str, port: int) -> bytes:
    """Read until the server closes. One recv() returns what has arrived, which may be less than what was sent."""
    chunks = []
    with socket.create_connection((host, port), timeout=10) as stream:
        while chunk := stream.recv(1024):
            chunks.append(chunk)
    return b"".join(chunks)


def read_exactly(stream: socket.socket, size: int) -> bytes:
    """Read a known number of bytes.

    Raises:
        EOFError: the server has closed before.
    """
    data = b""
    while len(data) < size:
        chunk = stream.recv(size - len(data))
        if not chunk:
            raise EOFError(f"the connection ended after {len(data)} of {size} bytes")
        data += chunk
    return data


def visit() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=serve, args=[listener])
        thread.start()
        print("a server of its own:", read_all(*listener.getsockname()))
        thread.join()

    print("a model of the lab: ", read_all("plain_socket", 1234))

    with socket.create_connection(("plain_socket", 7), timeout=10) as stream:
        stream.sendall(b"echo, " * 3)
        stream.shutdown(socket.SHUT_WR)  # closes one half: the reply still arrives
        print("an echo:            ", read_exactly(stream, 18), stream.recv(1))


def failures() -> Failures:
    yield "unknown host", lambda: read_all(UNKNOWN_HOST, 7)
    yield "closed port", lambda: read_all("plain_socket", 9999)
    with breaking_off(b"hal") as port, socket.create_connection(("127.0.0.1", port)) as stream:
        yield "server closes in mid-transfer", lambda: read_exactly(stream, 4)
    with silent() as port, socket.create_connection(("127.0.0.1", port), timeout=SHORT) as stream:
        yield "no reply before the timeout", lambda: stream.recv(1)
