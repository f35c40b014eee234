"""How the engine is started, and what is said if it does not. A shell stands for dockerd."""

import json
import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from subprocess import Popen

import pytest

from lab.engine import EngineError, __main__, base_image, daemon, probe, provide
from tests.support.fakes import Clock
from tests.support.programs import put_programs
from tests.support.waiting import wait_until


class Engine:
    """Answers from its nth question on; never if None."""

    def __init__(self, answers_at: int | None) -> None:
        self.answers_at, self.asked = answers_at, 0

    def is_answering(self) -> bool:
        self.asked += 1
        return self.answers_at is not None and self.asked >= self.answers_at


@pytest.fixture
def folder(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """The engine's folders, and no service manager."""
    monkeypatch.setattr(daemon, "RUN", tmp_path / "run")
    monkeypatch.setattr(daemon, "LOG", tmp_path / "var" / "log" / "dockerd.log")
    monkeypatch.setattr(daemon, "clear_stale", list)
    (tmp_path / "run").mkdir()
    return tmp_path


def put_dockerd(monkeypatch: pytest.MonkeyPatch, folder: Path, script: str) -> None:
    program = folder / "dockerd"
    program.write_text(f"#!/bin/sh\n{script}\n")
    program.chmod(0o755)
    monkeypatch.setattr(daemon, "which", lambda name, *, path: str(program) if name == "dockerd" else None)


def set_engine(monkeypatch: pytest.MonkeyPatch, answers_at: int | None) -> Engine:
    engine = Engine(answers_at)
    monkeypatch.setattr(daemon, "is_answering", engine.is_answering)
    return engine


@pytest.fixture
def started(monkeypatch: pytest.MonkeyPatch) -> Iterator[list["subprocess.Popen[bytes]"]]:
    """The processes that were started, which are ended here."""
    started: list[subprocess.Popen[bytes]] = []
    real = subprocess.Popen

    def open_noted(*arguments: object, **options: object) -> "subprocess.Popen[bytes]":
        started.append(real(*arguments, **options))  # type: ignore[call-overload]
        return started[-1]

    monkeypatch.setattr(subprocess, "Popen", open_noted)
    yield started
    for process in started:
        process.returncode = None
        if process.poll() is None:
            process.kill()
            process.wait()


def test_engine_that_answers_is_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    set_engine(monkeypatch, 1)
    for name in ("_start_service", "_start_process"):
        monkeypatch.setattr(daemon, name, lambda: pytest.fail("it was started"))
    daemon.start()


def test_engine_outlives_the_command_and_its_terminal(
    monkeypatch: pytest.MonkeyPatch, folder: Path, started: list["subprocess.Popen[bytes]"]
) -> None:
    """And writes where users of the log can read it, after what an earlier one has written."""
    daemon.LOG.parent.mkdir(parents=True)
    daemon.LOG.write_text("of yesterday\n")
    # A shell of root may lack the folders with iptables.
    script = 'umask; pwd; echo "${PATH##*:}"; read -r line || echo end of input; exec /bin/sleep 60'
    put_dockerd(monkeypatch, folder, script)
    set_engine(monkeypatch, 2)
    (folder / "typed").write_text("typed\n")
    before, ours = os.umask(0o077), os.dup(0)
    with (folder / "typed").open() as typed:
        os.dup2(typed.fileno(), 0)
    try:
        daemon._start_process()
    finally:
        os.umask(before)
        os.dup2(ours, 0)
        os.close(ours)
    (process,) = started
    assert process.returncode == 0  # nothing waits for it
    assert os.getsid(process.pid) == process.pid
    said = "of yesterday\n0022\n/\n/sbin\nend of input\n"
    wait_until(lambda: daemon.LOG.read_text() == said)


def test_engine_that_ends_says_why_from_its_own_log(
    monkeypatch: pytest.MonkeyPatch, folder: Path, started: list["subprocess.Popen[bytes]"]
) -> None:
    daemon.LOG.parent.mkdir(parents=True)
    daemon.LOG.write_text("of yesterday\n")
    script = "for n in 1 2 3 4 5 6 7 8 9 10 11 12 13; do echo $n; done; printf 'no storage \\377\\n' >&2; exit 7"
    put_dockerd(monkeypatch, folder, script)
    set_engine(monkeypatch, None)
    with pytest.raises(EngineError) as raised:
        daemon._start_process()
    said = "".join(f"\n    {line}" for line in [*range(3, 14), "no storage \ufffd"])
    assert str(raised.value) == f"dockerd ended with exit code 7: its log is {daemon.LOG}; it ends with:{said}"


@pytest.mark.parametrize("ends", [True, False])
def test_engine_that_does_not_answer_in_time_is_ended(
    monkeypatch: pytest.MonkeyPatch, folder: Path, started: list["subprocess.Popen[bytes]"], ends: bool
) -> None:
    """And its log is told, even if it does not end."""
    waited: list[float | None] = []
    real = Popen.wait

    def wait(process: "Popen[bytes]", timeout: float | None = None) -> int:
        waited.append(timeout)
        if timeout and not ends:
            raise subprocess.TimeoutExpired(process.args, timeout)
        return real(process, timeout)

    monkeypatch.setattr(Popen, "wait", wait)
    put_dockerd(monkeypatch, folder, "exec /bin/sleep 60")
    set_engine(monkeypatch, None)
    monkeypatch.setattr(daemon, "time", clock := Clock())
    with pytest.raises(EngineError, match=r"^dockerd gave no answer within 60 s: its log is "):
        daemon._start_process()
    assert clock.now == pytest.approx(160.0, abs=0.1)
    assert set(clock.slept) == {0.05}
    assert waited == [10]
    assert started[0].returncode == (-15 if ends else None)


@pytest.mark.parametrize("answers_at", [3, None])
def test_engine_that_another_program_has_just_started_is_waited_for(
    monkeypatch: pytest.MonkeyPatch, folder: Path, started: list["subprocess.Popen[bytes]"], answers_at: int | None
) -> None:
    put_dockerd(monkeypatch, folder, "exit 1")
    (daemon.RUN / "docker.pid").write_text("77\n")
    engine = set_engine(monkeypatch, answers_at)
    monkeypatch.setattr(daemon, "time", Clock())
    if answers_at:
        daemon._start_process()
        assert engine.asked == answers_at
    else:
        with pytest.raises(EngineError, match=r"^dockerd runs \(pid 77\) but does not answer on .*/docker\.sock: end"):
            daemon._start_process()
    assert started == []


def test_files_that_are_removed_before_a_start_are_said(
    monkeypatch: pytest.MonkeyPatch,
    folder: Path,
    started: list["subprocess.Popen[bytes]"],
    capsys: pytest.CaptureFixture[str],
) -> None:
    put_dockerd(monkeypatch, folder, "exec /bin/sleep 60")
    set_engine(monkeypatch, 1)
    monkeypatch.setattr(daemon, "clear_stale", lambda: [Path("/run/a.pid"), Path("/run/b.sock")])
    daemon._start_process()
    lines = "".join(capsys.readouterr()).splitlines()
    ending = "left by a process that has ended"
    assert lines == [f"engine: removed /run/a.pid, {ending}", f"engine: removed /run/b.sock, {ending}"]


def test_engine_that_accepts_and_says_nothing_is_asked_for_two_seconds(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    limits: list[float | None] = []

    class Link(socket.socket):
        def settimeout(self, value: float | None) -> None:
            limits.append(value)
            super().settimeout(0.01)

    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(tmp_path / "socket"))
        listener.listen()
        monkeypatch.setattr(socket, "socket", Link)
        assert not daemon.is_answering(tmp_path / "socket")
    assert limits == [2.0]


def test_machine_without_dockerd_is_said(monkeypatch: pytest.MonkeyPatch, folder: Path) -> None:
    monkeypatch.setattr(daemon, "which", lambda *_, **__: None)
    with pytest.raises(EngineError, match=r"^no dockerd on this machine: run `make engine` as root$"):
        daemon._start_process()


@pytest.mark.parametrize(
    ("code", "answers_at", "fails"), [(0, 2, False), (0, None, True), (5, 1, True)], ids=["starts", "silent", "fails"]
)
def test_service_is_started_and_has_to_answer(
    monkeypatch: pytest.MonkeyPatch, code: int, answers_at: int | None, fails: bool
) -> None:
    set_engine(monkeypatch, answers_at)
    monkeypatch.setattr(daemon, "time", Clock())
    programs = put_programs(monkeypatch, {"systemctl": code or ""}, daemon)
    if fails:
        with pytest.raises(EngineError, match=r"^systemd could not start docker\.service: read `journalctl"):
            daemon._start_service()
    else:
        daemon._start_service()
    assert (programs.asked, programs.timeouts) == (["systemctl start docker"], [60.0])


@pytest.mark.parametrize("has_systemd", [True, False])
def test_service_manager_starts_it_if_there_is_one(monkeypatch: pytest.MonkeyPatch, has_systemd: bool) -> None:
    set_engine(monkeypatch, None)
    started: list[str] = []
    monkeypatch.setattr(Path, "is_dir", lambda self: has_systemd and str(self) == "/run/systemd/system")
    monkeypatch.setattr(daemon, "_start_service", lambda: started.append("service"))
    monkeypatch.setattr(daemon, "_start_process", lambda: started.append("process"))
    daemon.start()
    assert started == ["service" if has_systemd else "process"]


@pytest.mark.parametrize(
    ("stdin", "stdout", "euid", "code", "installs"),
    [
        (False, False, 0, 0, True),
        (None, False, 0, 0, True),
        (True, False, 0, 3, False),
        (False, True, 0, 3, False),
        (False, False, 7, 3, False),
    ],
    ids=["ci", "without stdin", "a user types", "a user reads", "not root"],
)
def test_engine_is_installed_unasked_only_where_no_user_is(
    monkeypatch: pytest.MonkeyPatch, stdin: bool | None, stdout: bool, euid: int, code: int, installs: bool
) -> None:
    installed: list[int] = []
    monkeypatch.delenv("LAB_ENGINE", raising=False)
    monkeypatch.setattr(probe, "is_complete", lambda: False)
    monkeypatch.setattr(probe, "status", lambda: probe.read_status(127, "", "", ""))
    monkeypatch.setattr(__main__, "install", lambda: installed.append(1))
    monkeypatch.setattr(os, "geteuid", lambda: euid)
    if stdin is None:  # as with `<&-`
        monkeypatch.setattr(sys, "stdin", None)
    else:
        monkeypatch.setattr(sys.stdin, "isatty", lambda: stdin, raising=False)
    monkeypatch.setattr(sys.stdout, "isatty", lambda: stdout, raising=False)
    # A log that goes to a file is no user.
    monkeypatch.setattr(sys.stderr, "isatty", lambda: not stdout, raising=False)
    assert __main__.main(["ensure"]) == code
    assert bool(installed) == installs


def test_engine_that_is_complete_is_not_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(probe, "is_complete", lambda: True)
    monkeypatch.setattr(__main__, "install", lambda: pytest.fail("it was installed"))
    assert __main__.main(["ensure"]) == 0


@pytest.mark.parametrize("is_complete", [True, False])
def test_install_does_nothing_for_a_complete_engine(monkeypatch: pytest.MonkeyPatch, is_complete: bool) -> None:
    installed: list[int] = []
    monkeypatch.setattr(probe, "is_complete", lambda: is_complete)
    monkeypatch.setattr(provide, "install", lambda: installed.append(1))
    assert __main__.main(["install"]) == 0
    assert bool(installed) != is_complete


def test_each_command_does_its_own(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    asked: list[str] = []
    monkeypatch.setattr(base_image, "provide", lambda: asked.append("base"))
    assert __main__.main(["base"]) == 0
    assert asked == ["base"]
    monkeypatch.setattr(probe, "status", lambda: probe.read_status(127, "", "", ""))
    assert __main__.main(["status"]) == 0
    printed, complaint = capsys.readouterr()
    assert (json.loads(printed)["reachable"], complaint) == (False, "")
    # The Makefile goes on after 3 alone.
    monkeypatch.setattr(probe, "is_complete", lambda: False)
    monkeypatch.setenv("LAB_ENGINE", "no")
    assert __main__.main(["ensure"]) == 3
    assert capsys.readouterr() == ("", "there is no `docker` on PATH: run `make engine` as root\n")

    def fail() -> None:
        raise EngineError("no disk", "buy one")

    monkeypatch.setattr(base_image, "provide", fail)
    assert __main__.main(["base"]) == 2
    assert capsys.readouterr() == ("", "error: no disk: buy one\n")
    for words in ([], ["nonesuch"]):
        with pytest.raises(SystemExit) as ended:
            __main__.main(words)
        assert ended.value.code == 2
        assert capsys.readouterr().err.startswith("usage: python3 -m lab.engine ")
    with pytest.raises(SystemExit):
        __main__.main(["--help"])
    said = " ".join(capsys.readouterr().out.split())
    for text in ("for the Makefile", "provide a Docker engine", "provide the image", "like install", "print as JSON"):
        assert text in said
