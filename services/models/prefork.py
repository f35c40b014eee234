"""Processes forked before the first client comes, all accepting from the same sockets: Apache's first model.

Unit of concurrency: a process, which holds one client from accept to close, then takes the next. No client pays for a
fork. A process that dies is replaced; its client is lost, and no other notices.
What blocks whom: no client blocks another, neither by waiting nor by computing, as long as a process is free: each has
its own GIL. When all have a client, none accepts, and new clients wait in the listening socket's backlog.
What runs out first: the processes (`LAB_WORKERS`), and their memory. Clients that are connected and silent hold one
each.

Only one of the free processes waits for a client, the others wait for its place (Apache's accept mutex). If all of them
waited, each client would wake all, and all but one in vain. With `LAB_REUSEPORT=1` each process has TCP sockets of its
own instead, and the kernel shares the connections out, by a hash and not by which is free: a client may then wait for a
busy process while another has nothing to do.
"""

import fcntl
import os
import time

from services.models.plain_socket import serve_one
from services.protocol import BLOCKING_WORKERS
from services.serving.blocking import Drain, selector_of
from services.serving.listeners import Listener
from services.serving.workers import Workers


def serve(listeners: list[Listener]) -> None:
    """Serve until a stop signal.

    Raises:
        SystemExit: with code 1, if a conversation was still going when the grace period ended.
    """
    limits = listeners[0].limits
    # A lock on a file: when its holder is killed the kernel gives it to the next. A semaphore would be taken for ever.
    mutex = os.memfd_create("accept-mutex")

    def work(number: int, listeners: list[Listener]) -> bool:
        _serve_as_worker(listeners, mutex)
        return True

    count = min(limits.workers or BLOCKING_WORKERS, limits.connections)
    try:
        if not Workers(listeners, count, work).serve():
            raise SystemExit(1)
    finally:
        os.close(mutex)


def _serve_as_worker(listeners: list[Listener], mutex: int) -> None:
    """`plain_socket`, for as many clients at a time as there are processes that run this."""
    stop = Drain(listeners[0].limits.grace)
    is_shared = not listeners[0].limits.reuse_port
    shortage = listeners[0].shortage

    def take_turn() -> None:
        # Behind a shortage the turn of another process may last for ever, and the log must still say that it is over.
        while shortage and not stop.is_set:
            try:
                fcntl.lockf(mutex, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                stop.wait(time.monotonic() + (shortage.timeout or 0))
                shortage.look()
            else:
                return
        # A signal does not end this wait. The holder ends on it, though, and then it is the next one's turn.
        fcntl.lockf(mutex, fcntl.LOCK_EX)

    def release() -> None:
        if is_shared:
            fcntl.lockf(mutex, fcntl.LOCK_UN)

    with selector_of(listeners, stop) as selector:
        while not stop.is_set:
            if is_shared:
                take_turn()
            for key, _ in [] if stop.is_set else shortage.select(selector):
                if key.data is None:
                    stop.clear()
                elif not stop.is_set and serve_one(key.data, stop, before=release):
                    break
            if not shortage:  # the next process would fail as well, and say so in the log as well
                release()
    stop.close()
