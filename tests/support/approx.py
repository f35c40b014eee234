"""`pytest.approx` inside tuples and dataclasses."""

from typing import cast

import pytest


def about(expected: float, *, rel: float | None = None, abs: float | None = None) -> float:  # noqa: A002 - pytest's name
    """Return `pytest.approx` as the float that it stands for, so that mypy knows what is compared."""
    return cast(float, pytest.approx(expected, rel=rel, abs=abs))
