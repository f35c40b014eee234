"""Tell the lab when a worker has joined its master: the lab waits for all of them before a run begins."""

from typing import Any

from locust.env import Environment
from locust.runners import WorkerRunner

from lab.base.messages import say
from lab.load.messages import Joined


def announce(environment: Environment, **_: Any) -> None:
    """On a worker, print the message `Joined`. A listener of Locust's `init`, which comes after the handshake."""
    if isinstance(environment.runner, WorkerRunner):
        say(Joined())
