"""Programs of the lab as processes: what they get, what they say, and their end."""

import random
import signal
import socket
import subprocess
from contextlib import suppress
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from lab.base.errors import LabError
from lab.base.paths import ROOT
from lab.servers import process_helpers
from lab.servers.catalogue import Catalogue
from lab.servers.process_helpers import ProcessHelpers, find_port
from tests.support.waiting import wait_until

SAYS = ["-c", "import os, sys; print(os.environ.get('A'), os.environ['LAB_RUNTIME'], *sys.argv[1:], flush=True)"]


@pytest.fixture
def helpers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ProcessHelpers:
    """Helpers whose services are a program that says what it got."""
    helpers = ProcessHelpers(tmp_path, Catalogue.load())
    monkeypatch.setattr(helpers, "_module_of", lambda service: SAYS)
    monkeypatch.delenv("A", raising=False)
    return helpers


def test_service_gets_its_variables_and_arguments(helpers: ProcessHelpers, tmp_path: Path) -> None:
    for environ, value in (({"A": "1"}, "1"), (None, "None")):
        said = f"{value} {tmp_path} x y\n"
        done = helpers.run_service("locust", ["x", "y"], environ=environ, capture=True)
        assert (done.returncode, done.stdout) == (0, said)
        with helpers.start_service("it", "locust", ["x", "y"], environ=environ, publish=True) as helper:
            assert helper.process.wait(60) == 0
            assert (helper.name, helper.host, helper.output()) == ("it", "127.0.0.1", said)


def test_program_is_ended_and_collected_with_its_block(helpers: ProcessHelpers) -> None:
    with suppress(KeyboardInterrupt), helpers.start("it", ["/bin/sh", "-c", "echo ready; exec sleep 60"]) as helper:
        wait_until(lambda: helper.take_lines() == ["ready"])
        raise KeyboardInterrupt
    assert helper.process.returncode == -signal.SIGTERM


def test_only_the_first_word_stands_for_the_interpreter(helpers: ProcessHelpers) -> None:
    """As in `lab call MODEL echo python`."""
    assert helpers.run(["/bin/echo", "python", "a"], capture=True).stdout == "python a\n"


def test_command_has_a_timeout_and_an_exit_code(helpers: ProcessHelpers) -> None:
    assert helpers.run(["/bin/sh", "-c", "exit 7"]).returncode == 7
    with pytest.raises(LabError, match=r"^`/bin/sleep 60` took longer than 0\.05 s and was ended$"):
        helpers.run(["/bin/sleep", "60"], timeout=0.05)
    with pytest.raises(LabError, match=r"^/no/such: no such command on this machine$"):
        helpers.run(["/no/such"])


@pytest.mark.parametrize(
    ("options", "stdin", "text"),
    [
        ({}, subprocess.DEVNULL, None),
        ({"interactive": True}, None, None),  # that of this process, which may be a terminal
        ({"stdin": "x"}, None, "x"),
        ({"stdin": "x", "interactive": True}, None, "x"),
    ],
)
def test_only_an_interactive_command_reads_from_this_terminal(
    helpers: ProcessHelpers, monkeypatch: pytest.MonkeyPatch, options: Any, stdin: int | None, text: str | None
) -> None:
    ran: list[dict[str, Any]] = []
    monkeypatch.setattr(subprocess, "run", lambda command, **given: ran.append(given))
    helpers.run(["sh"], **options)
    (given,) = ran
    assert (given["stdin"], given["input"]) == (stdin, text)
    assert (given["stdout"], given["stderr"], given["cwd"]) == (None, None, ROOT)


def test_output_that_is_no_text_is_replaced(helpers: ProcessHelpers) -> None:
    done = helpers.run(["/bin/sh", "-c", "printf 'a\\377'; printf '\\376' >&2; exit 3"], capture=True)
    assert (done.returncode, done.stdout, done.stderr) == (3, "a\ufffd", "\ufffd")


def test_program_runs_in_the_folder_of_the_project(
    helpers: ProcessHelpers, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """From which its modules are imported, wherever the command was called."""
    monkeypatch.chdir(tmp_path)
    with helpers.start("it", ["/bin/sh", "-c", "pwd"]) as helper:
        assert helper.process.wait(60) == 0
        assert helper.output() == f"{ROOT}\n"


@pytest.mark.parametrize(
    ("entrypoint", "started"),
    [(["python", "-m", "a.b", "x"], ["-m", "a.b", "x"]), (["locust", "-f", "x"], ["-m", "locust", "-f", "x"])],
)
def test_service_is_started_by_the_python_of_the_lab(tmp_path: Path, entrypoint: list[str], started: list[str]) -> None:
    """A command of a package may not be in PATH."""
    catalogue: Any = SimpleNamespace(entrypoint=lambda service: {"it": entrypoint}[service])
    assert ProcessHelpers(tmp_path, catalogue)._module_of("it") == started


@pytest.mark.parametrize(("shell", "found"), [("/bin/odd", "/bin/odd"), (None, "sh")])
def test_shell_is_that_of_the_user(
    helpers: ProcessHelpers, monkeypatch: pytest.MonkeyPatch, shell: str | None, found: str
) -> None:
    monkeypatch.delenv("SHELL", raising=False)
    if shell:
        monkeypatch.setenv("SHELL", shell)
    assert helpers.find_shell() == found


class Chosen:
    """Stands for a source of random numbers: it chooses one port, and notes among which."""

    def __init__(self, port: int) -> None:
        self.port = port
        self.offered: list[list[int]] = []

    def choice(self, ports: list[int]) -> int:
        self.offered.append(ports)
        return self.port


@pytest.fixture
def given_ports(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """Where the kernel says which ports it gives to programs."""
    monkeypatch.setattr(process_helpers, "_GIVEN_PORTS", tmp_path / "ports")
    return tmp_path / "ports"


def test_port_is_free_and_none_that_the_kernel_gives_to_others(
    helpers: ProcessHelpers, monkeypatch: pytest.MonkeyPatch, given_ports: Path
) -> None:
    given_ports.write_text("20000\t30000\n")
    chosen = Chosen(0)  # of which the kernel makes a free one
    monkeypatch.setattr(random, "SystemRandom", lambda: chosen)
    host, port = helpers.choose_bind(5557)
    assert (host, port > 0) == ("127.0.0.1", True)
    assert chosen.offered == [[*range(10_000, 20_000), *range(30_001, 65_536)]]
    # One that the user has chosen is taken as it is.
    assert helpers.choose_bind(5557, local=7) == ("127.0.0.1", 7)
    assert helpers.choose_bind(5557, local=0) == ("127.0.0.1", 0)
    assert len(chosen.offered) == 1


@pytest.mark.parametrize(("given", "tries"), [("20000 30000\n", 100), ("10000 65535\n", 0)])
def test_port_is_one_that_the_kernel_gives_if_no_other_is_free(
    monkeypatch: pytest.MonkeyPatch, given_ports: Path, given: str, tries: int
) -> None:
    given_ports.write_text(given)
    with socket.create_server(("127.0.0.1", 0)) as taken:
        chosen = Chosen(taken.getsockname()[1])
        monkeypatch.setattr(random, "SystemRandom", lambda: chosen)
        assert 1023 < find_port() != chosen.port
    assert len(chosen.offered) == tries


def test_output_is_shown_unless_it_is_captured(helpers: ProcessHelpers, capfd: pytest.CaptureFixture[str]) -> None:
    helpers.run(["/bin/sh", "-c", "echo shown; echo too >&2"])
    assert capfd.readouterr() == ("shown\n", "too\n")
