"""The site of the documentation: what is staged for it, and that its pages load nothing from elsewhere."""

import subprocess
from pathlib import Path

import pytest
import yaml

from tools.docs import site
from tools.docs.site import find_external, list_pages, stage


def test_what_pages_link_to_is_staged(tmp_path: Path) -> None:
    stage(tmp_path)
    staged = {path.relative_to(tmp_path) for path in tmp_path.rglob("*") if path.is_file()}
    assert set(list_pages()) <= staged
    assert {Path("LICENSE"), Path("docs/images/xray.svg"), Path("docs/examples/perl_echo/index.md")} <= staged


def test_addresses_elsewhere_are_found(tmp_path: Path) -> None:
    (tmp_path / "page.html").write_text(
        '<link rel="stylesheet" href="//a.example/x.css"><script defer src="https://b.example/y.js"></script>'
        '<a href="https://c.example/">c</a><img src="here.png"><script src="assets/z.js"></script>'
        '<img alt="" src=//d.example/z.png><iframe src="http://e.example/"></iframe>'
    )
    found = ["//a.example/x.css", "//b.example/y.js", "//d.example/z.png", "//e.example/"]
    assert find_external(tmp_path) == found


@pytest.mark.parametrize(
    ("built", "external", "code"), [(0, [], 0), (3, [], 3), (3, ["//a.example/"], 3), (0, ["//a.example/"], 1)]
)
def test_exit_code_is_that_of_mkdocs_or_1_for_what_is_loaded_from_elsewhere(
    built: int,
    external: list[str],
    code: int,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    (tmp_path / "gone.md").touch()
    commands: list[list[object]] = []

    def run(command: list[object], *, check: bool) -> subprocess.CompletedProcess[str]:
        commands.append(command[1:])
        return subprocess.CompletedProcess([], built)

    monkeypatch.setattr(site, "STAGE", tmp_path)
    monkeypatch.setattr(site, "stage", lambda folder: folder.mkdir(parents=True))
    monkeypatch.setattr(site, "find_external", {site.SITE: external}.__getitem__)
    monkeypatch.setattr("subprocess.run", run)
    assert site.main() == code
    # Nothing of an earlier build is in it.
    assert sorted(path.name for path in tmp_path.iterdir()) == ["mkdocs.yml", "pages"]
    assert commands == [["build", "--quiet", "--strict", "--config-file", tmp_path / "mkdocs.yml"]]
    config = yaml.safe_load((tmp_path / "mkdocs.yml").read_text())
    assert (config["docs_dir"], config["site_dir"], config["theme"]["font"]) == ("pages", str(site.SITE), False)
    assert config["validation"] == {"links": {"anchors": "warn", "unrecognized_links": "warn"}}
    said = capsys.readouterr().err
    assert said == ("" if built else "".join(f"a page loads {address}\n" for address in external))


def test_list_of_a_linked_folder_is_its_readme_or_made(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(site, "ROOT", tmp_path / "root")
    folder = tmp_path / "root" / "a" / "b"
    (folder / "below").mkdir(parents=True)
    for name in ("two.py", "one.py"):
        (folder / name).write_text(name)
    site.list_folder(Path("a/b"), tmp_path / "out")
    out = tmp_path / "out" / "a" / "b"
    assert {path.name: path.read_text() for path in out.iterdir()} == {
        "one.py": "one.py",
        "two.py": "two.py",
        "index.md": "# a/b\n\n* [one.py](one.py)\n* [two.py](two.py)\n",
    }
    (folder / "README.md").write_text("# B\n")
    site.list_folder(Path("a/b"), tmp_path / "again")
    assert {path.name for path in (tmp_path / "again" / "a" / "b").iterdir()} == {"README.md", "one.py", "two.py"}
