"""Which signals stop a server: one answer for all models, their parents and their workers.

SIGTERM is what `docker stop` and systemd send, SIGINT is Ctrl-C, SIGHUP says that the terminal is gone, SIGQUIT is
Ctrl-\\ and nginx's graceful stop. There is no configuration to read again, so SIGHUP has no other meaning here.
"""

import signal

_ALWAYS = (signal.SIGTERM, signal.SIGINT)
_UNLESS_IGNORED = (signal.SIGHUP, signal.SIGQUIT)


def stop_signals() -> tuple[signal.Signals, ...]:
    """The signals to stop at. `nohup` has SIGHUP ignored, and a shell SIGQUIT of its background jobs: they stay so."""
    return (*_ALWAYS, *(each for each in _UNLESS_IGNORED if signal.getsignal(each) is not signal.SIG_IGN))


def hold_stop_signals() -> None:
    """Keep signals from a process that has stopped, until it has ended.

    Libraries, and then the interpreter, put the default back, which would kill before the last files are removed. A
    signal that this thread blocks may still come to a thread that a library has left, so it is ignored as well.
    """
    numbers = stop_signals()
    signal.pthread_sigmask(signal.SIG_BLOCK, numbers)
    for number in numbers:
        signal.signal(number, signal.SIG_IGN)
