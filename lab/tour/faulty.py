"""Servers that let their clients down, on loopback: one breaks off in the middle, one never says a word.

What a real server does once in a while, these do each time: that is what an exhibit's `failures` needs.
"""

import contextlib
import socket
import threading
from collections.abc import Callable, Iterator

# What `failures` of an exhibit gives: what goes wrong, and a call in which it does.
Failures = Iterator[tuple[str, Callable[[], object]]]

# A host that no resolver is asked for: glibc sees that no name begins like this. Any other that does not exist would go
# to Docker's resolver, which takes ten seconds to give up on a network without a way out.
UNKNOWN_HOST = "-nowhere.invalid"

# Seconds after which a client gives up on a server that is silent on purpose.
SHORT = 0.5


@contextlib.contextmanager
def breaking_off(*parts: bytes) -> Iterator[int]:
    """A server for one client: it says the first part at once, one more after each thing it hears, and then hangs up.

    It hangs up in good order: nothing that it has not read may turn the end into a reset. Who tries again is refused.

    Returns:
        Its port.
    """
    listener = socket.create_server(("127.0.0.1", 0))
    port = listener.getsockname()[1]
    streams = []

    def serve() -> None:
        with contextlib.suppress(OSError):  # there was no client, or it was quicker
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
        # Ends an accept() or a recv() that still waits; closing the socket alone would not.
        for each in (listener, *streams):
            with contextlib.suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)
        thread.join()
        for stream in streams:
            stream.close()


@contextlib.contextmanager
def silent() -> Iterator[int]:
    """A server that is connected to and never answers: nobody accepts, so the kernel alone has shaken hands.

    Returns:
        Its port.
    """
    with socket.create_server(("127.0.0.1", 0)) as listener:
        yield listener.getsockname()[1]
