"""Ports of this machine."""

import errno
import socket
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

# An address of a family that may be missing, one that refuses, and the server's.
PLACES = ("::1", "127.0.0.2", "127.0.0.1")
# A place at which no test has a server.
LONELY = ("127.0.0.77", 40_077)


@contextmanager
def closed_port() -> Iterator[int]:
    """Hold a port of 127.0.0.1 at which nothing answers, by TCP or UDP.

    One that is only free may be taken meanwhile, by a server of another test.
    """
    with ExitStack() as stack:
        stream = stack.enter_context(socket.socket())
        datagrams = stack.enter_context(socket.socket(socket.AF_INET, socket.SOCK_DGRAM))
        stream.bind(("127.0.0.1", 0))
        try:
            datagrams.bind(stream.getsockname())
        except OSError as error:
            if error.errno != errno.EADDRINUSE:
                raise
            yield stack.enter_context(closed_port())
            return
        datagrams.connect(("127.0.0.1", 9))  # takes nothing from anybody else, udp(7)
        yield stream.getsockname()[1]


@contextmanager
def open_black_hole(port: int) -> Iterator[None]:
    """A listener with a full backlog: the kernel silently drops requests for a connection."""
    with ExitStack() as stack:
        listener = stack.enter_context(socket.create_server(("127.0.0.2", port), backlog=0))
        for _ in range(3):
            client = stack.enter_context(socket.socket())
            client.setblocking(False)
            client.connect_ex(listener.getsockname())
        yield
