"""The part of a rate that each worker has to do, so that all of them together do what was asked for.

A rate is the whole test's. The master tells each worker its share, in proportion to the users that it runs, and tells
them anew when workers or users come and go. Until it was told, a worker's open loops send nothing.
"""

from collections.abc import Mapping
from typing import Any

import gevent
from locust.env import Environment
from locust.runners import MasterRunner, WorkerRunner, locust_exception_handler

from loadtests.sockets.engine import Engine

_MESSAGE = "socketlab_share"

# How long shares can be out of date, in seconds, once the master knows of a change.
_PERIOD = 0.25


def attach(environment: Environment) -> None:
    """Take part in the sharing, on a master or a worker; a runner of its own does everything itself."""
    runner: Any = environment.runner  # half annotated
    if isinstance(runner, WorkerRunner):
        engine = Engine.of(environment)
        engine.share(0.0)

        def take(msg: Any, **_: Any) -> None:
            engine.share(msg.data)

        runner.register_message(_MESSAGE, take)
    elif isinstance(runner, MasterRunner):
        greenlet = runner.greenlet.spawn(_tell, runner)
        greenlet.link_exception(locust_exception_handler(environment))


def divide(users: Mapping[str, int]) -> dict[str, float]:
    """The share of each worker.

    Args:
        users: how many each of them runs.
    """
    total = sum(users.values())
    return {worker: count / total if total else 0.0 for worker, count in users.items()}


def _tell(runner: Any) -> None:
    told: dict[str, float] = {}
    while True:
        clients = [*runner.clients.spawning, *runner.clients.running]
        shares = divide({client.id: client.user_count for client in clients})
        for worker, share in shares.items():
            if told.get(worker) != share:
                runner.send_message(_MESSAGE, share, worker)
        told = shares
        gevent.sleep(_PERIOD)
