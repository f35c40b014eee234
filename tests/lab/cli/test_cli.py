"""The command `lab` in a subprocess, as a user or a script runs it."""

import contextlib
import json
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from subprocess import CompletedProcess

import pytest

from lab.base.errors import LabError
from lab.cli.main import cli
from lab.load.external_server import check_reachable, parse_target
from lab.servers.open import open_backend
from services.protocol import Address
from tests.lab.conftest import MODELS
from tests.support.ports import closed_port
from tests.support.waiting import wait_until

Lab = Callable[..., "CompletedProcess[str]"]
Run = Callable[..., int]


def test_up_ls_down(lab: Lab, process_project: str) -> None:
    options = ["--backend", "process", "--project", process_project]
    up = lab(*options, "up", *MODELS)
    assert (up.returncode, up.stdout, up.stderr) == (0, "2 models answer: `lab ls` lists them\n", "")
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
    script = 'python3 -m lab.clients.call command "tcp://$LAB_HOST:$LAB_PORT" PING'
    done = lab(
        "--project", running, "shell", "plain_socket", "-c", script.replace("python3", "exec $PYTHON"), environ=python()
    )
    assert (done.returncode, done.stdout) == (0, "PONG\n")


def python() -> dict[str, str]:
    return {"PYTHON": sys.executable}


BAD = {
    "unknown model": (["up", "nonesuch"], "unknown model 'nonesuch'; known: plain_socket"),
    "unknown model in call": (["call", "nonesuch", "echo"], "unknown model 'nonesuch'"),
    "unknown service": (["call", "plain_socket", "gopher"], "unknown service 'gopher'; plain_socket speaks greet"),
    "not running": (
        ["call", "twisted_reactor", "greet"],
        "twisted_reactor is not running: start it with `lab",
    ),
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
def test_mistake_is_one_line_and_exit_code_2(
    run_here: Callable[..., int],
    capfd: pytest.CaptureFixture[str],
    running: str,
    arguments: list[str],
    message: str,
) -> None:
    assert run_here("--project", running, *arguments) == 2
    said = capfd.readouterr().err
    assert message in said
    assert said.startswith("lab: ")
    assert said.count("\n") == 1


def test_profiles_of_a_custom_compose_file(
    lab: Lab, run_here: Run, process_project: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """As processes: a model of a profile starts if it is named; one that needs a container is refused."""
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

    def run(*arguments: str) -> tuple[int, str, str]:
        capfd.readouterr()
        return run_here(*options, *arguments), *capfd.readouterr()

    def running() -> list[str]:
        rows = json.loads(run("ls", "--json")[1])
        assert [row["model"] for row in rows] == ["plain_socket", "asyncio_streams", "foreign", "boxed"]
        return [row["model"] for row in rows if row["state"] == "running"]

    for arguments in (["up", "boxed"], ["up", "--profile", "a", "--profile", "b"], ["check", "boxed"]):
        code, stdout, stderr = run(*arguments)
        assert (code, stdout) == (2, "")
        assert stderr.splitlines()[-1] == "lab: boxed runs only in a container: use --backend docker"
        assert running() == []
    assert lab(*options, "up", "asyncio_streams").returncode == 0
    assert run("load", "--headless", "boxed") == (2, "", "lab: not running: boxed; start with: lab up boxed\n")
    assert run("down")[0] == 0
    up = lab(*options, "up")
    assert up.stdout == "1 model answers: `lab ls` lists them\n"
    assert up.stderr == "lab: left out, as they run only in containers: foreign\n"
    assert running() == ["plain_socket"]
    assert lab(*options, "up", "--profile", "a").stdout == "2 models answer: `lab ls` lists them\n"
    assert running() == ["plain_socket", "asyncio_streams"]
    assert run("down")[0] == 0
    assert running() == []


def test_unknown_option_is_exit_code_2(lab: Lab) -> None:
    for arguments in (["--backend", "podman", "ls"], ["nonesuch"], ["up", "--nonesuch"]):
        done = lab(*arguments)
        assert done.returncode == 2
        assert "Traceback" not in done.stderr
    done = lab("--project", "No", "ls")
    assert (done.returncode, done.stderr.count("\n")) == (2, 1)


ONE_OF_EACH_COMMAND: list[list[str]] = [
    *(["up"], ["down"], ["ls"], ["logs"], ["call", "plain_socket", "greet"], ["check"], ["shell"], ["doctor"]),
    *(["clean"], ["load"], ["load-gallery"], ["faults"], ["soak"], ["tour"], ["bench"], ["demo"], ["new", "x"]),
    *(["compare", "a", "b"], ["advise"], ["xray"], ["load-file", str(Path(__file__))]),
]


@pytest.mark.parametrize("arguments", ONE_OF_EACH_COMMAND, ids=lambda words: words[0])
def test_empty_project_is_refused_by_every_command(arguments: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """A script with an unset variable must not act on the default project."""
    with pytest.raises(LabError, match=r"--project \(LAB_PROJECT\) is empty: name a project"):
        cli.main(["--project", "", *arguments], standalone_mode=False)
    monkeypatch.setenv("LAB_PROJECT", "")
    with pytest.raises(LabError, match=r"--project \(LAB_PROJECT\) is empty: name a project"):
        cli.main(arguments, standalone_mode=False)


def test_project_test_covers_every_command() -> None:
    assert {words[0] for words in ONE_OF_EACH_COMMAND} == set(cli.commands)


def test_empty_project_is_refused_by_open_backend(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(LabError, match="'' is not a valid project name"):
        open_backend("process", "")
    monkeypatch.setenv("LAB_PROJECT", "")
    with pytest.raises(LabError, match="'' is not a valid project name"):
        open_backend("process")
    monkeypatch.setenv("LAB_PROJECT", "mine")
    assert open_backend("process").project == "mine"
    monkeypatch.delenv("LAB_PROJECT")
    assert open_backend("process").project == "socketlab"


def test_empty_project_is_one_line_and_exit_code_2(lab: Lab) -> None:
    for done in (lab("--project", "", "ls"), lab("ls", environ={"LAB_PROJECT": ""})):
        assert (done.returncode, done.stdout, done.stderr.count("\n")) == (2, "", 1)


def test_broken_compose_file_is_one_line(lab: Lab, tmp_path: Path) -> None:
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


def test_doctor_passes_on_this_machine(lab: Lab) -> None:
    done = lab("doctor", "--json")
    findings = json.loads(done.stdout)
    assert done.returncode == 0
    assert {"python", "catalogue", "engine", "compose", "buildx", "base image", "cores", "open files"} <= {
        item["part"] for item in findings
    }
    assert all(item["fix"] for item in findings if not item["good"])


@pytest.fixture
def textbook() -> Iterator[str]:
    """Yield the address of the textbook's own server."""
    command = [sys.executable, str(Path(__file__).with_name("textbook_server.py")), "127.0.0.1", "0"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout
        yield f"tcp://127.0.0.1:{process.stdout.readline().strip()}"
        process.kill()


def test_textbook_server_passes_with_rfc(lab: Lab, textbook: str) -> None:
    done = lab("check", "--target", f"greet={textbook}", "--rfc")
    assert (done.returncode, done.stdout) == (0, "target\t3 pass\n3 passed\n"), done.stderr


def test_textbook_server_fails_without_rfc_with_a_reason(lab: Lab, textbook: str) -> None:
    done = lab("check", "--target", f"greet={textbook}")
    assert done.returncode == 1, done.stderr
    assert done.stdout.endswith("target\t1 pass, 3 FAIL\n1 passed, 3 failed\n")
    assert "not this lab's greeting, which ends in CR LF (docs/protocol.md); --rfc takes any" in done.stdout
    # The reset depends on timing: the client's bytes must arrive before the close.
    reset = "closed with unread data from the client, so its kernel sent a reset"
    if reset not in done.stdout:
        wait_until(lambda: reset in lab("check", "--target", f"greet={textbook}").stdout)


@contextlib.contextmanager
def answering(answer: Callable[[socket.socket], object]) -> Iterator[int]:
    """Run a server for one client at a time; yield its port."""
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def serve() -> None:
            while True:
                try:
                    connection, _ = listener.accept()
                except OSError:
                    return
                with connection, contextlib.suppress(OSError):
                    answer(connection)

        thread = threading.Thread(target=serve)
        thread.start()
        yield listener.getsockname()[1]
        listener.shutdown(socket.SHUT_RDWR)
        thread.join()


def test_server_with_a_wrong_greeting_fails(lab: Lab) -> None:
    with answering(lambda connection: connection.sendall(b"Go away\r\n")) as port:
        done = lab("check", "--target", f"greet=tcp://127.0.0.1:{port}")
        assert done.returncode == 1, done.stderr
        assert "FAIL" in done.stdout
        assert "Go away" in done.stdout
    with answering(lambda connection: None) as port:
        done = lab("check", "--target", f"greet=tcp://127.0.0.1:{port}", "--rfc")
        assert (done.returncode, done.stdout.endswith("target\t3 FAIL\n3 failed\n")) == (1, True), done.stdout


def plain_port(connection: socket.socket) -> None:
    """Run a server without TLS."""
    connection.sendall(b"220 ready\r\n")


UNREACHABLE = {
    "closed": ("tcp://127.0.0.1:{closed}", "Connection refused: is the server running there?"),
    "closed, udp": ("udp://127.0.0.1:{closed}", "Connection refused: is the server running there?"),
    "closed, tls": ("tls://127.0.0.1:{closed}", "Connection refused: is the server running there?"),
    "plain": ("tls://127.0.0.1:{plain}", "TLS: WRONG_VERSION_NUMBER: is the server running there?"),
    "no such host": ("tcp://nonesuch.invalid:7", "tcp://nonesuch.invalid:7: "),
    "no host at all": (f"tcp://{'a' * 70}.invalid:7", "cannot be the name of a host"),
    "no socket": ("unix:///tmp/nonesuch/x.sock", "No such file or directory: is the server running there?"),
    "no datagram socket": ("unixgram:///tmp/nonesuch/x.sock", "is the server running there?"),
    "port 0": ("tcp://127.0.0.1:0", "nothing can listen on port 0"),
    "port too high": ("tcp://127.0.0.1:65536", "'65536' is not a port, which is a number from 0 to 65535"),
    "no number": ("tcp://127.0.0.1:echo", "'echo' is not a port"),
    "without brackets": ("tcp://::1:7", "an IPv6 address stands in brackets, as in tcp://[::1]:7"),
    "blank": ("tcp://a b:7", "is not of the form tcp://host:port"),
}


@pytest.mark.parametrize(("url", "said"), UNREACHABLE.values(), ids=UNREACHABLE)
def test_silent_target_is_one_line_and_exit_code_2(url: str, said: str, capfd: pytest.CaptureFixture[str]) -> None:
    """Checked before anything starts. In this process, since other tests cover how `lab` prints a LabError."""
    with answering(plain_port) as plain, closed_port() as closed:
        url = url.format(closed=closed, plain=plain)
        transport = url.partition(":")[0]
        for arguments in (["check"], ["load", "--preset", "closed_echo_1k", "--transport", transport]):
            with pytest.raises(LabError) as caught:
                cli.main(["--backend", "process", *arguments, "--target", f"echo={url}"], standalone_mode=False)
            assert said in str(caught.value)
            assert "\n" not in str(caught.value)
            assert str(caught.value).startswith("--target ")
    assert capfd.readouterr().out == ""


def test_target_without_a_port_gets_the_default_or_is_refused() -> None:
    assert parse_target("echo=tcp://localhost").address == Address.parse("tcp://localhost:7")
    assert parse_target("command=tls://localhost").address == Address.parse("tls://localhost:6380")
    with pytest.raises(
        LabError, match=r"no port, and greet over tls has no default: add it, as in tls://localhost:9000"
    ):
        parse_target("greet=tls://localhost")
    with pytest.raises(LabError, match="no port, and a custom protocol has no default"):
        parse_target("tcp://localhost")


def test_udp_target_is_accepted_with_or_without_an_answer() -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as silent:
        silent.bind(("127.0.0.1", 0))
        check_reachable("echo", Address.parse(f"udp://127.0.0.1:{silent.getsockname()[1]}"))


def test_closed_target_is_reported_by_the_command(lab: Lab) -> None:
    with closed_port() as port:
        url = f"tcp://127.0.0.1:{port}"
        for arguments in (["check"], ["load", "--preset", "closed_echo_1k"]):
            done = lab(*arguments, "--target", f"echo={url}")
            said = f"lab: --target echo={url}: Connection refused: is the server running there?\n"
            assert (done.returncode, done.stdout, done.stderr) == (2, "", said)


@pytest.mark.parametrize(
    "backend", ["process", pytest.param("docker", marks=[pytest.mark.docker, pytest.mark.xdist_group("labs")])]
)
def test_model_that_dies_is_reported_and_the_others_continue(
    lab: Lab, run_here: Run, request: pytest.FixtureRequest, capfd: pytest.CaptureFixture[str], backend: str
) -> None:
    """With its exit code and its last lines, as text and as JSON."""
    if backend == "docker":
        request.getfixturevalue("engine")
    project = request.getfixturevalue(f"{backend}_project")
    options = ["--backend", backend, "--project", project]

    def run(*arguments: str) -> tuple[str, str]:
        capfd.readouterr()
        assert run_here(*options, *arguments) == 0
        stdout, stderr = capfd.readouterr()
        return stdout, stderr

    assert lab(*options, "up", "plain_socket", "selector_loop", "thread_pool").returncode == 0
    try:
        run("shell", "selector_loop", "-c", NOISE)  # an invalid handshake, for a last line in the log
        open_backend(backend, project).faults.kill("selector_loop", signal.SIGKILL)
        wait_until(lambda: "exited" in run("ls")[0])
        stdout, stderr = run("ls")
        rows = {line.split("\t")[1]: line.split("\t") for line in stdout.splitlines()}
        assert rows["selector_loop"][:3] == ["readiness loop", "selector_loop", "exited (137)"]
        assert rows["plain_socket"][2] == rows["thread_pool"][2] == "running"
        families = [line.split("\t")[0] for line in stdout.splitlines()]
        assert families == [family for family in dict.fromkeys(families) for _ in range(families.count(family))]
        assert "selector_loop ended by SIGKILL (exit code 137); the end of its log:\n  " in stderr
        assert "TLS handshake with " in stderr
        found = {row["model"]: row for row in json.loads(run("ls", "--json")[0])}
        assert (found["selector_loop"]["state"], found["selector_loop"]["exit_code"]) == ("exited", 137)
        assert any("TLS handshake with " in line for line in found["selector_loop"]["last_lines"])
        assert found["plain_socket"]["last_lines"] == []
        assert run("call", "thread_pool", "command", "PING")[0] == "PONG\n"
    finally:
        run("down")


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
