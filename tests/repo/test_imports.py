"""Imports follow the layers of docs/design.md: import-linter checks the contracts in pyproject.toml."""

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
FILES = sorted(path for part in ("services", "lab", "loadtests", "tools") for path in (ROOT / part).rglob("*.py"))
LINT = [str(Path(sys.executable).with_name("lint-imports")), "--no-cache"]


def imported(path: Path) -> Iterator[str]:
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (name.name for name in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert not node.level, f"{path}: relative import"
            yield str(node.module)


def test_contracts_are_kept() -> None:
    done = subprocess.run(LINT, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout


@pytest.mark.parametrize("module", ["lab.servers.catalogue", "tools.docs.markdown"])
def test_import_upward_or_of_tools_breaks_a_contract(tmp_path: Path, module: str) -> None:
    for part in ("services", "lab", "loadtests", "tools", "pyproject.toml"):
        (tmp_path / part).symlink_to(ROOT / part)
    (tmp_path / "lab").unlink()
    (tmp_path / "lab").mkdir()
    for item in (ROOT / "lab").iterdir():
        (tmp_path / "lab" / item.name).symlink_to(item)
    (tmp_path / "lab" / "base").unlink()
    (tmp_path / "lab" / "base").mkdir()
    for item in (ROOT / "lab" / "base").iterdir():
        (tmp_path / "lab" / "base" / item.name).symlink_to(item)
    (tmp_path / "lab" / "base" / "upward.py").write_text(f"def act():\n    import {module}\n")
    done = subprocess.run(LINT, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 1
    assert f"lab.base.upward -> {module}" in done.stdout


def test_no_file_is_named_like_a_module_that_it_imports() -> None:
    assert not [path for path in FILES if path.stem in {name.split(".")[0] for name in imported(path)}]


def test_protocol_does_no_io() -> None:
    io = {"socket", "select", "selectors", "threading", "time", "asyncio", "os", "subprocess", "signal", "ssl", "io"}
    files = [path for path in FILES if path.is_relative_to(ROOT / "services" / "protocol")]
    assert len(files) > 8
    for path in files:
        assert not io & {module.split(".")[0] for module in imported(path)}, path


def test_root_of_lab_has_at_most_twelve_entries() -> None:
    entries = {path.name for path in (ROOT / "lab").iterdir() if path.name != "__pycache__"}
    assert len(entries) <= 12, entries


def test_commands_import_neither_pytest_nor_the_client_of_docker_before_they_need_it() -> None:
    """Each takes as long to import as the rest of a command."""
    code = "import sys, lab.cli.commands.demo, lab.cli.commands.load; print({'pytest', 'docker'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout == "set()\n"
