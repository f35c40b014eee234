"""What the models over asyncio's transports share."""

import asyncio
import os
import socket
from contextlib import suppress


def end_reading(transport: asyncio.BaseTransport) -> None:
    """Have the kernel give what has arrived, then the end of the stream: so that what was asked is answered.

    Through a copy of the descriptor, because uvloop's socket object knows no `shutdown`; there is none once the
    transport is closed.
    """
    if (owner := transport.get_extra_info("socket")) is None or owner.fileno() < 0:
        return
    with suppress(OSError), socket.socket(fileno=os.dup(owner.fileno())) as copy:
        copy.shutdown(socket.SHUT_RD)
