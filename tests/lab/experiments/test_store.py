"""The store: complete files or none, no file overwritten, and errors in one line."""

import errno
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from lab.base.paths import ROOT
from lab.experiments.store import SCHEMA, Run, StoreError, check_writable, make_folder, tolerated, write_new


@pytest.fixture
def run(tmp_path: Path) -> Run:
    return Run.create("bench", {"plan": {"seed": 7}, "environment": {"commit": "abc"}}, root=tmp_path)


def test_stored_steps_are_read(run: Run, tmp_path: Path) -> None:
    run.keep("sweep/ping/plain/16", {"rate": 1.5})
    run.keep("sweep/ping/plain/1", {"rate": None})
    found = Run.find(None, "bench", root=tmp_path)
    assert found == run
    assert found.facts["plan"] == {"seed": 7}
    assert found.steps() == {"sweep/ping/plain/16": {"rate": 1.5}, "sweep/ping/plain/1": {"rate": None}}
    assert found.list_keys("sweep/ping") == found.list_keys() != []
    assert found.list_keys("round-1") == []
    assert found.has("sweep/ping/plain/1")
    assert not found.has("sweep/ping/plain")
    assert json.loads((run.folder / run.path_of("sweep/ping/plain/16")).read_text()) == {"rate": 1.5}


def test_files_are_not_overwritten(run: Run) -> None:
    run.keep("a", {"first": 1})
    with pytest.raises(StoreError, match="exists, and no result is overwritten"):
        run.keep("a", {"second": 2})
    assert run.steps() == {"a": {"first": 1}}
    run.keep_log("plain", "one\n")
    run.keep_log("plain", "two\n")
    run.keep_log("other", "three\n")
    assert read_all(run.folder / "logs") == {"other.log": "three\n", "plain-2.log": "two\n", "plain.log": "one\n"}


def test_two_runs_of_one_second_have_two_folders(tmp_path: Path) -> None:
    runs = [Run.create("bench", {}, root=tmp_path) for _ in range(3)]
    assert len({run.folder for run in runs}) == 3
    assert Run.find("latest", "bench", root=tmp_path).folder == runs[-1].folder
    assert Run.find(runs[0].started, "bench", root=tmp_path).folder == runs[0].folder
    assert Run.find(str(runs[1].folder), "bench", root=tmp_path).folder == runs[1].folder


def test_run_of_the_results_comes_before_a_folder_of_the_same_name(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    elsewhere = tmp_path / "elsewhere"
    for name in ("latest", run.started):
        (elsewhere / name).mkdir(parents=True)
    monkeypatch.chdir(elsewhere)
    assert Run.find(None, "bench", root=tmp_path).folder == run.folder
    assert Run.find(run.started, "bench", root=tmp_path).folder == run.folder


def test_run_is_finished_after_finish(run: Run) -> None:
    assert not run.is_finished
    assert run.end == {}
    run.finish({"steps": 3})
    assert Run.open(run.folder).is_finished
    assert run.end == {"steps": 3}


def test_report_is_replaced(run: Run) -> None:
    assert run.write_page("one", "two") == run.folder / "index.html"
    run.write_page("three", "four")
    assert [(run.folder / name).read_text() for name in ("index.html", "report.md")] == ["three", "four"]
    # What goes with a page is in its folders; a page without a report leaves that of before.
    run.write_page("five", files={"charts/a.svg": "six", "ping.html": "seven"})
    names = ("index.html", "charts/a.svg", "ping.html", "report.md")
    assert [(run.folder / name).read_text() for name in names] == ["five", "six", "seven", "four"]
    assert not run.list_keys()


@pytest.mark.parametrize(("schema", "says"), [(SCHEMA + 1, "a later version"), (0, "an earlier"), (None, "an earlier")])
def test_other_schema_is_an_error_with_its_commit(run: Run, schema: int | None, says: str) -> None:
    path = run.folder / "run.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"schema": schema}))
    with pytest.raises(StoreError, match=rf"schema {schema}, and this version reads {SCHEMA}: {says}.*commit abc"):
        Run.open(run.folder)


def test_other_schema_without_a_commit_is_an_error_too(run: Run) -> None:
    found: list[dict[str, object]] = [{}, {"environment": None}, {"environment": {}}, {"environment": {"commit": None}}]
    for facts in found:
        (run.folder / "run.json").write_text(json.dumps({"schema": SCHEMA + 1, **facts}))
        with pytest.raises(StoreError, match=r"\(commit not known\)$"):
            Run.open(run.folder)


def test_run_that_cannot_be_created_is_an_error(tmp_path: Path) -> None:
    """Its folder, and the link that names the latest one."""
    (tmp_path / "file").touch()
    with pytest.raises(StoreError, match=f"^{tmp_path}/file/bench: cannot be written: Not a directory$"):
        Run.create("bench", {}, root=tmp_path / "file")
    (tmp_path / "bench" / "latest").mkdir(parents=True)
    with pytest.raises(StoreError, match=f"^{tmp_path}/bench/[0-9TZ.:-]+: cannot be written: Is a directory$"):
        Run.create("bench", {}, root=tmp_path)


def test_missing_run_is_an_error(run: Run, tmp_path: Path) -> None:
    with pytest.raises(StoreError, match=r"not a stored run: it has no run\.json"):
        Run.open(tmp_path)
    (run.folder.parent / "notes").touch()
    with pytest.raises(StoreError, match=rf"no run 'other' .*: there are {run.started}$"):  # and not `latest`
        Run.find("other", "bench", root=tmp_path)
    for number in range(6):
        (tmp_path / "bench" / f"9999-{number}").mkdir()
    with pytest.raises(StoreError, match=r"there are 9999-1, 9999-2, 9999-3, 9999-4, 9999-5$"):  # the last five
        Run.find("other", "bench", root=tmp_path)
    with pytest.raises(StoreError, match="nothing has been measured yet"):
        Run.find(None, "elsewhere", root=tmp_path)


@pytest.mark.parametrize("data", [b'{"half', b"\xff"], ids=["half", "no UTF-8"])
def test_damaged_file_is_named(run: Run, data: bytes) -> None:
    run.keep("a", {})
    path = run.folder / run.path_of("a")
    path.write_bytes(data)
    with pytest.raises(StoreError, match=r"steps/a\.json: cannot be read.*--resume"):
        run.steps()


def test_file_of_another_type_is_named(run: Run) -> None:
    run.keep("a", {})
    (run.folder / run.path_of("a")).write_text("[]")
    with pytest.raises(StoreError, match=r"steps/a\.json: not a file of the store"):
        run.read("a")


def test_link_left_by_a_killed_process_is_replaced(tmp_path: Path) -> None:
    (tmp_path / "bench").mkdir()
    (tmp_path / "bench" / f".latest.{os.getpid()}").symlink_to("nowhere")
    run = Run.create("bench", {}, root=tmp_path)
    assert (tmp_path / "bench" / "latest").resolve() == run.folder


def test_incomplete_file_of_a_killed_lab_is_ignored(run: Run) -> None:
    run.keep("ping/a", {})
    (run.folder / "steps" / "ping" / ".b.json.part").write_text('{"half')
    assert list(run.steps()) == ["ping/a"]
    assert not run.has("ping/b")


@pytest.mark.parametrize(
    ("is_made", "number", "why"),
    [
        (True, errno.ENOSPC, "the disk is full; the measurements so far are stored"),
        (False, errno.EDQUOT, "the disk is full; the measurements so far are stored"),
        (False, errno.EROFS, "Read-only file system"),
    ],
    ids=["partial-file", "no-file", "read-only"],
)
def test_full_disk_leaves_no_partial_file(
    run: Run, monkeypatch: pytest.MonkeyPatch, is_made: bool, number: int, why: str
) -> None:
    run.keep("a", {"rate": 1})
    write = Path.write_text

    def fill(self: Path, text: str, **options: str) -> int:
        if is_made:
            write(self, text[:1], **options)
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(Path, "write_text", fill)
    with pytest.raises(StoreError, match=f"cannot be written: {why}$"):
        run.keep("b", {"rate": 2})
    monkeypatch.undo()
    assert run.steps() == {"a": {"rate": 1}}
    assert [path.name for path in (run.folder / "steps").iterdir()] == ["a.json"]


def test_only_one_process_writes(run: Run) -> None:
    code = (
        "import sys; from pathlib import Path; from lab.experiments.store import Run\n"
        "with Run.open(Path(sys.argv[1])).writing(): print('has it', flush=True); sys.stdin.read()"
    )
    command = [sys.executable, "-c", code, str(run.folder)]
    with subprocess.Popen(command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == b"has it\n"
        with pytest.raises(StoreError, match="another process is measuring into it"), run.writing():
            pass
        other.communicate()
    with run.writing():
        run.keep("a", {})


def read_all(folder: Path) -> dict[str, str]:
    return {path.name: path.read_text() for path in sorted(folder.iterdir())}


def test_existing_name_gets_a_number(tmp_path: Path) -> None:
    folder = tmp_path / "new" / "deep"
    for text in "abc":
        write_new(folder, "x", {".json": text, "-service.hgrm": text.upper()})
    assert read_all(folder) == {
        "x.json": "a",
        "x-service.hgrm": "A",
        "x-2.json": "b",
        "x-2-service.hgrm": "B",
        "x-3.json": "c",
        "x-3-service.hgrm": "C",
    }
    assert write_new(folder, "y", {".json": ""}) == folder / "y"


def test_files_of_one_result_share_a_number(tmp_path: Path) -> None:
    """One number for all, even if only one of the names exists, or is a broken link."""
    (tmp_path / "x-service.hgrm").write_text("old")
    (tmp_path / "x-2.json").symlink_to("nowhere")
    assert write_new(tmp_path, "x", {".json": "new", "-service.hgrm": "new"}) == tmp_path / "x-3"
    assert (tmp_path / "x-service.hgrm").read_text() == "old"
    assert (tmp_path / "x-3.json").read_text() == (tmp_path / "x-3-service.hgrm").read_text() == "new"
    assert not (tmp_path / "x.json").exists()


def test_name_taken_by_the_last_file_removes_the_first(tmp_path: Path) -> None:
    (tmp_path / "x.json").write_text("theirs")
    assert write_new(tmp_path, "x", {"-a": "ours", ".json": "ours"}) == tmp_path / "x-2"
    assert read_all(tmp_path) == {"x.json": "theirs", "x-2-a": "ours", "x-2.json": "ours"}


def test_failed_write_leaves_no_file(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="cannot be written: File name too long"):
        write_new(tmp_path, "x", {".json": "a", "-" * 300: "b"})
    assert read_all(tmp_path) == {}


def test_interrupted_write_leaves_no_file(tmp_path: Path) -> None:
    def render() -> Iterator[tuple[str, str]]:
        yield ".json", "a"
        raise KeyboardInterrupt

    texts: Any = SimpleNamespace(items=render)
    with pytest.raises(KeyboardInterrupt):
        write_new(tmp_path, "x", texts)
    assert read_all(tmp_path) == {}


def test_existing_folder_gets_a_number(tmp_path: Path) -> None:
    made = [make_folder(tmp_path / "new" / "deep", "today") for _ in range(3)]
    assert [path.name for path in made] == ["today", "today-2", "today-3"]
    assert all(path.is_dir() for path in made)


@pytest.mark.parametrize("name", ["file", "file/below", "/proc/nothing", "/proc"])
def test_unwritable_folder_is_an_error(tmp_path: Path, name: str) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(StoreError, match=f"{name}: cannot be written: "):
        check_writable(tmp_path / name)


def test_writable_folder_is_created_and_empty(tmp_path: Path) -> None:
    check_writable(tmp_path / "a" / "b")
    check_writable(tmp_path / "a" / "b")
    assert read_all(tmp_path / "a" / "b") == {}


@pytest.mark.parametrize("error", [StoreError("full"), OSError(errno.ENOSPC, "full")])
def test_unstored_result_is_reported(error: Exception) -> None:
    said: list[str] = []
    with tolerated(said.append):
        raise error
    assert len(said) == 1
    assert said[0].startswith("lab: not stored: ")
    assert "full" in said[0]
    with pytest.raises(ZeroDivisionError), tolerated(said.append):
        raise ZeroDivisionError
