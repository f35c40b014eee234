"""How many workers a model starts, without starting one."""

import asyncio
import os
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any, NoReturn, cast

import pytest

from services.models import asyncio_prefork, asyncio_protocol, asyncio_streams, prefork, thread_pool
from services.protocol import Limits
from services.serving.listeners import Listener, open_listeners, parse_listens


class StartedError(Exception):
    """Instead of workers."""


@pytest.fixture
def listeners() -> Iterator[list[Listener]]:
    with open_listeners(parse_listens(["echo=tcp://127.0.0.1:0"], "m"), Limits(), lambda: "") as listeners:
        yield listeners


def count_workers(model: Any, limits: Limits, monkeypatch: pytest.MonkeyPatch) -> int:
    """Return how many threads or processes a model would start."""

    def start(*arguments: Any, **options: object) -> NoReturn:
        raise StartedError(arguments[0] if model is thread_pool else arguments[1])

    monkeypatch.setattr(model, "Pool" if model is thread_pool else "Workers", start)
    monkeypatch.setattr(thread_pool, "StopSignal", lambda: None)
    with pytest.raises(StartedError) as caught:
        model.serve([SimpleNamespace(limits=limits, shortage=None)])
    return int(caught.value.args[0])


@pytest.mark.parametrize("model", [thread_pool, prefork])
@pytest.mark.parametrize(
    ("workers", "connections", "count"), [(0, 12_000, 64), (0, 7, 7), (3, 12_000, 3), (9, 7, 7), (100, 12_000, 100)]
)
def test_model_has_a_worker_for_each_client_and_no_more(
    model: Any, workers: int, connections: int, count: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert count_workers(model, Limits(workers=workers, connections=connections), monkeypatch) == count


@pytest.mark.parametrize(("workers", "cores", "count"), [(0, 1, 2), (0, 2, 2), (0, 5, 5), (1, 5, 1), (3, 1, 3)])
def test_loops_are_as_many_as_cores_and_at_least_two(
    workers: int, cores: int, count: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: set(range(cores)))
    assert count_workers(asyncio_prefork, Limits(workers=workers), monkeypatch) == count


def test_loop_among_others_takes_one_client_at_a_time(listeners: list[Listener]) -> None:
    """Else the first one that is awake would take a whole burst, and the others none."""

    async def listen() -> int:
        server = cast(Any, SimpleNamespace(limits=Limits(backlog=1024)))
        acceptor = asyncio_prefork.WorkerServer.listen(server, listeners[0])
        acceptor.close()
        return acceptor._at_once

    assert asyncio.run(listen()) == 1


@pytest.mark.parametrize("model", [asyncio_protocol, asyncio_streams])
def test_loop_alone_takes_a_whole_backlog_in_a_turn(model: Any) -> None:
    async def listen() -> int:
        with open_listeners(parse_listens(["echo=tcp://127.0.0.1:0"], "m"), Limits(backlog=37), str) as listeners:
            server = model.Server(listeners)
            acceptor = (server.listen if model is asyncio_protocol else server._listen)(listeners[0])
            acceptor.close()
            return int(acceptor._at_once)

    assert asyncio.run(listen()) == 37


def test_places_are_counted_over_all_processes() -> None:
    """What a process that has died leaves is cleared; one that refuses a client takes no place."""
    counts = asyncio_prefork.Counts(3)
    ended: list[int] = []
    first, last = (
        asyncio_prefork.WorkerConversations(
            counts,
            number,
            Limits(connections=3),
            lambda seconds, call: None,
            lambda number=number: ended.append(number),
        )
        for number in (0, 2)
    )
    stream = cast(Any, object())
    assert [first.begin(), first.begin(stream), last.begin(), last.begin(), first.begin()] == [True] * 3 + [False] * 2
    assert (first.count, first.streams, last.count, last.streams, counts.total()) == (2, {stream}, 1, set(), 3)
    assert ended == [2, 0]
    first.end(stream)
    assert (first.count, first.streams, counts.total(), ended) == (1, set(), 2, [2, 0, 0])
    counts.clear(0)
    assert counts.total() == 1
