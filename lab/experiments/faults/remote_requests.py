"""Inject a fault on request: `lab faults --now`, and the form of Locust's web UI (loadtests/web/faults.py).

The UI has the load generator write a request to its stdout, between its other output. A request can only name faults of
the registry and models that are under load.
"""

import time
from collections.abc import Callable, Iterable, Sequence
from contextlib import ExitStack

from lab.base.errors import LabError
from lab.experiments.faults.fault import Fault, FaultInterval, NotHealedError, injected
from lab.experiments.faults.registry import FAULTS
from lab.load.messages import MOST_FAULT_SECONDS, FaultRequest
from lab.load.timeline import note
from lab.servers.backend import Backend
from lab.servers.helper import Helper


class FaultRequestReader:
    """Inject the faults that a load generator requests, and pass on the other lines of its output.

    Args:
        generator: Runs Locust's web UI.
        say: Called with each fault that is injected, and with each line that is not a request.
    """

    def __init__(
        self, backend: Backend, models: Sequence[str], generator: Helper, say: Callable[[str], object]
    ) -> None:
        self._backend = backend
        self._models = frozenset(models)
        self._generator = generator
        self._say = say

    def advance(self, *, inject: bool = True) -> None:
        """Handle the new lines; return when each requested fault is healed. For the main thread only.

        Args:
            inject: Otherwise ignore requests, and only pass on the other lines.

        Raises:
            NotHealedError: A fault could not be healed.
        """
        for line in self._generator.take_lines():
            self._say(line)
        while requests := self._take():
            for request in requests if inject else ():
                if objection := self._find_objection(request):
                    self._say(f"lab: {objection}")
                else:
                    self._inject(request)

    def _take(self) -> list[FaultRequest]:
        while True:
            try:
                return self._generator.take(FaultRequest)
            except LabError as error:  # a malformed one, which is dropped
                self._say(f"lab: {error}")

    def _find_objection(self, request: FaultRequest) -> str | None:
        if request.fault not in FAULTS:
            return f"unknown fault {request.fault!r}"
        if others := set(request.models) - self._models:
            return f"no fault is injected into {', '.join(sorted(others))}: not part of this load"
        if not 0 < request.seconds <= MOST_FAULT_SECONDS:
            return f"a fault must last more than 0 and at most {MOST_FAULT_SECONDS:g} s, not {request.seconds:g} s"
        return None

    def _inject(self, request: FaultRequest) -> None:
        def refuse(model: str, error: LabError) -> None:
            interval = FaultInterval(request.fault, model, is_control=False)
            interval.close()
            note(self._backend.project, interval.event(str(error)))
            self._say(f"{model}: {request.fault}: unknown: {error}")

        intervals = inject_together(
            self._backend, request.models, FAULTS[request.fault], request.seconds, self._say, refuse
        )
        if intervals:
            self._say(f"{', '.join(interval.model for interval in intervals)}: healed")


def inject_together(
    backend: Backend,
    models: Iterable[str],
    fault: Fault,
    seconds: float,
    say: Callable[[str], object],
    refuse: Callable[[str, LabError], object],
) -> list[FaultInterval]:
    """Inject a fault into running models at the same time, and heal it after `seconds`. Requests are not logged.

    Args:
        seconds: Ignored for a fault that ends the model.
        refuse: Called with each model that could not get the fault, and the error.

    Returns:
        The interval of each model that got the fault.

    Raises:
        NotHealedError: A fault could not be healed.
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
                say(f"{model}: {fault.name} since {intervals[-1].begin}, for {seconds:g} s; Ctrl-C heals it")
        if intervals and fault.hold:
            time.sleep(seconds)
    return intervals
