"""Programs in containers: what an exit code of `docker exec` says, and what is left of a run that is broken off."""

import os
import re
import signal
import subprocess
import sys
from collections.abc import Sequence
from contextlib import nullcontext, suppress
from pathlib import Path
from types import SimpleNamespace
from typing import Any, NoReturn

import psutil
import pytest

from lab.base.environ import ENV_LIFELINE
from lab.base.errors import LabError
from lab.servers.backend import Completed
from lab.servers.catalogue import Catalogue
from lab.servers.children import open_child
from lab.servers.docker import helpers as helpers_module
from lab.servers.docker.command import call
from lab.servers.docker.compose import Compose
from lab.servers.docker.helpers import ContainerHelpers
from tests.support.docker_client import put_docker
from tests.support.fakes import Clock
from tests.support.waiting import wait_until


@pytest.fixture
def helpers() -> ContainerHelpers:
    return ContainerHelpers(Compose("mine", Catalogue.load()))


@pytest.mark.parametrize("code", [1, 125, 126, 127])
@pytest.mark.parametrize("running", ["false", "", 1])
def test_command_without_a_container_says_that_the_lab_is_not_up(
    helpers: ContainerHelpers, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, code: int, running: str | int
) -> None:
    """Without a container, `docker inspect` prints nothing."""
    put_docker(monkeypatch, tmp_path, {"exec": code, "inspect": running})
    with pytest.raises(LabError, match=r"^the lab mine is not up: `lab up` starts it$"):
        helpers.run(["true"])


@pytest.mark.parametrize(
    ("code", "asked"), [(1, ["exec", "inspect"]), (2, ["exec"]), (126, ["exec", "inspect"]), (127, ["exec", "inspect"])]
)
def test_exit_code_of_a_command_in_a_container_is_its_own(
    helpers: ContainerHelpers, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, code: int, asked: list[str]
) -> None:
    """A look at the container costs a process, so there is none where it cannot be the reason."""
    commands = put_docker(monkeypatch, tmp_path, {"exec": code, "inspect": "true"})
    assert helpers.run(["false"]).returncode == code
    assert [line.split()[0] for line in commands()] == asked
    assert "--interactive" not in commands()[0]


def break_off_calls(monkeypatch: pytest.MonkeyPatch, reason: type[BaseException]) -> list[str]:
    """Break off each call of the Docker client; return the list that gets its words."""
    started: list[str] = []

    def break_off(command: Sequence[str], **_: object) -> NoReturn:
        started.extend(command)
        raise reason

    monkeypatch.setattr(helpers_module, "call", break_off)
    return started


def list_removers() -> list[str]:
    """Return the containers that a process removes if this one dies."""
    children = [each.cmdline() for each in psutil.Process().children()]
    return [command[-1] for command in children if "docker rm --force" in " ".join(command)]


@pytest.mark.parametrize("reason", [KeyboardInterrupt, LabError])
def test_container_of_a_run_that_is_broken_off_is_removed(
    helpers: ContainerHelpers, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, reason: type[BaseException]
) -> None:
    """By Ctrl-C, or since it took too long: the client has ended then, and the container has not."""
    started = break_off_calls(monkeypatch, reason)
    monkeypatch.setattr(helpers_module, "build_images", lambda *_: None)
    monkeypatch.setattr("lab.servers.docker.compose.ensure_certificates", lambda _: tmp_path)
    asked = put_docker(monkeypatch, tmp_path, {})
    with pytest.raises(reason):
        helpers.run_service("tests", ["-q"])
    name = started[started.index("--name") + 1]
    assert name.startswith("mine-tests-run-")
    assert asked() == [f"container rm --force --volumes {name}"]


@pytest.mark.parametrize("reason", [KeyboardInterrupt, LabError])
def test_command_that_is_broken_off_is_ended_in_its_container(
    helpers: ContainerHelpers, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, reason: type[BaseException]
) -> None:
    """The end of `docker exec` does not end it."""
    started = break_off_calls(monkeypatch, reason)
    asked = put_docker(monkeypatch, tmp_path, {})
    with pytest.raises(reason):
        helpers.run(["sleep", "60"])
    mark = started[started.index("--env") + 1]
    assert mark.startswith("LAB_RUN=")
    (line,) = asked()
    assert line.startswith(f"exec {helpers.shell} sh -c ")
    assert f"grep -qs {mark} " in line
    assert "kill -9" in line

    # Without an engine, the reason is still that of the end.
    def fail(*_: object, **__: object) -> NoReturn:
        raise LabError("no engine")

    monkeypatch.setattr(helpers_module, "run_docker", fail)
    with pytest.raises(reason) as found:
        helpers.run(["sleep", "60"])
    assert str(found.value) == ""


@pytest.mark.parametrize("environ", [{}, {"A": "1"}, {ENV_LIFELINE: "stdin"}])
@pytest.mark.parametrize("publish", [False, True])
def test_container_of_a_service_is_removed_with_its_block(
    helpers: ContainerHelpers,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    environ: dict[str, str],
    publish: bool,
) -> None:
    lifelines: list[bool] = []

    def open_noted(*arguments: Any, has_lifeline: bool, **options: Any) -> Any:
        lifelines.append(has_lifeline)
        return open_child(*arguments, has_lifeline=has_lifeline, **options)

    monkeypatch.setattr(helpers_module, "build_images", lambda *_: None)
    monkeypatch.setattr(helpers_module, "open_child", open_noted)
    monkeypatch.setattr("lab.servers.docker.compose.ensure_certificates", lambda _: tmp_path)
    asked = put_docker(monkeypatch, tmp_path, {}, before='[ "$1" = compose ] && exec /bin/sleep 20')
    # Half of the blocks fail.
    with (
        pytest.raises(ZeroDivisionError) if publish else nullcontext(),
        helpers.start_service("it", "locust", ["--users", "3"], environ=environ, publish=publish) as helper,
    ):
        assert helper.process.poll() is None
        assert list_removers() == [helper.host] * (ENV_LIFELINE in environ)
        if publish:
            raise ZeroDivisionError
    assert helper.process.returncode is not None
    assert lifelines == [ENV_LIFELINE in environ]
    (run,) = [line for line in asked() if line.startswith("compose ")]
    options = f"{' --service-ports' if publish else ''}{''.join(f' --env {name}' for name in environ)}"
    assert run.endswith(f" run --no-deps --no-TTY --name {helper.host}{options} locust --users 3")
    assert asked()[-1] == f"container rm --force --volumes {helper.host}"
    # What would remove it after the end of this process has ended itself.
    assert not [line for line in asked() if line.startswith("rm ")]


def test_variables_and_input_of_a_command_reach_its_container(
    helpers: ContainerHelpers, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    asked = put_docker(monkeypatch, tmp_path, {}, before="read -r line && echo got $line")
    assert helpers.run(["cat", "-"], environ={"A": "1"}, capture=True, stdin="x\n").stdout == "got x\n"
    (line,) = asked()
    assert re.fullmatch(rf"exec --env LAB_RUN=\w+ --interactive --env A=1 {helpers.shell} cat -", line)


def test_values_of_variables_reach_a_service_unseen(
    helpers: ContainerHelpers, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Any user sees the arguments of a process."""
    monkeypatch.setattr(helpers_module, "build_images", lambda *_: None)
    monkeypatch.setattr("lab.servers.docker.compose.ensure_certificates", lambda _: tmp_path)
    monkeypatch.setenv("A", "of the shell")
    asked = put_docker(monkeypatch, tmp_path, {}, before='echo "$A $LAB_TLS_DIR"')
    done = helpers.run_service("tests", ["-q"], environ={"A": "secret"}, capture=True)
    assert done.stdout == f"secret {tmp_path}\n"
    (line,) = asked()
    assert re.search(r" run --no-deps --no-TTY --name mine-tests-run-\w+ --rm --env A tests -q$", line)
    assert "secret" not in line


@pytest.mark.parametrize(
    ("is_interactive", "is_terminal", "options"),
    [(True, True, ["--interactive", "--tty"]), (True, False, ["--interactive"]), (False, True, [])],
)
def test_command_gets_a_terminal_only_if_there_is_one(
    helpers: ContainerHelpers,
    monkeypatch: pytest.MonkeyPatch,
    is_interactive: bool,
    is_terminal: bool,
    options: list[str],
) -> None:
    """Docker refuses one where stdin is a script."""
    called: list[tuple[list[str], dict[str, Any]]] = []

    def call(command: list[str], **given: Any) -> Completed:
        called.append((command, given))
        return Completed(command, 0, "", "")

    monkeypatch.setattr(helpers_module, "call", call)
    monkeypatch.setattr("sys.stdin", SimpleNamespace(isatty=lambda: is_terminal))
    helpers.run(["bash"], interactive=is_interactive, timeout=7.5)
    ((command, given),) = called
    assert command[4:] == [*options, "mine-shell-1", "bash"]
    assert given == {"interactive": is_interactive, "timeout": 7.5}


def test_program_in_the_shells_container_ends_with_its_block(
    helpers: ContainerHelpers, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    # It gets SIGTERM when the lab dies: prctl(2), PR_GET_PDEATHSIG.
    tells = "found = ctypes.c_int(); ctypes.CDLL(None).prctl(2, ctypes.byref(found)); print(found.value, flush=True)"
    program = f"import ctypes, time; {tells}; time.sleep(60)"
    asked = put_docker(monkeypatch, tmp_path, {}, before=f"exec {sys.executable} -S -c '{program}'")
    with suppress(ZeroDivisionError), helpers.start("it", ["python", "-m", "a"]) as helper:
        wait_until(lambda: helper.take_lines() == ["15"])
        assert (helper.name, helper.host) == ("it", "mine-shell-1")
        raise ZeroDivisionError
    assert helper.process.returncode == -signal.SIGTERM
    assert asked() == ["exec --interactive mine-shell-1 python -m a"]
    monkeypatch.setenv("PATH", str(tmp_path / "none"))
    with pytest.raises(LabError, match="there is no `docker` command"), helpers.start("it", ["a"]):
        pass


def test_image_of_a_service_is_built_before_it_runs(
    helpers: ContainerHelpers, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    built: list[list[str]] = []
    monkeypatch.setattr(helpers_module, "build_images", lambda compose, services: built.append(list(services)))
    monkeypatch.setattr("lab.servers.docker.compose.ensure_certificates", lambda _: tmp_path)
    asked = put_docker(monkeypatch, tmp_path, {})
    assert helpers.run_service("tests", capture=True).returncode == 0
    with helpers.start_service("it", "soak"):
        pass
    assert built == [["tests"], ["soak"]]
    assert "--service-ports" not in " ".join(asked())


def test_service_is_there_when_its_container_is(
    helpers: ContainerHelpers, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Two that start at the same time would make two networks of the same name."""
    monkeypatch.setattr(helpers_module, "build_images", lambda *_: None)
    monkeypatch.setattr("lab.servers.docker.compose.ensure_certificates", lambda _: tmp_path)
    monkeypatch.setattr(helpers_module, "time", clock := Clock())
    look = f'if [ "$1 $2" = "container inspect" ]; then [ -e {tmp_path}/b ] && exit 0; [ -e {tmp_path}/a ] && : > '
    look += f'{tmp_path}/b; : > {tmp_path}/a; echo "no such container" >&2; exit 1; fi; '
    asked = put_docker(monkeypatch, tmp_path, {}, before=f'{look}[ "$1" = compose ] && exec /bin/sleep 20')
    with helpers.start_service("it", "locust") as helper:
        looks = [line for line in asked() if line.startswith("container inspect")]
        assert looks == [f"container inspect {helper.host}"] * 3
    assert clock.slept == [0.1, 0.1]


@pytest.mark.timeout(60)
def test_service_that_cannot_start_is_not_waited_for(
    helpers: ContainerHelpers, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Its container never comes."""
    monkeypatch.setattr(helpers_module, "build_images", lambda *_: None)
    monkeypatch.setattr("lab.servers.docker.compose.ensure_certificates", lambda _: tmp_path)
    put_docker(monkeypatch, tmp_path, {"compose": 17, "container": 1})
    with helpers.start_service("it", "locust") as helper:
        assert helper.process.returncode == 17


@pytest.mark.parametrize(("environ", "has_pipe"), [({}, False), ({ENV_LIFELINE: "stdin"}, True)])
def test_stdin_of_a_service_is_open_only_as_a_lifeline(
    helpers: ContainerHelpers,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    environ: dict[str, str],
    has_pipe: bool,
) -> None:
    monkeypatch.setattr(helpers_module, "build_images", lambda *_: None)
    monkeypatch.setattr("lab.servers.docker.compose.ensure_certificates", lambda _: tmp_path)
    removers: list[str] = []

    def call_noted(command: Sequence[str], **options: Any) -> Completed:
        removers.extend(list_removers())
        return call(command, **options)

    monkeypatch.setattr(helpers_module, "call", call_noted)
    asked = put_docker(monkeypatch, tmp_path, {}, before="/bin/readlink /proc/self/fd/0")
    done = helpers.run_service("tests", environ=environ, capture=True)
    assert done.stdout.startswith("pipe:") is has_pipe
    # With the lifeline, the container is removed at the end of it too.
    assert removers == re.findall(r"--name (\S+)", asked()[0]) * has_pipe


def test_container_is_removed_after_the_end_of_a_lab_that_is_killed(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """By a process that a Ctrl-C for the lab does not reach, and that says nothing on its terminal."""
    removers: list[subprocess.Popen[bytes]] = []
    real = subprocess.Popen

    def open_noted(*arguments: Any, **options: Any) -> Any:
        removers.append(real(*arguments, **options))
        return removers[-1]

    monkeypatch.setattr(subprocess, "Popen", open_noted)
    asked = put_docker(monkeypatch, tmp_path, {})
    for environ in (None, {}, {"A": "1"}):
        with helpers_module._removed_without_lab("mine-it", environ):
            assert removers == []
    with helpers_module._removed_without_lab("mine-it", {ENV_LIFELINE: "stdin"}):
        (remover,) = removers
        assert os.getsid(remover.pid) == remover.pid
        assert [Path(f"/proc/{remover.pid}/fd/{number}").readlink() for number in (1, 2)] == [Path("/dev/null")] * 2
    assert remover.returncode == -signal.SIGKILL
    assert asked() == []
    with helpers_module._removed_without_lab("mine-it", {ENV_LIFELINE: "stdin"}):
        assert removers[1].stdin
        removers[1].stdin.close()  # as the end of the lab does
        wait_until(lambda: "rm --force mine-it" in asked())
