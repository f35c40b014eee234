"""Option types and arguments that several commands share."""

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click
from click.shell_completion import CompletionItem

from lab.base.errors import LabError
from lab.base.paths import RESULTS
from lab.base.units import parse_duration, parse_share, show_duration

if TYPE_CHECKING:
    from lab.servers.catalogue import Catalogue

_HOUR = 3600.0


class Duration(click.ParamType[float]):
    """A duration with its unit, in seconds: `5s`, `500ms`, `200us`, `2m`, `1h`. A bare number is refused.

    Args:
        shortest: the shortest that is allowed; None: any above 0.
        longest: the longest that is allowed.
    """

    name = "duration"

    def __init__(self, shortest: float | None = None, longest: float = _HOUR) -> None:
        self._shortest = shortest
        self._longest = longest

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        """Parse a value; click calls this."""
        if isinstance(value, float):
            return value
        try:
            seconds = parse_duration(value)
        except ValueError as error:
            self.fail(str(error), param, ctx)
        if seconds > self._longest:
            self.fail(f"{value!r} is too long: at most {show_duration(self._longest)}", param, ctx)
        if self._shortest is None and seconds <= 0:
            self.fail(f"{value!r} is not above 0", param, ctx)
        if self._shortest is not None and seconds < self._shortest:
            self.fail(f"{value!r} is too short: at least {show_duration(self._shortest)}", param, ctx)
        return seconds


class Share(click.ParamType[float]):
    """A share such as `10%` or `0.1`, as a ratio."""

    name = "share"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        """Parse a value; click calls this."""
        if isinstance(value, float):
            return value
        try:
            return parse_share(value)
        except ValueError as error:
            self.fail(str(error), param, ctx)


class CatalogueName(click.ParamType[str]):
    """A name from the catalogue. The command checks it; this type completes it in a shell.

    Args:
        list_names: returns the names that fit.
    """

    name = "text"

    def __init__(self, list_names: "Callable[[Catalogue], Iterable[str]]") -> None:
        self._list_names = list_names

    def shell_complete(self, ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
        """Return the names that begin with what was typed; none if the compose file cannot be read."""
        from lab.servers.catalogue import Catalogue

        try:
            catalogue = Catalogue.load(ctx.find_root().params.get("file"))
        except LabError:
            return []
        typed = ctx.params.get(param.name or "") if param.nargs == -1 else None
        names = (name for name in self._list_names(catalogue) if name not in (typed or ()))
        return [CompletionItem(name) for name in names if name.startswith(incomplete)]


DURATION = Duration()
MODEL = CatalogueName(lambda catalogue: catalogue.names)
HOST = CatalogueName(lambda catalogue: catalogue.hosts)
PROFILE = CatalogueName(lambda catalogue: catalogue.profiles)

Decorated = TypeVar("Decorated", bound=Callable[..., Any] | click.Command)


def models_argument(command: Decorated) -> Decorated:
    """Add names of models as an argument, which may be left out."""
    return click.argument("models", nargs=-1, type=MODEL, metavar="[MODEL]...")(command)


def out_option(command: Decorated) -> Decorated:
    """Add the folder of the results as an option."""
    return click.option(
        "--out",
        type=click.Path(path_type=Path, file_okay=False),
        default=RESULTS,
        metavar="DIR",
        help="Results folder.  [default: results]",
    )(command)


def split_names(text: str) -> list[str]:
    """Return `a,b` as a list."""
    return [name.strip() for name in text.split(",") if name.strip()]
