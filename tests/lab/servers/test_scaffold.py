"""`lab new`: the files that it writes, the names that it refuses, and the remaining steps."""

import ast
import os
import shutil
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import pytest

from lab.base.errors import LabError
from lab.base.paths import ROOT
from lab.servers.catalogue import Catalogue
from lab.servers.scaffold import BLANK, create
from tests.support.suite import MODEL_TESTS_ONLY


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


def test_new_model_starts_with_the_code_of_plain_socket(clone: Path) -> None:
    """The code is read from the clone, not from a copy that becomes outdated."""
    models = clone / "services" / "models"
    plain = models / "plain_socket.py"
    plain.write_text(plain.read_text() + "\n\nCHANGED = 1\n")
    project = (clone / "pyproject.toml").read_bytes()
    create("my_way", None, clone)
    assert (clone / "pyproject.toml").read_bytes() == project
    new = (models / "my_way.py").read_text()
    assert dump_code(new) == dump_code(plain.read_text())
    assert BLANK in (ast.get_docstring(ast.parse(new)) or "")


def dump_code(source: str) -> str:
    """Return the code of a module without its docstring."""
    return "\n".join(map(ast.dump, ast.parse(source).body[1:]))


def test_library_gets_its_extra(clone: Path) -> None:
    steps = create("my_way", "curio", clone)
    assert [step.partition(":")[0] for step in steps] == [
        "write services/models/my_way.py",
        "compose.yaml",
        "make lock",
        "make docs",
    ]
    assert Catalogue.load(clone / "compose.yaml")["my_way"].extra == "curio"
    assert '\ncurio = ["curio"]\n' in (clone / "pyproject.toml").read_text()
    assert "EXTRA: curio" in (clone / "compose.yaml").read_text()


def test_invalid_name_is_refused_and_writes_nothing(clone: Path) -> None:
    before = {path: path.read_bytes() for path in clone.rglob("*") if path.is_file()}
    for name, extra, said in (
        ("My-Way", None, "not a valid model name"),
        ("class", None, "not a valid model name"),
        ("x" * 41, None, "not a valid model name"),
        ("socket", None, "the name of a module"),
        ("curio", "curio", "the name of a module"),
        ("plain_socket", None, "exists already"),
        ("peer_redis", None, "exists already"),
        ("my_way", "no such thing", "not the name of a distribution"),
    ):
        with pytest.raises(LabError, match=said):
            create(name, extra, clone)
    assert {path: path.read_bytes() for path in clone.rglob("*") if path.is_file()} == before


def test_place_that_is_missing_is_named_and_nothing_is_written(clone: Path) -> None:
    compose = clone / "compose.yaml"
    compose.write_text(compose.read_text().replace("  # Reference peers:", "  # Peers:"))
    with pytest.raises(LabError, match=r"no single line starts with '  # Reference peers:'"):
        create("my_way", None, clone)
    assert not (clone / "services" / "models" / "my_way.py").exists()
