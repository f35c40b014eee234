"""What a shell of the lab gets in its environment."""

import json
from collections.abc import Mapping, Sequence
from types import SimpleNamespace
from typing import Any, Literal, cast

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


GALLERY: Mapping[str, Literal["running", "exited"]] = {"gallery_ftp": "running", "gallery_web": "exited"}


def make_backend(
    states: Sequence[ModelState],
    asked: list[Any],
    gallery: Sequence[ModelState] = (),
    *,
    in_containers: bool = False,
) -> Backend:
    def run(command: Sequence[str], *, environ: Mapping[str, str], interactive: bool) -> Completed:
        asked.append((command, environ, interactive))
        return Completed(command, 7, "", "")

    # Only one of them is for a client without TLS.
    listeners = [
        Listener("prefork", "echo", "tcp", "tcp://127.0.0.1:7777"),
        LISTENER,
        Listener("prefork", "command", "tls", "tls://127.0.0.1:7380"),
        Listener("selector_loop", "command", "tcp", "tcp://127.0.0.1:9379"),
    ]
    helpers = SimpleNamespace(run=run, find_shell=lambda: "/bin/odd")
    return cast(
        Backend,
        SimpleNamespace(
            state=lambda: states,
            gallery=lambda: gallery,
            targets=lambda: listeners,
            helpers=helpers,
            in_containers=in_containers,
        ),
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


def test_shell_is_opened_where_only_the_gallery_runs() -> None:
    asked: list[Any] = []
    gallery = [ModelState(name, "gallery", "docker", state) for name, state in GALLERY.items()]
    assert open_shell(make_backend(STATES[1:], asked, gallery), None, "true") == 7
    with pytest.raises(LabError, match=r"^no model is running"):
        open_shell(make_backend(STATES[1:], asked, gallery[1:]), None, "true")
    assert len(asked) == 1


OTHER = ModelState("selector_loop", "loop", "process", "running")
CLIENTS = "  curl --cacert $LAB_TLS_CA; openssl s_client -CAfile $LAB_TLS_CA; lftp, telnet, nc"
LAST = "  LAB_TARGETS contains every address; `exit` leaves"
OF_PREFORK = "  redis-cli -h 127.0.0.1 -p 7379   # prefork"
OF_OTHER = "  redis-cli -h 127.0.0.1 -p 9379   # selector_loop"


@pytest.mark.parametrize(
    ("model", "in_containers", "is_terminal", "lines"),
    [
        ("prefork", False, True, [OF_PREFORK, LAST]),
        (None, False, True, [OF_PREFORK, OF_OTHER, LAST]),
        (None, True, True, [OF_PREFORK, OF_OTHER, CLIENTS, LAST]),
        # A script is on its stdin: its output is the script's alone.
        ("prefork", True, False, []),
    ],
)
def test_shell_says_on_a_terminal_what_can_be_reached(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    model: str | None,
    in_containers: bool,
    is_terminal: bool,
    lines: list[str],
) -> None:
    asked: list[Any] = []
    monkeypatch.setattr("sys.stdin", SimpleNamespace(isatty=lambda: is_terminal))
    backend = make_backend([*STATES, OTHER], asked, in_containers=in_containers)
    assert open_shell(backend, model, None) == 7
    assert capsys.readouterr().out.splitlines() == lines
    ((command, environ, is_interactive),) = asked
    assert (command, is_interactive) == (["/bin/odd"], True)
    assert environ.get("LAB_PORT") == ("7379" if model else None)
    assert len(json.loads(environ["LAB_TARGETS"])) == 2


def test_model_that_does_not_speak_command_has_no_address_of_it() -> None:
    asked: list[Any] = []
    echo = ModelState("echo_only", "loop", "process", "running")
    assert open_shell(make_backend([*STATES, echo], asked), "echo_only", "true") == 7
    ((_, environ, _),) = asked
    assert set(environ) == {"LAB_TARGETS"}
    # Nor has a shell without a model, whatever runs.
    assert open_shell(make_backend(STATES, asked), None, "true") == 7
    assert set(asked[1][1]) == {"LAB_TARGETS"}
