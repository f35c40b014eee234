"""An unexpected error in a conversation ends that conversation, and no other.

Some libraries see to it where they call a protocol with data, none where a timer calls back.
"""

import functools
import logging
from collections.abc import Callable
from typing import Concatenate, ParamSpec, Protocol, TypeVar

log = logging.getLogger("services")


class Breakable(Protocol):
    """A conversation that can be ended at once."""

    def break_off(self) -> None:
        """Close the connection without any more stages."""


C = TypeVar("C", bound=Breakable)
P = ParamSpec("P")


def isolated(step: Callable[Concatenate[C, P], None]) -> Callable[Concatenate[C, P], None]:
    """Make a step of a conversation log what it raises, and break the conversation off."""

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
    """Log what a conversation raises, and go on behind it. That a client is gone is no error.

    A class, because a generator with `contextmanager` costs more, and each connection pays for it.
    """

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: object, error: BaseException | None, traceback: object) -> bool:
        if isinstance(error, OSError):
            log.debug("the peer is gone: %s", error.strerror)
        elif isinstance(error, Exception):
            log.error("a conversation ended in an error", exc_info=error)
        return isinstance(error, Exception)
