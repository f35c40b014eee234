"""Fixtures of the load tests."""

import threading

import pytest

from tests.support.load_fixtures import (  # noqa: F401  # fixtures
    backend,
    encode_targets,
    generator,
    judge,
    load,
    make_measurement,
    open_model,
    open_page,
    open_server,
    open_ui,
    run_locust,
    server,
    url,
)


@pytest.fixture
def pauses(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The seconds for which events were waited for, in the order of the waits."""
    found: list[float] = []

    class Event(threading.Event):
        def wait(self, timeout: float | None = None) -> bool:
            if timeout is not None:  # a thread that starts is waited for without one
                found.append(timeout)
            return super().wait(timeout)

    monkeypatch.setattr(threading, "Event", Event)
    return found
