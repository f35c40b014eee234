"""The textbook's first server: send a greeting and close."""

from services.protocol.base import Service
from services.protocol.events import Close, Event, Send

GREETING = b"Thank you for connecting\r\n"


class Greet(Service):
    """Sends the greeting, and ignores all input."""

    port = 1234

    def __init__(self) -> None:
        self._greeted = False

    def next_event(self) -> Event | None:
        """Return the greeting, then Close."""
        if self._greeted:
            return Close()
        self._greeted = True
        return Send(GREETING)
