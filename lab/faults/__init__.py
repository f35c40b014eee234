"""What is done to a model on purpose: a small file for each, all of one form.

A fault is a context manager over a backend and a model's name. To enter it breaks something, to leave it, on any way
out, mends it again; what it yields is the model's exit code, where it has ended. `nothing` is the one that breaks
nothing: what does not hold under it is no finding about a fault.
"""

from collections.abc import Callable
from contextlib import AbstractContextManager

from lab.backends import Backend
from lab.errors import LabError, NotReadyError

Fault = Callable[[Backend, str], AbstractContextManager[int | None]]


class NotHealedError(LabError):
    """What a fault has broken could not be mended; the message says what that is, and how to do it by hand."""


def start_again(backend: Backend, model: str) -> None:
    """Have a model answer again that was ended.

    Raises:
        NotHealedError: it does not.
    """
    try:
        backend.restart(model)
    except NotReadyError as error:
        raise NotHealedError(f"{error}\n{model} is still down: `lab up {model}`, or `lab down`, by hand") from None
