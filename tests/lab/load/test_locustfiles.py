"""Locustfiles of ordinary users: where they are placed, what they ask, and how Locust's output is read."""

import json
import subprocess
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from lab.base.errors import LabError
from lab.base.messages import encode
from lab.load import locustfiles
from lab.load.locustfiles import (
    Step,
    choose_host,
    choose_tags,
    find_failures,
    name_files,
    place,
    read_steps,
    run_headless,
)
from lab.load.messages import LoadFailure
from lab.servers.backend import Completed
from lab.servers.catalogue import Catalogue, Listener

CATALOGUE = Catalogue.load()
DOCKER: Any = SimpleNamespace(in_containers=True)
PROCESS: Any = SimpleNamespace(in_containers=False)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    tmp_path.chmod(0o755)
    path = tmp_path / "mine.py"
    path.touch(0o644)
    return path


def test_guard_is_named_before_a_locustfile() -> None:
    assert name_files("/a/mine.py") == ["-f", "loadtests/guardfile.py,/a/mine.py"]


def test_folder_of_a_locustfile_is_mounted_in_a_container(file: Path) -> None:
    assert place(PROCESS, file) == (str(file), {})
    assert place(DOCKER, file) == ("/locustfiles/mine.py", {"LAB_LOCUSTFILES": str(file.parent)})


def test_locustfile_that_the_container_cannot_read_is_refused(file: Path) -> None:
    file.chmod(0o640)
    with pytest.raises(LabError, match=rf"{file} is not readable for other users.*chmod o\+rX {file}"):
        place(DOCKER, file)
    assert place(PROCESS, file) == (str(file), {})
    file.chmod(0o644)
    # A module beside it can be imported only where the folder can be listed as well as entered.
    for mode in (0o754, 0o751):
        file.parent.chmod(mode)
        with pytest.raises(LabError, match=rf"{file.parent} is not accessible"):
            place(DOCKER, file)


def test_comma_in_the_path_of_a_locustfile_is_refused(file: Path) -> None:
    with pytest.raises(LabError, match="separates locustfiles by commas"):
        place(PROCESS, file.rename(file.with_name("a,b.py")))


class Running:
    """A backend in which these listeners run."""

    def __init__(self, *listeners: Listener) -> None:
        self._listeners = listeners

    def targets(self) -> list[Listener]:
        return list(self._listeners)


def test_host_is_the_address_of_the_models_http_over_tcp() -> None:
    (model,) = CATALOGUE.select(["prefork"])
    backend = Running(
        Listener("thread_pool", "http", "tcp", "tcp://127.0.0.1:1"),
        Listener("prefork", "command", "tcp", "tcp://127.0.0.1:2"),
        Listener("prefork", "http", "tls", "tls://127.0.0.1:3"),
        Listener("prefork", "http", "tcp", "tcp://127.0.0.1:4"),
    )
    assert choose_host(backend, model) == "http://127.0.0.1:4"
    with pytest.raises(LabError, match="prefork is not running; start it with: lab up prefork"):
        choose_host(Running(*backend.targets()[:3]), model)
    (model,) = CATALOGUE.select(["peer_redis"])
    with pytest.raises(LabError, match="peer_redis does not speak http over tcp"):
        choose_host(backend, model)


def test_server_is_not_asked_for_what_it_declares_to_lack() -> None:
    uvicorn, waitress, nginx = CATALOGUE.select(["peer_uvicorn", "peer_waitress", "peer_nginx"])
    assert choose_tags(nginx) == ["--exclude-tags", "work", "websocket"]
    assert choose_tags(waitress) == ["--exclude-tags", "websocket"]
    assert choose_tags(uvicorn) == []


def test_failures_are_the_lines_of_the_guard() -> None:
    failure = LoadFailure("GET /: status 500 (3 times)")
    output = f"noise {encode(LoadFailure('a'))}\n{encode(failure)}\nmore\n"
    assert find_failures(output) == ["GET /: status 500 (3 times)"]


ENTRY = {"method": "FTP", "name": "upload", "num_requests": 100, "num_failures": 2}


def finished(output: str, code: int = 0) -> "subprocess.CompletedProcess[str]":
    return subprocess.CompletedProcess([], code, output, "something else\n")


def test_steps_are_read_from_what_locust_prints() -> None:
    # In the order in which they came first, which is not theirs.
    times = {"20": 1, "1.5": 50, "1000.0": 1, "3": 48}
    (step,) = read_steps(finished("noise\n" + json.dumps([{**ENTRY, "response_times": times}]), 1), 4.0)
    assert step == Step("FTP", "upload", 100, 2, 25.0, 1.5, 20.0)
    (step,) = read_steps(finished(json.dumps([{**ENTRY, "response_times": {}}])), 4.0)
    assert (step.p50_ms, step.p99_ms) == (None, None)


@pytest.mark.parametrize(("output", "code"), [("", 0), ("no list", 1), ("[1, ", 0), ("[]", 2)])
def test_what_is_no_list_of_steps_is_an_error_that_quotes_it(output: str, code: int) -> None:
    with pytest.raises(LabError, match=rf"Locust ended with exit code {code}:\n  something else"):
        read_steps(finished(output, code), 1.0)


def test_other_output_is_not_taken_for_the_result() -> None:
    result = json.dumps([{**ENTRY, "response_times": {}}])
    (step,) = read_steps(finished(f"[mine] starts\n[mine] goes on\n{result}\nType     Name  # reqs\n"), 1.0)
    assert step.taken == 100


@pytest.mark.parametrize(
    ("chosen", "workers", "environ"), [({}, 0, {}), ({"workers": 2, "environ": {"A": "b"}}, 2, {"A": "b"})]
)
def test_users_run_for_a_time_and_their_failures_are_shown(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    chosen: dict[str, Any],
    workers: int,
    environ: dict[str, str],
) -> None:
    given: dict[str, Any] = {}

    def run_generator(helpers: object, arguments: list[str], **options: object) -> Completed:
        assert helpers is ours
        given.update(options, arguments=arguments)
        result = json.dumps([{**ENTRY, "response_times": {}}])
        # A failure of a single process is on stderr; with workers, all of it is on stdout.
        said = [encode(LoadFailure(text)) for text in ("first", "second")]
        return Completed([], 1, f"{said[1]}\n{result}\n", f"{said[0]}\n")

    monkeypatch.setattr(locustfiles, "run_generator", run_generator)
    ours: Any = object()
    (step,) = run_headless(ours, ["-f", "x"], ["FtpUser"], 7, 2.5, **chosen)
    assert step.rate == 40.0
    assert capsys.readouterr() == ("", "lab: first\nlab: second\n")
    assert given.pop("arguments") == [
        *("-f", "x", "FtpUser", "--headless", "--json", "--users", "7", "--spawn-rate", "7", "--run-time", "2.5s"),
        *("--stop-timeout", "15", "--loglevel", "ERROR"),
    ]
    # The last steps may take a while after their time.
    assert given == {"workers": workers, "environ": environ, "timeout": 62.5, "worker_arguments": ["-f", "x"]}


def test_locust_that_fails_is_quoted_with_its_last_lines() -> None:
    output = "".join(f"line {number}\n" for number in range(20))
    with pytest.raises(LabError) as raised:
        read_steps(finished(output, 2), 1.0)
    assert str(raised.value).splitlines()[1:] == [f"  line {number}" for number in range(5, 20)]
