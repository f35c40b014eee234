"""What the pages say can be done: commands exist, links lead somewhere, CI runs what a person runs."""

import re
import subprocess
from pathlib import Path

import click
import pytest
import yaml

from lab.cli.main import cli

ROOT = Path(__file__).resolve().parents[2]
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]
TARGETS = set(re.findall(r"^([a-z][a-z-]*):", (ROOT / "Makefile").read_text(), re.MULTILINE))
pages = pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)


@pages
def test_make_targets_exist(page: Path) -> None:
    named = set(re.findall(r"(?:^|`)make ([a-z][a-z-]*)", page.read_text(), re.MULTILINE))
    assert named <= TARGETS


@pages
def test_lab_commands_exist(page: Path) -> None:
    named = set(re.findall(r"(?:^|`)\s*(?:\.venv/bin/)?lab ([a-z][a-z-]*)", page.read_text(), re.MULTILINE))
    with click.Context(cli) as context:
        assert named <= set(cli.list_commands(context))


@pages
def test_links_lead_somewhere(page: Path) -> None:
    for link in re.findall(r"\]\(([^)#]+)(?:#[^)]*)?\)", page.read_text()):
        if not link.startswith(("http://", "https://")):
            assert (page.parent / link).exists(), link


def test_help_names_every_target_that_has_a_line_of_its_own() -> None:
    shown = subprocess.run(["make", "-C", str(ROOT)], capture_output=True, text=True, check=True).stdout
    documented = set(re.findall(r"^([a-z][a-z-]*):.*## ", (ROOT / "Makefile").read_text(), re.MULTILINE))
    assert documented
    assert all(re.search(rf"make {re.escape(target)} ", shown) for target in documented)


def test_ci_runs_only_make_targets() -> None:
    workflow = yaml.safe_load((ROOT / ".github" / "workflows" / "test.yaml").read_text())
    commands = [step["run"] for job in workflow["jobs"].values() for step in job["steps"] if "run" in step]
    assert commands
    for command in commands:
        match = re.fullmatch(r"make ([a-z -]+)", command.strip())
        assert match, command
        assert set(match[1].split()) <= TARGETS
    assert "make test" in (ROOT / ".ci" / "run").read_text()


def test_what_is_shown_of_the_examples_is_what_they_hold() -> None:
    text = (ROOT / "docs" / "adding-a-server.md").read_text()
    shown = re.findall(r"```(?:yaml|python)\n(.*?)```", text, re.DOTALL)
    assert len(shown) == 3
    files = [path.read_text() for path in (ROOT / "docs" / "examples").rglob("*") if path.is_file()]
    for block in shown:
        assert any(block in file for file in files), block
