"""The end of a load generator whose lab has gone.

Strategy: a lab that was killed cannot end what it has started, and a load that goes on spoils the next measurement
without a word. So the lab holds the other end of the generator's stdin, and the kernel lets go of it whatever ends the
lab; through `docker run` it is the engine that passes this on. Nothing is read here: lines on stdin are for others.
"""

import os
from collections.abc import Mapping
from typing import Any

from gevent import monkey

from lab.servers.children import ENV_LIFELINE

# A thread of the kernel's, and its poll: an engine that computes must not be what the end waits for.
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
    # No event: what is always told is that the other end has gone.
    poll.register(_STDIN, 0)
    poll.poll()
    os._exit(_ORPHANED)
