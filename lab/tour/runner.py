"""Runs one exhibit where its servers can be reached, and prints what came of it as JSON.

    python -m lab.tour.runner MODULE

A process of its own for each: the recorder replaces methods of `socket`, and an exhibit may leave threads.
"""

import contextlib
import importlib
import io
import json
import os
import platform
import sys
import traceback
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from typing import Any

from lab.tour.dialogue import Message, mask
from lab.tour.recorder import Recorder
from lab.tour.registry import Exhibit, find


@dataclass(frozen=True, slots=True)
class Failure:
    """How a module says that something went wrong.

    Args:
        what: the trouble.
        raised: the exception's class, by the name under which a program would catch it.
        message: what it says; None for `raised` as well if nothing was raised.
    """

    what: str
    raised: str | None
    message: str | None


@dataclass(frozen=True, slots=True)
class Performance:
    """What came of an exhibit.

    Args:
        module: which.
        python: the version that it ran on.
        output: what it printed.
        error: the end of it, if it was one.
        messages: what was said on the wire in `visit`.
        failures: what became of those that it tries.
    """

    module: str
    python: str
    output: str
    error: str | None
    messages: tuple[Message, ...]
    failures: tuple[Failure, ...]

    @property
    def held(self) -> bool:
        """Whether it came to its end, and all that should fail did."""
        return self.error is None and all(failure.raised for failure in self.failures)

    def as_json(self) -> dict[str, Any]:
        """For `from_json`."""
        return asdict(self)

    @classmethod
    def from_json(cls, fields: Mapping[str, Any]) -> "Performance":
        """The reverse of `as_json`."""
        return cls(
            **{
                **fields,
                "messages": tuple(Message.from_json(each) for each in fields["messages"]),
                "failures": tuple(Failure(**each) for each in fields["failures"]),
            }
        )


def perform(exhibit: Exhibit) -> Performance:
    """Run an exhibit in this process. What it raises is in the result."""
    output, recorder, error = io.StringIO(), Recorder(), None
    failures: list[Failure] = []
    with contextlib.redirect_stdout(output):
        try:
            module = importlib.import_module(exhibit.import_name)
            with recorder.recording():
                module.visit()
            messages = recorder.messages()
            failures = [_try(what, call) for what, call in module.failures()]
        except Exception:  # whatever it is, it belongs to the result, and is shown there
            error = traceback.format_exc()
            messages = recorder.messages()
    return Performance(
        exhibit.module, platform.python_version(), mask(output.getvalue()), error, tuple(messages), tuple(failures)
    )


def _try(what: str, call: Callable[[], object]) -> Failure:
    try:
        call()
    except Exception as error:  # which one it is, is the answer
        return Failure(what, _name_of(type(error)), mask(str(error)))
    return Failure(what, None, None)


def _name_of(kind: type[BaseException]) -> str:
    return kind.__qualname__ if kind.__module__ == "builtins" else f"{kind.__module__}.{kind.__qualname__}"


def main() -> int:
    """Returns: 0 it held, 1 it did not."""
    (exhibit,) = find(sys.argv[1:2])
    performance = perform(exhibit)
    print(json.dumps(performance.as_json()))
    return 0 if performance.held else 1


if __name__ == "__main__":
    code = main()
    sys.stdout.flush()
    # Not sys.exit: an exhibit that has failed may have left a thread, and it would be waited for.
    os._exit(code)
