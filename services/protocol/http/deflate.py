"""permessage-deflate (RFC 7692): its negotiation in the handshake, and the compression of each message.

No context is kept between messages, in either direction: each connection would need 32 KiB to inflate and 256 KiB to
deflate, also while it is idle. Section numbers are those of RFC 7692, unless another RFC is named.
"""

import re
import zlib

# RFC 6455, 9.1: a value can be quoted.
_PARAMETER = re.compile(rb'([a-z0-9_]+)(?:=(?:([0-9]+)|"([0-9]+)"))?')
_FLAGS = (b"server_no_context_takeover", b"client_no_context_takeover")

# 7.2.1: the end of each compressed message, which is not sent.
_TAIL = b"\x00\x00\xff\xff"
# The fastest level: most of the compression, in a third of the time of zlib's default.
_LEVEL = 1
# How many bytes are inflated at a time. zlib copies everything behind a final block, and a message can consist entirely
# of such blocks: with a megabyte of them, each of two bytes, copying the rest for each would take seconds.
_PIECE = 1024


class InflateError(Exception):
    """A message cannot be inflated.

    Attributes:
        is_too_big: its inflated size is over the limit; otherwise it is not deflated data.
    """

    def __init__(self, reason: str, *, is_too_big: bool) -> None:
        super().__init__(reason)
        self.is_too_big = is_too_big


class Deflate:
    """Compresses the messages of one connection.

    Attributes:
        bits: of the window for messages to the client, 9 to 15 (7.1.2.1).
    """

    __slots__ = ("bits",)

    def __init__(self, bits: int) -> None:
        self.bits = bits

    def field(self) -> bytes:
        """Return the value of Sec-WebSocket-Extensions in the reply, 7.1."""
        window = b"" if self.bits == zlib.MAX_WBITS else b"; server_max_window_bits=%d" % self.bits
        return b"permessage-deflate; server_no_context_takeover; client_no_context_takeover" + window

    def deflate(self, data: bytes) -> bytes:
        """Compress a message of at least one byte, 7.2.1."""
        machine = zlib.compressobj(_LEVEL, zlib.DEFLATED, -self.bits)
        return (machine.compress(data) + machine.flush(zlib.Z_SYNC_FLUSH)).removesuffix(_TAIL)

    def inflate(self, data: bytes, most: int) -> bytes:
        """Decompress a message, 7.2.2.

        Args:
            most: the largest inflated size in bytes. No more memory than that is used.

        Raises:
            InflateError: it is not deflated data, or its inflated size is over `most`.
        """
        pieces: list[bytes] = []
        room = most + 1
        data += _TAIL
        start, machine = 0, zlib.decompressobj(-zlib.MAX_WBITS)
        try:
            while start < len(data):
                piece = data[start : start + _PIECE]
                pieces.append(machine.decompress(piece, room))
                room -= len(pieces[-1])
                if not room:
                    raise InflateError(f"a message inflates to more than {most} bytes", is_too_big=True)
                start += len(piece) - len(machine.unused_data)
                if machine.eof:
                    # A block with BFINAL can be followed by others, 7.2.3.5.
                    machine = zlib.decompressobj(-zlib.MAX_WBITS)
        except zlib.error:
            raise InflateError("a message is not deflated data", is_too_big=False) from None
        return b"".join(pieces)


def negotiate(offers: list[bytes]) -> Deflate | None:
    """Accept the first offer that is possible here, 7.1.

    Args:
        offers: the values of Sec-WebSocket-Extensions.

    Returns:
        None if there is no such offer: messages are not compressed.
    """
    for offer in b",".join(offers).split(b","):
        name, *parameters = (item.strip(b" \t") for item in offer.split(b";"))
        if name.lower() == b"permessage-deflate" and (bits := _window(parameters)):
            return Deflate(bits)
    return None


def _window(parameters: list[bytes]) -> int:
    """Return the bits of the server's window for an offer with these parameters; 0 if it must be declined, 7.1."""
    found: dict[bytes, int | None] = {}
    for parameter in parameters:
        match = _PARAMETER.fullmatch(parameter)
        if match is None or match[1] in found:
            return 0
        digits = match[2] or match[3]
        # No window has more digits, and int() fails from 4300 on.
        found[match[1]] = None if digits is None else int(digits) if re.fullmatch(b"[1-9][0-9]?", digits) else 0
    bits: int | None = zlib.MAX_WBITS
    for name, value in found.items():
        if name in _FLAGS:
            if value is not None:
                return 0
        elif name == b"client_max_window_bits":
            # Nothing follows from it: our window of 15 bits inflates what was compressed with any smaller one.
            if value is not None and not 8 <= value <= zlib.MAX_WBITS:
                return 0
        elif name == b"server_max_window_bits":
            bits = value
        else:
            return 0
    # zlib cannot make a raw stream with a window of 8 bits.
    return bits if bits is not None and 9 <= bits <= zlib.MAX_WBITS else 0
