"""A server whose replies a test chooses, as an external server may send them."""

import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress


@contextmanager
def served(talk: Callable[[socket.socket], object]) -> Iterator[str]:
    """Run `talk` for each connection in a separate thread; yield the address as a URL."""
    with socket.create_server(("127.0.0.1", 0), backlog=128) as listener:
        links: list[socket.socket] = []

        def run(link: socket.socket) -> None:
            with link, suppress(OSError):
                talk(link)

        def accept() -> None:
            with suppress(OSError):  # the listener is shut down at the end
                while True:
                    link, _ = listener.accept()
                    links.append(link)
                    threading.Thread(target=run, args=(link,), daemon=True).start()

        threading.Thread(target=accept, daemon=True).start()
        try:
            yield f"tcp://127.0.0.1:{listener.getsockname()[1]}"
        finally:
            with suppress(OSError):
                listener.shutdown(socket.SHUT_RDWR)
            for link in links:
                with suppress(OSError):
                    link.shutdown(socket.SHUT_RDWR)


def receive(link: socket.socket, size: int) -> bytes:
    """Receive `size` bytes, or fewer if the client closes first."""
    data = b""
    while len(data) < size and (chunk := link.recv(size - len(data))):
        data += chunk
    return data


def read_requests(data: bytes) -> list[list[bytes]]:
    """Split RESP arrays of bulks into words, `*2 $4 ECHO $1 a` into [ECHO, a]; omit an incomplete one."""
    lines = data.split(b"\r\n")[:-1]
    requests = []
    while lines and len(lines) > 2 * int(lines[0][1:]):
        count = int(lines.pop(0)[1:])
        requests.append(lines[1 : 2 * count : 2])
        del lines[: 2 * count]
    return requests
