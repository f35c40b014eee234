"""A slice of the fuzzing of the core: what was found once, and some seconds of looking for more."""

import platform
import re
import subprocess
import sys
from pathlib import Path

import pytest

from fuzz.oracle import check

ROOT = Path(__file__).resolve().parents[3]
CORPUS = sorted((ROOT / "fuzz" / "corpus").iterdir())


def check_corpus() -> None:
    for path in CORPUS:
        check(path.read_bytes())


def test_what_was_found_once_holds() -> None:
    assert len(CORPUS) > 100
    check_corpus()


# For these alone it is built, and so locked in requirements/dev.txt; where it is and was not installed, the test fails.
HAS_ATHERIS = sys.platform == "linux" and platform.machine() == "x86_64" and sys.version_info < (3, 15)


# With the live fuzzing of each model (`tests/faults/test_live_fuzz.py`), a minute in all; in several workers at a time.
SECONDS = 28


@pytest.mark.xdist_group("fuzz")
@pytest.mark.skipif(not HAS_ATHERIS, reason="there is no atheris for this machine's Python")
def test_a_slice_of_the_campaign_finds_nothing(tmp_path: Path) -> None:
    """An input that it finds is printed (Base64), and `python -m fuzz.campaign FILE` runs it again."""
    (tmp_path / "new").mkdir()
    options = [f"-max_total_time={SECONDS}", "-timeout=10", "-max_len=200", f"-dict={ROOT / 'fuzz' / 'resp.dict'}"]
    places = [f"-artifact_prefix={tmp_path}/", str(tmp_path / "new"), str(ROOT / "fuzz" / "corpus")]
    command = [sys.executable, "-m", "fuzz.campaign", *options, *places]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=150, check=False)
    assert done.returncode == 0, done.stderr[-4000:]
    runs = re.search(r"Done (\d+) runs", done.stderr)
    assert runs, done.stderr[-4000:]
    assert int(runs[1]) > len(CORPUS), "it came no further than what is kept"
