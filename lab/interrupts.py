"""Ctrl-C and SIGTERM while something must be cleaned up: the first one ends the work, none ends the clean-up."""

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

from lab.backends import Backend

_HELD = (signal.SIGINT, signal.SIGTERM)


@contextmanager
def signals_held() -> Iterator[None]:
    """Let SIGINT and SIGTERM wait for the end of a block.

    In the main thread. Children inherit it: a Ctrl-C, which goes to all of a terminal's foreground processes, ends none
    of them half-way.
    """
    came: list[int] = []
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, _HELD)
    # The kernel gives a signal to any thread that takes it, and Python hands it to this one. So both are needed.
    handlers = [signal.signal(number, lambda which, _: came.append(which)) for number in _HELD]
    try:
        yield
    finally:
        for number, handler in zip(_HELD, handlers, strict=True):
            signal.signal(number, handler)
        for which in came[:1]:
            signal.raise_signal(which)
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)


class _Once:
    """A handler that raises KeyboardInterrupt for the first signal and ignores the others."""

    def __init__(self) -> None:
        self._has_come = False

    def __call__(self, number: int, frame: FrameType | None) -> None:
        if not self._has_come:
            self._has_come = True
            raise KeyboardInterrupt


@contextmanager
def interrupted_once() -> Iterator[None]:
    """Raise KeyboardInterrupt for the first SIGINT or SIGTERM in a block and ignore all others, until the block ends.

    In the main thread. So no second Ctrl-C gets between the first one and the clean-up, which holds signals itself.
    Inside another such block it is that one which counts.
    """
    before = {number: signal.getsignal(number) for number in _HELD}
    if any(isinstance(handler, _Once) for handler in before.values()):
        yield
        return
    once = _Once()
    for number, handler in before.items():
        if handler is not signal.SIG_IGN:  # as a shell starts its background jobs
            signal.signal(number, once)
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextmanager
def down_afterwards(backend: Backend) -> Iterator[None]:
    """Take a lab down at the end of a block, whatever ends it; no signal cuts that short."""
    with interrupted_once():
        try:
            try:
                yield
            finally:
                with signals_held():
                    backend.down()
        except KeyboardInterrupt:
            with signals_held():
                backend.down()  # the signal may have come just before the first one began; twice is no error
            raise
