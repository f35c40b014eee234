"""What the models over asyncio's transports share."""

import asyncio
import os
import socket
from contextlib import suppress

from services.listeners import arrived
from services.protocol import StreamConversation


def descriptor_of(transport: asyncio.BaseTransport) -> int:
    """The descriptor of a transport's socket; -1 when it is closed."""
    owner = transport.get_extra_info("socket")
    return -1 if owner is None else int(owner.fileno())


def end_reading(transport: asyncio.BaseTransport, connection: StreamConversation) -> None:
    """Have the kernel give what has arrived, then the end of the stream: so that what was asked is answered.

    Through a copy of the descriptor, because uvloop's socket object knows no `shutdown`; there is none once the
    transport is closed.
    """
    descriptor = descriptor_of(transport)
    connection.drain(arrived(descriptor))
    if descriptor < 0:
        return
    with suppress(OSError), socket.socket(fileno=os.dup(descriptor)) as copy:
        copy.shutdown(socket.SHUT_RD)
