"""Compose files, read as Compose reads them: anchors, merge keys, variables, overrides, `!reset` and `!override`.

The lab reads labels, images, environments and builds without Compose, which the process backend does not need, and
which takes 100 ms. So the files must mean the same to both. What is not read here (`include`, `extends`, a `.env` that
sets a variable of these files) is refused, with file and line; it is never skipped or passed on as text.

Strategy: make values from YAML's nodes by hand. Nodes have lines, which each error names. PyYAML's own constructors
follow YAML 1.1, in which `on` is true, `22:22` is a number, and the second of two equal keys counts.
"""

import re
import shlex
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import yaml

from lab.base.errors import LabError
from lab.engine.client import KEPT, PREFIXES

# The names of an override in the folder of compose.yaml. Compose takes the first that exists.
OVERRIDE_NAMES = (
    "compose.override.yml",
    "compose.override.yaml",
    "docker-compose.override.yml",
    "docker-compose.override.yaml",
)

# libyaml is ten times as fast. Wheels of PyYAML contain it; a build from source may not.
Loader: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)

_NUMBERS = yaml.constructor.SafeConstructor()
_TAG = "tag:yaml.org,2002:"
_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_ASSIGNMENT = re.compile(r"\s*(?:export\s+)?([A-Za-z_][A-Za-z0-9_]*)\s*[=:]")

# Keys whose list replaces that of an earlier file. Other lists are appended to it.
_REPLACED = ("command", "entrypoint", "test")


class CatalogueError(LabError):
    """compose.yaml cannot be used, or does not have the model."""


class _Reset:
    """The value of `!reset`: it removes the value of an earlier file."""


class _Override:
    """The value of `!override`: it replaces the value of an earlier file, without a merge."""

    def __init__(self, value: Any) -> None:
        self.value = value


def find_files(path: Path) -> tuple[Path, ...]:
    """Return a compose file, and its override if there is one.

    Raises:
        CatalogueError: there are several overrides.
    """
    found = [other for name in OVERRIDE_NAMES if (other := path.with_name(name)).exists() and other != path]
    if len(found) > 1:
        others = " and ".join(other.name for other in found[1:])
        raise CatalogueError(f"{found[1]}:1: Compose reads only {found[0].name} and not {others}: keep one of them")
    return (path, *found)


def read_services(files: Sequence[Path], environ: Mapping[str, str]) -> dict[str, dict[str, Any]]:
    """Return the merged services; labels, environment and build arguments as mappings, entry points as lists.

    Args:
        files: later files override earlier ones.
        environ: the values of variables.

    Raises:
        CatalogueError: with file and line.
    """
    services: dict[str, Any] = {}
    for file in files:
        reader = _Reader(file, environ)
        read = reader.read()
        if isinstance(read, _Override):
            services, read = {}, read.value
        services = _merge(services, read) if services or reader.has_tags else read
        reader.check_env_file()
    for service in services.values():
        service.setdefault("labels", {})
    return services


class _Reader:
    def __init__(self, path: Path, environ: Mapping[str, str]) -> None:
        self._path = path
        self._environ = environ
        self._open: list[int] = []  # ids of the nodes around the current one
        self.has_tags = False  # whether the file has !reset or !override
        self._unset: dict[str, int] = {}  # variable that is not set -> a line that uses it

    def read(self) -> Any:
        """Return `services`, each in a form that can be merged."""
        document = self._parse()
        if document is None:
            return {}
        if not isinstance(document, yaml.MappingNode):
            raise self._error(document, f"the top of a compose file is a mapping, this is {self._kind(document)}")
        top = self._pairs(document)
        if "include" in top:
            raise self._error(
                top["include"][0], "the lab does not read include: put the services into one file, or use an override"
            )
        for section, (_, content) in top.items():
            if section != "services":
                self._build(content)  # checks its variables, as Compose does
        if "services" not in top:
            return {}
        key, node = top["services"]
        if self._tag(node) == "!reset":
            raise self._error(key, "!reset of services leaves none: Compose refuses the file as empty")
        if isinstance(node, yaml.MappingNode):
            services = {name: self._read_service(name, *pair) for name, pair in self._pairs(node).items()}
            return _Override(services) if self._tag(node) == "!override" else services
        raise self._error(key, f"services is {self._kind(node)}, not a mapping")

    def check_env_file(self) -> None:
        """Refuse a `.env` that sets a variable of this file: Compose would read it, and the lab does not."""
        path = self._path.with_name(".env")
        if not self._unset or not path.is_file():
            return
        for number, line in enumerate(path.read_text(encoding="utf-8", errors="replace").splitlines(), 1):
            found = _ASSIGNMENT.match(line)
            if found and found[1] in self._unset:
                where = f"{self._path.name}:{self._unset[found[1]]}"
                raise CatalogueError(
                    f"{path}:{number}: the lab does not read .env, and {where} asks for {found[1]}: "
                    "set it in the environment"
                )

    def _parse(self) -> yaml.Node | None:
        try:
            node: yaml.Node | None = yaml.compose(self._path.read_text(encoding="utf-8"), Loader=Loader)
        except FileNotFoundError:
            raise CatalogueError(f"{self._path}: no such file; the lab runs from a clone of the project") from None
        except (OSError, UnicodeDecodeError) as error:
            raise CatalogueError(f"{self._path}: cannot be read: {error}") from None
        except yaml.MarkedYAMLError as error:
            line = error.problem_mark.line + 1 if error.problem_mark else 1
            raise CatalogueError(f"{self._path}:{line}: not valid YAML: {error.problem}") from None
        except yaml.YAMLError as error:
            raise CatalogueError(f"{self._path}:1: not valid YAML: {' '.join(str(error).split())}") from None
        return node

    def _read_service(self, name: str, key: yaml.Node, node: yaml.Node) -> Any:
        definition = self._build(node)
        inner = definition.value if isinstance(definition, _Override) else definition
        if isinstance(inner, _Reset):
            return inner
        if not isinstance(inner, dict):
            raise self._error(key, f"service {name} is {self._kind(node)}, not a mapping")
        pairs = self._pairs(node)
        if "extends" in inner:
            raise self._error(pairs["extends"][0], "the lab does not read extends: use an anchor, or <<")
        self._normalise(name, inner, pairs)
        return definition

    def _normalise(self, name: str, service: dict[str, Any], nodes: Mapping[str, tuple[yaml.Node, yaml.Node]]) -> None:
        """Convert keys that have two forms to one form, so that files with either can be merged."""
        build = service.get("build")
        if isinstance(build, str):
            service["build"] = build = {"context": build}
        if isinstance(entrypoint := service.get("entrypoint"), str):
            service["entrypoint"] = shlex.split(entrypoint)
        for place, key in ((service, "labels"), (service, "environment"), (build, "args"), (build, "labels")):
            if isinstance(place, dict) and key in place:
                place[key] = self._read_pairs(name, key, place[key], *nodes["build" if place is build else key])

    def _read_pairs(self, service: str, key: str, value: Any, where: yaml.Node, node: yaml.Node) -> Any:
        """Read a mapping, or a list of NAME=VALUE, as a mapping."""
        match value:
            case _Override():
                return _Override(self._read_pairs(service, key, value.value, where, node))
            case _Reset():
                return value
            case None:
                return {}
            case dict():
                plain = {name: item.value if isinstance(item, _Override) else item for name, item in value.items()}
                for name, item in plain.items():
                    if isinstance(item, dict | list):
                        what = "label" if key == "labels" else key
                        kind = "mapping" if isinstance(item, dict) else "list"
                        culprit = self._pairs(node).get(name, (where,))[0]
                        raise self._error(culprit, f"{what} {name} of {service} is a {kind}, not a text")
                return {name: item if isinstance(item, _Reset) else _to_text(key, item) for name, item in plain.items()}
            case list() if all(isinstance(item, str) for item in value):
                pairs = (item.partition("=") for item in value)
                # A label without a value is empty; a variable without one has the value in the environment.
                return {name: text if equals or key == "labels" else None for name, equals, text in pairs}
        raise self._error(where, f"{key} of {service} is neither a mapping nor a list of name=value")

    def _build(self, node: yaml.Node) -> Any:
        own = self._tag(node)
        if own == "!reset":
            return _Reset()
        value: Any
        if isinstance(node, yaml.ScalarNode):
            value = self._read_scalar(node)
        else:
            with self._inside(node):
                if isinstance(node, yaml.MappingNode):
                    value = {key: self._build(item) for key, (_, item) in self._pairs(node).items()}
                else:
                    for item in node.value:
                        if tag := self._tag(item):
                            raise self._error(item, f"{tag} stands before an item of a list: put it before the list")
                    value = [self._build(item) for item in node.value]
        return _Override(value) if own == "!override" else value

    @contextmanager
    def _inside(self, node: yaml.Node) -> Iterator[None]:
        if id(node) in self._open:
            raise self._error(node, "an anchor contains an alias of itself")
        self._open.append(id(node))
        yield
        self._open.pop()

    def _tag(self, node: yaml.Node) -> str:
        """Return `!reset`, `!override` or ""."""
        if node.tag in ("!reset", "!override"):
            self.has_tags = True
            return str(node.tag)
        if not node.tag.startswith(_TAG):
            raise self._error(node, f"unknown tag {node.tag}: Compose has !reset and !override")
        return ""

    def _pairs(self, node: yaml.Node) -> dict[str, tuple[yaml.Node, yaml.Node]]:
        """Return the keys of a mapping with the nodes of key and value; with the keys merged by `<<`."""
        own: dict[str, tuple[yaml.Node, yaml.Node]] = {}
        merged: list[yaml.Node] = []
        for key, value in node.value if isinstance(node, yaml.MappingNode) else ():
            if key.tag == f"{_TAG}merge":
                merged += value.value if isinstance(value, yaml.SequenceNode) else [value]
                continue
            if not isinstance(key, yaml.ScalarNode):
                raise self._error(key, f"a key is {self._kind(key)}, not a text")
            if key.value in own:
                first = own[key.value][0].start_mark.line + 1
                raise self._error(key, f"{key.value} is here a second time; the first is in line {first}")
            own[key.value] = (key, value)
        for other in merged:
            if not isinstance(other, yaml.MappingNode):
                raise self._error(other, "<< takes a mapping, or a list of mappings")
            with self._inside(other):
                # Own keys override merged ones; of those, earlier ones override later ones.
                own = self._pairs(other) | own
        return own

    def _read_scalar(self, node: Any) -> Any:
        text: str = node.value
        if "$" in text:
            with self._at(node):
                return interpolate(text, self._get)
        kind = node.tag.removeprefix(_TAG)
        # A quoted value or a block is a text.
        if node.style:
            return text
        if kind == "null":
            return None
        if kind == "bool" and text.lower() in ("true", "false"):
            return text.lower() == "true"
        if kind == "int" and ":" not in text:
            return _NUMBERS.construct_yaml_int(node)
        if kind == "float" and ":" not in text:
            number = _NUMBERS.construct_yaml_float(node)
            # In this range Go writes an exponent, and Python does not.
            if number and not 1e-4 <= abs(number) < 1e6:
                raise self._error(node, f"put {text} in quotes: Compose writes such a number differently")
            return number
        if kind == "timestamp":
            raise self._error(node, f"put {text} in quotes: Compose reads it as a time in UTC")
        return text

    def _get(self, name: str) -> str | None:
        if name.startswith(PREFIXES) and name not in KEPT:
            raise ValueError(f"{name} is a setting of Compose or Docker, which the lab does not pass on")
        if name not in self._environ:
            self._unset.setdefault(name, self._open_line)
        return self._environ.get(name)

    @contextmanager
    def _at(self, node: yaml.Node) -> Iterator[None]:
        self._open_line = node.start_mark.line + 1
        try:
            yield
        except ValueError as error:
            raise self._error(node, str(error)) from None

    def _error(self, node: yaml.Node, what: str) -> CatalogueError:
        return CatalogueError(f"{self._path}:{node.start_mark.line + 1}: {what}")

    def _kind(self, node: yaml.Node) -> str:
        match node:
            case yaml.MappingNode():
                return "a mapping"
            case yaml.SequenceNode():
                return "a list"
        value = self._read_scalar(node)
        return {str: "a text", type(None): "nothing"}.get(type(value), f"a {type(value).__name__}")


def _to_text(key: str, value: Any) -> str | None:
    """Return a value as Compose writes it; None for a variable without a value."""
    if value is None:
        return "" if key == "labels" else None
    if isinstance(value, float) and value.is_integer():
        return str(int(value))
    return str(value).lower() if isinstance(value, bool) else str(value)


def _merge(into: Any, other: Any, key: str = "") -> Any:
    """Merge an override into a value: mappings by key, lists appended, everything else replaced."""
    match other:
        case _Override():
            return _clean(other.value)
        case dict() if isinstance(into, dict):
            merged = dict(into)
            for name, value in other.items():
                if isinstance(value, _Reset):
                    merged.pop(name, None)
                else:
                    merged[name] = _merge(merged.get(name), value, name)
            return merged
        case list() if isinstance(into, list) and key not in _REPLACED:
            return into + [item for item in _clean(other) if item not in into]
    return _clean(other)


def _clean(value: Any) -> Any:
    """Return a value without `!reset` and `!override`, for which there is no earlier file."""
    match value:
        case _Override():
            return _clean(value.value)
        case dict():
            return {key: _clean(item) for key, item in value.items() if not isinstance(item, _Reset)}
        case list():
            return [_clean(item) for item in value]
    return value


def interpolate(text: str, get: Callable[[str], str | None]) -> str:
    """Replace variables in all of Compose's forms; `$$` is a dollar sign.

    Args:
        text: as in the file.
        get: returns the value of a variable, None if it is not set.

    Raises:
        ValueError: another form; or a required variable is not set.
    """
    out = ""
    position = 0
    while (dollar := text.find("$", position)) >= 0:
        out += text[position:dollar]
        rest = text[dollar + 1 :]
        if rest.startswith("$"):
            out, position = out + "$", dollar + 2
        elif rest.startswith("{"):
            end = _find_end(text, dollar)
            out += _substitute(text[dollar + 2 : end], get)
            position = end + 1
        elif name := _NAME.match(rest):
            out += get(name[0]) or ""
            position = dollar + 1 + name.end()
        else:
            raise ValueError(f"{text[dollar : dollar + 10]!r} is not a variable: write a dollar sign as $$")
    return out + text[position:]


def _find_end(text: str, start: int) -> int:
    """Return the position of the brace that closes the one after `start`; variables may be nested."""
    depth = 0
    for position in range(start, len(text)):
        if text.startswith("${", position):
            depth += 1
        elif text[position] == "}":
            depth -= 1
            if not depth:
                return position
    raise ValueError(f"{text[start : start + 20]!r} has no closing brace: write a dollar sign as $$")


def _substitute(inner: str, get: Callable[[str], str | None]) -> str:
    name = _NAME.match(inner)
    # As Compose does, in one line.
    form = re.fullmatch(r"(:?[-?+])(.*)", inner[name.end() :]) if name else None
    if name is None or (form is None and name.end() < len(inner)):
        raise ValueError(f"{f'${{{inner}}}'!r} is not a variable: write a dollar sign as $$")
    value = get(name[0])
    if form is None:
        return value or ""
    is_there = value is not None and (value != "" or not form[1].startswith(":"))
    match form[1][-1]:
        case "-":
            return value or "" if is_there else interpolate(form[2], get)
        case "+":
            return interpolate(form[2], get) if is_there else ""
    if not is_there:
        raise ValueError(f"{name[0]} has to be set: {interpolate(form[2], get) or 'it has no value'}")
    return value or ""
