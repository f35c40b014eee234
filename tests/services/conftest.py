"""Signals of the process that runs the tests."""

import signal
from collections.abc import Iterator

import pytest

_NUMBERS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGQUIT, signal.SIGALRM)


@pytest.fixture
def kept_signals() -> Iterator[None]:
    """Give this process its own handlers back, after a test in which a model's have taken their place."""
    handlers = {number: signal.getsignal(number) for number in _NUMBERS}
    descriptor = signal.set_wakeup_fd(-1)
    try:
        yield
    finally:
        signal.set_wakeup_fd(descriptor)
        signal.setitimer(signal.ITIMER_REAL, 0)
        for number, handler in handlers.items():
            signal.signal(number, handler)
