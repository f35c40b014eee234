"""The folders of the project are where its code is, and not where a command was called."""

import os
import subprocess
import sys
from pathlib import Path

CODE = """
from lab.base.paths import RESULTS, ROOT
from lab.engine.client import _CONFIGS
from lab.tour.registry import DIRECTORY

print(ROOT, RESULTS, _CONFIGS, DIRECTORY, sep="\\n")
"""


def test_folders_do_not_depend_on_the_current_one(tmp_path: Path) -> None:
    root = Path(__file__).resolve().parents[3]
    done = subprocess.run(
        [sys.executable, "-P", "-c", CODE],
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": str(root)},
        capture_output=True,
        text=True,
        check=True,
    )
    expected = [root, root / "results", root / ".lab" / "docker", root / "lab" / "tour" / "exhibits"]
    assert [Path(line) for line in done.stdout.splitlines()] == expected
