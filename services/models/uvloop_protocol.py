"""`asyncio_protocol` on uvloop: the same code, on a loop written in Cython around libuv, the event loop of Node.js.

Unit of concurrency: a protocol object.
What blocks whom: waiting blocks no client. Computing blocks all.
What runs out first: the loop's single core, later than in `asyncio_protocol`, because polling, reading and writing are
C code.
"""

import uvloop

from services.models.asyncio_protocol import Server
from services.serving.asyncio_transports import run_on
from services.serving.listeners import Listener

LIBRARIES = ("uvloop",)
WHEN_FULL = "refuse"  # as in asyncio_protocol
LOOP = uvloop.Loop


def serve(listeners: list[Listener]) -> None:
    """Serve until a stop signal.

    Raises:
        SystemExit: with code 1, if conversations were still going when the grace period ended.
    """
    if not run_on(LOOP, lambda: Server(listeners)):
        raise SystemExit(1)
