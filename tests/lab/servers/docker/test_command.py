"""How the Docker client is run: its output by lines, its end, and a time-out. Shells stand for it."""

import math
import os
import signal
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest

from lab.base import interrupts
from lab.base.errors import EngineAwayError, LabError
from lab.engine import EngineError
from lab.servers.backend import Completed
from lab.servers.docker.command import call, end, last_words, make_environ, open_process, read_lines, run_docker
from tests.support.docker_client import put_docker


def test_output_is_read_to_its_last_line_which_may_have_no_end() -> None:
    process = open_process(["/bin/sh", "-c", "printf 'a\\nb\\n\\nc'; printf d >&2"], environ={})
    assert [line for line in read_lines(process, math.inf) if line is not None] == ["a", "b", "", "cd"]
    end(process)
    assert process.returncode == 0


def test_output_is_not_read_after_the_deadline() -> None:
    process = open_process(["/bin/sleep", "60"], environ={})
    assert list(read_lines(process, -math.inf)) == []
    end(process)


def test_quiet_process_gives_the_reader_a_turn_and_is_read_on(tmp_path: Path) -> None:
    script = f"until [ -e {tmp_path}/on ]; do /bin/sleep 0.01; done; echo a"
    process = open_process(["/bin/sh", "-c", script], environ={})
    lines = read_lines(process, math.inf, quiet_seconds=0.01)
    assert next(lines) is None
    (tmp_path / "on").touch()
    assert list(filter(None, lines)) == ["a"]
    end(process)


def test_process_is_ended_only_if_its_output_goes_on() -> None:
    process = open_process(["/bin/sleep", "20"], environ={})
    end(process)
    assert process.returncode == -signal.SIGTERM
    end(process)  # as at the end of several blocks
    process = open_process(["/bin/sh", "-c", "exec >/dev/null 2>&1; /bin/sleep 0.1; exit 3"], environ={})
    assert list(read_lines(process, math.inf)) == []
    end(process)
    assert process.returncode == 3


def test_command_that_takes_too_long_is_ended(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    put_docker(monkeypatch, tmp_path, {}, before="exec /bin/sleep 20")
    with pytest.raises(LabError, match=r"^`docker version \.\.\.` took longer than 0\.05 s and was ended$"):
        run_docker("version", timeout=0.05)


@pytest.mark.parametrize("check", [True, False])
def test_engine_that_is_away_is_an_error_of_every_command(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, check: bool
) -> None:
    """Otherwise its silence would pass for an empty list."""
    said = "Cannot connect to the Docker daemon at unix:///x. Is the docker daemon running?"
    put_docker(monkeypatch, tmp_path, {}, before=f'echo "{said}" >&2; exit 1')
    with pytest.raises(EngineAwayError):
        run_docker("container", "ls", check=check)


def test_failed_command_is_an_error_unless_its_exit_code_is_an_answer(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    put_docker(monkeypatch, tmp_path, {"image": 3})
    with pytest.raises(LabError, match=r"^docker image: it failed$"):
        run_docker("image", "ls")
    assert run_docker("image", "ls", check=False).returncode == 3


@pytest.mark.parametrize(
    ("output", "said"),
    [
        ("", ""),
        ("\n  \n", ""),
        ("first\nsecond\n\n", "second"),
        ("docker: Error response from daemon: no such image\n", "no such image"),
        ("error: it failed\n Container a  Creating\n Network n  Removed\n", "it failed"),
        ('time="2026-01-01T00:00:00Z" level=warning msg="no"\n', ""),
        ("it failed\ntime=x level=warning msg=old\n", "it failed"),
        # Only at the beginning.
        ("a container said error: no\n", "a container said error: no"),
    ],
)
def test_last_words_are_those_that_explain(output: str, said: str) -> None:
    assert last_words(output) == said


def test_command_of_a_clean_up_has_a_group_that_ctrl_c_does_not_reach(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    put_docker(monkeypatch, tmp_path, {}, before="read -r _ _ _ _ group _ < /proc/$$/stat; echo $group")
    assert int(run_docker("ps").stdout) == os.getpgid(0)
    with interrupts.uninterrupted("taking it down", "lab down"):
        assert int(run_docker("ps").stdout) != os.getpgid(0)


def test_missing_client_is_an_error_that_says_what_to_do(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    for start in (lambda: run_docker("ps"), lambda: open_process(["docker", "ps"])):
        with pytest.raises(LabError, match=r"^there is no `docker` command on this machine: `lab doctor` says what"):
            start()


def test_output_that_is_no_text_is_replaced(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    put_docker(monkeypatch, tmp_path, {}, before="printf 'a\\377\\nb\\376'")
    assert run_docker("ps").stdout == "a\ufffd\nb\ufffd"
    process = open_process(["docker", "ps"])
    assert list(filter(None, read_lines(process, math.inf))) == ["a\ufffd", "b\ufffd"]
    end(process)


@pytest.mark.parametrize(
    ("run", "read"), [(call, ""), (partial(call, interactive=True), "typed")], ids=["usual", "interactive"]
)
def test_command_reads_what_is_typed_only_if_it_is_interactive(
    tmp_path: Path, run: Callable[..., Completed], read: str
) -> None:
    (tmp_path / "typed").write_text("typed")
    ours = os.dup(0)
    with (tmp_path / "typed").open() as typed:
        os.dup2(typed.fileno(), 0)
    try:
        done = run(["/bin/cat"], capture=True)
    finally:
        os.dup2(ours, 0)
        os.close(ours)
    assert done.stdout == read


def test_output_of_a_command_is_shown_unless_it_is_captured(capfd: pytest.CaptureFixture[str]) -> None:
    done = call(["/bin/sh", "-c", "echo shown; echo too >&2"])
    assert not isinstance(done.stdout, str)
    assert not isinstance(done.stderr, str)
    assert capfd.readouterr() == ("shown\n", "too\n")


def test_settings_of_the_client_are_those_of_a_build_only_if_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    assert "BUILDX_BUILDER" not in make_environ()
    assert "BUILDX_BUILDER" in make_environ(for_build=True)

    # Those that cannot be written are an error.
    def refuse(*, for_build: bool) -> dict[str, str]:
        raise EngineError("no space", "free some")

    monkeypatch.setattr("lab.servers.docker.command.make_client_environ", refuse)
    with pytest.raises(LabError, match=r"^no space: free some$"):
        make_environ()
