"""RFC 863: ignore all input."""

from services.protocol.base import Service


class Discard(Service):
    """A service that never replies."""

    port = 9
