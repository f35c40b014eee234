"""`asyncio_protocol` on uvloop: the same code, on a loop written in Cython around libuv, the event loop of Node.js.

Unit of concurrency: a protocol object, as in its twin.
What blocks whom: as in its twin: waiting blocks nobody, computing blocks everyone.
What runs out first: the one core that the loop has, later than in its twin: polling, reading and writing are C here.
"""

import uvloop

from services.models.asyncio_protocol import Server, run
from services.serving.listeners import Listener

LIBRARIES = ("uvloop",)
WHEN_FULL = "refuse"  # as in its twin
LOOP = uvloop.Loop


def event_loop() -> str:
    """What turns, for the server's first line."""
    return f"{LOOP.__module__}.{LOOP.__qualname__}"


def serve(listeners: list[Listener]) -> None:
    """Serve until a stop signal.

    Raises:
        SystemExit: with code 1, if conversations were still going when the grace period ended.
    """
    run(Server(listeners), LOOP)
