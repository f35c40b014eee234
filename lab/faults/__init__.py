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

from lab.backends import Backend
from lab.errors import LabError, NotReadyError
from lab.faults.timeline import note


class NotHealedError(LabError):
    """What a fault has broken could not be mended; the message says what that is, and how to do it by hand."""


class CannotApplyError(LabError):
    """A fault cannot be had here: the kernel, the backend or the model lacks what it takes. Nothing is broken."""


class NoSuchPartError(CannotApplyError):
    """A model has nothing that this fault could break."""


@dataclass(frozen=True, slots=True)
class Harm:
    """One fault on one model, prepared.

    Args:
        do: breaks it; gives the exit code of a model that has ended by itself.
        undo: mends it. Also where nothing is broken, or only a part of it.
        by_hand: what a person does where `undo` fails.
        broken: what is then still broken.
    """

    do: Callable[[], int | None]
    undo: Callable[[], object]
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
    prepare: Callable[[Backend, str], Harm]
    hold: float = 0.0
    keeps: bool = True
    needs: tuple[str, ...] = ()


@dataclass(slots=True)
class Stamp:
    """When a fault was there, for a timeline.

    Args:
        begin, end: UTC, ISO 8601; `end` is empty while it lasts.
        begin_seconds, end_seconds: the same on the monotonic clock.
        exit_code: of a model that ended by itself.
    """

    fault: str
    model: str
    is_twin: bool
    begin: str = field(default_factory=lambda: _now())
    begin_seconds: float = field(default_factory=time.monotonic)
    end: str = ""
    end_seconds: float | None = None
    exit_code: int | None = None

    def close(self) -> None:
        """It is mended."""
        self.end, self.end_seconds = _now(), time.monotonic()


@contextmanager
def applied(fault: Fault, backend: Backend, model: str, *, twin: bool = False) -> Iterator[Stamp]:
    """Break a model for the time of a block.

    Args:
        twin: prepare it and mend it, and leave out what breaks.

    Raises:
        CannotApplyError: it cannot be had here, and nothing was broken.
        NotHealedError: it could not be mended.
    """
    harm = fault.prepare(backend, model)
    stamp = Stamp(fault.name, model, twin)
    is_noted = False
    try:
        if not twin:
            with signals_held():
                stamp.exit_code = harm.do()
            note(backend.project, asdict(stamp))
            is_noted = True
        yield stamp
    finally:
        with signals_held():
            try:
                harm.undo()
            except (LabError, OSError) as error:
                raise NotHealedError(f"{error}\nstill broken: {harm.broken}; by hand: {harm.by_hand}") from error
            finally:
                stamp.close()
                if is_noted:
                    note(backend.project, asdict(stamp))


@contextmanager
def signals_held() -> Iterator[None]:
    """Let SIGINT and SIGTERM wait for the end of a block.

    In the main thread. Children inherit it: a Ctrl-C, which goes to all of a terminal's foreground processes, ends none
    of them half-way.
    """
    came: list[int] = []
    held = (signal.SIGINT, signal.SIGTERM)
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, held)
    # The kernel gives a signal to any thread that takes it, and Python hands it to this one. So both are needed.
    handlers = [signal.signal(number, lambda which, _: came.append(which)) for number in held]
    try:
        yield
    finally:
        for number, handler in zip(held, handlers, strict=True):
            signal.signal(number, handler)
        for which in came[:1]:
            signal.raise_signal(which)
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)


def until_restarted(backend: Backend, model: str, do: Callable[[], int | None]) -> Harm:
    """The harm of a fault that ends a model, which is started again; one that was not ended is left alone."""
    begun: list[bool] = []

    def begin() -> int | None:
        begun.append(True)
        return do()

    def undo() -> None:
        try:
            if begun:
                backend.restart(model)
        except NotReadyError as error:
            raise LabError(str(error)) from None

    return Harm(begin, undo, f"`lab up {model}`, or `lab down`", f"{model} is down")


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
