"""`lab xray` as a user runs it."""

import json
from collections.abc import Callable
from pathlib import Path
from subprocess import CompletedProcess

import pytest

from lab.base.paths import ROOT

Lab = Callable[..., "CompletedProcess[str]"]
STORED = ROOT / "docs" / "data" / "xray.json"


def test_scene_is_recorded_printed_and_stored(lab: Lab, process_project: str, tmp_path: Path) -> None:
    options = ["--backend", "process", "--project", process_project]
    exports = ["--export", "trace", "--export", "svg"]
    done = lab(*options, "xray", "plain_socket", "--rounds", "1", "--out", str(tmp_path), *exports)
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert lines[0] == "A sleeps 20 ms, B computes 10 ms, C wants a PING"
    assert "plain_socket: A blocks B, B blocks C" in lines
    assert any(line.startswith("C waited ") and "the only thread slept for A" in line for line in lines)
    page = tmp_path / "xray" / "latest" / "index.html"
    assert "A blocks B, B blocks C" in page.read_text()
    assert {path.name for path in page.parent.iterdir()} == {
        "index.html",
        "plain_socket-sleep.svg",
        "recordings.json",
        "trace.json",
    }
    shown = lab("xray", "--show", str(page.with_name("recordings.json")), "--out", str(tmp_path))
    assert shown.returncode == 0
    assert shown.stdout.splitlines()[:-1] == lines[:-1]  # the last one has the path of the page


def test_json_is_the_only_output(lab: Lab, process_project: str, tmp_path: Path) -> None:
    options = ["--backend", "process", "--project", process_project]
    done = lab(*options, "xray", "selector_loop", "--rounds", "1", "--json", "--out", str(tmp_path))
    assert done.stderr == ""
    (recording,) = json.loads(done.stdout)
    assert (recording["model"], [client["name"] for client in recording["clients"]]) == (
        "selector_loop",
        ["A", "B", "C"],
    )
    assert not list(tmp_path.iterdir())


def test_counts_are_printed_for_each_request(lab: Lab, process_project: str) -> None:
    done = lab("--backend", "process", "--project", process_project, "xray", "--count", "selector_loop")
    assert done.returncode == 0, done.stderr
    rows = [line.split("\t") for line in done.stdout.splitlines()]
    assert [row[:2] for row in rows] == [["selector_loop", name] for name in ("PING", "echo 1 KiB", "echo 64 KiB")]
    assert rows[0][2] == "3"
    assert set(rows[0][3].split(", ")) == {"epoll_wait 1", "recvfrom 1", "sendto 1"}


def test_recording_of_an_older_version_is_refused(lab: Lab, tmp_path: Path) -> None:
    old = tmp_path / "old.json"
    old.write_text(STORED.read_text().replace('"version":1', '"version":0'))
    done = lab("xray", "--show", str(old))
    assert done.returncode == 2
    assert done.stderr == (f"lab: {old} is a recording of version 0, and this lab reads version 1: record again\n")


@pytest.mark.parametrize(
    ("target", "said"),
    [
        ("greet=tcp://127.0.0.1:7", "there are scenes for echo=tcp://... and command=tcp://... only"),
        ("echo=tcp://127.0.0.1:1", "Connection refused: is the server running there?"),
    ],
)
def test_target_without_a_scene_or_a_server_is_refused(lab: Lab, target: str, said: str) -> None:
    done = lab("xray", "--target", target)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.strip().endswith(said)


def test_model_that_cannot_run_here_is_named_and_the_others_are_shown(
    lab: Lab, process_project: str, tmp_path: Path
) -> None:
    options = ["--backend", "process", "--project", process_project]
    done = lab(*options, "xray", "threads_nogil", "plain_socket", "--rounds", "1", "--out", str(tmp_path))
    assert done.returncode == 1
    assert "plain_socket: A blocks B, B blocks C" in done.stdout.splitlines()
    assert "not recorded: threads_nogil: threads_nogil runs only in a container" in done.stderr
    assert "threads_nogil" in (tmp_path / "xray" / "latest" / "index.html").read_text()
