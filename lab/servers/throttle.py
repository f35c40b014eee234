"""Let a process and its children run for a share of the time: `python -m lab.servers.throttle PID SHARE`.

It does to processes what a CPU quota does to a container: by SIGSTOP and SIGCONT they run for a share of each tenth of
a second. It sends `Throttling` to its parent when it has begun, and ends with SIGTERM, which it also gets when the lab
dies.
"""

import signal
import sys
import threading
from contextlib import suppress
from dataclasses import dataclass

import psutil

from lab.base.messages import Message, say

PERIOD = 0.1  # seconds, as the kernel's default for a quota


@dataclass(frozen=True, slots=True)
class Throttling(Message):
    """The processes are being throttled."""


def signal_all(pid: int, number: int) -> None:
    """Send a signal to a process and all its descendants.

    Raises:
        psutil.NoSuchProcess: it has ended.
    """
    # The parent first: once stopped, it starts no child that would be missed.
    main = psutil.Process(pid)
    main.send_signal(number)
    for child in main.children(recursive=True):
        with suppress(psutil.NoSuchProcess):
            child.send_signal(number)


def throttle(pid: int, share: float) -> None:
    """Throttle a process until SIGTERM, or until the process has ended."""
    stop = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: stop.set())
    say(Throttling())
    with suppress(psutil.NoSuchProcess):
        while not stop.wait(share * PERIOD):
            try:
                signal_all(pid, signal.SIGSTOP)
                stop.wait((1 - share) * PERIOD)
            finally:
                signal_all(pid, signal.SIGCONT)


if __name__ == "__main__":
    throttle(int(sys.argv[1]), float(sys.argv[2]))
