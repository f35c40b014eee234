"""An unexpected error in a conversation ends that conversation, and no other.

Some libraries do this when they call a protocol with data; none does it for the callback of a timer.
"""

import functools
import logging
from collections.abc import Callable
from typing import Concatenate, ParamSpec, Protocol, TypeVar

log = logging.getLogger("services")


class Breakable(Protocol):
    """A conversation that can be ended immediately."""

    def break_off(self) -> None:
        """Close the connection without any more stages."""


C = TypeVar("C", bound=Breakable)
P = ParamSpec("P")


def isolated(step: Callable[Concatenate[C, P], None]) -> Callable[Concatenate[C, P], None]:
    """Wrap a step of a conversation: log its exception, and end the conversation."""

    @functools.wraps(step)
    def guarded(self: C, /, *args: P.args, **kwargs: P.kwargs) -> None:
        try:
            step(self, *args, **kwargs)
        except Exception:
            # Of any kind: an unexpected error ends its own conversation and no other (docs/design.md, isolation).
            log.exception("a conversation ended in an error")
            self.break_off()

    return guarded


class ErrorsLogged:
    """Log the exception of a conversation, and continue after the block. A lost client is not an error.

    A class, because a generator with `contextmanager` costs more for each connection.
    """

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: object, error: BaseException | None, traceback: object) -> bool:
        if isinstance(error, OSError):
            log.debug("the peer is gone: %s", error.strerror)
        elif isinstance(error, Exception):
            log.error("a conversation ended in an error", exc_info=error)
        return isinstance(error, Exception)
