"""Processes that are forked before the first client connects, and accept from the same sockets: Apache's first model.

Unit of concurrency: a process, which serves one client until it closes, then accepts the next. No connection costs a
fork. If a process dies, it is replaced, and only its own client loses its connection.
What blocks whom: while a process is free, no client blocks another, neither by waiting nor by computing, since each
process has its own GIL. If all processes have a client, new clients wait in the listening socket's backlog.
What runs out first: the processes (`LAB_WORKERS`), and their memory. Each silent client occupies a process.

Only one of the free processes waits for a client; the others wait for a mutex (Apache's accept mutex). Otherwise each
client would wake all of them, all but one in vain. With `LAB_REUSEPORT=1`, each process has its own TCP sockets
instead, and the kernel distributes the connections by a hash: a client may wait for a busy process while another one
is idle.
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
    stop = Drain(listeners)
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
