"""The settings of the web UI are checked before anything starts, and its end is told apart from a failure."""

import contextlib
import socket
import subprocess
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any, cast

import pytest

from lab.base.errors import LabError
from lab.load import web_ui
from lab.load.measurement import encode_targets
from lab.load.web_ui import check_settings, serve_ui
from lab.servers.catalogue import Listener
from tests.support.fakes import UnusedBackend

QUIET = ["--loglevel", "WARNING"]
LISTENERS = [
    Listener("prefork", "echo", "tcp", "tcp://127.0.0.1:1"),
    Listener("plain_socket", "echo", "tcp", "tcp://127.0.0.1:2"),
]


class Lab(UnusedBackend):
    def choose_bind(self, port: int, *, local: int | None = None) -> tuple[str, int]:
        return "*", (local or 0) + port

    def targets(self) -> list[Any]:
        return LISTENERS


@dataclass
class Served:
    """What a UI was given, and what was done while it ran and after its end."""

    arguments: list[str] = field(default_factory=list)
    options: dict[str, Any] = field(default_factory=dict)
    done: list[object] = field(default_factory=list)


def serve(monkeypatch: pytest.MonkeyPatch, code: int, *, interrupted: bool = False, **chosen: Any) -> Served:
    """Serve a UI for one model, whose Locust ends with an exit code, or goes on after a Ctrl-C."""
    served = Served()
    lab = Lab()

    def wait(meanwhile: Any) -> int:
        meanwhile()
        if interrupted:
            raise KeyboardInterrupt
        return code

    def end(seconds: float) -> int:
        served.done.append(("end", seconds))
        if interrupted:
            raise subprocess.TimeoutExpired("locust", seconds)
        return code

    def open_requests(names: Sequence[str], main: object) -> Any:
        assert main is generator.main
        served.done.append(list(names))
        return SimpleNamespace(advance=lambda inject=True: served.done.append(("advance", inject)))

    @contextlib.contextmanager
    def open_generator(helpers: object, arguments: list[str], **options: object) -> Iterator[Any]:
        assert helpers is lab.helpers
        served.arguments, served.options = arguments, options
        yield generator

    @contextlib.contextmanager
    def send_telemetry(backend: object, names: Sequence[str], main: object) -> Iterator[None]:
        assert (backend, main) == (lab, generator.main)
        served.done.append(("telemetry", list(names)))
        yield

    generator = SimpleNamespace(main=SimpleNamespace(process=SimpleNamespace(wait=end)), wait=wait)
    monkeypatch.setattr(web_ui, "open_generator", open_generator)
    monkeypatch.setattr(web_ui, "send_telemetry", send_telemetry)
    models: Any = [SimpleNamespace(name="prefork")]
    serve_ui(cast(Any, lab), models, ["--users", "3"], open_requests=open_requests, **{"faults": [], **chosen})
    return served


@pytest.mark.parametrize(
    ("name", "text"),
    [("LAB_UI_PORT", "http"), ("LAB_UI_LOGIN", "ann"), ("LAB_UI_BASE_PATH", "load"), ("LAB_UI_ORIGINS", "example")],
)
def test_each_setting_is_checked_before_anything_starts(monkeypatch: pytest.MonkeyPatch, name: str, text: str) -> None:
    monkeypatch.setenv(name, text)
    with pytest.raises(LabError, match=name):
        check_settings()


# 1: requests failed. 130 and -2: it was interrupted, as the one who started it.
@pytest.mark.parametrize("code", [0, 1, 130, -2])
def test_ui_that_was_ended_is_no_error(monkeypatch: pytest.MonkeyPatch, code: int) -> None:
    monkeypatch.setenv("LAB_UI_BASE_PATH", "/load")
    assert serve(monkeypatch, code).arguments[-4:] == ["--loglevel", "WARNING", "--web-base-path", "/load"]


@pytest.mark.parametrize("code", [2, 3, -9, -15])
def test_ui_that_ends_by_itself_is_an_error(monkeypatch: pytest.MonkeyPatch, code: int) -> None:
    with pytest.raises(LabError, match=f"^the web UI ended with exit code {code}$"):
        serve(monkeypatch, code)


@pytest.fixture
def port(monkeypatch: pytest.MonkeyPatch) -> int:
    """A port that is free, and the UI's by its variable; no other variable of the UI is set."""
    for name in ("LAB_UI_LOGIN", "LAB_UI_ORIGINS", "LAB_UI_BASE_PATH"):
        monkeypatch.delenv(name, raising=False)
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = int(free.getsockname()[1])
    monkeypatch.setenv("LAB_UI_PORT", str(port))
    return port


def test_ui_gets_its_models_its_faults_and_its_login(
    monkeypatch: pytest.MonkeyPatch, port: int, capsys: pytest.CaptureFixture[str]
) -> None:
    served = serve(monkeypatch, 0)
    assert served.arguments == ["--web-host", "*", "--web-port", str(port + 8089), "--users", "3", *QUIET]
    assert served.options == {
        "workers": 0,
        "environ": {"LAB_TARGETS": encode_targets(LISTENERS[:1])},
        "own": {"LAB_TELEMETRY": "stdin", "LAB_FAULTS": ""},
        "publish": True,
        "worker_arguments": (),
    }
    # What is asked for at the very end is said, but done no more.
    told: list[object] = [("advance", True), ("end", 3.0), ("advance", False)]
    assert served.done == [["prefork"], ("telemetry", ["prefork"]), *told]
    where = f"http://127.0.0.1:{port}"
    assert capsys.readouterr().out == f"Locust's web UI: {where}  (choose, then Start; Ctrl-C here ends it)\n"

    monkeypatch.setenv("LAB_UI_LOGIN", "ann:secret")
    monkeypatch.setenv("LAB_UI_ORIGINS", "https://a.test")
    monkeypatch.setenv("LAB_UI_BASE_PATH", "/load/")
    served = serve(
        monkeypatch, 0, workers=2, worker_arguments=["-f", "x"], environ={"A": "b"}, faults=["kill", "pause"]
    )
    assert served.arguments[6:] == [*QUIET, "--web-login", "--web-base-path", "/load"]
    assert served.options["environ"] == {"LAB_TARGETS": encode_targets(LISTENERS[:1]), "A": "b"}
    # The processes that generate load need neither.
    login = {"LAB_UI_LOGIN": "ann:secret", "LAB_UI_ORIGINS": "https://a.test"}
    assert served.options["own"] == {"LAB_TELEMETRY": "stdin", "LAB_FAULTS": "kill,pause", **login}
    assert (served.options["workers"], served.options["worker_arguments"]) == (2, ["-f", "x"])
    assert capsys.readouterr().out.startswith(f"Locust's web UI with 2 workers: {where}/load  (choose")


def test_ui_that_is_interrupted_has_ended_well(
    monkeypatch: pytest.MonkeyPatch, port: int, capsys: pytest.CaptureFixture[str]
) -> None:
    """Whatever Locust makes of it: it may take longer than it is waited for."""
    assert serve(monkeypatch, 3, interrupted=True).done[-2:] == [("end", 3.0), ("advance", False)]
    assert capsys.readouterr().out.endswith("\nended\n")


def test_port_of_the_ui_that_is_taken_is_an_error_that_names_its_variable(monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        monkeypatch.setenv("LAB_UI_PORT", str(port))
        said = rf"^port {port} is not available \(Address already in use\): set LAB_UI_PORT to another port$"
        with pytest.raises(LabError, match=said):
            check_settings()


@pytest.mark.parametrize("login", ["ann:", ":secret", "ann"])
def test_login_needs_a_user_and_a_password(monkeypatch: pytest.MonkeyPatch, port: int, login: str) -> None:
    monkeypatch.setenv("LAB_UI_LOGIN", login)
    with pytest.raises(LabError, match=r"^LAB_UI_LOGIN is not USER:PASSWORD$"):
        check_settings()
