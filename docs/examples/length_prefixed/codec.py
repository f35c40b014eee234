"""A protocol of one's own: a length in four bytes, network order, then a text. The answer is the text in upper case.

lab load --target tcp://127.0.0.1:9001 --codec docs/examples/length_prefixed/codec.py --headless
"""

import struct

LENGTH = struct.Struct("!I")


def encode(number: int) -> bytes:
    """The request with this number on its connection, from 0."""
    payload = b"hello %d" % number
    return LENGTH.pack(len(payload)) + payload


def reply_size(data: bytes, request: bytes) -> int | None:
    """How many bytes at the beginning of `data` are the reply to `request`; None if it is not all there.

    Raises:
        ValueError: it is not the reply to that request.
    """
    if len(data) < LENGTH.size:
        return None
    size = LENGTH.size + LENGTH.unpack_from(data)[0]
    if size != len(request):
        raise ValueError("the reply has another length")
    if len(data) < size:
        return None
    if data[LENGTH.size : size] != request[LENGTH.size :].upper():
        raise ValueError("the reply is not the request in upper case")
    return size
