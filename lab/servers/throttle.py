"""Hold a process and all that it has started back to a share of the time: `python -m lab.servers.throttle PID SHARE`.

What a CPU quota does to a container, by SIGSTOP and SIGCONT: of each tenth of a second they may run for a share. Until
SIGTERM, which comes also when the lab dies; then they all go on. It says `throttling` when it has begun.
"""

import signal
import sys
import threading
from contextlib import suppress

import psutil

PERIOD = 0.1  # seconds, as the kernel's own for a quota


def signal_all(pid: int, number: int) -> None:
    """Send a signal to a process and to all that it has started.

    Raises:
        psutil.NoSuchProcess: it has ended.
    """
    # The parent first: one that stands still makes no more, and what it has made is seen.
    main = psutil.Process(pid)
    main.send_signal(number)
    for child in main.children(recursive=True):
        with suppress(psutil.NoSuchProcess):
            child.send_signal(number)


def throttle(pid: int, share: float) -> None:
    """Until SIGTERM, or until it has ended."""
    stop = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: stop.set())
    print("throttling", flush=True)
    with suppress(psutil.NoSuchProcess):
        while not stop.wait(share * PERIOD):
            try:
                signal_all(pid, signal.SIGSTOP)
                stop.wait((1 - share) * PERIOD)
            finally:
                signal_all(pid, signal.SIGCONT)


if __name__ == "__main__":
    throttle(int(sys.argv[1]), float(sys.argv[2]))
