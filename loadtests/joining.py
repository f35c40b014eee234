"""Tell the lab when a worker has joined its master: the lab waits for all of them before a run begins."""

import os
from typing import Any

import locust.runners
from locust.env import Environment
from locust.runners import WorkerRunner

from lab.base.messages import say
from lab.load.messages import Joined

# Heartbeats, one each second, that a worker may miss. Locust would give it up after 3, and end the run with the last
# one; on a busy machine a worker may wait longer for a core. The lab itself notices when one has ended.
locust.runners.HEARTBEAT_LIVENESS = 10

# Seconds in which the workers may say that their users have started. After its own 1 s, Locust takes the load for
# complete, and the window would begin, and even end, without the users of a worker that waits for a core.
os.environ.setdefault("LOCUST_WAIT_FOR_WORKERS_REPORT_AFTER_RAMP_UP", "10")


def announce(environment: Environment, **_: Any) -> None:
    """On a worker, print the message `Joined`. A listener of Locust's `init`, which comes after the handshake."""
    if isinstance(environment.runner, WorkerRunner):
        say(Joined())
