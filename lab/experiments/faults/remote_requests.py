"""Faults that somebody asks for: `lab faults --now`, and the form of Locust's web UI (loadtests/web/faults.py).

Behind the UI, the load generator writes a request to its stdout, among what it has to say otherwise. Nothing but the
faults of the catalogue can be asked for, on the models that are under load.
"""

import time
from collections.abc import Callable, Iterable, Sequence
from contextlib import ExitStack
from dataclasses import asdict
from pathlib import Path

from lab.base.errors import LabError
from lab.experiments.faults.fault import Fault, FaultInterval, NotHealedError, injected
from lab.experiments.faults.registry import FAULTS
from lab.load.messages import MOST_FAULT_SECONDS, FaultRequest
from lab.load.timeline import note
from lab.servers.backend import Backend


class FaultRequestReader:
    """What a load generator asks for, and what else it says.

    Args:
        models: that may be broken.
        log: the generator's, which it goes on writing to.
        say: is told of what is done, and whatever the generator says that is no request.
    """

    def __init__(self, backend: Backend, models: Sequence[str], log: Path, say: Callable[[str], object]) -> None:
        self._backend = backend
        self._models = frozenset(models)
        self._log = log
        self._say = say
        self._read = 0
        self._rest = b""

    def advance(self, *, obey: bool = True) -> None:
        """Read what is new, and do what is asked for: returns when it is mended again. In the main thread.

        Args:
            obey: otherwise pass on only what the generator says.

        Raises:
            NotHealedError: something could not be mended.
        """
        with self._log.open("rb") as file:
            file.seek(self._read)
            data = file.read()
        self._read += len(data)
        *lines, self._rest = (self._rest + data).split(b"\n")
        for line in lines:
            text = line.decode(errors="replace").rstrip("\r")
            try:
                request = FaultRequest.decode(text)
            except ValueError as error:
                self._say(f"lab: {error}")
                continue
            if request is None:
                self._say(text)
            elif not obey:
                continue
            elif objection := self._find_objection(request):
                self._say(f"lab: {objection}")
            else:
                self._inject(request)

    def _find_objection(self, request: FaultRequest) -> str | None:
        if request.fault not in FAULTS:
            return f"there is no fault {request.fault!r}"
        if foreign := set(request.models) - self._models:
            return f"{', '.join(sorted(foreign))} cannot be broken: not of this load"
        if not 0 < request.seconds <= MOST_FAULT_SECONDS:
            return f"a fault lasts for more than 0 and at most {MOST_FAULT_SECONDS:g} s, not for {request.seconds:g}"
        return None

    def _inject(self, request: FaultRequest) -> None:
        def refuse(model: str, error: LabError) -> None:
            interval = FaultInterval(request.fault, model, is_control=False)
            interval.close()
            note(self._backend.project, asdict(interval) | {"why_not": str(error)})
            self._say(f"{model}: {request.fault}: unknown: {error}")

        intervals = inject_together(
            self._backend, request.models, FAULTS[request.fault], request.seconds, self._say, refuse
        )
        if intervals:
            self._say(f"{', '.join(interval.model for interval in intervals)}: mended")


def inject_together(
    backend: Backend,
    models: Iterable[str],
    fault: Fault,
    seconds: float,
    say: Callable[[str], object],
    refuse: Callable[[str, LabError], object],
) -> list[FaultInterval]:
    """Break models that run, all at once, for some seconds; no account is kept.

    Args:
        seconds: for how long, of a fault that does not end by itself.
        refuse: is told of each model that could not be broken, and why.

    Returns:
        Of each that was, when.

    Raises:
        NotHealedError: something could not be mended.
    """
    intervals = []
    with ExitStack() as stack:
        for model in dict.fromkeys(models):
            try:
                intervals.append(stack.enter_context(injected(fault, backend, model)))
            except NotHealedError:
                raise
            except LabError as error:  # nothing is broken
                refuse(model, error)
            else:
                say(f"{model}: {fault.name} since {intervals[-1].begin}, for {seconds:g} s; Ctrl-C mends it")
        if intervals and fault.hold:
            time.sleep(seconds)
    return intervals
