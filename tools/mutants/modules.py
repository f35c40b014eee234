"""Which modules faults are planted in, and which tests cover them.

A group is run by one process, so its modules share the time that its tests take to be collected and run once. Only unit
tests belong here: what a child process of a test does is not seen.
"""

from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


@dataclass(frozen=True, slots=True)
class Group:
    """Modules and their tests, as patterns from the root."""

    name: str
    modules: tuple[str, ...]
    tests: tuple[str, ...]

    def list_modules(self) -> list[str]:
        """Give the files of the modules. A pattern that matches nothing is an error: a file has been renamed."""
        return _expand(self.modules)

    def list_tests(self) -> list[str]:
        """Give the files of the tests."""
        return _expand(self.tests)


def _expand(patterns: tuple[str, ...]) -> list[str]:
    found = []
    for pattern in patterns:
        files = sorted(str(path.relative_to(ROOT)) for path in ROOT.glob(pattern))
        if not files:
            raise ValueError(f"tools/mutants/modules.py: {pattern} matches no file")
        found += [file for file in files if file not in found]
    return found


GROUPS = (
    Group(
        "measurement",
        ("lab/measurement.py", "lab/verdict.py", "lab/histogram.py", "loadtests/measurement.py"),
        ("tests/loadtests/test_verdict.py", "tests/lab/test_histogram.py"),
    ),
    Group("thresholds", ("lab/thresholds.py",), ("tests/loadtests/test_verdict.py",)),
    Group("load", ("loadtests/recorder.py", "loadtests/schedule.py"), ("tests/loadtests/test_schedule.py",)),
    Group("bench", ("lab/bench/*.py", "lab/theory.py", "lab/advise*.py"), ("tests/bench/test_*.py",)),
    Group("faults", ("lab/faults/*.py", "lab/ledger.py", "lab/flatness.py"), ("tests/faults/test_around.py",)),
    Group("protocol", ("services/protocol/*.py",), ("tests/protocol/test_*.py",)),
)
