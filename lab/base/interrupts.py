"""SIGINT, SIGTERM and SIGHUP: the first one ends a command, and later ones do not disturb its clean-up."""

import contextlib
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from types import FrameType

from lab.base.errors import LabError

ENDING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)

# Calls that have to be made before the process ends.
_owed: list[Callable[[], object]] = []

# The clean-ups that are running, the innermost last, and the command that does each by hand.
_under_way: list[tuple[str, str]] = []

# The process that these handlers are for.
_pid = os.getpid()

_AGAIN_SECONDS = 0.02

# The first signal, whether Python has dropped its KeyboardInterrupt, and whether that is being noted.
_first = signal.SIGINT.value
_was_dropped = False
_is_noting = False
_show_unraisable = sys.unraisablehook


def install() -> None:
    """Turn the first of these signals into a KeyboardInterrupt, and each later one into a line on stderr.

    A signal that is ignored stays ignored: SIGHUP under nohup, SIGINT under a shell's `&`.
    """
    global _pid, _show_unraisable
    _pid = os.getpid()
    for number in ENDING:
        if signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, _end)
    if sys.unraisablehook is not _note_dropped:
        _show_unraisable, sys.unraisablehook = sys.unraisablehook, _note_dropped


@contextlib.contextmanager
def untouched(what: str) -> Iterator[None]:
    """Say that nothing was changed if a block is interrupted.

    Args:
        what: text for the message: what is unchanged.
    """
    try:
        yield
    except KeyboardInterrupt:
        raise KeyboardInterrupt(what) from None


@contextlib.contextmanager
def sure(do: Callable[[], object]) -> Iterator[None]:
    """Call a function after a block, even if a signal comes between the end of the block and the call."""
    _owed.append(do)
    try:
        yield
    finally:
        do()
        _owed.remove(do)


def settle() -> Iterator[LabError]:
    """After an interrupt, make the outstanding calls of `sure`; yield their errors."""
    while _owed:
        do = _owed.pop()
        try:
            do()
        except LabError as error:
            yield error


@contextlib.contextmanager
def uninterrupted(what: str, by_hand: str) -> Iterator[None]:
    """Finish a clean-up despite signals: each only prints a line on stderr.

    Args:
        what: the clean-up, for that line.
        by_hand: the command that does it if the process is killed.
    """
    if threading.current_thread() is not threading.main_thread():
        yield  # Python handles signals only in the main thread
        return
    before = {number: signal.getsignal(number) for number in ENDING}
    _under_way.append((what, by_hand))
    for number, handler in before.items():
        if handler is not signal.SIG_IGN:
            signal.signal(number, _say)
    try:
        yield
    finally:
        _under_way.pop()
        for number, handler in before.items():
            signal.signal(number, handler)


def take_dropped() -> bool:
    """Return whether a signal has come whose KeyboardInterrupt is still to come, and let it not come any more.

    An error is then a consequence of the signal: Ctrl-C ends the helpers of a command too.
    """
    global _was_dropped
    was_dropped, _was_dropped = _was_dropped, False
    return was_dropped


def end() -> None:
    """Ignore these signals until the process ends: Python removes its handlers before that."""
    for number in ENDING:
        signal.signal(number, signal.SIG_IGN)


def are_held() -> bool:
    """Return whether signals are deferred: a child then needs its own process group, which Ctrl-C does not reach.

    A blocked signal is inherited, but programs in Go, such as Docker's client, unblock it.
    """
    return bool(_under_way) or signal.SIGINT in signal.pthread_sigmask(signal.SIG_BLOCK, ())


def _end(number: int, frame: FrameType | None) -> None:
    global _first
    _end_child(number)
    _first = number
    for each in ENDING:
        if signal.getsignal(each) is not signal.SIG_IGN:
            signal.signal(each, _say)
    raise KeyboardInterrupt


def _end_child(number: int) -> None:
    """End a child between fork and exec by the signal, as it would end the new program."""
    if os.getpid() != _pid:
        signal.signal(number, signal.SIG_DFL)
        signal.raise_signal(number)


def _note_dropped(unraisable: "sys.UnraisableHookArgs") -> None:
    """Send the signal again a moment later if Python has dropped its KeyboardInterrupt.

    It drops an exception from `__del__`, from a callback of a weak reference (each import has one), and from a hook of
    a fork.
    """
    global _was_dropped, _is_noting
    if unraisable.exc_type is not KeyboardInterrupt or os.getpid() != _pid:
        _show_unraisable(unraisable)
        return
    _is_noting = True
    try:
        _was_dropped = True
        again = threading.Timer(_AGAIN_SECONDS, _send_again)
        again.daemon = True
        again.start()
    finally:
        _is_noting = False


def _send_again() -> None:
    # More than once: nothing can be raised while the hook above still waits for this thread, or during a clean-up.
    while _was_dropped:
        os.kill(_pid, _first)
        time.sleep(_AGAIN_SECONDS)


def _say(number: int, frame: FrameType | None) -> None:
    global _was_dropped
    if _is_noting:
        return
    if not _under_way:
        _end_child(number)
        if _was_dropped:
            _was_dropped = False
            raise KeyboardInterrupt
    elif _was_dropped:
        return  # it comes again and again
    line = "lab: ending; Ctrl-\\ ends it by force, and may leave something behind"
    if _under_way:
        what, by_hand = _under_way[-1]
        line = f"lab: {what}, not done yet; Ctrl-\\ ends it by force, and then `{by_hand}` removes what is left"
    # Not `print`: the signal may have interrupted one.
    with contextlib.suppress(OSError):
        os.write(2, f"{line}\n".encode())
