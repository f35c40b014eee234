"""What the conformance suite found of one model."""

import re
from dataclasses import dataclass

# How many of the tests that fail are named; what is wrong with a model is mostly wrong in many of them.
_NAMED = 3


@dataclass(frozen=True, slots=True)
class Check:
    """What the conformance suite said of one model: how many tests, and the names of those that failed."""

    passed: int
    failed: int
    expected_failures: int = 0
    failures: tuple[str, ...] = ()

    def __str__(self) -> str:
        return f"{self.passed} of {self.passed + self.failed}"

    @property
    def known_limits(self) -> str:
        """Tests that are known to fail, for a reason that the catalogue gives."""
        count = self.expected_failures
        return "" if not count else f"{count} known limit" + ("s" if count > 1 else "")

    def explain(self, model: str, backend: str | None) -> str | None:
        """Return why a model is not measured, with the command that shows more; None if it is sound."""
        if not self.passed + self.failed:
            return "the conformance suite tested nothing of it"
        if not self.failed:
            return None
        # `tests/conformance/test_tls.py::test_x[...]@model`: the file, and pytest-xdist's group, say nothing.
        names = [re.sub(r"@\S*$", "", name.rpartition("::")[2]) for name in self.failures[:_NAMED]]
        more = f" and {self.failed - len(names)} more" if self.failed > len(names) else ""
        named = f": {', '.join(names)}{more}" if names else ""  # runs kept by earlier versions have no names
        command = " ".join(["lab", *(["--backend", backend] if backend else []), "check", model])
        return f"{self.failed} of {self.failed + self.passed} conformance tests fail{named}; `{command}` shows why"
