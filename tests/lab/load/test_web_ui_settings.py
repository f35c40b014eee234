"""The settings of the web UI are checked before anything starts, and its end is told apart from a failure."""

import contextlib
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any, cast

import pytest

from lab.base.errors import LabError
from lab.load import web_ui
from lab.load.web_ui import check_settings, serve_ui
from tests.support.fakes import UnusedBackend


class Lab(UnusedBackend):
    def choose_bind(self, port: int, *, local: int | None = None) -> tuple[str, int]:
        return "127.0.0.1", local or port

    def targets(self) -> list[Any]:
        return []


def serve(monkeypatch: pytest.MonkeyPatch, code: int) -> list[str]:
    """Serve a UI whose Locust ends with an exit code; return its arguments."""
    given: list[str] = []

    @contextlib.contextmanager
    def open_generator(helpers: object, arguments: list[str], **options: object) -> Iterator[Any]:
        given.extend(arguments)
        process = SimpleNamespace(wait=lambda seconds: code)
        yield SimpleNamespace(main=SimpleNamespace(process=process), wait=lambda meanwhile: code)

    monkeypatch.setattr(web_ui, "open_generator", open_generator)
    monkeypatch.setattr(web_ui, "send_telemetry", lambda backend, names, main: contextlib.nullcontext())
    requests = SimpleNamespace(advance=lambda inject=True: None)
    serve_ui(cast(Any, Lab()), [], ["--users", "3"], faults=[], open_requests=lambda names, main: cast(Any, requests))
    return given


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
    assert serve(monkeypatch, code)[-4:] == ["--loglevel", "WARNING", "--web-base-path", "/load"]


@pytest.mark.parametrize("code", [2, 3, -9, -15])
def test_ui_that_ends_by_itself_is_an_error(monkeypatch: pytest.MonkeyPatch, code: int) -> None:
    with pytest.raises(LabError, match=f"^the web UI ended with exit code {code}$"):
        serve(monkeypatch, code)
