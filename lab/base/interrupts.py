"""SIGINT, SIGTERM and SIGHUP: the first one ends a command, and no further one disturbs what it puts in order then."""

import contextlib
import os
import signal
import threading
from collections.abc import Callable, Iterator
from types import FrameType

from lab.base.errors import LabError

ENDING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)

# What has to be done before the process ends.
_owed: list[Callable[[], object]] = []

# What is being put in order now, from the outside in, and how to do it by hand.
_under_way: list[tuple[str, str]] = []


# The process that these handlers are meant for.
_pid = os.getpid()

_AGAIN_SECONDS = 0.02
_is_forking = False


def _note_fork(*, begins: bool) -> None:
    global _is_forking
    _is_forking = begins


# The last to be registered begins first and ends last: it has the hooks of all modules in it.
os.register_at_fork(
    before=lambda: _note_fork(begins=True),
    after_in_parent=lambda: _note_fork(begins=False),
    after_in_child=lambda: _note_fork(begins=False),
)


def install() -> None:
    """Make the first of these signals a KeyboardInterrupt, and each further one a line on stderr.

    One that is ignored, as SIGHUP by nohup and SIGINT by a shell's `&`, stays ignored.
    """
    global _pid
    _pid = os.getpid()
    for number in ENDING:
        if signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, _end)


@contextlib.contextmanager
def untouched(what: str) -> Iterator[None]:
    """Have an interrupt of a block in which nothing has been changed yet say so.

    Args:
        what: is as it was.
    """
    try:
        yield
    except KeyboardInterrupt:
        raise KeyboardInterrupt(what) from None


@contextlib.contextmanager
def sure(do: Callable[[], object]) -> Iterator[None]:
    """Do something after a block, also where a signal interrupts the way from its end to the doing."""
    _owed.append(do)
    try:
        yield
    finally:
        do()
        _owed.remove(do)


def settle() -> Iterator[LabError]:
    """Do what `sure` has promised, after an interrupt: no further one can come between. Yields what failed."""
    while _owed:
        do = _owed.pop()
        try:
            do()
        except LabError as error:
            yield error


@contextlib.contextmanager
def uninterrupted(what: str, by_hand: str) -> Iterator[None]:
    """Finish a clean-up, whatever signals come: each is answered with a line on stderr, and has no other effect.

    Args:
        what: is being done, for that line.
        by_hand: the command that does it, should somebody end the process by force.
    """
    if threading.current_thread() is not threading.main_thread():
        yield  # Python hands signals to the main thread alone
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
    """Ignore them for the rest of this process: Python gives handlers up before it ends, and the exit code is known."""
    for number in ENDING:
        signal.signal(number, signal.SIG_IGN)


def are_held() -> bool:
    """Whether signals have to wait now: a child then needs a process group of its own, which a Ctrl-C does not reach.

    A blocked signal would be inherited as such, but a program in Go, as Docker's client is, unblocks it.
    """
    return bool(_under_way) or signal.SIGINT in signal.pthread_sigmask(signal.SIG_BLOCK, ())


def _end(number: int, frame: FrameType | None) -> None:
    if _is_forking:
        # Python prints what is raised between a fork's hooks, and forgets it. So the signal comes again a moment later.
        again = threading.Timer(_AGAIN_SECONDS, os.kill, (os.getpid(), number))
        again.daemon = True
        again.start()
        return
    if os.getpid() != _pid:
        # A child that has forked and not yet become another program: it ends as that program would.
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
    # Not `print`: the signal may have come in the middle of one.
    with contextlib.suppress(OSError):
        os.write(2, f"{line}\n".encode())
