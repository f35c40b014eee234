"""What `up`, `down`, `logs`, `call` and `clean` hand on, and their exit codes. Nothing is started."""

import json
from collections.abc import Iterable, Sequence
from types import SimpleNamespace
from typing import Any

import click
import pytest
from click.testing import CliRunner, Result

from lab.base.errors import LabError
from lab.cli.commands import servers
from lab.servers import cleanup, doctor, scaffold
from lab.servers.backend import Completed, ModelState
from lab.servers.catalogue import Catalogue, GalleryServer, Listener, Model
from lab.servers.cleanup import Everything
from lab.servers.doctor import Finding
from tests.support.fakes import UnusedBackend

CATALOGUE = Catalogue.load()
MODEL = "plain_socket"


class FakeLab(UnusedBackend):
    """A lab that notes what it is asked to do."""

    name = "docker"

    def __init__(self) -> None:
        self.asked: list[tuple[Any, ...]] = []
        self.answer = Completed([], 0, "PONG\n", "")

    def up(self, models: Iterable[str | Model] = (), **options: Any) -> None:
        self.asked.append(("up", [str(getattr(model, "name", model)) for model in models], options))

    def up_gallery(self, chosen: Iterable[GalleryServer], **options: Any) -> None:
        self.asked.append(("up_gallery", [server.name for server in chosen], options))

    def state(self) -> list[ModelState]:
        return [
            ModelState(MODEL, "sequential", "docker", "running"),
            ModelState("prefork", "process", "docker", "exited", 1),
            ModelState("thread_pool", "thread", "docker", "missing"),
        ]

    def gallery(self) -> list[ModelState]:
        return [ModelState("gallery_ftp", "gallery", "docker", "exited", 0)]

    def logs(self, model: str) -> str:
        return f"first of {model}\nlast of {model}\n"

    def targets(self) -> list[Listener]:
        return [Listener(MODEL, "command", transport, f"{transport}://{MODEL}:1") for transport in ("tcp", "tls")]

    def run(self, arguments: Sequence[str], **options: Any) -> Completed:
        self.asked.append((" ".join(arguments), options))
        return self.answer


def invoke(command: click.Command, lab: FakeLab, *words: str) -> Result:
    obj = SimpleNamespace(backend=lab, catalogue=CATALOGUE, backend_name="docker", project="mine")
    return CliRunner().invoke(command, words, obj=obj)


def test_models_and_the_gallery_are_started_with_all_options() -> None:
    lab = FakeLab()
    words = ["prefork", "gallery_ftp", MODEL, "--timeout", "3500ms", "--mutual-tls"]
    done = invoke(servers.up, lab, *words)
    assert done.exit_code == 0, done.output
    assert done.stdout.splitlines() == [
        "1 of the gallery's servers answers: `lab ls` lists them",
        "2 models answer: `lab ls` lists them",
    ]
    assert lab.asked == [
        ("up_gallery", ["gallery_ftp"], {"timeout": 3.5}),
        ("up", [MODEL, "prefork"], {"timeout": 3.5, "mutual_tls": True}),
    ]
    lab.asked.clear()
    done = invoke(servers.up, lab, "--profile", "gallery")
    said = f"{len(CATALOGUE.gallery)} of the gallery's servers answer: `lab ls` lists them\n"
    assert (done.exit_code, done.stdout) == (0, said)
    ((what, _, options),) = lab.asked
    assert (what, options) == ("up_gallery", {"timeout": 30.0})
    lab.asked.clear()
    # Another profile is one of models, also beside the gallery.
    assert invoke(servers.up, lab, "gallery_ftp", "--profile", "gallery", "--profile", "peers").exit_code == 0
    (_, everything, _), (_, models, _) = lab.asked
    assert everything == [server.name for server in CATALOGUE.gallery]
    assert {"peer_redis", MODEL} <= set(models)
    lab.asked.clear()
    done = invoke(servers.up, lab, MODEL)
    assert (done.exit_code, done.stdout) == (0, "1 model answers: `lab ls` lists them\n")
    assert lab.asked == [("up", [MODEL], {"timeout": 30.0, "mutual_tls": False})]


@pytest.mark.parametrize(
    ("command", "satellites"), [(servers.down, False), (servers.clean, True)], ids=["down", "clean"]
)
def test_lab_is_taken_down_on_the_backend_that_is_named(
    monkeypatch: pytest.MonkeyPatch, command: click.Command, satellites: bool
) -> None:
    asked: list[tuple[Any, ...]] = []

    def take_down(name: str, project: str, catalogue: Catalogue, *, satellites: bool = False) -> list[str]:
        asked.append((name, project, catalogue, satellites))
        return ["mine (docker)"]

    monkeypatch.setattr(cleanup, "take_down", take_down)
    done = invoke(command, FakeLab())
    assert (done.exit_code, done.stdout) == (0, "removed mine (docker)\n" if satellites else "")
    assert asked == [("docker", "mine", CATALOGUE, satellites)]


@pytest.mark.parametrize("found", [("a",), ()], ids=["processes", "nothing"])
def test_clean_all_without_an_engine_is_an_error_though_processes_were_removed(
    monkeypatch: pytest.MonkeyPatch, found: tuple[str, ...]
) -> None:
    removed: list[Everything] = []
    everything = Everything(found, (), (), engine_is_away=True)
    monkeypatch.setattr(cleanup, "find_everything", lambda: everything)
    monkeypatch.setattr(cleanup, "remove", lambda what, catalogue: removed.append(what))
    done = invoke(servers.clean, FakeLab(), "--all", "--yes")
    assert isinstance(done.exception, LabError)
    assert "no Docker engine answers" in str(done.exception)
    assert removed == ([everything] if found else [])


def test_logs_are_those_of_all_that_was_started() -> None:
    assert invoke(servers.logs, FakeLab()).stdout.splitlines() == [
        f"{name}: {line} of {name}" for name in (MODEL, "prefork", "gallery_ftp") for line in ("first", "last")
    ]
    assert invoke(servers.logs, FakeLab(), "thread_pool").stdout.startswith("thread_pool: first of thread_pool\n")


@pytest.mark.parametrize("code", [0, 1, 2])
def test_call_has_the_output_and_the_exit_code_of_its_client(code: int) -> None:
    lab = FakeLab()
    lab.answer = Completed([], code, "PONG\n", "a complaint\n")
    done = invoke(servers.call, lab, MODEL, "command", "PING", "--transport", "tls", "--timeout", "250ms")
    assert (done.exit_code, done.stdout, done.stderr) == (code, "PONG\n", "a complaint\n")
    said = f"python -m lab.clients.call --timeout 0.25 command tls://{MODEL}:1 PING"
    assert lab.asked == [(said, {"capture": True})]


@pytest.mark.parametrize(
    ("code", "lines", "said"),
    [
        (None, ("a",), ["x ended, exit code unknown; the end of its log:", "  a"]),
        (0, ("a",), ["x ended with exit code 0; the end of its log:", "  a"]),
        (3, ("a", "b"), ["x ended with exit code 3; the end of its log:", "  a", "  b"]),
        (143, (), ["x ended by SIGTERM (exit code 143); the end of its log:", "  (empty)"]),
        (128, ("a",), ["x ended with exit code 128; the end of its log:", "  a"]),
        (255, ("a",), ["x ended with exit code 255; the end of its log:", "  a"]),  # there is no such signal
    ],
)
def test_model_that_has_ended_is_listed_with_the_reason(
    monkeypatch: pytest.MonkeyPatch, code: int | None, lines: tuple[str, ...], said: list[str]
) -> None:
    lab = FakeLab()
    ended = ModelState(MODEL, "sequential", "docker", "exited", code, last_lines=lines)
    monkeypatch.setattr(lab, "state", lambda: [ended])
    monkeypatch.setattr(lab, "gallery", list)
    done = invoke(servers.ls, lab)
    assert done.exit_code == 0
    state = "exited" if code is None else f"exited ({code})"
    assert done.stdout.split("\t")[:3] == ["sequential", MODEL, state]
    assert done.stderr.splitlines() == ["", said[0].replace("x", MODEL, 1), *said[1:]]


def test_models_are_listed_by_family_and_the_gallery_last() -> None:
    rows = [line.split("\t") for line in invoke(servers.ls, FakeLab()).stdout.splitlines()]
    assert [row[:3] for row in rows] == [
        ["sequential", MODEL, "running"],
        ["process", "prefork", "exited (1)"],
        ["thread", "thread_pool", "missing"],
        ["gallery", "gallery_ftp", "exited (0)"],
    ]
    assert rows[0][3] == CATALOGUE[MODEL].summary
    assert rows[3][3] == next(server.summary for server in CATALOGUE.gallery if server.name == "gallery_ftp")
    lab = FakeLab()
    found = json.loads(invoke(servers.ls, lab, "--json").stdout)
    assert found == [state.as_json() | {"last_lines": []} for state in (*lab.state(), *lab.gallery())]


def test_models_of_a_family_stand_together_though_the_catalogue_mixes_them(monkeypatch: pytest.MonkeyPatch) -> None:
    lab = FakeLab()
    states = [("prefork", "process"), (MODEL, "sequential"), ("asyncio_prefork", "process")]
    monkeypatch.setattr(lab, "state", lambda: [ModelState(*state, "docker", "missing") for state in states])
    listed = [line.split("\t")[1] for line in invoke(servers.ls, lab).stdout.splitlines()]
    assert listed == ["prefork", "asyncio_prefork", MODEL, "gallery_ftp"]


def test_doctor_prints_the_fix_of_what_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    found = [Finding("python", True, "3.13", "Python 3.11 or later", "both"), Finding("wrk", False, "none", "get it")]
    monkeypatch.setattr(doctor, "examine", lambda: found)
    done = CliRunner().invoke(servers.doctor)
    assert done.exit_code == 0
    assert done.stdout == "yes\tpython\t3.13\t\nno\twrk\tnone\tget it\n"


def test_steps_to_a_new_model_are_numbered_from_one(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[tuple[str, str | None]] = []

    def create(name: str, extra: str | None) -> list[str]:
        asked.append((name, extra))
        return ["write it", "test it"]

    monkeypatch.setattr(scaffold, "create", create)
    done = CliRunner().invoke(servers.new, ["mine", "--extra", "gevent"])
    assert done.stdout.splitlines()[:2] == ["1. write it", "2. test it"]
    assert CliRunner().invoke(servers.new, ["mine"]).exit_code == 0
    assert asked == [("mine", "gevent"), ("mine", None)]
