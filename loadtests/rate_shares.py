"""Divide the rate of a test among its workers.

The master tells each worker its share, in proportion to the users that it runs, and again when workers or users start
or stop. Until then, the worker's open loops send nothing.
"""

from collections.abc import Mapping
from typing import Any

import gevent
from locust.env import Environment
from locust.runners import MasterRunner, WorkerRunner, locust_exception_handler

from loadtests.sockets.engine import Engine

_MESSAGE = "socketlab_share"

# Seconds between two checks of the master for changes.
_PERIOD = 0.25


def attach(environment: Environment) -> None:
    """Send shares on a master, and receive them on a worker; a runner without workers keeps the whole rate."""
    runner: Any = environment.runner  # half annotated
    if isinstance(runner, WorkerRunner):
        engine = Engine.of(environment)
        engine.share(0.0)

        def receive(msg: Any, **_: object) -> None:
            engine.share(msg.data)

        runner.register_message(_MESSAGE, receive)
    elif isinstance(runner, MasterRunner):
        greenlet = runner.greenlet.spawn(_send_shares, runner)
        greenlet.link_exception(locust_exception_handler(environment))


def divide(users: Mapping[str, int]) -> dict[str, float]:
    """Return the share of each worker.

    Args:
        users: number of users by worker.
    """
    total = sum(users.values())
    return {worker: count / total if total else 0.0 for worker, count in users.items()}


def _send_shares(runner: Any) -> None:
    sent: dict[str, float] = {}
    while True:
        clients = [*runner.clients.spawning, *runner.clients.running]
        shares = divide({client.id: client.user_count for client in clients})
        for worker, share in shares.items():
            if sent.get(worker) != share:
                runner.send_message(_MESSAGE, share, worker)
        sent = shares
        gevent.sleep(_PERIOD)
