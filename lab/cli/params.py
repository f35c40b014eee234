"""Option types that several commands share."""

from typing import Any

import click

_LONGEST_SECONDS = 3600.0


class Seconds(click.ParamType[float]):
    """`5s`, `500ms`, `1m` or a plain number of seconds."""

    name = "duration"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        """Called by click."""
        if isinstance(value, float):
            return value
        text = str(value).strip()
        for unit, factor in (("ms", 0.001), ("s", 1.0), ("m", 60.0), ("", 1.0)):
            if text.endswith(unit):
                number = text.removesuffix(unit)
                try:
                    seconds = float(number) * factor
                except ValueError:
                    break
                if 0 < seconds <= _LONGEST_SECONDS:
                    return seconds
                return self.fail(f"{text!r} is not above 0 and at most {_LONGEST_SECONDS / 60:.0f}m", param, ctx)
        return self.fail(f"{text!r} is not a duration such as 5s or 500ms", param, ctx)


SECONDS = Seconds()


def split_names(text: str) -> list[str]:
    """`a,b` as a list."""
    return [name.strip() for name in text.split(",") if name.strip()]
