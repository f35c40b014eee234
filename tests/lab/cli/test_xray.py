"""`lab xray` as a user runs it."""

import json
import os
import re
import signal
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from subprocess import CompletedProcess
from typing import Any

import click
import pytest
from click.testing import CliRunner

from lab.base.environ import ENV_XRAY
from lab.base.errors import LabError
from lab.base.paths import ROOT
from lab.cli.commands import xray
from lab.cli.main import cli
from lab.experiments.xray.recording import Recording, read_recordings, write_recordings
from lab.experiments.xray.scenes import Scene
from lab.servers.catalogue import Catalogue, Model
from lab.servers.runtime import runtime_directory
from services.protocol import Address
from services.protocol.trace import Kind, parse
from tests.support.fakes import UnusedBackend
from tests.support.waiting import wait_until

Lab = Callable[..., "CompletedProcess[str]"]
STORED = ROOT / "docs" / "data" / "xray.json"


def test_scene_is_recorded_printed_and_stored(lab: Lab, process_project: str, tmp_path: Path) -> None:
    options = ["--backend", "process", "--project", process_project]
    exports = ["--export", "trace", "--export", "svg"]
    # On a busy machine, C may come only when A's sleep has ended: not three times.
    for _ in range(3):
        done = lab(*options, "xray", "plain_socket", "--rounds", "5", "--out", str(tmp_path), *exports)
        assert done.returncode == 0, done.stderr
        lines = done.stdout.splitlines()
        said = " ".join(done.stdout.split())
        if "the only thread slept for A" in said.partition("C waited ")[2]:
            break
    assert lines[0] == "A sleeps 20 ms, B computes 10 ms, C wants a PING"
    assert "plain_socket: A blocks B, B blocks C" in lines
    # The sentence may be longer than a line.
    assert re.search(r"C waited [\d.]+ ms: the only thread slept for A .*computed for B", said), done.stdout
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


def test_recording_of_a_client_without_a_reply_or_a_server_that_ended_does_not_hold(tmp_path: Path) -> None:
    answered = read_recordings(STORED)[0]
    (first, *others) = answered.clients
    lost = replace(answered, clients=(replace(first, answered=None, error="it broke"), *others))
    for recordings, code in (([answered], 0), ([answered, lost], 1), ([replace(answered, has_ended=True)], 1)):
        write_recordings(tmp_path / "x.json", recordings)
        done = CliRunner().invoke(cli, ["xray", "--show", str(tmp_path / "x.json"), "--out", str(tmp_path)])
        assert (done.exit_code, "got no reply: it broke" in done.output) == (code, lost in recordings)


@pytest.mark.parametrize("is_opened", [False, True])
def test_page_is_opened_only_if_asked(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, is_opened: bool) -> None:
    launched: list[str] = []
    monkeypatch.setattr(click, "launch", launched.append)
    words = ["xray", "--show", str(STORED), "--out", str(tmp_path), *["--open"] * is_opened]
    assert CliRunner().invoke(cli, words).exit_code == 0
    (page,) = (tmp_path / "xray").glob("2*/index.html")
    assert (tmp_path / "xray" / "latest").resolve() == page.parent
    assert launched == [str(page)] * is_opened
    assert read_recordings(page.with_name("recordings.json")) == read_recordings(STORED)


def test_full_disk_changes_no_result(tmp_path: Path) -> None:
    answered = read_recordings(STORED)
    write_recordings(tmp_path / "x.json", [*answered, replace(answered[0], has_ended=True)])
    (tmp_path / "xray").touch()  # no folder can be made there
    for shown, code in ((STORED, 0), (tmp_path / "x.json", 1)):
        done = CliRunner().invoke(cli, ["xray", "--show", str(shown), "--out", str(tmp_path)])
        assert done.exit_code == code
        assert "The page" not in done.stdout
        assert re.fullmatch(r"lab: not stored: .*xray.*\n", done.stderr)


class OneByOne(UnusedBackend):
    """A lab that notes what it is asked to do; one of its models cannot be started."""

    def __init__(self) -> None:
        self.events: list[str] = []

    def up(self, models: Iterable[str | Model] = (), **_: Any) -> None:
        self.events.append(f"up {' '.join(map(str, models))}, {os.environ.get(ENV_XRAY)}")
        if "thread_pool" in models:
            raise LabError("no place for it")

    def stop(self, model: str) -> int:
        self.events.append(f"stop {model}")
        return 0

    def down(self) -> None:
        self.events.append("down")


@pytest.mark.parametrize("is_traced", [False, True])
def test_models_are_recorded_one_after_the_other(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, is_traced: bool
) -> None:
    """Each is alone on the machine, and has a recorder. The variable for it is then what it was."""
    backend = OneByOne()
    stored = replace(read_recordings(STORED)[0], scene="sleep")

    def record(where: object, model: str, scene: Scene, folder: str, **more: object) -> Recording:
        assert where == backend
        assert (more["rounds"], more["is_traced"], more["machine"]) == (2, is_traced, {"place": "known"})
        backend.events.append(f"record {model} {scene.name} {folder}")
        return replace(stored, model=model, scene=scene.name)

    opened: list[tuple[str | None, str]] = []

    def open_backend(name: str | None, project: str, *, catalogue: Catalogue) -> OneByOne:
        opened.append((name, project))
        return backend

    def choose_folder(servers: object, runtime: Path) -> str:
        assert (servers, runtime) == (backend, runtime_directory("its own"))
        return "/a/{model}"

    monkeypatch.setattr(backend, "project", "its own", raising=False)
    monkeypatch.setattr(backend, "describe", lambda: {"place": "known"})
    monkeypatch.setattr(xray, "describe_environment", lambda place: place)
    monkeypatch.setattr(xray, "open_backend", open_backend)
    monkeypatch.setattr(xray, "record", record)
    monkeypatch.setattr(xray, "choose_folder", choose_folder)
    if is_traced:
        monkeypatch.setenv(ENV_XRAY, "of the user")
    else:
        monkeypatch.delenv(ENV_XRAY, raising=False)
    words = ["xray", "--scene", "all", "--rounds", "2", "--json", "plain_socket", "thread_pool", "prefork"]
    # The lab of `lab up` has no recorder, and is not taken down.
    own = ["--project", "mine", "--backend", "process"] if is_traced else []
    for name in ("LAB_PROJECT", "LAB_BACKEND"):  # the command sets them
        monkeypatch.setenv(name, "")
        monkeypatch.delenv(name)
    done = CliRunner().invoke(cli, own + words + ["--kernel"] * is_traced)
    assert opened == [("process", "mine") if is_traced else (None, "socketlab-xray")]
    assert done.exit_code == 1
    assert "not recorded: thread_pool: no place for it" in done.stderr
    found = [(each["model"], each["scene"]) for each in json.loads(done.stdout)]
    assert found == [(model, scene) for model in ("plain_socket", "prefork") for scene in ("sleep", "slow")]
    assert backend.events == [
        "up plain_socket, /a/{model}",
        "record plain_socket sleep /a/{model}",
        "record plain_socket slow /a/{model}",
        "stop plain_socket",
        "up thread_pool, /a/{model}",
        "up prefork, /a/{model}",
        "record prefork sleep /a/{model}",
        "record prefork slow /a/{model}",
        "stop prefork",
        "down",
    ]
    assert os.environ.get(ENV_XRAY) == ("of the user" if is_traced else None)


@pytest.mark.parametrize(
    ("export", "files"),
    [
        ([], set()),
        (["trace"], {"trace.json"}),
        (["svg"], {"tcp-h-1-sleep.svg", "prefork-slow.svg"}),
    ],
)
def test_exports_are_written_beside_the_page_only_if_asked(tmp_path: Path, export: list[str], files: set[str]) -> None:
    stored = {each.model: each for each in read_recordings(STORED)}["prefork"]
    found = [replace(stored, model="tcp://h:1", scene="sleep"), replace(stored, scene="slow")]
    page = xray._write(tmp_path, found, {"gone": "no place for it"}, export)
    assert {path.name for path in page.parent.iterdir()} == {"index.html", "recordings.json"} | files
    assert "no place for it" in page.read_text()


def test_target_is_recorded_as_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[tuple[Any, ...]] = []
    stored = replace(read_recordings(STORED)[0], scene="sleep")

    def record_target(where: object, address: Address, scene: Scene, owner: str, **more: Any) -> Recording:
        more.pop("machine")
        asked.append((where, str(address), scene.name, owner, more))
        return stored

    monkeypatch.setattr(xray, "check_reachable", lambda service, address: None)
    monkeypatch.setattr(xray, "find_owner", lambda address: "its owner")
    monkeypatch.setattr(xray, "open_backend", lambda name: name)
    monkeypatch.setattr(xray, "record_target", record_target)
    chosen = {"command=tcp://h:1": ["--kernel"], "command=tcp://h:2": ["--scene", "slow"], "echo=tcp://h:3": []}
    for url, more in chosen.items():
        assert CliRunner().invoke(cli, ["xray", "--target", url, "--rounds", "7", "--json", *more]).exit_code == 0
    assert asked == [
        ("process", "tcp://h:1", "sleep", "its owner", {"rounds": 7, "is_traced": True}),
        ("process", "tcp://h:2", "slow", "its owner", {"rounds": 7, "is_traced": False}),
        ("process", "tcp://h:3", "echo", "its owner", {"rounds": 7, "is_traced": False}),
    ]


@pytest.mark.parametrize(
    ("words", "uncounted", "code", "said"),
    [
        (["plain_socket"], {}, 0, ""),
        (["plain_socket"], {"plain_socket": "strace failed"}, 1, "not counted: plain_socket: strace failed\n"),
        (["plain_socket", "thread_pool"], {}, 1, "not counted: thread_pool: no place for it\n"),
    ],
)
def test_model_that_is_not_counted_does_not_hold(
    monkeypatch: pytest.MonkeyPatch, words: list[str], uncounted: dict[str, str], code: int, said: str
) -> None:
    counted: list[tuple[str, str]] = []

    def measure(backend: object, name: str, folder: str) -> tuple[list[Any], dict[str, str]]:
        counted.append((name, folder))
        return [], uncounted

    def open_backend(name: str | None, project: str, *, catalogue: Catalogue) -> OneByOne:
        assert project == "socketlab-xray"
        return OneByOne()

    monkeypatch.delenv("LAB_PROJECT", raising=False)
    monkeypatch.setattr(xray, "open_backend", open_backend)
    monkeypatch.setattr(xray, "measure", measure)
    monkeypatch.setattr(xray, "choose_folder", lambda servers, runtime: "/a/{model}")
    done = CliRunner().invoke(cli, ["xray", "--count", "--json", *words])
    assert (done.exit_code, done.stderr, counted) == (code, said, [("plain_socket", "/a/plain_socket")])


def test_model_that_cannot_run_here_is_named_and_the_others_are_shown(
    lab: Lab, process_project: str, tmp_path: Path
) -> None:
    options = ["--backend", "process", "--project", process_project]
    done = lab(*options, "xray", "threads_nogil", "plain_socket", "--rounds", "1", "--out", str(tmp_path))
    assert done.returncode == 1
    assert "plain_socket: A blocks B, B blocks C" in done.stdout.splitlines()
    assert "not recorded: threads_nogil: threads_nogil runs only in a container" in done.stderr
    assert "threads_nogil" in (tmp_path / "xray" / "latest" / "index.html").read_text()


def find_sleeper(folder: Path, times: int) -> int:
    """Return the pid of the server that has noted so many sleeps; 0 if none has."""
    traces = [parse(path.read_bytes()) for path in folder.glob("*.xray") if path.stat().st_size]
    waits = {trace.pid: [note for note in trace.notes if note.kind is Kind.WAIT] for trace in traces}
    return next((pid for pid, notes in waits.items() if len(notes) >= times), 0)


def test_model_that_is_killed_in_a_scene_is_said_and_the_rest_is_shown(
    lab: Lab, process_project: str, tmp_path: Path
) -> None:
    options = ["--backend", "process", "--project", process_project]
    command = [*options, "xray", "plain_socket", "selector_loop", "--rounds", "40", "--out", str(tmp_path)]
    with ThreadPoolExecutor(max_workers=1) as pool:
        running = pool.submit(lab, *command)
        # The second sleep: the warm-up is over.
        folder = runtime_directory(process_project) / "xray" / "plain_socket"
        os.kill(wait_until(lambda: find_sleeper(folder, 2)), signal.SIGKILL)
        done = running.result()
    assert done.returncode == 1
    said = [line for line in done.stdout.splitlines() if line.startswith("Not recorded: the rounds after number ")]
    assert [line.split(": ", 2)[2] for line in said] == ["the server ended: Connection refused."]
    stored = tmp_path / "xray" / "latest" / "recordings.json"
    broken, whole = json.loads(stored.read_text())
    assert (broken["model"], broken["has_ended"], whole["model"], whole["has_ended"]) == (
        "plain_socket",
        True,
        "selector_loop",
        False,
    )
    assert broken["processes"], "what it had noted until then is shown"
    assert broken["threads"], "and what the kernel had shown"
    assert "the server ended: Connection refused" in stored.with_name("index.html").read_text()
    assert lab("xray", "--show", str(stored), "--out", str(tmp_path)).returncode == 1


@pytest.mark.parametrize("other", [("--count",), ("--show", str(STORED))], ids=["count", "show"])
def test_system_calls_of_what_is_no_scene_are_refused(lab: Lab, other: tuple[str, ...]) -> None:
    done = lab("xray", "--kernel", *other)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.strip().endswith("--kernel is for recording a scene: leave out --count and --show")
