"""The result of the conformance suite for one model."""

import re
from dataclasses import dataclass

# What starts a line of the plugin. Who reads them need not import pytest, as the plugin does.
MARK = "@lab.experiments.conformance.suite "

# Failed tests to name. One bug usually fails many tests.
_NAMED = 3


@dataclass(frozen=True, slots=True)
class ModelResult:
    """Counts of the tests of one model, and the names of those that failed.

    Args:
        xfailed: tests of declared limits, which failed as expected.
        failures: empty also in runs that earlier versions have stored.
    """

    passed: int
    failed: int
    xfailed: int = 0
    failures: tuple[str, ...] = ()

    def __str__(self) -> str:
        return f"{self.passed} of {self.passed + self.failed}"

    @property
    def known_limits(self) -> str:
        """The number of expected failures in words; empty if there are none."""
        return "" if not self.xfailed else f"{self.xfailed} known limit" + ("s" if self.xfailed > 1 else "")

    def explain(self, model: str, backend: str | None) -> str | None:
        """Return why a model is not measured, with the command that shows more; None if it passed."""
        if not self.passed + self.failed:
            return "the conformance suite has no tests for it"
        if not self.failed:
            return None
        # Drop the file, and the group that pytest-xdist adds: `tests/conformance/test_tls.py::test_x[...]@model`.
        names = [re.sub(r"@\S*$", "", name.rpartition("::")[2]) for name in self.failures[:_NAMED]]
        more = f" and {self.failed - len(names)} more" if self.failed > len(names) else ""
        named = f": {', '.join(names)}{more}" if names else ""  # runs stored by earlier versions have no names
        command = " ".join(["lab", *(["--backend", backend] if backend else []), "check", model])
        return f"{self.failed} of {self.failed + self.passed} conformance tests fail{named}; `{command}` shows why"
