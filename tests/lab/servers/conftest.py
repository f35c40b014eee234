"""A copy of the project, for what writes to it."""

import shutil
import subprocess
from pathlib import Path

import pytest

from lab.base.paths import ROOT


@pytest.fixture
def clone(tmp_path: Path) -> Path:
    """A copy of the project's files."""
    listed = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    for name in listed.stdout.splitlines():
        if (ROOT / name).is_file():
            (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / name, tmp_path / name)
    return tmp_path
