"""One client at a time, on plain sockets: the textbook's first server, completed.

Unit of concurrency: none. The process accepts a connection, serves it until it ends, then accepts the next.
What blocks whom: all clients wait for the current one: for its requests, its silence and its slow reading.
What runs out first: the backlog of the listening socket, which waiting clients fill. Further clients cannot connect.
"""

from collections.abc import Callable

from services.serving.blocking import Drain, selector_of
from services.serving.listeners import Listener


def serve(listeners: list[Listener]) -> None:
    """Serve until a stop signal.

    Raises:
        SystemExit: with code 1, if a conversation was still going when the grace period ended.
    """
    stop = Drain(listeners)
    # The selector waits for *some* listening socket to have a client. It never watches a client: while one is served,
    # nothing waits here.
    with selector_of(listeners, stop) as selector:
        while not stop.is_set:
            for key, _ in listeners[0].shortage.select(selector):
                if key.data is None:
                    stop.clear()
                elif not stop.is_set:
                    serve_one(key.data, stop)
    stop.close()


def serve_one(listener: Listener, stop: Drain, before: Callable[[], object] = lambda: None) -> bool:
    """Serve the client that is first in line at a listening socket.

    Args:
        before: called when it has been accepted, and has not been served yet.

    Returns:
        Whether there was one.
    """
    if listener.is_datagram:
        if received := listener.receive():
            before()
            stop.serve_datagram(listener, *received)
            return True
    elif accepted := stop.accept(listener):
        before()
        stream, peer = accepted
        with stream:
            stop.serve_stream(listener, stream, peer)
        return True
    return False
