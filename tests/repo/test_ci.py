"""What CI runs, and what makes it fail: `.ci/run`, and the second run of tests that failed (`make test RETRY=1`)."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from lab.base.paths import ROOT

# Notes its arguments, and exits with the next of the codes.
FAKE = """#!/bin/sh
echo "$*" >> "{folder}/asked"
code=$(head -n 1 "{folder}/codes"); sed -i 1d "{folder}/codes"
exit ${{code:-0}}
"""
STEPS = [
    "lint types",
    "test MUTANT_SECONDS= WORKERS=3 RETRY=1",
    "test-distro MODELS=socketserver_threading prefork twisted_reactor asyncio_streams",
]


def put(folder: Path, name: str, codes: list[int]) -> Path:
    program = folder / name
    program.write_text(FAKE.format(folder=folder))
    program.chmod(0o755)
    (folder / "asked").touch()
    (folder / "codes").write_text("".join(f"{code}\n" for code in codes))
    return program


@pytest.mark.parametrize(("codes", "code", "steps"), [([], 0, 3), ([2], 2, 1), ([0, 2], 2, 2), ([0, 0, 2], 2, 3)])
def test_ci_stops_at_the_first_step_that_fails(codes: list[int], code: int, steps: int, tmp_path: Path) -> None:
    put(tmp_path, "make", codes)
    environ = os.environ | {"PATH": f"{tmp_path}:{os.environ['PATH']}"}
    done = subprocess.run([ROOT / ".ci" / "run"], cwd=tmp_path, env=environ, check=False)
    assert done.returncode == code
    assert (tmp_path / "asked").read_text().splitlines() == STEPS[:steps]


FAILED = "-rfEp --last-failed --last-failed-no-failures none tests/x"


@pytest.mark.parametrize(
    ("retry", "codes", "passes", "runs"),
    [
        ("1", [0], True, 1),
        ("1", [1, 0], True, 2),
        ("1", [1, 1], False, 2),
        # An interrupt, an error of usage, and no test: nothing that a second run could mend.
        ("1", [2], False, 1),
        ("1", [4], False, 1),
        ("1", [5], False, 1),
        ("", [1, 0], False, 1),
    ],
)
def test_only_tests_that_failed_run_once_more(
    retry: str, codes: list[int], passes: bool, runs: int, tmp_path: Path
) -> None:
    pytest_ = put(tmp_path, "pytest", codes)
    assert (make_test(pytest_, "tests/x", f"RETRY={retry}") == 0) == passes
    first, *again = (tmp_path / "asked").read_text().splitlines()
    assert first == "--numprocesses 4 --dist loadgroup --no-loadscope-reorder tests/x"
    assert again == [FAILED] * (runs - 1)


# Each test notes that it ran. Those of the second file fail the first time, two of them in a group.
NOTES = """
from pathlib import Path
import pytest

def note(name):
    with Path("{folder}/ran").open("a") as file:
        file.write(name + chr(10))
    return Path("{folder}/ran").read_text().split().count(name)
"""
PASSES = """
@pytest.mark.xdist_group("engine")
@pytest.mark.parametrize("name", ["passes", "pass@es"])
def test_it_passes(name):
    note(name)
"""
FAILS_ONCE = """
@pytest.mark.xdist_group("engine")
@pytest.mark.parametrize("name", ["group", "gr@up"])
def test_it_fails_in_a_group(name):
    assert note(name) == 2
"""
ALONE = """
def test_it_fails():
    assert note("alone") == 2
"""


@pytest.mark.parametrize(("others", "failing"), [("", []), (ALONE, ["alone", "alone"])])
def test_tests_of_a_group_run_once_more_too(others: str, failing: list[str], tmp_path: Path) -> None:
    """Alone, and beside tests without a group; by the real pytest."""
    notes = NOTES.format(folder=tmp_path)
    (tmp_path / "pytest.ini").touch()
    shutil.copy(ROOT / "tests" / "conftest.py", tmp_path)
    (tmp_path / "test_a.py").write_text(notes + PASSES)
    (tmp_path / "test_b.py").write_text(notes + FAILS_ONCE + others)
    assert make_test(f"{sys.executable} -m pytest -c {tmp_path}/pytest.ini", str(tmp_path), "RETRY=1") == 0
    ran = (tmp_path / "ran").read_text().split()
    assert sorted(ran) == [*failing, "gr@up", "gr@up", "group", "group", "pass@es", "passes"]


def make_test(pytest_: object, tests: str, *variables: str) -> int:
    """Exit code of `make test`, without an engine, and as if all was installed."""
    stamps = [word for stamp in ("lab", "dev") for word in ("-o", f".venv/{stamp}.stamp")]
    words = ["ENGINE=true", f"PYTEST={pytest_}", f"TESTS={tests}", "WORKERS=4", *variables]
    own = ("MAKEFLAGS", "MUTANT_SECONDS", "RETRY")
    environ = {name: value for name, value in os.environ.items() if name not in own}
    return subprocess.run(["make", *stamps, "test", *words], cwd=ROOT, env=environ, check=False).returncode
