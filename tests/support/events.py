"""What a connection of the core asks for."""

from collections.abc import Iterator

from services.protocol import Connection, GiveWay, Send


def sends(connection: Connection) -> Iterator[bytes]:
    """Yield the data of each Send up to the first event that is neither a Send nor a GiveWay."""
    while isinstance(event := connection.next_event(), Send | GiveWay):
        if isinstance(event, Send):
            yield event.data
