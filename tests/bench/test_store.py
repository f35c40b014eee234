"""The store: whole files or none, nothing overwritten, and what is wrong said in a line."""

import errno
import json
import subprocess
import sys
from pathlib import Path

import pytest

from lab.catalogue import ROOT
from lab.store import SCHEMA, Run, StoreError


@pytest.fixture
def run(tmp_path: Path) -> Run:
    return Run.create("bench", {"plan": {"seed": 7}, "environment": {"commit": "abc"}}, root=tmp_path)


def test_what_is_kept_is_read(run: Run, tmp_path: Path) -> None:
    run.keep("sweep/ping/plain/16", {"rate": 1.5})
    run.keep("sweep/ping/plain/1", {"rate": None})
    found = Run.find(None, "bench", root=tmp_path)
    assert found == run
    assert found.facts["plan"] == {"seed": 7}
    assert found.steps() == {"sweep/ping/plain/16": {"rate": 1.5}, "sweep/ping/plain/1": {"rate": None}}
    assert found.has("sweep/ping/plain/1")
    assert not found.has("sweep/ping/plain")
    assert json.loads((run.folder / run.path_of("sweep/ping/plain/16")).read_text()) == {"rate": 1.5}


def test_nothing_is_overwritten(run: Run) -> None:
    run.keep("a", {"first": 1})
    with pytest.raises(StoreError, match="is there already"):
        run.keep("a", {"second": 2})
    assert run.steps() == {"a": {"first": 1}}
    run.keep_log("plain", "one\n")
    run.keep_log("plain", "two\n")
    assert sorted(path.read_text() for path in (run.folder / "logs").iterdir()) == ["one\n", "two\n"]


def test_two_runs_of_one_second_are_two(tmp_path: Path) -> None:
    runs = [Run.create("bench", {}, root=tmp_path) for _ in range(3)]
    assert len({run.folder for run in runs}) == 3
    assert Run.find("latest", "bench", root=tmp_path).folder == runs[-1].folder
    assert Run.find(runs[0].started, "bench", root=tmp_path).folder == runs[0].folder
    assert Run.find(str(runs[1].folder), "bench", root=tmp_path).folder == runs[1].folder


def test_a_run_is_finished_when_it_says_so(run: Run) -> None:
    assert not run.is_finished
    run.finish({"steps": 3})
    assert Run.open(run.folder).is_finished


def test_a_report_may_be_made_anew(run: Run) -> None:
    run.write_report("report.md", "one")
    run.write_report("report.md", "two")
    assert (run.folder / "report.md").read_text() == "two"


@pytest.mark.parametrize(("schema", "says"), [(SCHEMA + 1, "a later version"), (0, "an earlier"), (None, "an earlier")])
def test_another_schema_is_said_with_the_commit_that_can_read_it(run: Run, schema: int | None, says: str) -> None:
    path = run.folder / "run.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"schema": schema}))
    with pytest.raises(StoreError, match=rf"schema {schema}, and this version reads {SCHEMA}: {says}.*commit abc"):
        Run.open(run.folder)


def test_what_is_no_run_is_said(run: Run, tmp_path: Path) -> None:
    with pytest.raises(StoreError, match=r"no run of `lab bench`: it has no run\.json"):
        Run.open(tmp_path)
    with pytest.raises(StoreError, match=rf"no run 'other' .* there are {run.started}"):
        Run.find("other", "bench", root=tmp_path)
    with pytest.raises(StoreError, match="nothing has been measured yet"):
        Run.find(None, "elsewhere", root=tmp_path)


def test_a_damaged_file_is_named(run: Run) -> None:
    run.keep("a", {})
    path = run.folder / run.path_of("a")
    path.write_text('{"half')
    with pytest.raises(StoreError, match=r"steps/a\.json: cannot be read.*--resume"):
        run.steps()


def test_what_was_being_written_when_the_lab_was_killed_is_no_step(run: Run) -> None:
    run.keep("ping/a", {})
    (run.folder / "steps" / "ping" / ".b.json.part").write_text('{"half')
    assert list(run.steps()) == ["ping/a"]
    assert not run.has("ping/b")


def test_a_full_disk_leaves_no_half_file_and_keeps_the_rest(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    run.keep("a", {"rate": 1})
    write = Path.write_text

    def fill(self: Path, text: str, **options: str) -> int:
        write(self, text[:1], **options)
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(Path, "write_text", fill)
    with pytest.raises(StoreError, match="the disk is full; what was measured until now is kept"):
        run.keep("b", {"rate": 2})
    monkeypatch.undo()
    assert run.steps() == {"a": {"rate": 1}}
    assert [path.name for path in (run.folder / "steps").iterdir()] == ["a.json"]


def test_only_one_process_writes(run: Run) -> None:
    code = (
        "import sys; from pathlib import Path; from lab.store import Run\n"
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
