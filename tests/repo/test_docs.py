"""Commands and links in the pages exist, and CI runs what a person runs."""

import json
import re
import subprocess
import sys
from pathlib import Path

import click
import pytest
import yaml

from lab.cli.main import cli
from lab.servers.catalogue import Catalogue
from tests.support.http_cases import CASES
from tools.docs import commands, http_servers
from tools.docs.markdown import find_anchors, find_links

ROOT = Path(__file__).resolve().parents[2]
PAGES = [*sorted(ROOT.glob("*.md")), *sorted((ROOT / "docs").rglob("*.md"))]
TARGETS = set(re.findall(r"^([a-z][a-z-]*):", (ROOT / "Makefile").read_text(), re.MULTILINE))
pages = pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))


@pages
def test_make_targets_exist(page: Path) -> None:
    named = set(re.findall(r"(?:^|`)make ([a-z][a-z-]*)", page.read_text(), re.MULTILINE))
    assert named <= TARGETS


@pages
def test_lab_commands_exist(page: Path) -> None:
    named = set(re.findall(r"(?:^|`)\s*(?:\.venv/bin/)?lab ([a-z][a-z-]*)", page.read_text(), re.MULTILINE))
    with click.Context(cli) as context:
        assert named <= set(cli.list_commands(context))


def find_broken_links(page: Path) -> list[str]:
    """The internal links of a page whose file or anchor does not exist."""
    broken = []
    for link in find_links(page.read_text(encoding="utf-8")):
        if link.startswith(("http://", "https://", "mailto:")):
            continue
        path, _, anchor = link.partition("#")
        target = page.parent / path if path else page
        if not target.exists() or (anchor and anchor not in find_anchors(target.read_text(encoding="utf-8"))):
            broken.append(link)
    return broken


@pages
def test_links_and_anchors_exist(page: Path) -> None:
    assert find_broken_links(page) == []


def test_broken_links_are_found(tmp_path: Path) -> None:
    (tmp_path / "other.md").write_text("# A `title`, twice\n\n# A title, twice\n\n```\n# no title\n```\n")
    page = tmp_path / "page.md"
    page.write_text(
        "# Here\n[a](other.md) [b](other.md#a-title-twice) [c](other.md#a-title-twice-1) [d](#here) "
        "![e](https://example.org/e.png) `[f](code.md)`\n```\n[g](code.md)\n```\n"
        "[h](gone.md) [i](other.md#no-title) ![j](gone.png) [k](#there) [l](other.md#a-title-twice-2)\n"
    )
    assert find_broken_links(page) == ["gone.md", "other.md#no-title", "gone.png", "#there", "other.md#a-title-twice-2"]


def test_index_of_the_docs_links_every_page() -> None:
    docs = ROOT / "docs"
    pages = {path.name for path in docs.glob("*.md")} - {"README.md"}
    pages |= {f"{path.parent.name}/README.md" for path in docs.glob("*/README.md")}
    assert pages - {*find_links((docs / "README.md").read_text())} == set()


def test_readme_is_one_page() -> None:
    readme = (ROOT / "README.md").read_text()
    assert len(readme.split()) <= 700
    first_screen = readme.splitlines()[:25]
    assert any(line.strip().startswith("git clone ") for line in first_screen)
    assert any(line.strip().startswith("make demo") for line in first_screen)


def test_make_lists_every_documented_target() -> None:
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


def test_shown_examples_match_their_files() -> None:
    text = (ROOT / "docs" / "adding-a-server.md").read_text()
    shown = re.findall(r"```(?:yaml|python)\n(.*?)```", text, re.DOTALL)
    assert len(shown) == 3
    files = [path.read_text() for path in (ROOT / "docs" / "examples").rglob("*.*") if path.suffix != ".pyc"]
    for block in shown:
        assert any(block in file for file in files), block


def test_page_of_commands_is_what_the_command_line_says() -> None:
    # In a new process: click keeps a command's first help option for good, and tests call commands without `lab`.
    render = "from tools.docs.commands import render; print(render(), end='')"
    printed = subprocess.run(
        [sys.executable, "-c", render], cwd=ROOT, capture_output=True, text=True, check=True
    ).stdout
    assert commands.PAGE.read_text(encoding="utf-8") == printed, "run make docs"


def test_page_of_http_servers_is_that_of_its_recording() -> None:
    content = json.loads(http_servers.DATA.read_text(encoding="utf-8"))
    assert http_servers.PAGE.read_text(encoding="utf-8") == http_servers.render(content), "run make docs"


def test_recording_of_http_servers_has_every_server_and_every_case() -> None:
    seen = json.loads(http_servers.DATA.read_text(encoding="utf-8"))["seen"]
    peers = {model.name for model in Catalogue.load().models if model.profile == http_servers.PROFILE}
    assert set(seen) == peers | {http_servers.OURS}
    assert set(json.loads(http_servers.DIFFERENCES.read_text(encoding="utf-8"))) == peers
    assert all(set(of_server) == {case.name for case in CASES} for of_server in seen.values())
