"""A fixed number of processes, forked before the first client, and their parent.

Like the parents of Apache and gunicorn, it replaces workers that die, passes on the stop signal, and kills workers that
do not stop.
"""

import ctypes
import gc
import logging
import os
import signal
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from itertools import chain
from typing import NoReturn

from services.protocol import Transport
from services.serving.accepting import Shortage
from services.serving.blocking import StopSignal
from services.serving.closing import stop_accepting
from services.serving.listeners import Listener, bind_twin
from services.serving.signals import stop_signals

log = logging.getLogger("services")

# If a worker ends sooner than this after its start, its successor will probably do the same. So it starts after this
# delay; otherwise the parent would only fork.
_SHORT_LIFE = 1.0
# A worker keeps the grace period itself, and logs the conversations that it ended. It is killed only if it does not.
_MORE_GRACE = 1.0

_PR_SET_PDEATHSIG = 1  # prctl(2)
_libc = ctypes.CDLL(None, use_errno=True)

# A worker's number and the sockets that it is to accept from -> whether all conversations ended by themselves.
Work = Callable[[int, list[Listener]], bool]


def die_with(parent: int) -> bool:
    """Let the kernel kill this process when its parent dies; otherwise it would keep its client and the ports.

    Returns:
        False if the parent has already exited.
    """
    _libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    return os.getppid() == parent


class Workers:
    """The processes.

    Args:
        listeners: served by all of them. With `Limits.reuse_port` each has its own TCP sockets. The parent keeps them
            open too, so that waiting clients are not lost when a worker dies and is replaced.
        work: runs in each process until SIGTERM.
        on_end: called in the parent with the number of a worker that has ended.
    """

    def __init__(
        self, listeners: list[Listener], count: int, work: Work, on_end: Callable[[int], object] = lambda number: None
    ) -> None:
        self._work = work
        self._on_end = on_end
        self._grace = listeners[0].limits.grace
        self._shortage = Shortage()  # of processes
        self._resources = ExitStack()
        self._listeners = [listeners, *(self._twins(listeners) for _ in range(count - 1))]
        self._pids: dict[int, int] = {}  # of a process -> the number of its worker
        self._started = [0.0] * count
        self._due = dict.fromkeys(range(count), 0.0)  # number -> when to start it

    def serve(self) -> bool:
        """Keep them running until a stop signal; return whether all conversations ended by themselves."""
        parent = os.getpid()
        with self._resources:
            stop = StopSignal()
            signal.signal(signal.SIGCHLD, lambda *_: None)  # a handler of any kind makes a worker's end wake `stop`
            # What is there by now stays. A collection would write to the head of each such object, in each worker, and
            # so make a copy of its page.
            gc.collect()
            gc.freeze()
            while not stop.is_set:
                self._start_due(stop, parent)
                self._shortage.look()
                stop.wait(self._next())
                self._collect()
            clean = self._drain(stop)
            stop.close()
        return clean

    def _twins(self, listeners: Sequence[Listener]) -> list[Listener]:
        return [
            bind_twin(listener, self._resources)
            if listener.limits.reuse_port and listener.address.transport.carrier is Transport.TCP
            else listener
            for listener in listeners
        ]

    def _start_due(self, stop: StopSignal, parent: int) -> None:
        signals = (*stop_signals(), signal.SIGCHLD)
        for number in [number for number, due in self._due.items() if due <= time.monotonic()]:
            # Until the child has its own handlers, it would handle a signal like its parent.
            signal.pthread_sigmask(signal.SIG_BLOCK, signals)
            try:
                pid = os.fork()
                if not pid:
                    self._be_worker(number, stop, parent)
            except OSError as error:
                pause = self._shortage.failed(f"no new process for worker {number}: {error.strerror}")
                self._due[number] = time.monotonic() + pause
                continue
            finally:
                signal.pthread_sigmask(signal.SIG_UNBLOCK, signals)
            self._pids[pid] = number
            self._started[number] = time.monotonic()
            del self._due[number]

    def _next(self) -> float | None:
        """Return the time of the next task that no signal announces, by `time.monotonic`."""
        timeout = self._shortage.timeout
        look = [] if timeout is None else [time.monotonic() + timeout]
        return min([*self._due.values(), *look], default=None)

    def _be_worker(self, number: int, stop: StopSignal, parent: int) -> NoReturn:
        code = 1
        try:
            stop.close()
            for each in stop_signals():
                signal.signal(each, lambda *_: os._exit(0))  # until `work` has its own, nothing is in flight
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            # A copy of another worker's socket would listen in this one's drain, and nobody would accept from it.
            own = {listener.socket for listener in self._listeners[number]}
            for listener in chain.from_iterable(self._listeners):
                if listener.socket not in own:
                    listener.socket.close()
            if die_with(parent):
                signal.pthread_sigmask(signal.SIG_UNBLOCK, (*stop_signals(), signal.SIGCHLD))
                code = 0 if self._work(number, self._listeners[number]) else 1
        except SystemExit as exit_:
            code = exit_.code if isinstance(exit_.code, int) else 1
        except BaseException:
            log.exception("worker %d ended in an error", number)
        finally:
            # Not the normal exit: the parent cleans up what it has set up.
            os._exit(code)

    def _collect(self) -> list[int]:
        """Collect the workers that have ended; return their exit codes."""
        codes = []
        for pid, number in list(self._pids.items()):
            ended, status = os.waitpid(pid, os.WNOHANG)
            if not ended:
                continue
            del self._pids[pid]
            code = os.waitstatus_to_exitcode(status)
            codes.append(code)
            self._on_end(number)
            now = time.monotonic()
            self._due[number] = now + (_SHORT_LIFE if now - self._started[number] < _SHORT_LIFE else 0.0)
            how = f"by signal {-code}" if code < 0 else f"with exit code {code}"
            log.log(logging.WARNING if code else logging.DEBUG, "worker %d (process %d) ended %s", number, pid, how)
        return codes

    def _drain(self, stop: StopSignal) -> bool:
        for listeners in self._listeners:
            stop_accepting(listeners)
        self._signal_all(signal.SIGTERM)
        deadline = time.monotonic() + self._grace + _MORE_GRACE
        clean = True
        while self._pids and time.monotonic() < deadline:
            stop.wait(deadline)
            clean = not any(self._collect()) and clean
        if self._pids:
            log.warning("the grace period of %g s is over: %d workers are killed", self._grace, len(self._pids))
            self._signal_all(signal.SIGKILL)
            clean = False
            for pid in self._pids:
                os.waitpid(pid, 0)
        return clean

    def _signal_all(self, number: signal.Signals) -> None:
        for pid in self._pids:  # each is there until it has been waited for
            os.kill(pid, number)
