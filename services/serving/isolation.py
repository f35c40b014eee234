"""An unexpected error in a conversation ends that conversation, and no other.

Some libraries see to it where they call a protocol with data, none where a timer calls back.
"""

import functools
import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
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
            log.exception("a conversation ended in an error")
            self.break_off()

    return guarded


@contextmanager
def errors_logged() -> Iterator[None]:
    """Log what a conversation raises, and go on behind it. That a client is gone is no error."""
    try:
        yield
    except OSError as error:
        log.debug("the peer is gone: %s", error.strerror)
    except Exception:
        log.exception("a conversation ended in an error")
