"""A process per core, each with a loop of `asyncio_protocol`, as gunicorn, uvicorn and hypercorn are deployed.

Unit of concurrency: a protocol object, on one of several loops. A client stays with the process that accepted it.
What blocks whom: computing blocks only the clients of the same process. A client gets the process that wakes up first,
not the least busy one.
What runs out first: the cores. Caches and connection pools cannot be shared, so each process has its own. If a worker
dies, it is replaced, and all of its clients lose their connection.
"""

import mmap
import os
import struct
from functools import partial
from typing import Any

from services.models.asyncio_protocol import LOOP, Server, StreamProtocol
from services.serving.asyncio_transports import Acceptor, run_on
from services.serving.callbacks import Conversations, Stream
from services.serving.listeners import Listener
from services.serving.workers import Workers

__all__ = ["LOOP", "serve"]

WHEN_FULL = "refuse"  # as asyncio_protocol does

_SLOT = struct.Struct("@Q")


def serve(listeners: list[Listener]) -> None:
    """Serve until a stop signal.

    Raises:
        SystemExit: with code 1, if conversations were still going when the grace period ended.
    """
    # One process alone would not show what it means that there are several.
    count = listeners[0].limits.workers or max(len(os.sched_getaffinity(0)), 2)
    counts = Counts(count)

    def work(number: int, listeners: list[Listener]) -> bool:
        return run_on(LOOP, lambda: WorkerServer(listeners, partial(WorkerConversations, counts, number)))

    if not Workers(listeners, count, work, on_end=counts.clear).serve():
        raise SystemExit(1)


class Counts:
    """How many conversations each process has, in memory that all of them share.

    Each writes its own slot only, so there is nothing to lock, and what a dead one has left can be cleared.
    """

    def __init__(self, size: int) -> None:
        self._size = size
        self._page = mmap.mmap(-1, size * _SLOT.size)

    def __setitem__(self, number: int, count: int) -> None:
        _SLOT.pack_into(self._page, number * _SLOT.size, count)

    def clear(self, number: int) -> None:
        """Clear the count of a process that has ended."""
        self[number] = 0

    def total(self) -> int:
        return sum(count for (count,) in _SLOT.iter_unpack(self._page))


class WorkerConversations(Conversations):
    """The conversations of one process, under a limit that is for all of them together."""

    def __init__(self, counts: Counts, number: int, *arguments: Any) -> None:
        super().__init__(*arguments)
        self._counts = counts
        self._number = number

    def begin(self, stream: Stream | None = None) -> bool:
        """Begin a conversation, unless all processes together are at the limit.

        The place is taken first and counted then: of two processes that take the last one at the same moment none
        may be served, but never both.
        """
        self.count += 1
        self._counts[self._number] = self.count
        if self._counts.total() > self.limits.connections:
            self.end()
            return False
        if stream is not None:
            self.streams.add(stream)
        return True

    def end(self, stream: Stream | None = None) -> None:
        """Note that a conversation that has begun is over."""
        super().end(stream)
        self._counts[self._number] = self.count


class WorkerServer(Server):
    """The server of one process."""

    def listen(self, listener: Listener) -> Acceptor:
        """Have the loop accept from a listening socket, a client at a time.

        The process that is awake first would otherwise get a whole burst of them, and the others none.
        """
        return Acceptor(listener, lambda: StreamProtocol(self, listener), at_once=1)
