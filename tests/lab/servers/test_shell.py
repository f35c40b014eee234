"""What a shell of the lab gets in its environment."""

import json
from collections.abc import Mapping, Sequence
from types import SimpleNamespace
from typing import Any, cast

import pytest

from lab.base.errors import LabError
from lab.servers.backend import Backend, Completed, ModelState
from lab.servers.catalogue import Listener
from lab.servers.shell import open_shell

LISTENER = Listener("prefork", "command", "tcp", "tcp://127.0.0.1:7379")
STATES = [
    ModelState("prefork", "processes", "process", "running", listeners=(LISTENER,)),
    ModelState("plain_socket", "blocking", "process", "exited", 1),
    ModelState("thread_pool", "threads", "process", "missing"),
]


def make_backend(states: Sequence[ModelState], asked: list[Any]) -> Backend:
    def run(command: Sequence[str], *, environ: Mapping[str, str], interactive: bool) -> Completed:
        asked.append((command, environ, interactive))
        return Completed(command, 7, "", "")

    helpers = SimpleNamespace(run=run)
    return cast(
        Backend,
        SimpleNamespace(state=lambda: states, gallery=list, targets=lambda: [LISTENER], helpers=helpers),
    )


def test_command_gets_the_addresses_of_what_runs() -> None:
    asked: list[Any] = []
    assert open_shell(make_backend(STATES, asked), "prefork", "exit 7") == 7
    ((command, environ, is_interactive),) = asked
    assert (command, is_interactive) == (["sh", "-c", "exit 7"], True)
    assert [row["model"] for row in json.loads(environ["LAB_TARGETS"])] == ["prefork"]
    del environ["LAB_TARGETS"]
    assert environ == {"LAB_MODEL": "prefork", "LAB_HOST": "127.0.0.1", "LAB_PORT": "7379"}


def test_model_that_does_not_run_is_named() -> None:
    with pytest.raises(LabError, match=r"^plain_socket is not running: start it with `lab up plain_socket`$"):
        open_shell(make_backend(STATES, []), "plain_socket", "true")
    with pytest.raises(LabError, match=r"^no model is running: start them with `lab up`$"):
        open_shell(make_backend(STATES[1:], []), None, "true")
