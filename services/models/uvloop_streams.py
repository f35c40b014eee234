"""`asyncio_streams` on uvloop: the same code, on a loop written in Cython around libuv, the event loop of Node.js.

Unit of concurrency: a task, as in its twin.
What blocks whom: as in its twin: waiting blocks no client, computing blocks all.
What runs out first: the one core that the loop has. The streams and tasks above the loop are the same Python code as in
the twin, and what they cost stays; only what lies beneath them is faster.
"""

import uvloop

from services.models.asyncio_streams import Server
from services.serving.asyncio_transports import run_on
from services.serving.listeners import Listener

LIBRARIES = ("uvloop",)
WHEN_FULL = "refuse"  # as in its twin
LOOP = uvloop.Loop


def serve(listeners: list[Listener]) -> None:
    """Serve until a stop signal.

    Raises:
        SystemExit: with code 1, if conversations were still going when the grace period ended.
    """
    if not run_on(LOOP, lambda: Server(listeners)):
        raise SystemExit(1)
