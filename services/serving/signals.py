"""The signals that stop a server, for all models, their parents and their workers.

SIGTERM is what `docker stop` and systemd send, SIGINT is Ctrl-C, SIGHUP says that the terminal was closed, SIGQUIT is
Ctrl-\\ and nginx's graceful stop. There is no configuration to read again, so SIGHUP has no other meaning here.
"""

import signal

_ALWAYS = (signal.SIGTERM, signal.SIGINT)
_UNLESS_IGNORED = (signal.SIGHUP, signal.SIGQUIT)


def stop_signals() -> tuple[signal.Signals, ...]:
    """Return the stop signals, except those that the process ignores (SIGHUP under nohup, SIGQUIT in a shell's job)."""
    return (*_ALWAYS, *(each for each in _UNLESS_IGNORED if signal.getsignal(each) is not signal.SIG_IGN))


def hold_stop_signals() -> None:
    """Ignore the stop signals from the end of the service until the exit.

    Libraries, and then the interpreter, restore the default handlers, which would kill the process before it has
    removed its last files. The signals are blocked in this thread, and ignored for threads that a library has left.
    """
    numbers = stop_signals()
    signal.pthread_sigmask(signal.SIG_BLOCK, numbers)
    for number in numbers:
        signal.signal(number, signal.SIG_IGN)
