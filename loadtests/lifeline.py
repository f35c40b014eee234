"""End the load generator when its lab has ended.

Strategy: a lab that is killed cannot end its processes, and a load that continues spoils the next measurement
unnoticed. So the lab holds the other end of the generator's stdin. The kernel closes it when the lab ends for any
reason, and `docker run` passes that on. Nothing is read here, because other code reads stdin.
"""

import os
from collections.abc import Mapping
from typing import Any

from gevent import monkey

from lab.base.environ import ENV_LIFELINE

# A real thread and the real poll: the end must not wait for a greenlet that computes.
_start_thread: Any = monkey.get_original("_thread", "start_new_thread")
_make_poll: Any = monkey.get_original("select", "poll")

_STDIN = 0
_ORPHANED = 1


def watch(environ: Mapping[str, str] = os.environ) -> None:
    """End this process when its stdin is closed, if the lab holds it."""
    if environ.get(ENV_LIFELINE) == "stdin":
        _start_thread(_wait, ())


def _wait() -> None:
    poll = _make_poll()
    # No events: POLLHUP is always reported.
    poll.register(_STDIN, 0)
    poll.poll()
    os._exit(_ORPHANED)
