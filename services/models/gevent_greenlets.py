"""gevent: code as for threads, run by greenlets on one loop in one thread.

Unit of concurrency: a greenlet, a few kilobytes of C stack, which are copied at each switch. `recv`, `sendall`, `sleep`
and locks seem to block, but switch to another greenlet. `services/before` replaces them (`monkey.patch_all`) before all
other imports in this model's process.
What blocks whom: waiting blocks no client. Computing blocks all, as on any loop. So do calls that gevent cannot
replace: a C library that waits, a file on a slow disk.
What runs out first: the loop's single core.

The code of a conversation is that of `socketserver_threading` and `thread_pool` (`services/serving/blocking.py`).
"""

import socket

import gevent
from gevent.pool import Pool

from services.serving.accepting import FIRST_PAUSE
from services.serving.blocking import Conversations, StopSignal, selector_of
from services.serving.closing import stop_accepting
from services.serving.listeners import Listener

LIBRARIES = ("gevent",)
LOOP = type(gevent.get_hub().loop)


def serve(listeners: list[Listener]) -> None:
    """Serve until a stop signal.

    Raises:
        SystemExit: with code 1, if a conversation was still going when the grace period ended.
    """
    limits = listeners[0].limits
    stop = StopSignal()
    # gevent's sockets are non-blocking underneath, so the kernel's time-outs mean nothing to them. And a greenlet that
    # need not wait does not switch: a pipeline of computations would keep the loop until its end.
    conversations = Conversations(set_timeouts=socket.socket.settimeout, give_way=lambda: gevent.sleep(0))
    pool = Pool(limits.connections)
    with selector_of(listeners, stop) as selector:
        while not stop.is_set:
            if not pool.wait_available(FIRST_PAUSE):
                continue  # and see whether a signal has come meanwhile
            for key, _ in listeners[0].shortage.select(selector):
                if key.data is None:
                    stop.clear()
                elif not pool.full() and not stop.is_set and (conversation := conversations.take(key.data, stop)):
                    pool.spawn(conversation)
    stop_accepting(listeners)
    if not conversations.drain(limits.grace):
        raise SystemExit(1)
    pool.join()
    stop.close()
