"""The command `lab`, as a person or a script calls it."""

import json
import signal
import socket
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from subprocess import CompletedProcess
from uuid import uuid4

import pytest

from lab.backends import open_backend
from lab.check import read_report
from lab.check_plugin import MARK
from lab.cli import cli
from lab.errors import LabError
from services.protocol import Address

Lab = Callable[..., "CompletedProcess[str]"]
MODELS = ("plain_socket", "asyncio_streams")


@pytest.fixture(scope="module")
def running() -> Iterator[str]:
    """A project whose MODELS run as processes."""
    from lab.backends.processes import Processes
    from lab.catalogue import Catalogue

    backend = Processes(f"t{uuid4().hex[:8]}", Catalogue.load())
    try:
        backend.up(MODELS)
        yield backend.project
    finally:
        backend.down()


def test_up_ls_down(lab: Lab, process_project: str) -> None:
    options = ["--backend", "process", "--project", process_project]
    up = lab(*options, "up", *MODELS)
    assert (up.returncode, up.stdout, up.stderr) == (0, "2 models answer: `lab ls` says where\n", "")
    rows = json.loads(lab(*options, "ls", "--json").stdout)
    assert {row["model"] for row in rows if row["state"] == "running"} == set(MODELS)
    for row in rows:
        assert row["backend"] == "process"
        assert bool(row["listeners"]) == (row["state"] == "running")
        for listener in row["listeners"]:
            assert Address.parse(listener["address"]).transport == listener["transport"]
    assert lab(*options, "down").returncode == 0
    assert lab(*options, "down").returncode == 0


def test_ls_groups_by_family(lab: Lab, running: str) -> None:
    lines = [line.split("\t") for line in lab("--project", running, "ls").stdout.splitlines()]
    families = [line[0] for line in lines]
    assert families == sorted(families, key=families.index)
    assert ["coroutine", "asyncio_streams", "running"] in [line[:3] for line in lines]


@pytest.mark.parametrize(
    ("arguments", "code", "output"),
    [
        (["command", "PING"], 0, "PONG\n"),
        (["command", "PING", "--transport", "unixgram"], 0, "PONG\n"),
        (["greet"], 0, "Thank you for connecting\n"),
        (["discard", "x"], 0, ""),
        (["command", "NONSENSE"], 1, "(error) ERR unknown command 'NONSENSE'\n"),
    ],
    ids=["ping", "unixgram", "greet", "discard", "error"],
)
def test_call(lab: Lab, running: str, arguments: list[str], code: int, output: str) -> None:
    done = lab("--project", running, "call", "asyncio_streams", *arguments)
    assert (done.returncode, done.stdout, done.stderr) == (code, output, "")


def test_shell_reaches_the_models(lab: Lab, running: str) -> None:
    script = 'python3 -m lab.client command "tcp://$LAB_HOST:$LAB_PORT" PING'
    done = lab(
        "--project", running, "shell", "plain_socket", "-c", script.replace("python3", "exec $PYTHON"), environ=python()
    )
    assert (done.returncode, done.stdout) == (0, "PONG\n")


def python() -> dict[str, str]:
    import sys

    return {"PYTHON": sys.executable}


BAD = {
    "unknown model": (["up", "nonesuch"], "unknown model 'nonesuch'; known: plain_socket"),
    "unknown model in call": (["call", "nonesuch", "echo"], "unknown model 'nonesuch'"),
    "unknown service": (["call", "plain_socket", "gopher"], "unknown service 'gopher'; plain_socket speaks greet"),
    "not running": (["call", "twisted_reactor", "greet"], "twisted_reactor is not running: `lab up twisted_reactor`"),
    "not over udp": (["call", "plain_socket", "chargen", "--transport", "udp"], "chargen over udp; it does over tcp"),
    "a bad target": (["check", "--target", "echo=ftp://x"], "--target 'echo=ftp://x': 'ftp://x' does not start"),
    "no target": (["check", "--target", "gopher"], "--target 'gopher' is not SERVICE=URL"),
    "unknown in check": (["check", "nonesuch"], "unknown model 'nonesuch'"),
    "models and target": (["check", "plain_socket", "--target", "echo=tcp://h:7"], "check either"),
    "some run, some do not": (["check", "plain_socket", "twisted_reactor"], "twisted_reactor not running"),
    "unknown profile": (["up", "--profile", "nonesuch"], "unknown profile 'nonesuch'; known: "),
    "unknown in shell": (["shell", "nonesuch"], "unknown model 'nonesuch'"),
}


@pytest.mark.parametrize(("arguments", "message"), BAD.values(), ids=BAD)
def test_a_mistake_is_one_line_and_exit_code_2(lab: Lab, running: str, arguments: list[str], message: str) -> None:
    done = lab("--project", running, *arguments)
    assert done.returncode == 2
    assert message in done.stderr
    assert done.stderr.startswith("lab: ")
    assert done.stderr.count("\n") == 1


def test_profiles_of_a_file_of_ones_own(lab: Lab, process_project: str, tmp_path: Path) -> None:
    """As processes: a model of a profile is there where it is named, and one that needs a container is refused."""
    labels = "lab.family: f, lab.summary: s"
    path = tmp_path / "compose.yaml"
    path.write_text(
        "services:\n"
        f"  plain_socket: {{image: x, labels: {{lab.model: plain_socket, {labels}}}}}\n"
        f"  asyncio_streams: {{image: x, profiles: [a], labels: {{lab.model: asyncio_streams, {labels}}}}}\n"
        f"  foreign: {{image: x, labels: {{lab.model: foreign, {labels}}}}}\n"
        f"  boxed: {{image: x, profiles: [b], labels: {{lab.model: boxed, lab.only: container, {labels}}}}}\n"
    )
    options = ["--file", str(path), "--backend", "process", "--project", process_project]

    def running() -> list[str]:
        rows = json.loads(lab(*options, "ls", "--json").stdout)
        assert [row["model"] for row in rows] == ["plain_socket", "asyncio_streams", "foreign", "boxed"]
        return [row["model"] for row in rows if row["state"] == "running"]

    for arguments in (["up", "boxed"], ["up", "--profile", "a", "--profile", "b"], ["check", "boxed"]):
        done = lab(*options, *arguments)
        assert (done.returncode, done.stdout) == (2, "")
        assert done.stderr.splitlines()[-1] == "lab: boxed runs only in a container: take --backend docker"
        assert running() == []
    assert lab(*options, "up", "asyncio_streams").returncode == 0
    loaded = lab(*options, "load", "--headless", "--models", "boxed")
    assert (loaded.returncode, loaded.stdout) == (2, "")
    assert loaded.stderr == "lab: not running: boxed; start with: lab up boxed\n"
    assert lab(*options, "down").returncode == 0
    up = lab(*options, "up")
    assert up.stdout == "1 model answers: `lab ls` says where\n"
    assert up.stderr == "lab: left out, as they run only in containers: foreign\n"
    assert running() == ["plain_socket"]
    assert lab(*options, "up", "--profile", "a").stdout == "2 models answer: `lab ls` says where\n"
    assert running() == ["plain_socket", "asyncio_streams"]
    assert lab(*options, "down").returncode == 0
    assert running() == []


def test_a_wrong_option_is_exit_code_2(lab: Lab) -> None:
    for arguments in (["--backend", "podman", "ls"], ["nonesuch"], ["up", "--nonesuch"]):
        done = lab(*arguments)
        assert done.returncode == 2
        assert "Traceback" not in done.stderr
    done = lab("--project", "No", "ls")
    assert (done.returncode, done.stderr.count("\n")) == (2, 1)


@pytest.mark.parametrize(
    "arguments",
    [
        *(["up"], ["down"], ["ls"], ["logs"], ["call", "plain_socket", "greet"], ["check"], ["shell"], ["doctor"]),
        *(["clean"], ["load"], ["load-gallery"], ["faults"], ["soak"], ["tour"], ["bench"], ["demo"], ["new", "x"]),
        *(["compare", "a", "b"], ["advise"]),
    ],
    ids=lambda words: words[0],
)
def test_empty_project_is_refused_by_every_command(arguments: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """A script whose own variable is unset means some lab, and not the default one."""
    with pytest.raises(LabError, match=r"--project \(LAB_PROJECT\) is empty: name a project"):
        cli.main(["--project", "", *arguments], standalone_mode=False)
    monkeypatch.setenv("LAB_PROJECT", "")
    with pytest.raises(LabError, match=r"--project \(LAB_PROJECT\) is empty: name a project"):
        cli.main(arguments, standalone_mode=False)


def test_list_of_commands_in_the_test_of_projects_is_complete() -> None:
    marks = [mark for mark in test_empty_project_is_refused_by_every_command.pytestmark if mark.name == "parametrize"]
    assert {words[0] for words in marks[0].args[1]} == set(cli.commands)


def test_empty_project_is_refused_where_a_lab_is_opened(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(LabError, match="'' cannot name a project"):
        open_backend("process", "")
    monkeypatch.setenv("LAB_PROJECT", "")
    with pytest.raises(LabError, match="'' cannot name a project"):
        open_backend("process")
    monkeypatch.setenv("LAB_PROJECT", "mine")
    assert open_backend("process").project == "mine"
    monkeypatch.delenv("LAB_PROJECT")
    assert open_backend("process").project == "socketlab"


def test_empty_project_is_one_line_and_exit_code_2(lab: Lab) -> None:
    for done in (lab("--project", "", "ls"), lab("ls", environ={"LAB_PROJECT": ""})):
        assert (done.returncode, done.stdout, done.stderr.count("\n")) == (2, "", 1)


def test_a_broken_compose_file_is_one_line(lab: Lab, tmp_path: Path) -> None:
    path = tmp_path / "compose.yaml"
    path.write_text("services:\n  mine:\n    labels: {lab.model: yours}\n")
    done = lab("--backend", "process", "--file", str(path), "up")
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith(f"lab: {path}:3: label lab.model is 'yours'")
    assert done.stderr.count("\n") == 1


def test_help_lists_every_command(lab: Lab) -> None:
    done = lab("--help")
    assert done.returncode == 0
    for command in ("up", "down", "ls", "call", "check", "shell", "doctor", "clean", "load", "demo"):
        assert f"\n  {command} " in done.stdout


def test_doctor_finds_this_machine_able(lab: Lab) -> None:
    done = lab("doctor", "--json")
    findings = json.loads(done.stdout)
    assert done.returncode == 0
    assert {"python", "catalogue", "engine", "compose", "buildx", "base image", "cores", "open files"} <= {
        item["part"] for item in findings
    }
    assert all(item["mend"] for item in findings if not item["good"])


def test_check_of_a_server_that_is_not_ours(lab: Lab) -> None:
    """One that greets wrongly: the table says so, and the exit code is 1."""
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def serve() -> None:
            while True:
                try:
                    connection, _ = listener.accept()
                except OSError:
                    return
                with connection:
                    connection.sendall(b"Go away\r\n")

        thread = threading.Thread(target=serve)
        thread.start()
        done = lab("check", "--target", f"greet=tcp://127.0.0.1:{listener.getsockname()[1]}")
        listener.shutdown(socket.SHUT_RDWR)
        thread.join()
    assert done.returncode == 1, done.stderr
    assert "FAIL" in done.stdout
    assert "Go away" in done.stdout


def finding(name: str, outcome: str, detail: str = "") -> str:
    return MARK + json.dumps({"name": name, "outcome": outcome, "detail": detail})


def test_a_report_counts_by_model_and_transport() -> None:
    lines = [
        "..",
        finding("t.py::a[mine-echo-tcp]", "passed"),
        finding("t.py::b[mine-echo-tcp]", "failed", "why"),
        finding("t.py::c[mine-echo-unix]", "xfailed", "a limit"),
        finding("t.py::c[other-echo-unix]", "passed"),
        finding("t.py", "error", "cannot be imported"),
    ]
    report = read_report(CompletedProcess([], 1, "\n".join(lines), ""), ["mine", "other"])
    assert report.table() == (
        ["model", "tcp", "unix"],
        [["mine", "1 pass, 1 FAIL", "1 limit"], ["other", "-", "1 pass"]],
    )
    assert report.summary() == "2 passed, 1 failed, 1 error, 1 declared limits held"
    assert (report.holds, len(report.failures)) == (False, 2)


def test_a_run_that_tested_nothing_does_not_hold() -> None:
    assert not read_report(CompletedProcess([], 0, "", ""), []).holds
    with pytest.raises(LabError, match=r"could not be run \(pytest's exit code 4\):\n  ERROR: no such file"):
        read_report(CompletedProcess([], 4, "", "ERROR: no such file"), [])


@pytest.mark.parametrize(
    "backend", ["process", pytest.param("docker", marks=[pytest.mark.docker, pytest.mark.xdist_group("docker")])]
)
def test_a_model_that_dies_is_reported_and_the_others_go_on(
    lab: Lab, request: pytest.FixtureRequest, backend: str
) -> None:
    """With its exit code and its last lines, for a person and for a script."""
    if backend == "docker":
        request.getfixturevalue("engine")
    project = request.getfixturevalue(f"{backend}_project")
    options = ["--backend", backend, "--project", project]
    assert lab(*options, "up", "plain_socket", "selector_loop", "thread_pool").returncode == 0
    try:
        # Something for the log to end with: a handshake that is none.
        noise = lab(*options, "shell", "selector_loop", "-c", NOISE)
        assert noise.returncode == 0, noise.stderr
        open_backend(backend, project).kill("selector_loop", signal.SIGKILL)
        deadline = time.monotonic() + 60
        while "exited" not in lab(*options, "ls").stdout:
            assert time.monotonic() < deadline
        shown = lab(*options, "ls")
        rows = {line.split("\t")[1]: line.split("\t") for line in shown.stdout.splitlines()}
        assert rows["selector_loop"][:3] == ["readiness loop", "selector_loop", "exited (137)"]
        assert rows["plain_socket"][2] == rows["thread_pool"][2] == "running"
        families = [line.split("\t")[0] for line in shown.stdout.splitlines()]
        assert families == [family for family in dict.fromkeys(families) for _ in range(families.count(family))]
        assert "selector_loop ended by SIGKILL (exit code 137); the end of its log:\n  " in shown.stderr
        assert "TLS handshake with " in shown.stderr
        found = {row["model"]: row for row in json.loads(lab(*options, "ls", "--json").stdout)}
        assert (found["selector_loop"]["state"], found["selector_loop"]["exit_code"]) == ("exited", 137)
        assert any("TLS handshake with " in line for line in found["selector_loop"]["last_lines"])
        assert found["plain_socket"]["last_lines"] == []
        assert lab(*options, "call", "thread_pool", "command", "PING").stdout == "PONG\n"
    finally:
        assert lab(*options, "down").returncode == 0


NOISE = """python -c '
import json, os, socket
from services.protocol import Address
rows = {row["model"]: row["listeners"] for row in json.loads(os.environ["LAB_TARGETS"])}
url = next(item["address"] for item in rows["selector_loop"] if item["transport"] == "tls")
address = Address.parse(url)
with socket.create_connection((address.host, address.port), timeout=10) as link:
    link.sendall(b"no handshake at all")
    while link.recv(100):
        pass
'"""
