"""permessage-deflate (RFC 7692): what is agreed in the handshake, and each message by itself.

No context is kept from one message to the next, in either direction: a window would cost 32 KiB to inflate and 256 KiB
to deflate for each connection, also while it is idle.
"""

import re
import zlib

# RFC 6455, 9.1: a value may stand in quotes.
_PARAMETER = re.compile(rb'([a-z0-9_]+)(?:=(?:([0-9]+)|"([0-9]+)"))?')
_FLAGS = (b"server_no_context_takeover", b"client_no_context_takeover")

# RFC 7692, 7.2.1: what a message is deprived of before it is sent.
_TAIL = b"\x00\x00\xff\xff"
# Most of what is gained, for a third of the time that zlib's default takes.
_LEVEL = 1
# What is inflated at a time. zlib copies what follows a final block, and a message may consist of such blocks alone: a
# megabyte of them, each of two bytes, would take seconds if the rest was copied for each.
_PIECE = 1024


class InflateError(Exception):
    """A message cannot be inflated, or becomes too large."""

    def __init__(self, reason: str, *, is_too_big: bool) -> None:
        super().__init__(reason)
        self.is_too_big = is_too_big


class Deflate:
    """Compresses messages for one connection.

    Attributes:
        bits: of the window with which messages to the client are compressed.
    """

    __slots__ = ("bits",)

    def __init__(self, bits: int) -> None:
        self.bits = bits

    def field(self) -> bytes:
        """Return the answer to the offer, 7.1."""
        window = b"" if self.bits == zlib.MAX_WBITS else b"; server_max_window_bits=%d" % self.bits
        return b"permessage-deflate; server_no_context_takeover; client_no_context_takeover" + window

    def deflate(self, data: bytes) -> bytes:
        """Compress a message that is not empty, 7.2.1."""
        machine = zlib.compressobj(_LEVEL, zlib.DEFLATED, -self.bits)
        return (machine.compress(data) + machine.flush(zlib.Z_SYNC_FLUSH)).removesuffix(_TAIL)

    def inflate(self, data: bytes, most: int) -> bytes:
        """Decompress a message, 7.2.2.

        Raises:
            InflateError: it is not deflated data, or it would have more than `most` bytes.
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
                    # A block that says it is the last one may be followed by others, 7.2.3.5.
                    machine = zlib.decompressobj(-zlib.MAX_WBITS)
        except zlib.error:
            raise InflateError("a message is not deflated data", is_too_big=False) from None
        return b"".join(pieces)


def negotiate(offers: list[bytes]) -> Deflate | None:
    """Accept the first offer that can be kept; None if there is none, 7.1."""
    for offer in b",".join(offers).split(b","):
        name, *parameters = (item.strip(b" \t") for item in offer.split(b";"))
        if name.lower() == b"permessage-deflate" and (bits := _window(parameters)):
            return Deflate(bits)
    return None


def _window(parameters: list[bytes]) -> int:
    """Return the bits that an offer leaves to the server's window; 0 if the offer must be declined."""
    found: dict[bytes, int | None] = {}
    for parameter in parameters:
        match = _PARAMETER.fullmatch(parameter)
        if match is None or match[1] in found:
            return 0
        digits = match[2] or match[3]
        found[match[1]] = None if digits is None else int(digits) if not digits.startswith(b"0") else 0
    bits: int | None = zlib.MAX_WBITS
    for name, value in found.items():
        if name in _FLAGS:
            if value is not None:
                return 0
        elif name == b"client_max_window_bits":
            # A window of ours can inflate what was made with any smaller one.
            if value is not None and not 8 <= value <= zlib.MAX_WBITS:
                return 0
        elif name == b"server_max_window_bits":
            bits = value
        else:
            return 0
    # zlib makes no raw stream with a window of 8 bits.
    return bits if bits is not None and 9 <= bits <= zlib.MAX_WBITS else 0
