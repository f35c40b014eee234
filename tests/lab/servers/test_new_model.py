"""`lab new`: the steps that it leaves give a model that passes."""

import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

from lab.servers.scaffold import BLANK
from tests.support.suite import MODEL_TESTS_ONLY


def run(clone: Path, *arguments: str, environ: Mapping[str, str] | None = None) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", *arguments]
    environ = {**os.environ, **(environ or {})}
    return subprocess.run(command, cwd=clone, env=environ, capture_output=True, text=True, timeout=120, check=False)


def test_remaining_steps_give_a_model_that_passes(clone: Path, process_project: str) -> None:
    said = run(clone, "lab", "new", "my_way").stdout
    assert [line[:2] for line in said.splitlines()[:-1]] == ["1.", "2.", "3."]
    repo = ["pytest", "-p", "no:cacheprovider", "-q", "--timeout=60", "tests/repo/test_catalogue.py"]
    made = run(clone, "tools.docs.models_page")
    assert made.returncode == 1, made.stderr  # for there are blanks to fill in
    assert f"my_way: still has {BLANK} in it" in made.stderr

    # What is missing is named by tests.
    missing = run(clone, *repo).stdout
    assert "_ test_blanks_of_lab_new_are_filled_in" in missing
    names = ("compose.yaml", "services/models/my_way.py", "docs/models/my_way.md", "docs/models/README.md")
    written = [clone / name for name in names]
    for path in written:
        assert f"{path.relative_to(clone)}: {BLANK} in line " in missing

    # The steps. It serves as it did at first, one client at a time.
    for path in written:
        path.write_text(path.read_text().replace(BLANK, "sequential"))
    done = run(clone, *repo)
    assert done.returncode == 0, done.stdout
    options = ["--backend", "process", "--project", process_project]
    checked = run(clone, "lab", *options, "check", "my_way", environ=MODEL_TESTS_ONLY)
    assert checked.returncode == 0, checked.stdout + checked.stderr
    assert "24 declared limits held" in checked.stdout
