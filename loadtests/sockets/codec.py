"""A custom protocol, from one Python file: its requests, and when a reply is complete."""

import importlib.util
import sys
import traceback
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any, Self

from loadtests.sockets.failures import CodecRaisedError, WrongBytesError

# The environment variable with the path of the file on the generator's machine.
ENV_CODEC = "LAB_CODEC"


class CodecError(Exception):
    """The file is invalid; the message says why."""


@dataclass(frozen=True, slots=True)
class Codec:
    """The functions and constants of the file; docs/adding-a-server.md describes them.

    Args:
        encode: number of the exchange on its connection, from 0 -> its request.
        reply_size: bytes received, request -> size of the reply in them, None if it is incomplete; raises ValueError
            if it is not the reply to that request.
        greeting_size: the same for the server's greeting, without a request; None if it sends none.
        per_connection: requests before the client closes and connects again; None to keep one connection.
        until_close: the reply ends when the server closes.
    """

    encode: Callable[[int], bytes]
    reply_size: Callable[[bytes, bytes], int | None]
    greeting_size: Callable[[bytes], int | None] | None = None
    per_connection: int | None = None
    until_close: bool = False

    def request(self, number: int) -> bytes:
        """Return the request with a number.

        Raises:
            CodecRaisedError: the file's own code failed, or returned no request.
        """
        try:
            request = self.encode(number)
        except Exception as error:
            raise _blame(error) from error
        if not isinstance(request, bytes) or not (request or self.until_close):
            raise CodecRaisedError(
                f"encode({number}) returned {request!r:.60}, which is no request: bytes, at least one"
            )
        return request

    def check(self, data: bytes, request: bytes) -> int | None:
        """Return how many bytes of `data` are the reply; None if it is incomplete.

        Raises:
            WrongBytesError: it is not the reply to that request.
            CodecRaisedError: the file's own code failed.
        """
        return _ask(lambda: self.reply_size(data, request), "reply_size", data)

    def check_greeting(self, data: bytes) -> int | None:
        """Return how many bytes of `data` are the greeting; None if it is incomplete.

        Raises:
            WrongBytesError, CodecRaisedError: as of `check`.
        """
        size = self.greeting_size
        assert size is not None  # noqa: S101 - for mypy: only called if there is a greeting
        return _ask(lambda: size(data), "greeting_size", data)

    @classmethod
    def from_environ(cls, environ: Mapping[str, str]) -> Self | None:
        """Load the file that `LAB_CODEC` names; return None if it is not set.

        Raises:
            CodecError: the file is invalid.
        """
        text = environ.get(ENV_CODEC)
        return cls.load(Path(text)) if text else None

    @classmethod
    def load(cls, path: Path) -> Self:
        """Import the file as a Python module, which can import others of its folder.

        Raises:
            CodecError: the file is invalid.
        """
        module = _import(path)
        functions: list[Callable[..., Any]] = []
        for name in ("encode", "reply_size"):
            function = getattr(module, name, None)
            if not callable(function):
                raise CodecError(f"the codec has no function {name}")
            functions.append(function)
        greeting_size = getattr(module, "greeting_size", None)
        if greeting_size is not None and not callable(greeting_size):
            raise CodecError(f"the codec's greeting_size is {greeting_size!r:.60}, and no function")
        until_close = getattr(module, "UNTIL_CLOSE", False)
        if not isinstance(until_close, bool):
            raise CodecError(f"the codec's UNTIL_CLOSE is {until_close!r:.60}: True or False")
        per_connection = getattr(module, "REQUESTS_PER_CONNECTION", 1 if until_close else None)
        if per_connection is not None and (type(per_connection) is not int or per_connection < 1):
            raise CodecError(
                f"the codec's REQUESTS_PER_CONNECTION is {per_connection!r:.60}: a whole number, 1 or more"
            )
        if until_close and per_connection != 1:
            raise CodecError("the codec's UNTIL_CLOSE leaves one request to a connection: REQUESTS_PER_CONNECTION is 1")
        found = cls(functions[0], functions[1], greeting_size, per_connection, until_close)
        try:
            found.request(0)
        except CodecRaisedError as error:
            raise CodecError(f"the codec cannot be used: {error.detail}") from error
        return found


def _import(path: Path) -> ModuleType:
    path = path.resolve()
    # A name that is taken keeps its module.
    name = path.stem if path.stem not in sys.modules else "codec"
    spec = importlib.util.spec_from_file_location(name, path)
    if spec is None or spec.loader is None:
        raise CodecError(f"the codec {path} is no Python file: its name ends in .py")
    module = importlib.util.module_from_spec(spec)
    # Dataclasses look here for the names in their annotations.
    sys.modules[name] = module
    # As for a script, its folder comes first while it is loaded. Later it must not hide the generator's modules.
    folder = str(path.parent)
    sys.path.insert(0, folder)
    try:
        spec.loader.exec_module(module)
    except (Exception, SystemExit) as error:
        del sys.modules[name]
        raise CodecError(f"the codec cannot be loaded: {type(error).__name__}: {error}") from error
    finally:
        sys.path.remove(folder)
        sys.path.append(folder)
    return module


def _ask(function: Callable[[], int | None], name: str, data: bytes) -> int | None:
    try:
        size = function()
    except ValueError as error:
        raise WrongBytesError(str(error)) from None
    except Exception as error:
        raise _blame(error) from error
    if size is not None and not (type(size) is int and 0 <= size <= len(data)):
        raise CodecRaisedError(f"{name} returned {size!r:.60} of {len(data)} bytes")
    return size


def _blame(error: Exception) -> CodecRaisedError:
    frame = traceback.extract_tb(error.__traceback__)[-1]
    return CodecRaisedError(f"{Path(frame.filename).name}:{frame.lineno}: {type(error).__name__}: {error}")
