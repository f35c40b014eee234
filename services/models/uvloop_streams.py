"""`asyncio_streams` on uvloop: the same code, on a loop written in Cython around libuv, the event loop of Node.js.

Unit of concurrency: a task.
What blocks whom: waiting blocks no client. Computing blocks all.
What runs out first: the loop's single core. Streams and tasks are the same Python code as in `asyncio_streams`, at the
same cost; only the layer below them is faster.
"""

import uvloop

from services.models.asyncio_streams import Server
from services.serving.asyncio_transports import run_on
from services.serving.listeners import Listener

LIBRARIES = ("uvloop",)
WHEN_FULL = "refuse"  # as in asyncio_streams
LOOP = uvloop.Loop


def serve(listeners: list[Listener]) -> None:
    """Serve until a stop signal.

    Raises:
        SystemExit: with code 1, if conversations were still going when the grace period ended.
    """
    if not run_on(LOOP, lambda: Server(listeners)):
        raise SystemExit(1)
