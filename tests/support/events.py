"""What a connection of the core asks for."""

from collections.abc import Iterator

from services.protocol import Connection, Event, GiveWay, Send


def sends(connection: Connection) -> Iterator[bytes]:
    """Yield the data of each Send up to the first event that is neither a Send nor a GiveWay."""
    while isinstance(event := connection.next_event(), Send | GiveWay):
        if isinstance(event, Send):
            yield event.data


def next_event(connection: Connection) -> Event | None:
    """Return the next event that is not a GiveWay."""
    event = connection.next_event()
    return connection.next_event() if isinstance(event, GiveWay) else event
