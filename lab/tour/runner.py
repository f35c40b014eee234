"""Run one exhibit inside the lab's network, and print the result as JSON.

    python -m lab.tour.runner MODULE

Each exhibit runs in a separate process: the recorder replaces methods of `socket`, and an exhibit may leave threads.
"""

import contextlib
import importlib
import io
import json
import os
import platform
import sys
import traceback
from collections.abc import Callable
from dataclasses import asdict, dataclass

from lab.tour.dialogue import Message, mask
from lab.tour.recorder import Recorder
from lab.tour.registry import Exhibit, find


@dataclass(frozen=True, slots=True)
class Failure:
    """How a module reports that something went wrong.

    Args:
        what: the cause.
        raised: the name of the exception's class; None if nothing was raised.
        message: of the exception; None if nothing was raised.
    """

    what: str
    raised: str | None
    message: str | None


@dataclass(frozen=True, slots=True)
class ExhibitRun:
    """The result of an exhibit.

    Args:
        error: the traceback if it failed.
        messages: the recorded traffic of `visit`.
        failures: the results of the calls of `failures`.
    """

    module: str
    python: str
    output: str
    error: str | None
    messages: tuple[Message, ...]
    failures: tuple[Failure, ...]

    @property
    def held(self) -> bool:
        """Return whether it completed, and each call that should fail did."""
        return self.error is None and all(failure.raised for failure in self.failures)


def run(exhibit: Exhibit) -> ExhibitRun:
    """Run an exhibit in this process; the result includes the exception that it raises."""
    output, recorder, error = io.StringIO(), Recorder(), None
    failures: list[Failure] = []
    with contextlib.redirect_stdout(output):
        try:
            module = importlib.import_module(exhibit.import_name)
            with recorder.recording():
                module.visit()
            messages = recorder.messages()
            failures = [_try(what, call) for what, call in module.failures()]
        except Exception:  # any exception is part of the result
            error = traceback.format_exc()
            messages = recorder.messages()
    return ExhibitRun(
        exhibit.module, platform.python_version(), mask(output.getvalue()), error, tuple(messages), tuple(failures)
    )


def _try(what: str, call: Callable[[], object]) -> Failure:
    try:
        call()
    except Exception as error:  # the class is the result
        return Failure(what, _name_of(type(error)), mask(str(error)))
    return Failure(what, None, None)


def _name_of(kind: type[BaseException]) -> str:
    return kind.__qualname__ if kind.__module__ == "builtins" else f"{kind.__module__}.{kind.__qualname__}"


def main() -> int:
    """Run the exhibit of the command line; return 1 if it failed."""
    (exhibit,) = find(sys.argv[1:2])
    found = run(exhibit)
    print(json.dumps(asdict(found)))
    return 0 if found.held else 1


if __name__ == "__main__":
    code = main()
    sys.stdout.flush()
    # Not sys.exit, which would wait for threads that a failed exhibit left.
    os._exit(code)
