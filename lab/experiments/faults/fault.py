"""The form of all faults, and the one way to inject and heal them.

A fault prepares what it needs and returns an `Injection`: how to inject it, how to heal it, and how to do that by
hand. `injected` does the rest in the same way for all faults: it heals on every way out, defers signals while a fault
is half injected or half healed, and records the interval. A control run leaves out the injection: a failure in it is
not caused by the fault.
"""

import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from enum import Enum

from lab.base.errors import LabError, NotReadyError
from lab.base.interrupts import ENDING
from lab.load.messages import FaultEvent
from lab.load.timeline import note
from lab.servers.backend import Backend, ContainerControls, FaultControls, Listening, Servers


class NotHealedError(LabError):
    """A fault could not be healed; the message says what is still broken and how to fix it by hand."""


class CannotApplyError(LabError):
    """The kernel, the backend or the model does not support this fault. Nothing is broken."""


class NotApplicableError(CannotApplyError):
    """The model has nothing that this fault could break, such as worker processes."""


class EndedError(LabError):
    """A model had ended by itself before the injection. It has been restarted."""


@dataclass(frozen=True, slots=True)
class Injection:
    """One fault, prepared for one model.

    Args:
        inject: Returns the exit code if the fault ends the model and the code is known.
        heal: Also works when nothing, or only a part, is broken.
        by_hand: How a person heals it if `heal` fails.
        broken: What is still broken in that case.
    """

    inject: Callable[[], int | None]
    heal: Callable[[], object]
    by_hand: str
    broken: str


class Evidence(Enum):
    """What a model is judged by."""

    REQUEST_LOG = "the account of all requests, and a latency probe"
    PING = "the p99 of another client's PING, before and during the fault"


class RecoveryStart(Enum):
    """The moment from which the time to the first answer of a restarted model counts."""

    INJECTION = "the model has no say in when it ends"
    HEALING = "the model ends when it is done, and is then restarted"


@dataclass(frozen=True, slots=True)
class Fault:
    """One kind of fault.

    Args:
        prepare: Raises CannotApplyError if this fault is not supported.
        hold: Seconds between injection and healing; 0 for a fault that ends the model.
        keeps_connections: Connections survive, and every accepted request must be answered. Otherwise requests may
            stay unanswered, and the request log only has to know which.
        needs: Capabilities (`lab.limit.<capability>`) without which a model is expected to fail.
        measured_by: What a model is judged by.
        must_exit_cleanly: A model that the fault ends must exit with code 0.
        recovery_counts_from: For a fault that ends the model; None for all others.
    """

    name: str
    summary: str
    prepare: Callable[[Backend, str], Injection]
    hold: float = 0.0
    keeps_connections: bool = True
    needs: tuple[str, ...] = ()
    measured_by: Evidence = Evidence.REQUEST_LOG
    must_exit_cleanly: bool = False
    recovery_counts_from: RecoveryStart | None = None

    def for_control(self) -> "Fault":
        """Return what a control run is judged by: nothing is injected, so nothing is excused."""
        return replace(self, keeps_connections=True, must_exit_cleanly=False, recovery_counts_from=None)


@dataclass(slots=True)
class FaultInterval:
    """The time from injection to healing, for a timeline.

    Args:
        begin, end: UTC, ISO 8601; `end` is empty while the fault lasts.
        begin_seconds, end_seconds: The same on the monotonic clock.
        exit_code: Exit code of a model that the fault ended, if it is known.
        ended: Exit code of a model that ended although this fault leaves it running; it was restarted.
    """

    fault: str
    model: str
    is_control: bool
    begin: str = field(default_factory=lambda: _now())
    begin_seconds: float = field(default_factory=lambda: time.monotonic())
    end: str = ""
    end_seconds: float | None = None
    exit_code: int | None = None
    ended: int | None = None

    def event(self, why_not: str = "") -> FaultEvent:
        """Return the interval as the load generator shows it.

        Args:
            why_not: Why the fault could not be injected.
        """
        return FaultEvent(self.model, self.fault, self.begin, self.end, why_not)

    def close(self) -> None:
        self.end, self.end_seconds = _now(), time.monotonic()


@contextmanager
def injected(fault: Fault, backend: Backend, model: str, *, control: bool = False) -> Iterator[FaultInterval]:
    """Inject a fault into a model for the duration of a block.

    Args:
        control: Prepare and heal, but do not inject.

    Raises:
        CannotApplyError: The fault is not supported; nothing was broken.
        EndedError: The model had ended before the injection. It was restarted.
        NotHealedError: The fault could not be healed.
    """
    try:
        with _unless_ended(fault, backend, model):
            injection = fault.prepare(backend, model)
    except EndedError:
        backend.restart(model)
        raise
    interval = FaultInterval(fault.name, model, control)
    is_noted = False
    try:
        if not control:
            with signals_held(), _unless_ended(fault, backend, model):
                interval.exit_code = injection.inject()
            note(backend.project, interval.event())
            is_noted = True
        yield interval
    finally:
        with signals_held():
            try:
                _heal(injection, backend, model, interval)
            except (LabError, OSError) as error:
                raise NotHealedError(
                    f"{error}\nstill broken: {injection.broken}; by hand: {injection.by_hand}"
                ) from error
            finally:
                if interval.end_seconds is None:
                    interval.close()
                if is_noted:
                    note(backend.project, interval.event())


@contextmanager
def _unless_ended(fault: Fault, servers: Servers, model: str) -> Iterator[None]:
    """Raise EndedError instead of the error of a block if the model has ended by itself."""
    try:
        yield
    except CannotApplyError:
        raise
    except (LabError, OSError) as error:
        if (code := find_exit_code(servers, model)) is None:
            raise
        raise EndedError(f"{model} had ended with exit code {code} before {fault.name}: {error}") from error


def _heal(injection: Injection, servers: Servers, model: str, interval: FaultInterval) -> None:
    """Heal the fault, and restart a model that has ended meanwhile, which may be why healing failed."""
    try:
        injection.heal()
    except (LabError, OSError):
        interval.ended = find_exit_code(servers, model)
        if interval.ended is None:
            raise
        servers.restart(model)
        injection.heal()
        return
    interval.close()  # a restart is not part of the interval
    interval.ended = find_exit_code(servers, model)
    if interval.ended is not None:
        servers.restart(model)
        interval.close()


def find_exit_code(servers: Servers, model: str) -> int | None:
    """Return the exit code of a model that has ended; None if it runs or was never started."""
    state = next(item for item in servers.state() if item.model == model)
    if state.state != "exited":
        return None
    # The code is unknown if the process that would have recorded it was killed as well.
    return 128 + signal.SIGKILL if state.exit_code is None else state.exit_code


@contextmanager
def signals_held() -> Iterator[None]:
    """Defer SIGINT, SIGTERM and SIGHUP to the end of a block. For the main thread only.

    Child processes inherit the mask, so that a Ctrl-C, which goes to all foreground processes of a terminal, does not
    interrupt them half-way either.
    """
    received: list[int] = []
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, ENDING)
    # The mask is not enough: the kernel delivers a signal to any thread that does not block it, and Python then calls
    # the handler in the main thread.
    handlers = [signal.signal(number, lambda which, _: received.append(which)) for number in ENDING]
    try:
        yield
    finally:
        for number, handler in zip(ENDING, handlers, strict=True):
            signal.signal(number, handler)
        for which in received[:1]:
            signal.raise_signal(which)
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)


def healed_by_restart(servers: Servers, model: str, inject: Callable[[], int | None]) -> Injection:
    """Return the injection of a fault that ends a model; healing restarts the model if the fault was injected."""
    attempts: list[bool] = []

    def attempt() -> int | None:
        attempts.append(True)
        return inject()

    def heal() -> None:
        try:
            if attempts:
                servers.restart(model)
        except NotReadyError as error:
            raise LabError(str(error)) from None

    return Injection(attempt, heal, f"`lab up {model}`, or `lab down`", f"{model} is down")


def require_container(controls: FaultControls, why: str) -> ContainerControls:
    """Return the controls of containers.

    Args:
        why: What only a container has, for the message.

    Raises:
        CannotApplyError: The models do not run in containers.
    """
    if controls.container is None:
        raise CannotApplyError(f"only a container has {why}")
    return controls.container


def find_address(servers: Listening, model: str) -> str:
    """Return the address where a model serves `command` over TCP.

    Raises:
        LabError: It does not.
    """
    for item in servers.targets():
        if (item.model, item.service, item.transport) == (model, "command", "tcp"):
            return item.address
    raise LabError(f"{model} does not serve command over tcp, which faults are tested with")


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="milliseconds")
