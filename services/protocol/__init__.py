"""The protocol without I/O: six services, one interface. See docs/protocol.md."""

from services.protocol.address import Address, AddressError, Transport
from services.protocol.connection import (
    DATAGRAM_SIZE,
    SERVICES,
    Connection,
    Conversation,
    DatagramConnection,
    StreamConversation,
    is_offered,
    port_of,
)
from services.protocol.errors import AdapterError, PeerError
from services.protocol.events import SEND_SIZE, TURN, Close, Compute, Event, GiveWay, Send, Wait
from services.protocol.limits import BLOCKING_WORKERS, LimitError, Limits

__all__ = [
    "BLOCKING_WORKERS",
    "DATAGRAM_SIZE",
    "SEND_SIZE",
    "SERVICES",
    "TURN",
    "AdapterError",
    "Address",
    "AddressError",
    "Close",
    "Compute",
    "Connection",
    "Conversation",
    "DatagramConnection",
    "Event",
    "GiveWay",
    "LimitError",
    "Limits",
    "PeerError",
    "Send",
    "StreamConversation",
    "Transport",
    "Wait",
    "is_offered",
    "port_of",
]
