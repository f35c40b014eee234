"""Labs of processes: start, end, and no leftovers."""

import json
import os
import resource
import signal
import socket
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import nullcontext
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from uuid import uuid4

import psutil
import pytest

from lab.base.errors import LabError, NotReadyError
from lab.base.paths import ROOT
from lab.clients.call import call
from lab.metrics.sample import NoMeter
from lab.servers import processes
from lab.servers.backend import ModelState
from lab.servers.catalogue import Catalogue, Listener
from lab.servers.open import open_backend
from lab.servers.process_helpers import ProcessHelpers
from lab.servers.processes import Processes
from lab.servers.readiness import Outcome
from lab.servers.runtime import find_mark, find_stamps, make_private, runtime_base, runtime_directory
from loadtests.sockets.connection import BlockingConnection
from services.protocol import Address, Limits
from tests.lab.conftest import find_processes
from tests.support.fakes import Clock
from tests.support.processes import is_alive
from tests.support.waiting import wait_until


@pytest.fixture
def backend(process_project: str) -> Iterator[Processes]:
    backend = Processes(process_project, Catalogue.load())
    yield backend
    backend.down()


def address_of(backend: Processes, model: str, service: str = "command", transport: str = "tcp") -> str:
    return next(
        item.address
        for item in backend.targets()
        if (item.model, item.service, item.transport) == (model, service, transport)
    )


def start_up(project: str, *models: str, **environ: str) -> "subprocess.Popen[bytes]":
    command = [sys.executable, "-m", "lab", "--backend", "process", "--project", project, "up", *models]
    silent = subprocess.DEVNULL
    return subprocess.Popen(command, cwd=ROOT, stdout=silent, stderr=silent, env={**os.environ, **environ})


def test_processes_go_up_and_down(backend: Processes) -> None:
    backend.up(["plain_socket", "asyncio_streams"])
    states = {state.model: state.state for state in backend.state()}
    assert {model for model, state in states.items() if state == "running"} == {"plain_socket", "asyncio_streams"}
    assert set(states.values()) == {"running", "missing"}
    assert call("command", address_of(backend, "plain_socket"), ["PING"]).value == b"PONG"
    assert runtime_directory(backend.project).stat().st_mode & 0o777 == 0o700
    pid = backend.pid("plain_socket")
    backend.up(["plain_socket", "socketserver_threading"])
    assert backend.pid("plain_socket") == pid, "what ran already was not left alone"
    backend.down()
    backend.down()
    assert {state.state for state in backend.state()} == {"missing"}


def test_forking_server_leaves_no_children(backend: Processes) -> None:
    backend.up(["socketserver_forking"])
    with BlockingConnection(Address.parse(address_of(backend, "socketserver_forking"))) as link:
        link.send(b"PING\r\n")
        assert link.receive() == b"+PONG\r\n"
        children = psutil.Process(backend.pid("socketserver_forking")).children()
        assert children
        backend.down()
        assert not any(map(is_alive, children))


def test_killed_server_is_noticed_and_restarts_at_its_address(backend: Processes) -> None:
    backend.up(["socketserver_forking"])
    address = address_of(backend, "socketserver_forking")
    backend.faults.kill("socketserver_forking", signal.SIGKILL)
    wait_until(lambda: "exited" in {state.state for state in backend.state()})
    (state,) = (state for state in backend.state() if state.model == "socketserver_forking")
    assert (state.exit_code, state.listeners) == (137, ())
    with pytest.raises(LabError, match="socketserver_forking is not running"):
        backend.pid("socketserver_forking")
    backend.restart("socketserver_forking")
    assert address_of(backend, "socketserver_forking") == address
    assert call("command", address, ["PING"]).value == b"PONG"


def test_stop_lets_requests_in_flight_finish(backend: Processes) -> None:
    models = [model.name for model in backend.catalogue.select()]
    backend.up()
    links = []
    for model in models:
        link = BlockingConnection(Address.parse(address_of(backend, model)), timeout=30)
        # The first answer proves that the server has taken up both.
        link.send(b"PING\r\nSLEEP 300\r\n")
        assert link.receive() == b"+PONG\r\n"
        links.append(link)
    for model, link in zip(models, links, strict=True):
        with link:
            assert backend.stop(model) == 0, backend.logs(model)
            assert (link.receive(), link.receive()) == (b"+OK\r\n", b"")


def test_model_that_does_not_stop_is_killed_and_has_the_code_of_that(
    backend: Processes, monkeypatch: pytest.MonkeyPatch
) -> None:
    backend.up(["plain_socket"])
    monkeypatch.setattr("lab.servers.processes.STOP_SECONDS", 0.05)
    os.kill(backend.pid("plain_socket"), signal.SIGSTOP)  # no SIGTERM reaches it
    assert backend.stop("plain_socket") == 137
    assert not backend.is_running("plain_socket")
    assert backend.stop("plain_socket") == 137  # it has ended already


def test_model_that_was_not_started_can_be_neither_stopped_nor_started_again_nor_read() -> None:
    backend = Processes(f"t{uuid4().hex[:8]}", Catalogue.load())
    for act in (backend.stop, backend.restart, backend.logs):
        with pytest.raises(LabError, match=r"^prefork was not started: `lab up prefork`$"):
            act("prefork")
    assert not backend.is_running("prefork")
    assert backend.targets() == []


def test_labs_are_isolated_from_each_other(process_project: str, backend: Processes) -> None:
    other = Processes(f"{process_project}-other", backend.catalogue)
    try:
        backend.up(["plain_socket"])
        other.up(["plain_socket"])
        mine, theirs = address_of(backend, "plain_socket"), address_of(other, "plain_socket")
        assert mine != theirs
        backend.down()
        assert call("command", theirs, ["PING"]).value == b"PONG"
    finally:
        other.down()


def test_down_finds_the_processes_of_a_killed_lab(process_project: str, backend: Processes) -> None:
    up = start_up(process_project)
    wait_until(lambda: list(runtime_directory(process_project).glob("*.json")))
    up.kill()
    up.wait()
    # Even one that it had no time to write down.
    next(runtime_directory(process_project).glob("*.json")).unlink()
    backend.down()


# In the way of a server, and of nothing else that is Python: it never says where it listens.
HOLD = 'import sys, time\n"services.run" in sys.orig_argv and time.sleep(600)\n'


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("is_new", [True, False], ids=["a new lab", "one more model"])
def test_interrupted_up_takes_down_its_models(
    process_project: str, backend: Processes, tmp_path: Path, number: int, is_new: bool
) -> None:
    """Without a call of `down`. Models that ran before continue."""
    directory = runtime_directory(process_project)
    if not is_new:
        backend.up(["asyncio_streams"])
    before = {process.pid for process in find_processes(process_project)}
    (tmp_path / "sitecustomize.py").write_text(HOLD)
    with start_up(process_project, "plain_socket", PYTHONPATH=str(tmp_path)) as up:
        wait_until(lambda: (directory / "plain_socket.json").exists(), 60)
        assert len(find_processes(process_project)) > len(before)
        up.send_signal(number)
        assert up.wait(60) == 130
    wait_until(lambda: {process.pid for process in find_processes(process_project)} == before)
    assert directory.exists() != is_new
    assert is_new or backend.pid("asyncio_streams") in before


def test_reused_pid_is_left_alone(backend: Processes) -> None:
    """The kernel reuses pids: only the time of creation distinguishes the processes."""
    backend.up(["plain_socket"])
    path = runtime_directory(backend.project) / "plain_socket.json"
    with subprocess.Popen(["sleep", "60"], start_new_session=True) as stranger:
        # A second before is long ago: a pid is not used again at once.
        created = psutil.Process(stranger.pid).create_time() - 1
        path.write_text(f'{{"pid": {stranger.pid}, "created": {created}}}')
        backend.down()
        assert stranger.poll() is None
        stranger.kill()


def test_restarted_model_has_the_limits_with_which_it_was_started(
    backend: Processes, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And none of the shell in which it is restarted."""
    monkeypatch.setenv("LAB_MAX_LINE", "1001")
    monkeypatch.delenv("LAB_MAX_BULK", raising=False)
    backend.up(["plain_socket"])
    monkeypatch.setenv("LAB_MAX_LINE", "2002")
    monkeypatch.setenv("LAB_MAX_BULK", "3003")
    backend.restart("plain_socket")
    info = call("command", address_of(backend, "plain_socket"), ["INFO"], timeout=20).value
    assert isinstance(info, bytes)
    lines = info.decode().splitlines()
    assert "line:1001" in lines
    assert f"bulk:{Limits().bulk}" in lines


def test_restart_waits_for_a_port_that_a_client_has_for_a_moment(backend: Processes) -> None:
    backend.up(["plain_socket"])
    address = address_of(backend, "plain_socket")
    backend.stop("plain_socket")
    client = socket.socket()
    client.bind(("127.0.0.1", Address.parse(address).port))
    release = threading.Timer(1.0, client.close)
    release.start()
    backend.restart("plain_socket")
    release.join()
    assert address_of(backend, "plain_socket") == address


def test_server_that_cannot_start_says_why(backend: Processes, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(processes, "_TAKEN_SECONDS", 0.0)
    backend.up(["plain_socket"])
    port = Address.parse(address_of(backend, "plain_socket")).port
    backend.stop("plain_socket")
    # Meanwhile, other tests may have taken another one of its ports.
    message = r"plain_socket exited with code 2 .*cannot listen on \w+=\w+://127\.0\.0\.1:\d+: Address already in use"
    with socket.create_server(("127.0.0.1", port)), pytest.raises(NotReadyError, match=message):
        backend.restart("plain_socket")


def test_failed_up_leaves_nothing(process_project: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LAB_BACKLOG", "many")
    backend = Processes(process_project, Catalogue.load())
    with pytest.raises(NotReadyError, match="LAB_BACKLOG='many'"):
        backend.up(["plain_socket"])
    assert not runtime_directory(process_project).exists()


def test_directory_writable_by_others_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    # Not tmp_path: that of pytest is too long for a Unix socket.
    with tempfile.TemporaryDirectory(prefix="lab-") as home:
        monkeypatch.setenv("XDG_RUNTIME_DIR", home)
        shared = Path(home) / f"socketlab-{os.getuid()}"
        shared.mkdir()
        shared.chmod(0o777)
        with pytest.raises(LabError, match="is not a private directory"):
            Processes("p", Catalogue.load()).up(["plain_socket"])


@pytest.mark.parametrize("mode", [0o701, 0o704, 0o702, 0o710, 0o740, 0o720])
def test_folder_that_anyone_else_can_use_is_not_private(tmp_path: Path, mode: int) -> None:
    folder = tmp_path / "socketlab"
    make_private(folder)
    assert folder.stat().st_mode & 0o777 == 0o700
    make_private(folder)
    folder.chmod(mode)
    with pytest.raises(LabError, match=r"socketlab is not a private directory of this user: remove it"):
        make_private(folder)


def test_folder_of_another_user_is_not_private(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make_private(tmp_path / "socketlab")
    monkeypatch.setattr(os, "getuid", lambda: 4321)
    with pytest.raises(LabError, match=r"socketlab is not a private directory of this user: remove it"):
        make_private(tmp_path / "socketlab")


@pytest.mark.parametrize(
    ("home", "is_writable", "base"),
    [("/run/user/7", True, "/run/user/7"), ("/run/user/7", False, "/tmp"), ("", True, "/tmp")],  # noqa: S108
)
def test_folder_of_the_projects_is_where_this_user_may_write(
    monkeypatch: pytest.MonkeyPatch, home: str, is_writable: bool, base: str
) -> None:
    """After `su`, the variable may be that of another user, whose folder can be read."""
    monkeypatch.setenv("XDG_RUNTIME_DIR", home)
    monkeypatch.setattr(os, "access", lambda path, mode: mode == os.R_OK or is_writable)
    assert runtime_base() == Path(base) / f"socketlab-{os.getuid()}"


@pytest.mark.parametrize("target", [None, "/", "/nonexistent"])
def test_file_or_link_in_the_place_of_a_private_folder_is_refused(tmp_path: Path, target: str | None) -> None:
    place = tmp_path / "socketlab"
    if target is None:
        place.touch(0o600)
    else:
        place.symlink_to(target)
    with pytest.raises(LabError, match=r"socketlab is not a private directory of this user: remove it"):
        make_private(place)


def test_path_too_long_for_a_unix_socket_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    home = tmp_path / ("x" * 80)
    home.mkdir()
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(home))
    with pytest.raises(LabError, match="too long for a Unix socket"):
        Processes("p", Catalogue.load()).up(["plain_socket"])


def test_longest_path_of_a_unix_socket_has_107_bytes() -> None:
    backend = Processes("p", Catalogue.load())
    rest = len("/m/command.dgram.sock")
    # Bytes and not characters: the first three have two each.
    backend._directory = Path("/üüü" + "x" * (107 - rest - len("/üüü".encode())))
    backend._check_paths(["m"])
    backend._directory = Path(f"{backend._directory}x")
    with pytest.raises(LabError, match=r"too long for a Unix socket \(107 bytes\): use a shorter --project"):
        backend._check_paths(["m"])


def test_what_was_noted_of_a_lab_ends_with_its_processes(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    make_private(runtime_base())
    find_stamps("p").touch()
    Processes("p", Catalogue.load()).down()
    assert not list(tmp_path.iterdir())


def test_folder_that_cannot_be_removed_is_an_error(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    make_private(runtime_base())
    runtime_directory("p").touch()  # a file: no lab has made it
    with pytest.raises(NotADirectoryError):
        Processes("p", Catalogue.load()).down()


def test_process_that_has_ended_and_was_not_collected_is_not_alive() -> None:
    with subprocess.Popen(["true"]) as zombie:
        created = psutil.Process(zombie.pid).create_time()
        wait_until(lambda: psutil.Process(zombie.pid).status() == psutil.STATUS_ZOMBIE)
        assert not processes._is_alive(zombie.pid, created)
    assert processes._is_alive(os.getpid(), psutil.Process().create_time())
    assert not processes._is_alive(os.getpid(), psutil.Process().create_time() - 1)


def test_what_runs_only_in_containers_is_refused_before_anything_starts(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    backend = Processes("p", Catalogue.load())
    for names, said in (
        (["plain_socket", "threads_nogil"], "threads_nogil runs only in a container"),
        (["peer_redis", "threads_nogil"], "threads_nogil, peer_redis run only in a container"),
    ):
        with pytest.raises(LabError, match=f"^{said}: use --backend docker$"):
            backend.up(names)
    servers = backend.catalogue.gallery
    with pytest.raises(LabError, match=r"^the servers of the gallery run only in containers: use --backend docker$"):
        backend.up_gallery(servers)
    assert [(state.model, state.state) for state in backend.gallery()] == [(each.name, "missing") for each in servers]
    assert {state.state for state in backend.state()} == {"missing"}
    assert not list(tmp_path.iterdir())


def test_variables_in_a_file_that_only_compose_reads_are_refused_before_anything_starts(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    home = tmp_path_factory.mktemp("r")  # short, for the paths of sockets
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(home))
    labels = "{lab.model: plain_socket, lab.family: f, lab.summary: s}"
    path = tmp_path / "compose.yaml"
    path.write_text(f"services: {{plain_socket: {{image: x, env_file: a.env, labels: {labels}}}}}\n")
    backend = Processes("p", Catalogue.load(path))
    try:
        with pytest.raises(LabError, match=r"compose\.yaml:1: env_file of plain_socket is read only for containers"):
            backend.up(["plain_socket"])
        assert not list(home.iterdir())
    finally:
        backend.down()


def test_model_that_cannot_be_pinned_or_metered_says_why(monkeypatch: pytest.MonkeyPatch) -> None:
    backend = Processes("p", Catalogue.load())
    said = "prefork is not running: `lab up prefork`"
    meter = backend.meter("prefork")
    assert isinstance(meter, NoMeter)
    assert meter.reason == said
    with pytest.raises(LabError, match=f"^{said}$"):
        backend.pin("prefork", [0])
    monkeypatch.setattr(backend, "pid", lambda model: os.getpid())
    message = r"^prefork cannot be pinned to cores 4000,4001: \[Errno 22\] Invalid argument$"
    with pytest.raises(LabError, match=message):
        backend.pin("prefork", [4000, 4001])


@pytest.mark.parametrize("data", [b"", b"{", b"[]", b'{"pid": 1}', b'{"pid": "x", "created": 1}', b"\xff"])
def test_model_with_a_damaged_record_does_not_run(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, data: bytes) -> None:
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    backend = Processes("p", Catalogue.load())
    backend._directory.mkdir(parents=True)
    backend._path("prefork", "json").write_bytes(data)
    # What a model logs may be no text.
    backend._path("prefork", "log").write_bytes(b"one\xff\n")
    assert not backend.is_running("prefork")
    assert backend.targets() == []
    ended = ModelState("prefork", "process", "process", "exited", last_lines=("one\N{REPLACEMENT CHARACTER}",))
    assert backend._state_of("prefork") == ended


def test_model_has_ended_once_its_exit_code_is_written(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """The shell that has written it may live for a moment; what it wrote before is a part of the state."""
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    backend = Processes("p", Catalogue.load())
    backend._directory.mkdir(parents=True)
    record = {"pid": os.getpid(), "created": psutil.Process().create_time()}
    backend._path("prefork", "json").write_text(json.dumps(record))
    backend._path("prefork", "log").write_text("one\n\ntwo\n")
    listener = {"service": "echo", "transport": "tcp", "address": "tcp://127.0.0.1:7"}
    # After its first line, a model may write anything.
    header = json.dumps({"pid": 7, "listeners": [listener]}).encode()
    backend._path("prefork", "out").write_bytes(header + b"\n\xff\n")
    assert backend.is_running("prefork")
    assert backend.pid("prefork") == 7
    found = [Listener("prefork", "echo", "tcp", "tcp://127.0.0.1:7")]
    assert backend.targets() == found
    assert backend._state_of("prefork") == ModelState("prefork", "process", "process", "running", None, tuple(found))
    backend._path("prefork", "exit").write_text("3\n")
    assert not backend.is_running("prefork")
    assert backend.targets() == []
    ended = ModelState("prefork", "process", "process", "exited", 3, last_lines=("one", "two"))
    assert backend._state_of("prefork") == ended
    # Half of a code is none.
    backend._path("prefork", "exit").write_text("")
    assert backend._state_of("prefork").exit_code is None


def test_process_of_a_lab_that_is_down_is_no_zombie(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    backend = Processes("p", Catalogue.load())
    child = subprocess.Popen(["/bin/sleep", "60"], env={"LAB_RUNTIME": str(backend._directory)})
    backend._children["prefork"] = child
    backend.down()
    assert child.returncode == -signal.SIGKILL
    assert backend._children == {}


class Restarting(Processes):
    """Starts nothing; each wait for an answer takes ten seconds and fails as it is told."""

    def __init__(self, clock: Clock, *errors: str) -> None:
        super().__init__("p", Catalogue.load())
        self.clock, self.errors = clock, list(errors)
        self.spawned: list[tuple[str, Sequence[str], Mapping[str, str]]] = []
        self.waited: list[tuple[Sequence[str], float, float]] = []
        self.ended: list[str] = []

    def _spawn(self, model: str, listens: Sequence[str], settings: Mapping[str, str]) -> None:
        self.spawned.append((model, listens, settings))

    def _end(self, model: str) -> None:
        self.ended.append(model)

    def _wait(self, models: Sequence[str], deadline: float, timeout: float) -> None:
        self.waited.append((models, deadline - self.clock.now, timeout))
        self.clock.now += 2.0
        if self.errors:
            raise NotReadyError(self.errors.pop(0))


def test_up_starts_a_running_model_again_only_with_other_settings(
    monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory
) -> None:
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path_factory.mktemp("r")))  # short, for the paths of sockets
    backend = Restarting(Clock())
    monkeypatch.setattr(backend, "is_running", lambda model: model == "prefork")
    backend.up(["prefork", "plain_socket"])
    for model, _, settings in backend.spawned:
        backend._path(model, "json").write_text(json.dumps({"pid": 1, "created": 0, "settings": settings}))
    backend.up(["prefork", "plain_socket"])
    monkeypatch.setenv("LAB_MAX_LINE", "77")
    backend.up(["prefork"])
    assert [model for model, _, _ in backend.spawned] == ["plain_socket", "prefork", "plain_socket", "prefork"]
    assert backend.spawned[-1][2]["LAB_MAX_LINE"] == "77"
    # What is started again is ended first: it may still run, or its port be taken by a child.
    assert backend.ended == [model for model, _, _ in backend.spawned]


def test_failed_up_ends_only_what_it_has_started(
    monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory
) -> None:
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path_factory.mktemp("r")))
    backend = Restarting(Clock(), "", "it hangs")
    with pytest.raises(NotReadyError):  # the first of a project is taken down as a whole
        backend.up(["prefork"])
    assert not backend._directory.exists()
    make_private(runtime_base())
    make_private(backend._directory)
    settings = backend._choose_settings(mutual_tls=False)
    backend._path("prefork", "json").write_text(json.dumps({"pid": 1, "created": 0, "settings": settings}))
    monkeypatch.setattr(backend, "is_running", lambda model: model == "prefork")
    backend.ended.clear()
    with pytest.raises(NotReadyError, match="it hangs"):
        backend.up(["prefork", "plain_socket"])
    assert backend.ended == ["plain_socket", "plain_socket"]  # before its start, and after its failure
    assert backend._directory.exists()


def test_server_gets_its_variables_from_three_places(
    monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """From compose.yaml, from the user's shell, and with the settings of its start, each above the one before."""
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path_factory.mktemp("r")))
    started: list[tuple[Sequence[str], Mapping[str, Any]]] = []

    def open_noted(command: Sequence[str], **options: Any) -> SimpleNamespace:
        started.append((command, options))
        return SimpleNamespace(pid=os.getpid(), wait=lambda: None)

    monkeypatch.setattr(processes, "subprocess", SimpleNamespace(Popen=open_noted, DEVNULL=subprocess.DEVNULL))
    backend = Processes("p", Catalogue.load())
    backend._directory.mkdir(parents=True)
    catalogued = backend.catalogue.environ("thread_pool")
    assert catalogued["MALLOC_ARENA_MAX"] == "1"
    for name in ("MALLOC_ARENA_MAX", "LAB_MAX_BULK"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("LAB_MAX_LINE", "7")
    monkeypatch.setenv("LAB_TLS_CLIENT_CA", "of the shell")
    settings = {"LAB_MAX_LINE": "9", "LAB_TLS_CLIENT_CA": ""}
    backend._spawn("thread_pool", ["echo=tcp://127.0.0.1:7", "all=udp://127.0.0.1:0"], settings)
    monkeypatch.setenv("MALLOC_ARENA_MAX", "4")
    monkeypatch.setenv("LAB_MAX_BULK", "8")
    backend._spawn("thread_pool", [], {})
    (first, options), (_, again) = started
    assert first[3:] == [
        str(backend._directory / "thread_pool.exit"),
        *(sys.executable, "-m", "services.run", "--model", "thread_pool"),
        *("--listen", "echo=tcp://127.0.0.1:7", "--listen", "all=udp://127.0.0.1:0"),
    ]
    # The terminal is not a server's, and neither are its signals.
    assert (options["stdin"], options["start_new_session"], options["cwd"]) == (subprocess.DEVNULL, True, ROOT)
    environ = options["env"]
    assert {name: environ[name] for name in settings} == settings
    assert (environ["MALLOC_ARENA_MAX"], again["env"]["MALLOC_ARENA_MAX"]) == ("1", "4")
    # A limit is a setting of the start alone.
    assert not {"LAB_MAX_LINE", "LAB_MAX_BULK"} & set(again["env"])
    assert environ["LAB_RUNTIME"] == str(backend._directory)
    assert environ["LAB_TLS_CERT"].endswith("/server.pem")
    assert environ["PYTHONUNBUFFERED"] == "1"
    record = json.loads(backend._path("thread_pool", "json").read_text())
    assert (record["pid"], record["settings"]) == (os.getpid(), {})
    assert record["created"] == psutil.Process().create_time()


@pytest.mark.parametrize(
    ("lines", "why"), [(("a warning", "no such address"), "no such address"), ((), "its log is empty")]
)
def test_server_that_exits_is_said_with_its_code_and_its_last_line(
    monkeypatch: pytest.MonkeyPatch, lines: tuple[str, ...], why: str
) -> None:
    backend = Processes("p", Catalogue.load())
    monkeypatch.setattr(
        backend, "_state_of", lambda model: ModelState(model, "thread", "process", "exited", 2, last_lines=lines)
    )
    error = backend._not_ready("prefork", 3.0, "refused")
    assert str(error) == f"prefork exited with code 2 instead of answering: {why}"


def test_only_folders_are_projects(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """What is noted of a lab of containers is a file beside them."""
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    assert processes.find_projects() == []
    for project in ("b", "a"):
        runtime_directory(project).mkdir(parents=True)
    find_mark("c").touch()
    find_stamps("a").touch()
    assert processes.find_projects() == ["a", "b"]
    assert not find_mark("a").exists()
    assert not find_stamps("c").exists()
    # No name of a project has a dot.
    assert {path.name for path in runtime_base().iterdir()} == {"a", "b", "a.faults", "c.docker"}


def supervise(folder: Path, script: str, **environ: str) -> "subprocess.Popen[bytes]":
    """Run a script as a server is run; its output is in the file `out`."""
    with (folder / "out").open("wb") as out:
        command = ["/bin/sh", "-c", processes._SUPERVISE, str(folder / "exit"), "/bin/sh", "-c", script]
        return subprocess.Popen(command, stdout=out, env=environ, start_new_session=True)


def test_server_that_ends_leaves_its_code_and_no_child(tmp_path: Path) -> None:
    with supervise(tmp_path, "/bin/sleep 60 & echo $!; exit 3") as shell:
        assert shell.wait(60) == -signal.SIGKILL  # with all of its session
    assert (tmp_path / "exit").read_text() == "3\n"
    child = int((tmp_path / "out").read_text())
    wait_until(lambda: not psutil.pid_exists(child) or not is_alive(psutil.Process(child)))


def test_signal_to_the_session_ends_the_server_and_not_what_writes_its_code(tmp_path: Path) -> None:
    with supervise(tmp_path, "trap 'exit 5' TERM; echo ready; while :; do /bin/sleep 0.01; done") as shell:
        wait_until(lambda: (tmp_path / "out").read_text())
        os.killpg(shell.pid, signal.SIGTERM)
        shell.wait(60)
    assert (tmp_path / "exit").read_text() == "5\n"


def test_server_gets_as_many_descriptors_as_in_a_container(tmp_path: Path) -> None:
    """Or as many as there can be; and its hard limit stays."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    limit = hard if hard != resource.RLIM_INFINITY else 2**30
    for environ, wanted in (({}, 16384), ({"LAB_NOFILE": "100"}, 100), ({"LAB_NOFILE": "99999999999"}, limit)):
        with supervise(tmp_path, "ulimit -Sn; ulimit -Hn", **environ) as shell:
            shell.wait(60)
        soft, highest = (tmp_path / "out").read_text().split()
        assert int(soft) == min(wanted, limit)
        assert highest == (str(hard) if hard != resource.RLIM_INFINITY else "unlimited")


TAKEN = "cannot listen on echo=tcp://127.0.0.1:7: Address already in use"


@pytest.mark.parametrize(
    ("errors", "timeout", "starts", "fails"),
    [
        ([], 20.0, 1, False),
        ([TAKEN, TAKEN], 20.0, 3, False),
        # Five seconds, or the whole timeout if it is shorter.
        ([TAKEN] * 9, 20.0, 3, True),
        ([TAKEN] * 9, 3.0, 2, True),
        # Whatever else is wrong does not pass.
        (["it hangs"], 20.0, 1, True),
    ],
)
def test_restart_tries_again_only_while_its_port_is_taken(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, errors: list[str], timeout: float, starts: int, fails: bool
) -> None:
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    clock = Clock()
    monkeypatch.setattr(processes, "time", clock)
    backend = Restarting(clock, *errors)
    backend._directory.mkdir(parents=True)
    backend._path("plain_socket", "json").write_text('{"pid": 1, "created": 0, "settings": {"LAB_MAX_LINE": "9"}}')
    with pytest.raises(NotReadyError) if fails else nullcontext():
        backend.restart("plain_socket", timeout=timeout)
    assert len(backend.spawned) == starts
    assert {(model, settings["LAB_MAX_LINE"]) for model, _, settings in backend.spawned} == {("plain_socket", "9")}
    assert backend.spawned[0][1] == backend._default_listens("plain_socket")  # it had not said where it listens
    # The timeout is that of all attempts together.
    assert [(round(left, 1), whole) for _, left, whole in backend.waited] == [
        (timeout - 2.0 * number, timeout) for number in range(starts)
    ]


def test_model_starts_again_at_the_addresses_that_it_had(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Clients that are up know no others."""
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    monkeypatch.setattr(processes, "time", clock := Clock())
    backend = Restarting(clock)
    backend._directory.mkdir(parents=True)
    backend._path("plain_socket", "json").write_text('{"pid": 1, "created": 0}')
    listeners = [
        {"service": "echo", "transport": "tcp", "address": "tcp://127.0.0.1:41"},
        {"service": "echo", "transport": "udp", "address": "udp://127.0.0.1:42"},
    ]
    backend._path("plain_socket", "out").write_text(f"{json.dumps({'pid': 7, 'listeners': listeners})}\n")
    backend.restart("plain_socket")
    assert backend.spawned == [("plain_socket", ["echo=tcp://127.0.0.1:41", "echo=udp://127.0.0.1:42"], {})]
    assert backend.ended == ["plain_socket"]


class Silent(Processes):
    """A lab whose models run, and say after a while where they listen."""

    def __init__(self, clock: Clock, says_at: float) -> None:
        super().__init__("p", Catalogue.load())
        self.clock, self.says_at = clock, says_at

    def is_running(self, model: str) -> bool:
        return True

    def _read_header(self, model: str) -> dict[str, Any] | None:
        listener = {"service": "command", "transport": "tcp", "address": "tcp://127.0.0.1:7"}
        return {"listeners": [listener]} if self.clock.now >= self.says_at else None

    def _state_of(self, model: str) -> ModelState:
        return ModelState(model, "thread", "process", "running")

    def logs(self, model: str) -> str:
        return "its last line\n"


def test_model_that_does_not_say_where_it_listens_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = Clock()
    monkeypatch.setattr(processes, "time", clock)
    with pytest.raises(NotReadyError, match=r"^prefork runs, but gave no answer within 3 s \(it did not say where"):
        Silent(clock, 1e9).wait_ready("prefork", timeout=3.0)
    assert 103.0 <= clock.now < 103.1


@pytest.mark.parametrize("ready", [True, False])
def test_model_that_listens_has_the_rest_of_the_time_to_answer(monkeypatch: pytest.MonkeyPatch, ready: bool) -> None:
    clock = Clock()
    asked: list[tuple[list[tuple[str, str, str]], float]] = []

    def wait(targets: list[tuple[str, str, str]], timeout: float) -> list[Outcome]:
        asked.append((targets, round(timeout, 1)))
        return [Outcome("prefork", ready, 0.1, None if ready else "refused")]

    monkeypatch.setattr(processes, "time", clock)
    monkeypatch.setattr(processes, "wait_ready", wait)
    said = r"^prefork runs, but gave no answer within 3 s \(refused\); its log ends with:\n  its last line$"
    with nullcontext() if ready else pytest.raises(NotReadyError, match=said):
        Silent(clock, 101.0).wait_ready("prefork", timeout=3.0)
    assert asked == [([("prefork", "command", "tcp://127.0.0.1:7")], 2.0)]


def test_wait_for_a_model_has_its_timeout(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = Clock()
    monkeypatch.setattr(processes, "time", clock)
    backend = Restarting(clock)
    backend.wait_ready("prefork", timeout=7.5)
    assert backend.waited == [(["prefork"], 7.5, 7.5)]


def test_run_and_run_service(backend: Processes) -> None:
    done = backend.helpers.run(
        ["python", "-c", "import os; print(os.environ['A'], input())"], environ={"A": "b"}, capture=True, stdin="c"
    )
    assert (done.returncode, done.stdout) == (0, "b c\n")
    assert backend.helpers.run(["sh", "-c", "exit 7"]).returncode == 7
    with pytest.raises(LabError, match="no such command"):
        backend.helpers.run(["nonesuch-command"])
    with pytest.raises(LabError, match="took longer than"):
        backend.helpers.run(["sleep", "60"], timeout=0.1)
    assert "pytest" in backend.helpers.run_service("tests", ["--version"], capture=True).stdout
    told = backend.helpers.run_service("tests", ["--version"], environ={"PYTHONVERBOSE": "1"}, capture=True)
    assert told.stderr.startswith("import ")


def test_variables_of_a_helper_override_those_of_the_lab(backend: Processes, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LAB_ODD", "of the lab")
    own = "LAB_RUNTIME", str(runtime_directory(backend.project))
    helpers = backend.helpers
    assert isinstance(helpers, ProcessHelpers)
    for more, odd in (({}, "of the lab"), ({"LAB_ODD": "its own", "LAB_RUNTIME": "/elsewhere"}, "its own")):
        found = helpers.environ(more)
        assert found["LAB_ODD"] == odd
        assert own in found.items()  # by which `down` finds it


def test_open_backend_finds_the_running_lab(backend: Processes, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("LAB_BACKEND", raising=False)
    backend.up(["plain_socket"])
    assert open_backend(None, backend.project).name == "process"
    for wrong in ("Upper", "-x", "", "a" * 41, "a/b"):
        if wrong:
            with pytest.raises(LabError, match="not a valid project name"):
                open_backend("process", wrong)
    with pytest.raises(LabError, match="unknown backend 'podman'"):
        open_backend("podman", f"t{uuid4().hex[:8]}")
