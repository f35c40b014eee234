"""Modules of the servers that the lab starts by name: each one starts, and none is missing here."""

import subprocess
import sys
from collections.abc import Iterator

import pytest

from lab.base.messages import encode
from lab.base.paths import ROOT
from lab.servers import readiness, throttle

# Module -> arguments, exit code, and how its output begins.
STARTS = {
    readiness.__name__: ([], 2, f"usage: python -m {readiness.__name__} "),
    # The pid of no process: the kernel's highest is 4194304.
    throttle.__name__: (["4194305", "0.5"], 0, f"{encode(throttle.Throttling())}\n"),
    "lab.engine": (["--help"], 0, "usage: python3 -m lab.engine "),
}


def find_entry_points() -> Iterator[str]:
    for folder in ("servers", "engine"):
        for path in (ROOT / "lab" / folder).rglob("*.py"):
            if '\nif __name__ == "__main__":\n' in path.read_text():
                yield ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__main__")


def test_every_entry_point_is_tested() -> None:
    assert set(find_entry_points()) == set(STARTS)


@pytest.mark.parametrize("module", STARTS)
def test_entry_point_starts(module: str) -> None:
    arguments, code, output = STARTS[module]
    done = subprocess.run(
        [sys.executable, "-m", module, *arguments], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert (done.returncode, (done.stdout + done.stderr)[: len(output)]) == (code, output)


def test_no_entry_point_is_named_in_a_string() -> None:
    """A module that is renamed would still be started by its old name."""
    literals = [f'"{module}"' for module in (readiness.__name__, throttle.__name__)]
    for path in (ROOT / "lab").rglob("*.py"):
        assert not [literal for literal in literals if literal in path.read_text()], path
