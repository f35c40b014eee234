"""Which models a command gets, which of them speak a service, and which limits their servers do."""

from dataclasses import replace

import pytest

from lab.base.errors import LabError
from lab.servers.backend import READY_SECONDS, ModelState, choose_models, choose_speakers, read_limits
from lab.servers.catalogue import Catalogue, Listener
from lab.servers.compose_file import CatalogueError
from tests.support.fakes import FakeBackend

CATALOGUE = Catalogue.load()
# The third cannot run as a process, and neither can the fourth, which has a profile.
PLAIN, FORKING, CONTAINED, EXPENSIVE = (
    replace(CATALOGUE["plain_socket"], name="plain"),
    replace(CATALOGUE["prefork"], name="forking"),
    replace(CATALOGUE["plain_socket"], name="contained", only_in_container=True),
    replace(CATALOGUE["plain_socket"], name="expensive", only_in_container=True, profile="costly"),
)


def make_lab(place: str = "process") -> FakeBackend:
    models = (PLAIN, FORKING, CONTAINED, EXPENSIVE)
    return FakeBackend(name=place, catalogue=replace(CATALOGUE, models=models))


def list_names(lab: FakeBackend, *names: str, profiles: tuple[str, ...] = ()) -> list[str]:
    return [model.name for model in choose_models(lab, names, profiles)]


def test_models_that_run_only_in_containers_are_left_out_with_a_line(capsys: pytest.CaptureFixture[str]) -> None:
    assert list_names(make_lab()) == ["plain", "forking"]
    assert capsys.readouterr().err == "lab: left out, as they run only in containers: contained\n"
    # One of a profile was asked for.
    assert list_names(make_lab(), profiles=("costly",)) == ["plain", "forking", "expensive"]


def test_nothing_is_said_where_nothing_is_left_out(capsys: pytest.CaptureFixture[str]) -> None:
    lab = make_lab()
    lab.catalogue = replace(CATALOGUE, models=(PLAIN, FORKING))
    assert list_names(lab) == ["plain", "forking"]
    assert capsys.readouterr().err == ""


def test_all_models_run_in_containers(capsys: pytest.CaptureFixture[str]) -> None:
    assert list_names(make_lab("docker")) == ["plain", "forking", "contained"]
    assert capsys.readouterr().err == ""


def test_model_that_is_named_is_not_left_out(capsys: pytest.CaptureFixture[str]) -> None:
    """The command says why it cannot run here."""
    assert list_names(make_lab(), "contained", "plain") == ["plain", "contained"]
    assert capsys.readouterr().err == ""


def test_unknown_name_is_refused() -> None:
    with pytest.raises(CatalogueError, match="unknown model 'plan'"):
        choose_models(make_lab(), ["plan"])


def test_speakers_are_the_models_that_speak_a_service_as_the_lab_does() -> None:
    lab = make_lab("docker")
    echo = replace(FORKING, name="echo", services=("echo",))
    loose = replace(PLAIN, name="loose", rfc_only=True)
    lab.catalogue = replace(CATALOGUE, models=(PLAIN, echo, FORKING, loose))
    assert choose_speakers(lab, [], "command") == ["plain", "forking"]
    assert choose_speakers(lab, iter(["forking"]), "command") == ["forking"]
    said = "does not speak all of this lab's `command`; `lab ls` lists other models"
    for names, refused in ((["forking", "echo"], "echo"), (["loose", "echo", "plain"], "echo, loose")):
        with pytest.raises(LabError, match=f"^{refused}: {said}$"):
            choose_speakers(lab, names, "command")
    with pytest.raises(LabError, match=r"^plain, echo, forking, loose: does not speak all of this lab's `telnet`"):
        choose_speakers(lab, [], "telnet")


def test_limits_of_the_environment_are_those_of_the_servers(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in read_limits():
        monkeypatch.delenv(name)
    assert read_limits() == {}
    for name, value in {"LAB_MAX_LINE": "7", "LAB_IDLE_SECONDS": "2.5", "LAB_XRAY": "/a", "LAB_NONE": "1"}.items():
        monkeypatch.setenv(name, value)
    assert read_limits() == {"LAB_MAX_LINE": "7", "LAB_IDLE_SECONDS": "2.5", "LAB_XRAY": "/a"}


def test_model_has_half_a_minute_to_answer_after_its_start() -> None:
    assert READY_SECONDS == 30.0


def test_state_of_a_model_is_printed_with_its_addresses() -> None:
    listener = Listener("plain", "echo", "tcp", "tcp://127.0.0.1:7")
    state = ModelState("plain", "sequential", "process", "exited", 3, (listener,), ("a line",))
    assert state.as_json() == {
        "model": "plain",
        "family": "sequential",
        "backend": "process",
        "state": "exited",
        "exit_code": 3,
        "listeners": [listener.as_json()],
        "last_lines": ("a line",),
    }
    assert ModelState("plain", "sequential", "process", "missing").exit_code is None
