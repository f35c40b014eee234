"""SIGINT, SIGTERM and SIGHUP: the first one ends a command, and later ones do not disturb its clean-up."""

import contextlib
import os
import signal
import threading
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
_is_forking = False


def _note_fork(*, begins: bool) -> None:
    global _is_forking
    _is_forking = begins


# The last hooks to be registered begin first and end last, so they enclose the hooks of all other modules.
os.register_at_fork(
    before=lambda: _note_fork(begins=True),
    after_in_parent=lambda: _note_fork(begins=False),
    after_in_child=lambda: _note_fork(begins=False),
)


def install() -> None:
    """Turn the first of these signals into a KeyboardInterrupt, and each later one into a line on stderr.

    A signal that is ignored stays ignored: SIGHUP under nohup, SIGINT under a shell's `&`.
    """
    global _pid
    _pid = os.getpid()
    for number in ENDING:
        if signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, _end)


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
    if _is_forking:
        # Python prints and drops an exception from a hook of a fork. So send the signal again a moment later.
        again = threading.Timer(_AGAIN_SECONDS, os.kill, (os.getpid(), number))
        again.daemon = True
        again.start()
        return
    if os.getpid() != _pid:
        # A child between fork and exec: it ends by the signal, as the new program would.
        signal.signal(number, signal.SIG_DFL)
        signal.raise_signal(number)
    for each in ENDING:
        if signal.getsignal(each) is not signal.SIG_IGN:
            signal.signal(each, _say)
    raise KeyboardInterrupt


def _say(number: int, frame: FrameType | None) -> None:
    line = "lab: ending; Ctrl-\\ ends it by force, and may leave something behind"
    if _under_way:
        what, by_hand = _under_way[-1]
        line = f"lab: {what}, not done yet; Ctrl-\\ ends it by force, and then `{by_hand}` removes what is left"
    # Not `print`: the signal may have interrupted one.
    with contextlib.suppress(OSError):
        os.write(2, f"{line}\n".encode())
