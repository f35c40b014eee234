"""The commands behind `make docs`: what they write, what they remove, and their exit codes."""

import json
import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from lab.base import interrupts
from lab.base.errors import LabError
from lab.base.paths import ROOT
from lab.experiments.published import Measured
from lab.experiments.xray.recording import read_recordings
from lab.servers.catalogue import Catalogue
from lab.tour.registry import load
from lab.tour.runner import ExhibitRun
from tools.docs import gallery_page, http_servers, markdown, models_page, record_gallery
from tools.docs.scenes import DATA

CATALOGUE = Catalogue.load()
TWO_FILES = replace(CATALOGUE, files=(*CATALOGUE.files, Path("compose.override.yaml")))


# models_page


@pytest.fixture
def models(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """Pages of the models in a folder of their own."""
    for name, text in models_page.read_pages().items():
        (tmp_path / f"{name}.md").write_text(text)
    monkeypatch.setattr(models_page, "FOLDER", tmp_path)
    monkeypatch.setattr(models_page, "read_pages", lambda read=models_page.read_pages: read(tmp_path))
    return tmp_path


def test_pages_of_models_that_are_up_to_date_are_left_alone(models: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert models_page.main() == 0
    assert capsys.readouterr().out == "docs/models: nothing has changed\n"


def test_stale_page_is_written_and_judged_as_it_is_then(models: Path, capsys: pytest.CaptureFixture[str]) -> None:
    page = models / "prefork.md"
    right = page.read_text()
    # More words than a page may have, but in a block, which is written again.
    page.write_text(right.replace("Family: ", "word " * models_page.WORDS))
    assert models_page.main() == 0
    assert page.read_text() == right
    assert capsys.readouterr().out == "docs/models: prefork\n"


def test_model_without_a_page_gets_one_and_exit_code_1_until_it_is_filled_in(
    models: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (models / "prefork.md").unlink()
    for said in ("docs/models: prefork", "docs/models: nothing has changed"):
        assert models_page.main() == 1
        captured = capsys.readouterr()
        assert captured.out == f"{said}\n"
        assert "docs/models: to fix by hand: prefork: still has" in captured.err
    assert (models / "prefork.md").read_text().startswith("# `prefork`\n")


@pytest.mark.parametrize(("count", "is_too_long"), [(models_page.WORDS, False), (models_page.WORDS + 1, True)])
def test_page_has_at_most_a_thousand_words(count: int, is_too_long: bool) -> None:
    page = models_page.read_pages()["prefork"]
    page += "\nword" * (count - len(page.split()))
    sources = models_page.Sources(CATALOGUE, Measured.load(), read_recordings(DATA))
    faults = models_page.find_faults(models_page.read_pages() | {"prefork": page}, sources)
    said = f"prefork: {count} words, which is more than five minutes of reading ({models_page.WORDS})"
    assert faults == ([said] if is_too_long else [])


@pytest.mark.parametrize("module", [models_page, gallery_page])
def test_pages_are_not_made_of_an_override(
    module: Any, models: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(Catalogue, "load", lambda: TWO_FILES)
    monkeypatch.setattr(Path, "write_text", lambda *_, **__: pytest.fail("a page was written"))
    assert module.main() == 2
    assert "move compose.override.yaml away, then try again" in capsys.readouterr().err


# gallery_page


EXHIBITS = load()[:3]


@pytest.fixture
def gallery(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """Pages and recordings of three exhibits in a folder of their own, with the pages made."""
    runs, digests = gallery_page.read_records()
    records = json.loads(gallery_page.RECORDS.read_text())
    assert runs.keys() == digests.keys()
    (tmp_path / "gallery.json").write_text(json.dumps({each.module: records[each.module] for each in EXHIBITS}))
    monkeypatch.setattr(gallery_page, "RECORDS", tmp_path / "gallery.json")
    monkeypatch.setattr(gallery_page, "FOLDER", tmp_path / "pages")
    monkeypatch.setattr(gallery_page, "load", lambda: EXHIBITS)
    return tmp_path / "pages"


def test_pages_of_the_gallery_are_written_once_and_those_of_gone_exhibits_removed(
    gallery: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    expected = {"README", *(each.module for each in EXHIBITS)}
    for said in ("written", "nothing has changed"):
        assert gallery_page.main() == 0
        assert capsys.readouterr().out == f"docs/gallery: {said}\n"
        assert {path.stem for path in gallery.iterdir()} == expected
    monkeypatch.setattr(gallery_page, "load", lambda: EXHIBITS[1:])
    assert gallery_page.write()
    assert {path.stem for path in gallery.iterdir()} == expected - {EXHIBITS[0].module}


def test_gallery_without_a_recording_has_exit_code_2(gallery: Path, capsys: pytest.CaptureFixture[str]) -> None:
    gallery_page.RECORDS.unlink()
    assert gallery_page.main() == 2
    assert "has no recording of" in capsys.readouterr().err
    assert not gallery.exists()


def test_recording_is_normalised_and_replaces_that_of_its_module_alone(
    gallery: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before, digests = gallery_page.read_records()
    first, second, third = (each.module for each in EXHIBITS)
    monkeypatch.setattr(gallery_page, "normalise", lambda run: replace(run, output=f"{run.output}, normalised"))
    changed = [EXHIBITS[0], replace(EXHIBITS[1], source=f"{EXHIBITS[1].source}\n"), EXHIBITS[2]]
    monkeypatch.setattr(gallery_page, "load", lambda: changed)
    gallery_page.record([ExhibitRun(second, "3.13.5", "new", None, (), ())])
    runs, now = gallery_page.read_records()
    assert [*runs] == [first, second, third]
    assert (runs[first], runs[third]) == (before[first], before[third])
    assert runs[second].output == "new, normalised"
    assert now == digests | {second: changed[1].digest}


@pytest.mark.parametrize(("count", "left"), [(150, None), (151, "... 1 more lines"), (160, "... 10 more lines")])
def test_long_dialogue_ends_with_the_number_of_its_other_lines(count: int, left: str | None) -> None:
    lines = list(map(str, range(count)))
    assert list(gallery_page._shorten(lines)) == [*lines[:150], *([left] if left else [])]


# record_gallery


def test_interrupted_recording_settles_what_it_owes(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(record_gallery, "open_backend", interrupt)
    monkeypatch.setattr(interrupts, "settle", lambda: iter([LabError("a server is left")]))
    assert record_gallery.main() == 130
    assert capsys.readouterr().err.splitlines() == [
        "record_gallery: interrupted: nothing was recorded",
        "record_gallery: a server is left",
    ]


# http_servers


PEERS = [model.name for model in CATALOGUE.models if model.profile == http_servers.PROFILE]


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> list[tuple[str, ...]]:
    """A lab of HTTP servers that is asked by commands."""
    found: list[tuple[str, ...]] = []
    test = "tests/conformance/test_http.py::test_x[a]@2"

    def lab(*arguments: str, check: bool = True) -> str:
        found.append(arguments)
        if arguments[0] == "shell":
            server = arguments[-1].split()[-1].partition("=")[0]
            assert arguments[-1].endswith(f" {server}=tcp://{server}:8080")
            row = {"server": server, "case": "one", "right": server != PEERS[0], "seen": "waits", "end": "silent"}
            return f"noise\n{json.dumps(row)}\n"
        outcomes = ("failed", "error", "passed", "xfailed", "skipped")
        findings = [
            {"model": PEERS[1], "outcome": outcome, "name": test.replace("[a]", f"[{PEERS[1]}-{outcome}]")}
            for outcome in outcomes
        ]
        return json.dumps({"findings": findings})

    monkeypatch.setattr(http_servers, "_lab", lab)
    monkeypatch.setattr(http_servers, "DATA", tmp_path / "data.json")
    monkeypatch.setattr(http_servers, "DIFFERENCES", tmp_path / "differences.json")
    monkeypatch.setattr(http_servers, "PAGE", tmp_path / "page.md")
    return found


def test_servers_of_http_are_asked_and_what_they_fail_is_expected(asked: list[tuple[str, ...]]) -> None:
    http_servers.record()
    assert asked[0] == ("up", http_servers.OURS, *PEERS)
    assert [arguments[0] for arguments in asked[1:]] == ["shell"] * (1 + len(PEERS)) + ["check", "down"]
    assert asked[-2] == ("check", *PEERS, "--json")
    differences = json.loads(http_servers.DIFFERENCES.read_text())
    assert differences == {name: [] for name in PEERS} | {PEERS[1]: ["test_x[failed]", "test_x[error]"]}
    content = json.loads(http_servers.DATA.read_text())
    assert re.fullmatch(r"2\d{3}-\d\d-\d\d", content["date"])
    assert content["versions"] == http_servers._find_versions(CATALOGUE, PEERS) != []
    assert content["seen"] == {
        name: {"one": {"right": name != PEERS[0], "seen": "waits"}} for name in (http_servers.OURS, *PEERS)
    }


def test_lab_of_http_servers_is_stopped_after_a_failure(
    asked: list[tuple[str, ...]], monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(server: str) -> list[dict[str, Any]]:
        raise LabError("no answer")

    monkeypatch.setattr(http_servers, "_observe", fail)
    with pytest.raises(LabError):
        http_servers.record()
    assert asked[-1] == ("down",)


@pytest.mark.parametrize(("arguments", "records"), [([], 0), (["--record"], 1)])
def test_servers_of_http_are_asked_again_only_on_demand(
    arguments: list[str], records: int, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    done: list[object] = []
    monkeypatch.setattr(http_servers, "record", lambda: done.append("record"))
    monkeypatch.setattr(http_servers, "write", done.append)
    http_servers.main(arguments)
    assert done == ["record"] * records + [json.loads(http_servers.DATA.read_text())]


@pytest.mark.parametrize("check", [True, False])
def test_lab_of_http_servers_is_one_of_containers_with_a_project_of_its_own(
    monkeypatch: pytest.MonkeyPatch, check: bool
) -> None:
    asked: list[Any] = []

    def run(command: list[str], **options: Any) -> "subprocess.CompletedProcess[str]":
        asked.append((command, options["cwd"], options["check"]))
        return subprocess.CompletedProcess(command, 0, "its output")

    monkeypatch.setattr(subprocess, "run", run)
    # A failed `up` ends the recording; a failed `check` is what is recorded.
    assert http_servers._lab("ls", *([] if check else ["--json"]), check=check) == "its output"
    words = ["-m", "lab", "--backend", "docker", "--project", "http-servers", "ls", *([] if check else ["--json"])]
    assert asked == [([sys.executable, *words], ROOT, check)]


def test_versions_are_those_of_the_servers_and_not_of_their_dependencies(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    folder = tmp_path / "requirements" / "servers"
    folder.mkdir(parents=True)
    (folder / "a.in").write_text("Uvicorn[standard]>=0.3\ngunicorn\n")
    (folder / "a.txt").write_text("gunicorn==23.0.0 \\\n    --hash=x\nh11==0.16.0\nuvicorn==0.35.0\n")
    (folder / "b.in").write_text("anyio\n")
    (folder / "b.txt").write_text("anyio==4.9.0\n")
    (folder / "none.txt").write_text("left==1.0\n")
    builds = [{"args": {"LOCK": "b"}}, {"args": {"LOCK": "a"}}, {"args": {"LOCK": "a"}}, {}]
    definitions = {name: {"build": build} for name, build in zip(CATALOGUE.names, builds, strict=False)}
    monkeypatch.setattr(http_servers, "ROOT", tmp_path)
    found = http_servers._find_versions(replace(CATALOGUE, definitions=definitions), CATALOGUE.names[:4])
    assert found == ["anyio 4.9.0", "gunicorn 23.0.0", "uvicorn 0.35.0"]


# markdown


def test_bar_in_a_cell_does_not_end_it() -> None:
    assert (
        markdown.make_table(["a|b", "c"], [["d", "e|f"]], figures_from=1)
        == "| a\\|b | c |\n| --- | ---: |\n| d | e\\|f |"
    )


def test_heading_in_a_code_block_begins_no_section() -> None:
    text = "# Top\n\n## `One`\na\n```\n## not\n```\nb\n## Two\nc"
    assert list(markdown.split_sections(text, 2)) == [
        markdown.Section("One", "a\n```\n## not\n```\nb\n"),
        markdown.Section("Two", "c"),
    ]


def test_links_are_those_of_markdown_and_of_html_outside_of_code() -> None:
    text = (
        "See [a](a.md#x), ![b](b.png) and `[c](c.md)`.\n\n"
        '<a class="x" href="d.md">d</a> <img alt="" src="e.svg" width="3">\n\n'
        '```\n[f](f.md) <a href="g.md">\n```\n[h\nh](h.md)\n'
    )
    assert markdown.find_links(text) == ["a.md#x", "b.png", "h.md", "d.md", "e.svg"]


def test_anchors_are_made_of_headings_as_github_makes_them() -> None:
    text = (
        "# One two\n## One Two\n### `a_b`: c, d-e!\n#### one two\n## this & that\n####### seven\n"
        '```\n# code\n```\n<a id="x"></a><a name="y"></a>\n'
    )
    found = {"one-two", "one-two-1", "one-two-2", "a_b-c-d-e", "this--that", "x", "y"}
    assert markdown.find_anchors(text) == found
