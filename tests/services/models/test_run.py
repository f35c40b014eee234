"""`python -m services.run`: what it says first, and how it refuses."""

import json
import os
import signal
import socket
import subprocess
import sys
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

import services.run
from services.protocol import Limits
from services.serving.signals import stop_signals


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


def test_signal_before_the_model_has_its_own_handlers_is_no_error(monkeypatch: pytest.MonkeyPatch) -> None:
    before = {number: signal.getsignal(number) for number in stop_signals()}
    monkeypatch.setattr(services.run, "parse_listens", lambda *arguments: signal.raise_signal(signal.SIGTERM))
    try:
        with pytest.raises(SystemExit) as ended:
            services.run.main(["--model", "plain_socket", "--listen", "echo=tcp://127.0.0.1:0"])
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
    assert ended.value.code == 0


def test_info_tells_how_long_the_server_has_run(monkeypatch: pytest.MonkeyPatch) -> None:
    """It is read each time, as by each worker for itself."""
    model = SimpleNamespace(WHEN_FULL="refuse")
    info = partial(services.run._info, "mine", cast(Any, model), Limits(idle=7.0))
    monkeypatch.setattr(services.run, "_STARTED", 1000.0)
    monkeypatch.setattr(services.run, "time", SimpleNamespace(monotonic=lambda: 1012.9))
    lines = info().split("\r\n")
    assert "uptime_in_seconds:12" in lines
    for has_gil in (False, True):
        monkeypatch.setattr(services.run, "has_gil", lambda has_gil=has_gil: has_gil)
        assert f"gil_enabled:{int(has_gil)}\r\n" in info()
    assert {"model:mine", f"process_id:{os.getpid()}", "when_full:refuse", "idle:7.0"} <= set(lines)
    monkeypatch.setattr(os, "getpid", lambda: 7)
    assert "process_id:7\r\n" in info()
