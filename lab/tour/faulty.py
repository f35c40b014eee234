"""Faulty servers on the loopback interface: one closes in the middle, one never answers.

A real server fails now and then, these fail every time, as an exhibit's `failures` needs.
"""

import contextlib
import socket
import threading
from collections.abc import Callable, Iterator

# The result of an exhibit's `failures`: what goes wrong, and a call that fails that way.
Failures = Iterator[tuple[str, Callable[[], object]]]

# glibc rejects this name without asking a resolver. Any other unknown name would go to Docker's resolver, which takes
# ten seconds to fail on a network without access to the internet.
UNKNOWN_HOST = "-nowhere.invalid"

# Timeout of a client for a silent server, in seconds.
SHORT = 0.5


@contextlib.contextmanager
def breaking_off(*parts: bytes) -> Iterator[int]:
    """Serve one client: send the first part at once, one more after each receive, and then close.

    The close is orderly: unread data does not turn it into a reset. A second connection is refused.

    Returns:
        Its port.
    """
    listener = socket.create_server(("127.0.0.1", 0))
    port = listener.getsockname()[1]
    streams = []

    def serve() -> None:
        with contextlib.suppress(OSError):  # there was no client, or it closed first
            with listener:
                stream, _ = listener.accept()
                streams.append(stream)
            for number, part in enumerate(parts):
                if number:
                    stream.recv(65536)
                stream.sendall(part)
            stream.shutdown(socket.SHUT_WR)
            while stream.recv(65536):
                pass

    thread = threading.Thread(target=serve)
    thread.start()
    try:
        yield port
    finally:
        # Ends an accept() or recv() that still waits, which close() would not.
        for each in (listener, *streams):
            with contextlib.suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)
        thread.join()
        for stream in streams:
            stream.close()


@contextlib.contextmanager
def silent() -> Iterator[int]:
    """Listen without accepting: the kernel completes the handshake, and no reply comes.

    Returns:
        Its port.
    """
    with socket.create_server(("127.0.0.1", 0)) as listener:
        yield listener.getsockname()[1]
