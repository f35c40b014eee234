"""SIGTERM, as a deployment sends it: whoever is served is answered, then the model ends by itself."""

from collections.abc import Iterator
from contextlib import contextmanager

from lab.backends import Backend
from lab.faults import start_again


@contextmanager
def drain(backend: Backend, model: str) -> Iterator[int | None]:
    """Yields the exit code when the model has ended: 0 if it had to cut nobody off."""
    try:
        yield backend.stop(model)
    finally:
        start_again(backend, model)
