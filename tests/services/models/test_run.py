"""`python -m services.run`: what it says first, and how it refuses."""

import importlib
import json
import os
import platform
import signal
import socket
import subprocess
import sys
from contextlib import nullcontext
from functools import partial
from importlib.metadata import version
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

import services.before
import services.run
from services.protocol import Address, Close, Limits
from services.protocol.trace import parse
from services.serving.listeners import Listener
from services.serving.signals import stop_signals
from tests.services.models.conftest import CATALOGUE


def run(*arguments: str, **environ: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "services.run", *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=20, env=os.environ | environ, check=False)


@pytest.mark.parametrize(
    ("arguments", "environ", "named"),
    [
        (["--listen", "echo=tcp://127.0.0.1:0"], {}, "--model is missing"),
        (["--model", "nonesuch", "--listen", "echo=tcp://127.0.0.1:0"], {}, "'nonesuch'"),
        (["--model", "plain_socket"], {}, "--listen is missing"),
        (["--model", "plain_socket", "--listen", "echo"], {}, "'echo'"),
        (["--model", "plain_socket", "--listen", "ohce=tcp://127.0.0.1:0"], {}, "'ohce=tcp://127.0.0.1:0'"),
        (["--model", "plain_socket", "--listen", "echo=sctp://127.0.0.1:0"], {}, "sctp://"),
        (["--model", "plain_socket", "--listen", "echo=tcp://127.0.0.1:70000"], {}, "70000"),
        (["--model", "plain_socket", "--listen", "chargen=udp://127.0.0.1:0"], {}, "chargen is not offered"),
        (["--model", "plain_socket", "--listen", "all=tcp://127.0.0.1:7"], {}, "port 7"),
        (["--model", "plain_socket", "--listen", "echo=unix://relative"], {}, "absolute path"),
        (["--model", "plain_socket", "--listen", "echo=tcp://no.such.host.invalid:0"], {}, "no.such.host.invalid"),
        (["--model", "plain_socket", "--listen", "echo=tcp://127.0.0.1:0"], {"LAB_IDLE_SECONDS": "nan"}, "LAB_IDLE"),
        (["--model", "plain_socket", "--frobnicate"], {}, "--frobnicate"),
        (
            ["--model", "plain_socket", "--listen", "echo=tcp://127.0.0.1:0"],
            {"LAB_XRAY": "/dev/null/x"},
            "LAB_XRAY=/dev/null/x: cannot write a recording there: Not a directory",
        ),
    ],
    ids=lambda value: " ".join(value)[:40] if isinstance(value, list) else "",
)
def test_what_cannot_be_started_is_one_line_and_exit_code_2(
    arguments: list[str], environ: dict[str, str], named: str
) -> None:
    result = run(*arguments, **environ)
    assert result.returncode == 2
    assert result.stdout == ""
    assert len(result.stderr.splitlines()) == 1
    assert named in result.stderr


def test_a_busy_port_is_named() -> None:
    with socket.socket() as busy:
        busy.bind(("127.0.0.1", 0))
        busy.listen()
        address = f"tcp://127.0.0.1:{busy.getsockname()[1]}"
        result = run("--model", "plain_socket", "--listen", f"echo={address}")
    assert result.returncode == 2
    assert f"cannot listen on echo={address}: Address already in use" in result.stderr


@pytest.mark.parametrize("kind", [socket.SOCK_STREAM, socket.SOCK_DGRAM], ids=["unix", "unixgram"])
def test_a_busy_unix_socket_is_named_and_kept(tmp_path: Path, kind: socket.SocketKind) -> None:
    path = tmp_path / "busy.sock"
    scheme = "unix" if kind == socket.SOCK_STREAM else "unixgram"
    with socket.socket(socket.AF_UNIX, kind) as busy:
        busy.bind(str(path))
        if kind == socket.SOCK_STREAM:
            busy.listen()
        result = run("--model", "plain_socket", "--listen", f"echo={scheme}://{path}")
    assert result.returncode == 2
    assert str(path) in result.stderr
    assert path.exists()


def test_a_file_that_is_no_socket_is_kept(tmp_path: Path) -> None:
    path = tmp_path / "precious.txt"
    path.write_text("precious")
    result = run("--model", "plain_socket", "--listen", f"echo=unix://{path}")
    assert result.returncode == 2
    assert path.read_text() == "precious"


def test_a_model_for_a_python_without_the_gil_refuses_one_that_has_it() -> None:
    result = run("--model", "threads_nogil", "--listen", "echo=tcp://127.0.0.1:0")
    assert (result.returncode, result.stdout) == (2, "")
    assert len(result.stderr.splitlines()) == 1
    assert "threads_nogil needs a Python without the GIL" in result.stderr
    assert sys.executable in result.stderr


@pytest.mark.parametrize("has_gil", [True, False])
def test_the_interpreter_says_whether_it_has_the_gil(monkeypatch: pytest.MonkeyPatch, has_gil: bool) -> None:
    monkeypatch.setattr(sys, "_is_gil_enabled", lambda: has_gil, raising=False)
    assert services.run.has_gil() is has_gil
    if has_gil:
        with pytest.raises(services.run.StartError, match="threads_nogil needs a Python without the GIL"):
            services.run.load_model("threads_nogil")
    else:
        assert callable(services.run.load_model("threads_nogil").serve)


def test_an_interpreter_that_cannot_say_has_the_gil(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(sys, "_is_gil_enabled", raising=False)
    assert services.run.has_gil()


def test_the_first_line_tells_what_runs(start, model: str) -> None:
    with start(LAB_MAX_BULK="1234") as server:
        description = server.description
        json.dumps(description)
        assert description["model"] == model
        assert description["pid"] == server.process.pid
        assert description["limits"]["bulk"] == 1234
        assert description["when_full"] in {"wait", "refuse"}
        # The server runs on this interpreter, in a process that its model's library may have changed.
        assert description["gil"] is services.run.has_gil()
        # All six services over both streams, three over TLS, the four that datagrams can carry over both of these.
        ways = {(listener["service"], listener["transport"]) for listener in description["listeners"]}
        assert len(ways) == len(description["listeners"]) == 23
        with server.connect() as link:
            link.send(b"INFO\r\n")
            info, client = link.receive(), link.socket.getsockname()
        # Its bounds: how long a client may be silent, what it can cost, how many there may be, and what then.
        for line in ("bulk:1234", "idle:300.0", "connections:12000", f"when_full:{description['when_full']}"):
            assert f"{line}\r\n".encode() in info
        assert b"connection_bytes:%d\r\n" % description["limits"]["connection_bytes"] in info
        assert b"gil_enabled:%d\r\n" % description["gil"] in info
        assert "\r\npeer:{}:{}\r\n".format(*client).encode() in info


@pytest.mark.usefixtures("kept_signals")
@pytest.mark.parametrize("number", stop_signals())
def test_signal_before_the_model_has_its_own_handlers_is_no_error(
    number: signal.Signals, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(services.run, "parse_listens", lambda *arguments: signal.raise_signal(number))
    with pytest.raises(SystemExit) as ended:
        services.run.main(["--model", "plain_socket", "--listen", "echo=tcp://127.0.0.1:0"])
    assert ended.value.code == 0


def test_info_tells_how_long_the_server_has_run(monkeypatch: pytest.MonkeyPatch) -> None:
    """It is read each time, as by each worker for itself."""
    model = SimpleNamespace(WHEN_FULL="refuse")
    info = partial(services.run._info, "mine", cast(Any, model), Limits(idle=7.0))
    monkeypatch.setattr(services.run, "_STARTED", 1000.0)
    monkeypatch.setattr(services.run, "time", SimpleNamespace(monotonic=lambda: 1012.9))
    lines = info().split("\r\n")
    assert (lines[0], lines[-1]) == ("# Server", "")
    assert f"python_version:{platform.python_version()}" in lines
    shown = dict(line.split(":", 1) for line in lines[lines.index("# Limits") + 1 : -1])
    assert shown == {key: str(value) for key, value in Limits(idle=7.0).as_dict().items()} | {"when_full": "refuse"}
    assert "uptime_in_seconds:12" in lines
    for has_gil in (False, True):
        monkeypatch.setattr(services.run, "has_gil", lambda has_gil=has_gil: has_gil)
        assert f"gil_enabled:{int(has_gil)}\r\n" in info()
    assert {"model:mine", f"process_id:{os.getpid()}", "when_full:refuse", "idle:7.0"} <= set(lines)
    monkeypatch.setattr(os, "getpid", lambda: 7)
    assert "process_id:7\r\n" in info()


class Loop:
    """Stands for an event loop."""


@pytest.mark.parametrize(
    ("loop", "name"), [(Loop, f"{__name__}.Loop"), (signal.raise_signal, "_signal.raise_signal"), ("mine", "mine")]
)
def test_description_has_the_loop_the_libraries_and_the_addresses(loop: object, name: str) -> None:
    listeners = [
        SimpleNamespace(service="echo", address=Address.parse("tcp://127.0.0.1:7")),
        SimpleNamespace(service="http", address=Address.parse("unix:///s")),
    ]
    model = SimpleNamespace(LIBRARIES=("trio", "pytest"), LOOP=loop)
    found = services.run.describe("mine", cast(Any, model), cast(Any, listeners), Limits(bulk=7))
    # Whether there is a GIL is asserted of each model, as it runs.
    del found["gil"]
    assert found == {
        "model": "mine",
        "pid": os.getpid(),
        "python": platform.python_version(),
        "implementation": platform.python_implementation().lower(),
        "libraries": {"trio": version("trio"), "pytest": version("pytest")},
        "event_loop": name,
        "listeners": [
            {"service": "echo", "transport": "tcp", "address": "tcp://127.0.0.1:7"},
            {"service": "http", "transport": "unix", "address": "unix:///s"},
        ],
        "when_full": "wait",
        "limits": Limits(bulk=7).as_dict(),
    }
    plain = services.run.describe("mine", cast(Any, SimpleNamespace(WHEN_FULL="refuse")), [], Limits())
    assert (plain["libraries"], plain["event_loop"], plain["when_full"]) == ({}, None, "refuse")


def test_model_without_its_library_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(name: str) -> None:
        raise ModuleNotFoundError(name="uvloop")

    monkeypatch.setattr(importlib, "import_module", fail)
    with pytest.raises(services.run.StartError, match=r"^model uvloop_streams needs uvloop, .*: pip install uvloop$"):
        services.run.load_model("uvloop_streams")


def test_unknown_model_is_answered_with_all_names(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)  # the names do not depend on where the server is started
    # Those of `lab up`, and the one that needs another interpreter.
    names = sorted([*(model.name for model in CATALOGUE.select()), "threads_nogil"])
    with pytest.raises(services.run.StartError) as raised:
        services.run.load_model("plain")
    assert str(raised.value) == f"unknown model 'plain'; the models are {', '.join(names)}"


@pytest.mark.usefixtures("kept_signals")
@pytest.mark.parametrize("has_failed", [False, True])
def test_model_serves_what_is_described_and_then_hears_no_signal(
    has_failed: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A second signal would end the process before the files of its sockets are removed: also after a failed drain."""
    steps: list[object] = []
    path = tmp_path / "s"

    def serve(listeners: list[Listener]) -> None:
        steps.append([str(listener.address) for listener in listeners])
        connection = listeners[0].connection(("127.0.0.1", 4711))
        connection.receive_eof()
        assert connection.next_event() == Close()
        if has_failed:
            raise SystemExit(1)

    monkeypatch.setattr(services.run, "load_model", lambda name: SimpleNamespace(serve=serve))
    monkeypatch.setattr(services.run, "hold_stop_signals", lambda: steps.append(f"held, {path.exists()}"))
    monkeypatch.setattr(services.run, "has_gil", lambda: False)
    monkeypatch.setenv("LAB_MODEL", "mine")
    monkeypatch.setenv("LAB_XRAY", str(tmp_path / "{model}"))
    with pytest.raises(SystemExit, match=r"^1$") if has_failed else nullcontext():
        assert services.run.main(["--listen", f"echo=unix://{path}", "--listen", "echo=tcp://127.0.0.1:0"]) == 0
    (line,) = capsys.readouterr().out.splitlines()
    described = json.loads(line)
    assert described["model"] == "mine"
    assert steps == [[each["address"] for each in described["listeners"]], "held, True"]
    assert not path.exists()
    (recording,) = (tmp_path / "mine").iterdir()
    assert recording.name == f"mine-{os.getpid()}.xray"
    trace = parse(recording.read_bytes())
    assert not trace.has_gil
    assert trace.notes[0].value == 4711


@pytest.mark.usefixtures("kept_signals")
def test_name_of_an_option_is_not_cut(capsys: pytest.CaptureFixture[str]) -> None:
    """`services.before` knows the whole name alone."""
    assert services.run.main(["--mod", "plain_socket"]) == 2
    assert capsys.readouterr() == ("", "services.run: unrecognized arguments: --mod plain_socket\n")


@pytest.mark.parametrize(
    ("arguments", "named", "model"),
    [
        ([], "a", "a"),
        ([], None, ""),
        (["--model", "b"], "a", "b"),
        (["--model=b"], "a", "b"),
        (["--model", "b", "--model=c"], None, "c"),
        (["--model=b", "--model", "c"], None, "c"),
        (["--model"], "a", ""),
        (["--listen", "echo=tcp://127.0.0.1:0", "--model", "b", "--listen", "c"], "a", "b"),
    ],
)
def test_model_is_known_before_the_arguments_are_read(arguments: list[str], named: str | None, model: str) -> None:
    assert services.before.chosen_model(arguments, {"LAB_MODEL": named} if named else {}) == model
