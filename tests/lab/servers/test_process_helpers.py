"""Programs of the lab as processes: what they get, what they say, and their end."""

import signal
import subprocess
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from lab.base.errors import LabError
from lab.base.paths import ROOT
from lab.servers.catalogue import Catalogue
from lab.servers.process_helpers import ProcessHelpers
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


def test_program_runs_in_the_folder_of_the_project(helpers: ProcessHelpers) -> None:
    """From which its modules are imported."""
    with helpers.start("it", ["/bin/sh", "-c", "pwd"]) as helper:
        assert helper.process.wait(60) == 0
        assert helper.output() == f"{ROOT}\n"
