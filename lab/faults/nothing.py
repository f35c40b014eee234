"""No fault: the twin of all others, which shows that what they find is theirs."""

from collections.abc import Iterator
from contextlib import contextmanager

from lab.backends import Backend


@contextmanager
def nothing(backend: Backend, model: str) -> Iterator[int | None]:
    """Break nothing, and mend nothing."""
    yield None
