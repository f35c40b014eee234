"""Faults that somebody asks for in the form of Locust's web UI: the lab's side of loadtests/breaking.py.

The load generator writes a request to its stdout, among what it has to say otherwise. Nothing but the faults of the
catalogue can be asked for, on the models that are under load.
"""

import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import asdict
from pathlib import Path

from lab.backends import Backend
from lab.errors import LabError
from lab.faults import NotHealedError, Stamp, applied
from lab.faults.scorecard import FAULTS
from lab.faults.timeline import note
from lab.usage import FaultRequest

# The form is open to whoever gets to it: nothing stays broken for longer.
MOST_SECONDS = 600.0


class Requests:
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
                self._break(request)

    def _find_objection(self, request: FaultRequest) -> str | None:
        if request.fault not in FAULTS:
            return f"there is no fault {request.fault!r}"
        if foreign := set(request.models) - self._models:
            return f"{', '.join(sorted(foreign))} cannot be broken: not of this load"
        if not 0 < request.seconds <= MOST_SECONDS:
            return f"a fault lasts for more than 0 and at most {MOST_SECONDS:g} s, not for {request.seconds:g}"
        return None

    def _break(self, request: FaultRequest) -> None:
        fault = FAULTS[request.fault]
        with ExitStack() as stack:
            broken = []
            for model in request.models:
                try:
                    stamp = stack.enter_context(applied(fault, self._backend, model))
                except NotHealedError:
                    raise
                except LabError as error:  # nothing is broken
                    refused = Stamp(fault.name, model, is_twin=False)
                    refused.close()
                    note(self._backend.project, asdict(refused) | {"why_not": str(error)})
                    self._say(f"{model}: {fault.name}: unknown: {error}")
                else:
                    broken.append(model)
                    self._say(f"{model}: {fault.name} since {stamp.begin}, for {request.seconds:g} s")
            if broken and fault.hold:
                time.sleep(request.seconds)
        if broken:
            self._say(f"{', '.join(broken)}: mended")
