"""SIGKILL, as the kernel sends it when memory runs out: no warning, and nothing can be finished."""

import signal
from collections.abc import Iterator
from contextlib import contextmanager

from lab.backends import Backend
from lab.faults import start_again


@contextmanager
def kill(backend: Backend, model: str) -> Iterator[int | None]:
    """Yields when the signal has been sent."""
    try:
        backend.kill(model, signal.SIGKILL)
        yield None
    finally:
        start_again(backend, model)
