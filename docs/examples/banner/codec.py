"""A server that speaks first: a line of greeting, then one request and its reply, then it closes.

lab load --target tcp://127.0.0.1:9002 --codec docs/examples/banner/codec.py --headless
"""

from lines import END, find_line

# The server closes after its reply, so each request has a connection of its own.
REQUESTS_PER_CONNECTION = 1


def greeting_size(data: bytes) -> int | None:
    """How many bytes at the beginning of `data` are the greeting; None if it is not all there.

    Raises:
        ValueError: it is not the greeting.
    """
    size = find_line(data)
    if size is not None and not data.startswith(b"220 "):
        raise ValueError(f"the greeting is {data[:40]!r}")
    return size


def encode(number: int) -> bytes:
    """The request with this number on its connection, from 0."""
    return b"hello %d" % number + END


def reply_size(data: bytes, request: bytes) -> int | None:
    """How many bytes at the beginning of `data` are the reply to `request`; None if it is not all there.

    Raises:
        ValueError: it is not the reply to that request.
    """
    size = find_line(data)
    if size is not None and data[:size] != request.upper():
        raise ValueError(f"the reply is {data[:40]!r}, and not the request in upper case")
    return size
