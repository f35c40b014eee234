"""A fixed number of threads, started in advance, with one acceptor.

Unit of concurrency: a thread of the pool, which serves one client until it closes, then takes the next. No connection
costs the start of a thread, and the memory is bounded from the start.
What blocks whom: waiting blocks no client while a thread is free. If all threads have a client, the acceptor stops
accepting, and new clients wait in the listening socket's backlog. There they cost nothing, `ss -l` shows them, and they
get another server when this one stops. The usual alternative, an unbounded queue behind the acceptor, hides them: it
accepts all clients and answers none of them. Computing threads share one GIL.
What runs out first: the threads of the pool (`LAB_WORKERS`). Each silent client occupies one, so a pool suits short
conversations.
"""

import logging
import os
import selectors
import threading
from collections.abc import Callable
from queue import SimpleQueue

from services.protocol import BLOCKING_WORKERS
from services.serving.blocking import Conversations, StopSignal, selector_of
from services.serving.closing import stop_accepting
from services.serving.listeners import Listener

log = logging.getLogger("services")

Job = Callable[[], None]


def serve(listeners: list[Listener]) -> None:
    """Serve until a stop signal.

    Raises:
        SystemExit: with code 1, if a conversation was still going when the grace period ended.
    """
    limits = listeners[0].limits
    shortage = listeners[0].shortage
    stop = StopSignal()
    pool = Pool(min(limits.workers or BLOCKING_WORKERS, limits.connections))
    with selector_of(listeners, stop) as everything, selectors.DefaultSelector() as signals_only:
        for selector in (everything, signals_only):
            selector.register(pool, selectors.EVENT_READ, pool)
        signals_only.register(stop, selectors.EVENT_READ, None)
        while not stop.is_set:
            for key, _ in shortage.select(everything if pool.has_room else signals_only):
                if key.data is None:
                    stop.clear()
                elif key.data is pool:
                    pool.clear()
                elif pool.has_room and not stop.is_set and (job := pool.conversations.take(key.data, stop)):
                    pool.submit(job)
    stop_accepting(listeners)
    if not pool.conversations.drain(limits.grace):
        raise SystemExit(1)
    pool.close()
    stop.close()


class Pool:
    """The threads, and what they are to do next."""

    def __init__(self, size: int) -> None:
        self.conversations = Conversations()
        self._jobs: SimpleQueue[Job | None] = SimpleQueue()
        # Readable when a thread has become free: the acceptor may be waiting for just that.
        self._freed = os.eventfd(0, os.EFD_NONBLOCK)
        self._threads = [threading.Thread(target=self._work, name=f"worker-{number}") for number in range(size)]
        for thread in self._threads:
            thread.start()

    @property
    def has_room(self) -> bool:
        """Whether a thread is free. So the queue is never longer than the time in which a thread wakes up."""
        return len(self.conversations) < len(self._threads)

    def submit(self, job: Job) -> None:
        """Pass a conversation to a free thread; there must be one."""
        self._jobs.put(job)

    def fileno(self) -> int:
        """Return a descriptor that becomes readable when a thread has become free."""
        return self._freed

    def clear(self) -> None:
        """Make `fileno` wait for the next one."""
        os.eventfd_read(self._freed)

    def close(self) -> None:
        """End all threads; none may have a job."""
        for _ in self._threads:
            self._jobs.put(None)
        for thread in self._threads:
            thread.join()
        os.close(self._freed)

    def _work(self) -> None:
        while (job := self._jobs.get()) is not None:
            try:
                job()
            except Exception:
                log.exception("a conversation ended in an error")  # and its thread goes on: the pool has no other
            finally:
                os.eventfd_write(self._freed, 1)
