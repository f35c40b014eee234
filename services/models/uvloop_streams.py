"""`asyncio_streams` on uvloop: the same code, on a loop written in Cython around libuv, the event loop of Node.js.

Unit of concurrency: a task, as in its twin.
What blocks whom: as in its twin: waiting blocks nobody, computing blocks everyone.
What runs out first: the one core that the loop has. The streams and tasks above the loop are the same Python code as in
the twin, and what they cost stays; only what lies beneath them is faster.
"""

import uvloop

from services.models.asyncio_streams import run
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
    run(listeners, LOOP)
