"""What is done to a model on purpose: a small file for each, all of one form.

A fault prepares what it needs, and says how to break a model, how to mend it, and how to do that by hand. `applied`
does the rest, the same for all: it mends on every way out, holds back signals while something is half broken or half
mended, and notes when it was. Without the step that breaks, a fault is its own twin: what does not hold under the twin
either is no finding about the fault.
"""

import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime

from lab.base.errors import LabError, NotReadyError
from lab.base.interrupts import ENDING
from lab.load.timeline import note
from lab.servers.backend import Backend


class NotHealedError(LabError):
    """What a fault has broken could not be mended; the message says what that is, and how to do it by hand."""


class CannotApplyError(LabError):
    """A fault cannot be had here: the kernel, the backend or the model lacks what it takes. Nothing is broken."""


class NoSuchPartError(CannotApplyError):
    """A model has nothing that this fault could break."""


class EndedError(LabError):
    """A model had ended by itself before it was broken. It runs again."""


@dataclass(frozen=True, slots=True)
class Injection:
    """One fault on one model, prepared.

    Args:
        do: breaks it; gives the exit code of a model that has ended by itself.
        undo: mends it. Also where nothing is broken, or only a part of it.
        by_hand: what a person does where `undo` fails.
        broken: what is then still broken.
    """

    inject: Callable[[], int | None]
    heal: Callable[[], object]
    by_hand: str
    broken: str


@dataclass(frozen=True, slots=True)
class Fault:
    """One kind of fault.

    Args:
        name: as it is asked for.
        summary: one line.
        prepare: raises CannotApplyError where it cannot be had.
        hold: seconds between breaking and mending; 0 where the break itself ends what it breaks.
        keeps: connections last, and what was asked on them is answered in the end; else it is known what was not.
        needs: capabilities (`lab.limit.<capability>`) without which a model is expected to fail.
    """

    name: str
    summary: str
    prepare: Callable[[Backend, str], Injection]
    hold: float = 0.0
    keeps: bool = True
    needs: tuple[str, ...] = ()


@dataclass(slots=True)
class FaultInterval:
    """When a fault was there, for a timeline.

    Args:
        begin, end: UTC, ISO 8601; `end` is empty while it lasts.
        begin_seconds, end_seconds: the same on the monotonic clock.
        exit_code: of a model that the fault ended, where it is known.
        ended: exit code of a model that ended although this fault leaves a model running; it was started again.
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

    def close(self) -> None:
        """It is mended."""
        self.end, self.end_seconds = _now(), time.monotonic()


@contextmanager
def injected(fault: Fault, backend: Backend, model: str, *, control: bool = False) -> Iterator[FaultInterval]:
    """Break a model for the time of a block.

    Args:
        twin: prepare it and mend it, and leave out what breaks.

    Raises:
        CannotApplyError: it cannot be had here, and nothing was broken.
        EndedError: the model had ended before it was broken. It was started again.
        NotHealedError: it could not be mended.
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
            note(backend.project, asdict(interval))
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
                    note(backend.project, asdict(interval))


@contextmanager
def _unless_ended(fault: Fault, backend: Backend, model: str) -> Iterator[None]:
    """Tell a model that had ended by itself from one that could not be broken."""
    try:
        yield
    except CannotApplyError:
        raise
    except (LabError, OSError) as error:
        if (code := find_exit_code(backend, model)) is None:
            raise
        raise EndedError(f"{model} had ended with exit code {code} before {fault.name}: {error}") from error


def _heal(injection: Injection, backend: Backend, model: str, interval: FaultInterval) -> None:
    """Undo the harm, and start a model that has ended meanwhile: it may be the reason why nothing can be undone."""
    try:
        injection.heal()
    except (LabError, OSError):
        interval.ended = find_exit_code(backend, model)
        if interval.ended is None:
            raise
        backend.restart(model)
        injection.heal()
        return
    interval.close()  # what follows is no part of it
    interval.ended = find_exit_code(backend, model)
    if interval.ended is not None:
        backend.restart(model)
        interval.close()


def find_exit_code(backend: Backend, model: str) -> int | None:
    """Return the exit code of a model that has ended; None of one that runs, or was never started."""
    state = next(item for item in backend.state() if item.model == model)
    if state.state != "exited":
        return None
    # An unknown code means that what would have noted it was killed as well.
    return 128 + signal.SIGKILL if state.exit_code is None else state.exit_code


@contextmanager
def signals_held() -> Iterator[None]:
    """Let SIGINT, SIGTERM and SIGHUP wait for the end of a block.

    In the main thread. Children inherit it: a Ctrl-C, which goes to all of a terminal's foreground processes, ends none
    of them half-way.
    """
    came: list[int] = []
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, ENDING)
    # The kernel gives a signal to any thread that takes it, and Python hands it to this one. So both are needed.
    handlers = [signal.signal(number, lambda which, _: came.append(which)) for number in ENDING]
    try:
        yield
    finally:
        for number, handler in zip(ENDING, handlers, strict=True):
            signal.signal(number, handler)
        for which in came[:1]:
            signal.raise_signal(which)
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)


def until_restarted(backend: Backend, model: str, inject: Callable[[], int | None]) -> Injection:
    """The harm of a fault that ends a model, which is started again; one that was not ended is left alone."""
    begun: list[bool] = []

    def begin() -> int | None:
        begun.append(True)
        return inject()

    def heal() -> None:
        try:
            if begun:
                backend.restart(model)
        except NotReadyError as error:
            raise LabError(str(error)) from None

    return Injection(begin, heal, f"`lab up {model}`, or `lab down`", f"{model} is down")


def only_in_container(backend: Backend, why: str) -> None:
    """See that models run in containers.

    Raises:
        CannotApplyError: they do not; `why` says what a container has for it.
    """
    if backend.name != "docker":
        raise CannotApplyError(f"only a container has {why}")


def find_address(backend: Backend, model: str) -> str:
    """Where a model speaks `command` over TCP.

    Raises:
        LabError: nowhere.
    """
    for item in backend.targets():
        if (item.model, item.service, item.transport) == (model, "command", "tcp"):
            return item.address
    raise LabError(f"{model} does not speak command over tcp, which the ledger is kept in")


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="milliseconds")
