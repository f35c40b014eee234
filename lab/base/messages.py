"""Messages between the lab and its programs in the background: frozen dataclasses, a line of JSON each.

A message can share its stream with other output: a line is a message if it begins with `{"kind": `. A program reads the
messages from its stdin and writes its own to its stdout; `lab.servers.helper` is the parent's side.
"""

import json
import os
import sys
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields, is_dataclass
from enum import Enum
from functools import cache
from itertools import repeat
from types import NoneType, UnionType
from typing import Any, Literal, TypeVar, get_args, get_origin, get_type_hints

_BEGIN = '{"kind": '


@dataclass(frozen=True, slots=True)
class Message:
    """The base of all messages; the name of the class is the message's kind."""


Kind = TypeVar("Kind", bound=Message)
_Built = TypeVar("_Built")


def encode(message: Message) -> str:
    """Return the line of a message, without the newline."""
    return json.dumps({"kind": type(message).__name__, **asdict(message)})


def decode(line: str, *kinds: type[Kind]) -> Kind | None:
    """Parse a line; return None if it is no message of these kinds.

    Raises:
        ValueError: it is one of them, but malformed.
    """
    kind = next((kind for kind in kinds if line.startswith(f'{_BEGIN}"{kind.__name__}"')), None)
    if kind is None:
        return None
    try:
        found: Kind = _build(kind, json.loads(line))
        return found
    except ValueError as error:
        raise ValueError(f"a malformed {kind.__name__}: {error}") from None


def is_message(line: str) -> bool:
    """Return whether a line is a message of any kind."""
    return line.startswith(_BEGIN)


def say(message: Message) -> None:
    """Send a message to the parent, in one write: threads may share stdout."""
    sys.stdout.write(f"{encode(message)}\n")
    sys.stdout.flush()


class Inbox:
    """The messages that arrive at a descriptor, for programs that also wait for something else.

    Args:
        descriptor: of a pipe; a selector can wait for it.
        kinds: of the messages; other lines are ignored.
    """

    def __init__(self, descriptor: int, *kinds: type[Message]) -> None:
        self._descriptor = descriptor
        self._kinds = kinds
        self._rest = b""

    def fileno(self) -> int:
        return self._descriptor

    def receive(self) -> list[Message] | None:
        """Wait for data; return the messages that are complete, or None at the end of the stream.

        Raises:
            ValueError: a message is malformed.
        """
        # Not `readline`: it buffers further lines, for which a selector does not wake up.
        data = os.read(self._descriptor, 65536)
        if not data:
            return None
        *lines, self._rest = (self._rest + data).split(b"\n")
        found = (decode(line.decode(errors="replace"), *self._kinds) for line in lines)
        return [message for message in found if message is not None]


@cache
def _hints(kind: type) -> Mapping[str, Any]:
    return get_type_hints(kind)


def build(kind: type[_Built], values: object) -> _Built:
    """Return a dataclass of the values that `asdict` and JSON have made of one; ignore unknown names.

    Raises:
        ValueError: they are not those of this dataclass.
    """
    found: _Built = _build(kind, values)
    return found


def _build(kind: Any, values: Any) -> Any:
    if not isinstance(values, dict):
        raise ValueError(f"{values!r} is no object")
    hints = _hints(kind)
    given = {item.name: values[item.name] for item in fields(kind) if item.name in values}
    try:
        return kind(**{name: _convert(value, hints[name]) for name, value in given.items()})
    except TypeError as error:
        raise ValueError(str(error)) from None


def _convert(value: Any, hint: Any) -> Any:
    """Return a value of JSON as the type of a field: numbers, texts, enums, tuples and mappings of these, dataclasses.

    Raises:
        ValueError: it is not of this type.
    """
    origin, parts = get_origin(hint), get_args(hint)
    if is_dataclass(hint):
        return _build(hint, value)
    if origin is UnionType:
        if value is None and NoneType in parts:
            return None
        (kind,) = (part for part in parts if part is not NoneType)
        return _convert(value, kind)
    if origin is tuple and isinstance(value, list | tuple):
        each = repeat(parts[0], len(value)) if parts[-1] is Ellipsis else parts
        return tuple(_convert(item, part) for item, part in zip(value, each, strict=True))
    if origin is Literal and value in parts:
        return value
    if isinstance(hint, type) and issubclass(hint, Enum):
        return hint(value)
    if origin in (dict, Mapping) and isinstance(value, dict):
        return {name: _convert(item, parts[1]) for name, item in value.items()}
    if hint is float and type(value) is int:
        return float(value)
    if type(value) is not hint:
        raise ValueError(f"{value!r} is not {hint}")
    return value
