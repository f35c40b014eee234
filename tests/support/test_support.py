"""The helpers of the tests: a fault in one of them makes tests pass, so what each must refuse is asserted here."""

import os
import socket
import struct
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import psutil
import pytest

from lab.base.paths import ROOT
from loadtests.sockets.connection import BlockingConnection
from loadtests.sockets.errors import NoAnswerError
from services.protocol import Address
from tests.support import container_commands, hardening, waiting
from tests.support.fakes import CATALOGUE, Clock
from tests.support.hardening import HardeningTests, Inside
from tests.support.http_link import HttpLink
from tests.support.ports import closed_port, open_black_hole
from tests.support.processes import find_descendants, is_alive
from tests.support.reading import count_unread, is_over, last_words, ping, read_all
from tests.support.scripts import run_checks, run_script
from tests.support.servers import Server, is_asleep, listens, queued
from tests.support.waiting import settled, wait_until
from tests.support.ws_link import CLOSE, FIN, TEXT, WsLink, frame

# waiting


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(waiting, "time", clock)
    return clock


def test_condition_that_never_comes_true_fails(clock: Clock) -> None:
    looked: list[float] = []

    def look() -> bool:
        looked.append(clock.now)
        return False

    with pytest.raises(AssertionError, match="it never came"):
        wait_until(look, seconds=1)
    assert 1 <= looked[-1] - looked[0] < 1.05


def test_result_of_the_condition_is_returned_as_soon_as_it_is_true(clock: Clock) -> None:
    results = iter([0, "", None, "it came", "too late"])
    assert wait_until(lambda: next(results)) == "it came"
    assert len(clock.slept) == 3


def test_only_a_process_that_has_ended_is_excused(clock: Clock) -> None:
    def look() -> bool:
        if clock.slept:
            raise ValueError("a mistake")
        raise psutil.NoSuchProcess(1)

    with pytest.raises(ValueError, match="a mistake"):
        wait_until(look)
    assert len(clock.slept) == 1


def test_state_has_settled_when_the_last_looks_are_alike(clock: Clock) -> None:
    seen = iter([1, 1, 1, 2, 2, 2, 2, 3])
    assert settled(lambda: next(seen), 0.5) == 2
    assert clock.slept == [0.5] * 6
    seen = iter([7, 8, 8, 9])
    assert settled(lambda: next(seen), 0.5, times=2) == 8


# reading


@contextmanager
def connected() -> Iterator[tuple[BlockingConnection, socket.socket]]:
    """Yield a client and the server's end of its connection."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        address = Address.parse(f"tcp://127.0.0.1:{listener.getsockname()[1]}")
        with BlockingConnection(address, timeout=0.2) as link, listener.accept()[0] as peer:
            yield link, peer


def test_all_is_read_up_to_the_end() -> None:
    with connected() as (link, peer):
        # More than one receive takes.
        data = bytes(range(256)) * 2000
        with ThreadPoolExecutor(1) as pool:
            pool.submit(peer.sendall, data).add_done_callback(lambda _: peer.close())
            assert read_all(link) == data


def test_connection_that_stays_open_is_not_over() -> None:
    with connected() as (link, _), pytest.raises(NoAnswerError):
        is_over(link)


def test_connection_that_has_data_is_not_over_before_its_end() -> None:
    with connected() as (link, peer):
        peer.sendall(b"bye")
        wait_until(lambda: count_unread(link) == 3)
        assert not is_over(link)
        peer.close()
        assert is_over(link)


def test_reset_is_an_end_without_words() -> None:
    with connected() as (link, peer):
        peer.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        peer.close()
        assert last_words(link) == b""


@pytest.mark.parametrize("reply", [b"-ERR\r\n", b"+PONG\r\n+PONG\r\n"])
def test_ping_takes_no_other_answer(reply: bytes) -> None:
    with connected() as (link, peer):
        peer.sendall(reply)
        with pytest.raises(AssertionError):
            ping(link)
        assert peer.recv(100) == b"PING\r\n"


# processes


def test_zombie_is_not_alive_and_a_running_process_is() -> None:
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as child:
        process = psutil.Process(child.pid)
        assert is_alive(process)
        assert find_descendants(psutil.Process(), "input()") == [process]
        assert find_descendants(psutil.Process(), "output()") == []
        child.kill()
        wait_until(lambda: process.status() == psutil.STATUS_ZOMBIE)
        assert not is_alive(process)
    assert not is_alive(process)


# servers


def make_server(directory: Path, code: str) -> Server:
    """Start a program as if it was a model."""
    server: Any = object.__new__(Server)
    server.directory, server.log = directory, directory / "log"
    server.process = subprocess.Popen(
        [sys.executable, "-c", code], stdout=subprocess.PIPE, text=True, start_new_session=True
    )
    return server  # type: ignore[no-any-return]  # made by hand


CHILD = "import subprocess, sys; subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(60)']); sys.exit(3)"


def test_process_that_a_server_leaves_is_found_and_ended(tmp_path: Path) -> None:
    with make_server(tmp_path, CHILD) as server:
        with pytest.raises(AssertionError, match="processes are left behind"):
            server.wait_end()
        left = server._others()
        assert len(left) == 1
    wait_until(lambda: not any(map(is_alive, left)))


def test_file_that_a_server_leaves_is_found_and_its_exit_code_is_returned(tmp_path: Path) -> None:
    with make_server(tmp_path, "import sys; sys.exit(3)") as server:
        assert server.wait_end() == 3
        (tmp_path / "command.sock").touch()
        with pytest.raises(AssertionError, match="files of sockets are left behind"):
            server.wait_end()


def test_server_with_one_thread_that_works_is_not_asleep() -> None:
    code = "import threading, time\nthreading.Thread(target=time.sleep, args=[60], daemon=True).start()\n"
    code += "print(flush=True)\n"
    for rest, expected in (("while True: pass", False), ("time.sleep(60)", True)):
        with subprocess.Popen([sys.executable, "-c", code + rest], stdout=subprocess.PIPE, text=True) as child:
            assert child.stdout
            child.stdout.readline()
            server: Any = SimpleNamespace(family=partial(list, [psutil.Process(child.pid)]))
            try:
                if expected:
                    wait_until(partial(is_asleep, server))
                else:
                    assert settled(partial(is_asleep, server), 0.01) is False
            finally:
                child.kill()


def test_waiting_clients_of_a_listener_are_counted() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        address = Address.parse(f"tcp://127.0.0.1:{listener.getsockname()[1]}")
        assert listens(address)
        assert queued(address) == 0
        with socket.create_connection(listener.getsockname()), socket.create_connection(listener.getsockname()):
            wait_until(lambda: queued(address) == 2)
    assert not listens(address)


# ports


def test_port_that_is_held_refuses() -> None:
    with closed_port() as port:
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection(("127.0.0.1", port), timeout=10)
        with pytest.raises(OSError, match="in use"), socket.create_server(("127.0.0.1", port)):
            pass
        with open_black_hole(port), pytest.raises(TimeoutError):
            socket.create_connection(("127.0.0.2", port), timeout=0.05)


# scripts and containers


def test_script_and_checks_that_fail_are_failures(monkeypatch: pytest.MonkeyPatch) -> None:
    codes = [0]

    def run(command: list[str], **_: object) -> subprocess.CompletedProcess[str]:
        return subprocess.CompletedProcess(command, codes[-1], 'noise\nTOLD {"a": 1}', "why")

    monkeypatch.setattr("subprocess.run", run)
    assert run_script("") == {"a": 1}
    run_checks("tests/x_checks.py")
    # Failed tests, an error of usage, and no test at all.
    for code in (1, 4, 5):
        codes.append(code)
        with pytest.raises(AssertionError, match="TOLD"):
            run_checks("tests/x_checks.py")
        with pytest.raises(AssertionError, match="why"):
            run_script("")


def test_command_in_a_container_has_its_exit_code_and_both_outputs(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[Any] = []

    def run(words: list[str], **options: Any) -> Any:
        asked.append((words, options["stderr"]))
        return SimpleNamespace(returncode=7, stdout=b"said")

    monkeypatch.setattr("subprocess.run", run)
    container: Any = SimpleNamespace(id="0123")
    assert container_commands.execute(container, "ls", "/x", user="root") == (7, b"said")
    assert asked == [(["docker", "exec", "--user=root", "0123", "ls", "/x"], subprocess.STDOUT)]


# http_link and ws_link


class Pieces:
    """A connection that gives these pieces, then its end."""

    def __init__(self, *pieces: bytes) -> None:
        self.pieces = [*pieces]

    def receive(self) -> bytes:
        return self.pieces.pop(0) if self.pieces else b""

    def send(self, data: bytes) -> None:
        pass


def link_to(*pieces: bytes) -> HttpLink:
    connection: Any = Pieces(*pieces)
    return HttpLink(connection)


@pytest.mark.parametrize(
    "reply",
    [
        b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nabc\r\n0\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nab\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\nA: b\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip\r\n\r\n0\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nab",
        b"HTTP/1.1 200 OK\r\nContent-Length : 0\r\n\r\n",
        b"HTTP/2.0 200 OK\r\n\r\n",
        b"HTTP/1.1 200\r\n\r\n",
        b"HTTP/1.1 200 OK\r\n",
    ],
)
def test_reply_that_is_not_http_is_refused(reply: bytes) -> None:
    with pytest.raises(AssertionError):
        link_to(reply).read()


def test_replies_are_read_one_by_one_in_any_pieces() -> None:
    stream = (
        b"HTTP/1.1 200 OK\r\nA: b\r\na: c\r\nContent-Length: 2\r\n\r\nab"
        b"HTTP/1.1 304 Not Modified\r\nContent-Length: 9\r\n\r\n"
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\ncd\r\nA;x=y\r\n0123456789\r\n0\r\n\r\n"
        b"HTTP/1.0 404 Gone\r\n\r\nto the end"
    )
    for pieces in ([stream], [bytes((each,)) for each in stream]):
        link = link_to(*pieces)
        replies = [link.read() for _ in range(4)]
        assert [(each.status, each.body, each.chunks, each.is_last) for each in replies if each] == [
            *((200, b"ab", (), False), (304, b"", (), False)),
            *((200, b"cd0123456789", (2, 10), False), (404, b"to the end", (), True)),
        ]
        assert replies[0]
        assert replies[0].fields == {"a": "b, c", "content-length": "2"}
        assert link.read() is None
        assert link.is_over()


def test_connection_that_is_kept_or_has_data_is_not_over() -> None:
    with connected() as (connection, peer):
        link = HttpLink(connection)
        assert not link.is_over()
        peer.sendall(b"x")
        assert not link.is_over()


def open_websocket(*frames: bytes) -> WsLink:
    connection: Any = Pieces(*frames)
    return WsLink(connection)


END = frame(CLOSE, b"\x03\xe8", key=None)


def test_close_is_read_with_its_code_and_nothing_behind_it() -> None:
    text = frame(TEXT, b"a", key=None)
    assert open_websocket(text, END).read_close() == 1000
    assert open_websocket(frame(CLOSE, key=None)).read_close() == 0
    assert open_websocket(text).read_close() is None
    with pytest.raises(AssertionError, match="behind the close"):
        open_websocket(END, text).read_close()


@pytest.mark.parametrize(
    "wrong",
    [
        frame(TEXT, b"a"),  # masked
        frame(TEXT, b"a" * 125, key=None, size=2),  # longer forms of a length than it takes
        frame(TEXT, b"a" * 65_535, key=None, size=8),
    ],
)
def test_frame_that_a_server_may_not_send_is_refused(wrong: bytes) -> None:
    with pytest.raises(AssertionError):
        open_websocket(wrong).read()


def test_message_is_put_together_of_its_fragments() -> None:
    parts = frame(TEXT, b"a", bits=0, key=None), frame(0, b"b", bits=0, key=None), frame(0, b"c", bits=FIN, key=None)
    assert open_websocket(*parts).read_message() == (TEXT, b"abc")
    with pytest.raises(AssertionError, match="ends within"):
        open_websocket(*parts[:2]).read_message()
    with pytest.raises(AssertionError):
        open_websocket(parts[0], frame(TEXT, b"b", key=None)).read_message()


# hardening


STATUS = {
    "Name": ["python"],
    "Pid": ["1"],
    "Uid": ["1000"] * 4,
    "Gid": ["1000"] * 4,
    "NoNewPrivs": ["1"],
    "Seccomp": ["2"],
    "Files": ["1024", "4096", "files"],
    **{kind: ["0000000000000000"] for kind in ("CapEff", "CapPrm", "CapBnd", "CapAmb")},
}
SERVICE = "thread_pool"
PARTS = {
    "written": [f"sh: {place}: Read-only file system" for place in range(5)],
    "mounts": ["overlay / overlay ro,relatime 0 0", "tmpfs /dev tmpfs rw 0 0"],
    "pids": ["128"],
    "memory": [str(256 * 2**20)],
    "engine": [],
}


def look(
    changes: dict[str, list[str]] | None = None,
    parts: dict[str, list[str]] | None = None,
    mounts: list[dict[str, str]] | None = None,
    ports: dict[str, Any] | None = None,
) -> Inside:
    """Return what is seen in a container in which all is well but for these changes."""
    limits = {"Ulimits": [{"Name": "nofile", "Soft": 1024, "Hard": 4096}]}
    attributes = {"HostConfig": limits, "Mounts": mounts or [], "NetworkSettings": {"Ports": ports or {}}}
    container: Any = SimpleNamespace(attrs=attributes)
    second = STATUS | {"Pid": ["7"]} | (changes or {})
    return Inside(SERVICE, container, [STATUS, second], PARTS | (parts or {}))


def list_failures(inside: Inside) -> list[str]:
    failed = []
    for name in [name for name in vars(HardeningTests) if name.startswith("test_")]:
        try:
            getattr(HardeningTests(), name)(inside)
        except AssertionError:
            failed.append(name)
    return failed


PRIVILEGES, PATHS, LIMITS, ENGINE, PORT = (name for name in vars(HardeningTests) if name.startswith("test_"))


def test_container_that_is_as_declared_passes() -> None:
    service = CATALOGUE.definitions[SERVICE]
    assert (service["mem_limit"], service["pids_limit"]) == ("256m", 128)
    assert list_failures(look()) == []


@pytest.mark.parametrize(
    ("seen", "failed"),
    [
        (look({"Seccomp": ["0"]}), PRIVILEGES),
        (look({"NoNewPrivs": ["0"]}), PRIVILEGES),
        (look({"Uid": ["0"] * 4}), PRIVILEGES),
        (look({"Gid": ["1000", "0", "1000", "1000"]}), PRIVILEGES),
        *[(look({kind: ["0000000000000001"]}), PRIVILEGES) for kind in ("CapEff", "CapPrm", "CapBnd", "CapAmb")],
        (look(parts={"written": PARTS["written"][:4]}), PATHS),
        (look(parts={"written": [*PARTS["written"][:4], "/x was written"]}), PATHS),
        (look(parts={"mounts": ["overlay / overlay rw,relatime 0 0"]}), PATHS),
        (look(parts={"mounts": [*PARTS["mounts"], "tmpfs /srv tmpfs rw 0 0"]}), PATHS),
        (look(parts={"pids": ["max"]}), LIMITS),
        (look(parts={"memory": ["max"]}), LIMITS),
        (look({"Files": ["1024", "1048576", "files"]}), LIMITS),
        (look(parts={"engine": ["/var/run/docker.sock"]}), ENGINE),
        (look(mounts=[{"Type": "bind", "Destination": "/etc/x"}]), ENGINE),
        (look(ports={"6379/tcp": [{"HostPort": "1"}]}), PORT),
    ],
)
def test_container_that_has_more_than_declared_fails(seen: Inside, failed: str) -> None:
    assert list_failures(seen) == [failed]


def test_output_of_a_container_that_ends_early_is_no_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hardening, "execute", lambda *_: (0, b"Name:\tpython\n@written\n"))
    container: Any = None
    with pytest.raises(AssertionError):
        hardening._look(SERVICE, container)


# the hooks of tests/conftest.py

INTERRUPTED = """
import os, pathlib, signal, time
import pytest

@pytest.fixture(autouse=True)
def started():
    yield
    os.kill(os.getpid(), signal.SIGINT)  # as pytest-xdist does after 5 s
    time.sleep(0.01)
    pathlib.Path("down").touch()

def test_is_interrupted():
    os.kill(os.getpid(), signal.SIGINT)
    time.sleep(60)
"""


def test_second_ctrl_c_does_not_end_the_teardown_of_a_worker(tmp_path: Path) -> None:
    path = tmp_path / "test_interrupted.py"
    path.write_text(INTERRUPTED)
    plugins = ["-p", "xdist", "-p", "tests.conftest"]
    command = [sys.executable, "-m", "pytest", *plugins, "--rootdir", str(tmp_path), "--numprocesses", "1", str(path)]
    own = {"PYTHONPATH": str(ROOT), "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1", "PYTEST_ADDOPTS": ""}
    subprocess.run(command, cwd=tmp_path, env={**os.environ, **own}, capture_output=True, timeout=60, check=False)
    assert (tmp_path / "down").exists()
