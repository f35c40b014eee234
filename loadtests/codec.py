"""A protocol that is not the lab's: what its requests are, and when a reply is complete, from one Python file."""

import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Self

from loadtests.failures import CodecRaisedError, WrongBytesError

_log = logging.getLogger(__name__)

# The environment variable with the file's text: in it, the file reaches the generator wherever that runs.
VARIABLE = "LAB_CODEC"


class CodecError(Exception):
    """The file cannot be used; the message says why."""


@dataclass(frozen=True, slots=True)
class Codec:
    """What docs/adding-a-server.md asks of the file.

    Args:
        encode: number of the exchange on its connection, from 0 -> its request.
        reply_size: bytes received, request -> how many of the bytes are its reply, None if it is not all there;
            ValueError if it is not the reply to that.
    """

    encode: Callable[[int], bytes]
    reply_size: Callable[[bytes, bytes], int | None]

    def request(self, number: int) -> bytes:
        """The request with a number.

        Raises:
            CodecRaisedError: the file's own code failed.
        """
        try:
            return self.encode(number)
        except Exception as error:
            raise _blame("encode", error) from error

    def check(self, data: bytes, request: bytes) -> int | None:
        """How many bytes of `data` are the reply; None if it is not all there.

        Raises:
            WrongBytesError: it is not the reply to that.
            CodecRaisedError: the file's own code failed.
        """
        try:
            return self.reply_size(data, request)
        except ValueError:
            raise WrongBytesError from None
        except Exception as error:
            raise _blame("reply_size", error) from error

    @classmethod
    def from_environ(cls, environ: Mapping[str, str]) -> Self | None:
        """Read `LAB_CODEC`; None if it is not there.

        Raises:
            CodecError: what is wrong with it.
        """
        text = environ.get(VARIABLE)
        return None if text is None else cls.from_text(text)

    @classmethod
    def from_text(cls, text: str) -> Self:
        """Run the file.

        Raises:
            CodecError: what is wrong with it.
        """
        namespace: dict[str, object] = {"__name__": "codec"}
        try:
            exec(compile(text, "codec", "exec"), namespace)  # noqa: S102 - the user's own, as a locustfile is
        except Exception as error:
            raise CodecError(f"the codec cannot be loaded: {type(error).__name__}: {error}") from error
        functions: list[Callable[..., Any]] = []
        for name in ("encode", "reply_size"):
            function = namespace.get(name)
            if not callable(function):
                raise CodecError(f"the codec has no function {name}")
            functions.append(function)
        found = cls(*functions)
        try:
            request = found.encode(0)
        except Exception as error:
            raise CodecError(f"the codec's encode(0) raises {type(error).__name__}: {error}") from error
        if not isinstance(request, bytes) or not request:
            raise CodecError(f"the codec's encode(0) returns {request!r}, which is no request: bytes, at least one")
        return found


def _blame(function: str, error: Exception) -> CodecRaisedError:
    _log.error("the codec's %s raised %s: %s", function, type(error).__name__, error)
    return CodecRaisedError()
