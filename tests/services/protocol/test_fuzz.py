"""A slice of the fuzzing of the core: what was found once, and some seconds of looking for more."""

import os
import platform
import re
import runpy
import subprocess
import sys
from pathlib import Path

import pytest

import fuzz.http_oracle
import fuzz.oracle

ROOT = Path(__file__).resolve().parents[3]
FUZZ = ROOT / "fuzz"


def list_corpus(name: str) -> list[Path]:
    corpus = sorted((FUZZ / name).iterdir())
    assert len(corpus) > 100
    return corpus


def test_what_was_found_once_holds() -> None:
    for path in list_corpus("corpus"):
        fuzz.oracle.check(path.read_bytes())
    for path in list_corpus("http_corpus"):
        fuzz.http_oracle.check(path.read_bytes())


# For these alone it is built, and so locked in requirements/dev.txt; where it is and was not installed, the test fails.
HAS_ATHERIS = sys.platform == "linux" and platform.machine() == "x86_64" and sys.version_info < (3, 15)


# The last is the seconds to look for more; `make fuzz` looks for longer.
TARGETS = {"resp": ("fuzz.campaign", "corpus", 200, 7), "http": ("fuzz.http_campaign", "http_corpus", 300, 5)}


# The recordings' format takes no bytes of a peer, and no oracle imports it.
MODULES = {
    ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")
    for path in (ROOT / "services" / "protocol").rglob("*.py")
} - {"services.protocol.trace"}


@pytest.mark.xdist_group("fuzz")
@pytest.mark.skipif(not HAS_ATHERIS, reason="there is no atheris for this machine's Python")
@pytest.mark.parametrize("target", TARGETS)
def test_a_slice_of_the_campaign_finds_nothing(target: str, tmp_path: Path) -> None:
    """An input that it finds is printed (Base64), and `python -m fuzz.campaign FILE` runs it again."""
    module, corpus, size, seconds = TARGETS[target]
    (tmp_path / "new").mkdir()
    options = [f"-max_total_time={seconds}", "-timeout=10", f"-max_len={size}", f"-dict={FUZZ / target}.dict"]
    # The peak of this process counts as that of its child: ru_maxrss outlives exec. The oracle checks what is held.
    options.append("-rss_limit_mb=0")
    places = [f"-artifact_prefix={tmp_path}/", str(tmp_path / "new"), str(FUZZ / corpus)]
    command = [sys.executable, "-m", module, *options, *places]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=150, check=False)
    assert done.returncode == 0, done.stderr[-4000:]
    # An input counts as new where it reaches new code: without instrumentation, none would.
    assert set(re.findall(r"^INFO: Instrumenting (\S+)$", done.stderr, re.MULTILINE)) >= MODULES
    runs = re.search(r"Done (\d+) runs", done.stderr)
    assert runs, done.stderr[-4000:]
    assert int(runs[1]) > len(list_corpus(corpus)), "it came no further than what is kept"


@pytest.mark.skipif(not HAS_ATHERIS, reason="there is no atheris for this machine's Python")
@pytest.mark.parametrize(
    ("module", "check"),
    [("fuzz.campaign", fuzz.oracle.check), ("fuzz.http_campaign", fuzz.http_oracle.check)],
    ids=["resp", "http"],
)
def test_campaign_asks_its_own_oracle(module: str, check: object, monkeypatch: pytest.MonkeyPatch) -> None:
    """It hands on its arguments; and a merge, which starts `python`, finds this interpreter and these modules."""
    called: list[object] = []
    monkeypatch.setattr("atheris.Setup", lambda argv, test: called.extend((argv, test)))
    monkeypatch.setattr("atheris.Fuzz", lambda: called.append("begun"))
    monkeypatch.setattr(sys, "argv", [module, "-merge=1"])
    monkeypatch.setenv("PATH", "/usr/bin")
    monkeypatch.setenv("PYTHONPATH", "/elsewhere")
    runpy.run_module(module, run_name="__main__")
    assert called == [[sys.argv[0], "-merge=1"], check, "begun"]
    assert os.environ["PATH"] == f"{Path(sys.executable).parent}:/usr/bin"
    assert os.environ["PYTHONPATH"] == str(ROOT)
