"""Real servers, faulty servers, and a backend of one child process.

Locust patches the process that imports it, so it runs as a child process here too.
"""

import http.cookiejar
import json
import os
import socket
import subprocess
import sys
import threading
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, suppress
from dataclasses import replace
from functools import partial
from pathlib import Path
from types import MappingProxyType
from typing import Any
from uuid import uuid4

import pytest

from lab.load.generator import PersistentGenerator
from lab.load.measurement import Measurement
from lab.metrics.process import open_process_meter
from lab.metrics.sample import Meter
from lab.metrics.server_use import ServerUse
from lab.metrics.verdict import CoreUse, Limit, Verdict, find_limit
from lab.servers.affinity import pin_process
from lab.servers.backend import Completed, Helpers
from lab.servers.catalogue import Catalogue, Listener
from lab.servers.process_helpers import find_port
from lab.servers.processes import Processes
from loadtests.contract import LoadResult
from loadtests.sockets.histogram import Histogram
from tests.support.fakes import UnusedBackend
from tests.support.made_up import MEASUREMENT, vary
from tests.support.servers import Server
from tests.support.waiting import wait_until

# The services of a made-up server: the lab's, and that of a codec.
SERVICES = ("command", "echo", "discard", "chargen", "http", "custom")
ROOT = Path(__file__).resolve().parents[2]


class LocustHelpers(UnusedBackend):
    """Helpers that run Locust alone."""

    def run_service(
        self,
        service: str,
        arguments: Sequence[str] = (),
        *,
        environ: Mapping[str, str] | None = None,
        timeout: float | None = None,
        **_: Any,
    ) -> subprocess.CompletedProcess[str]:
        assert service == "locust"
        return _run_locust(arguments, environ or {}, timeout=timeout)


class ModelProcess(Server):
    """A running model, as `lab.load.measure.measure` and `pin_servers` use it."""

    name = "process"
    in_containers = False
    helpers: Helpers = LocustHelpers()

    def __init__(self, model: str, directory: Path) -> None:
        self.model = model
        self.project = f"t{uuid4().hex[:8]}"
        super().__init__(model, directory, {})

    def targets(self) -> list[Listener]:
        found = self.description["listeners"]
        return [Listener(self.model, item["service"], item["transport"], item["address"]) for item in found]

    def url(self, service: str, transport: str) -> str:
        return next(item.address for item in self.targets() if (item.service, item.transport) == (service, transport))

    def meter(self, model: str) -> Meter:
        return open_process_meter(self.process.pid)

    def pin(self, model: str, cores: Sequence[int]) -> None:
        pin_process(self.process.pid, cores)

    def close(self) -> None:
        self.terminate()
        try:
            self.process.wait(60)
        finally:
            self.__exit__()


def _run_locust(
    arguments: Sequence[str], environ: Mapping[str, str], *, timeout: float | None = 60
) -> subprocess.CompletedProcess[str]:
    """Run Locust with the lab's locustfile as a child process."""
    return subprocess.run(
        [sys.executable, "-m", "locust", "-f", "loadtests/locustfile.py", *arguments],
        cwd=ROOT,
        env={**os.environ, **environ},
        capture_output=True,
        text=True,
        timeout=timeout,
        check=False,
    )


@pytest.fixture(scope="session")
def backend() -> Iterator[Processes]:
    """A lab of one model, `asyncio_streams`, as a process. A test that stops it starts it again."""
    backend = Processes(f"t{uuid4().hex[:8]}", Catalogue.load())
    try:
        backend.up(["asyncio_streams"], timeout=60)
        yield backend
    finally:
        backend.down()


@pytest.fixture
def open_model(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[[str], ModelProcess]]:
    """Start models; they end with the test."""
    running: list[ModelProcess] = []

    def start(model: str) -> ModelProcess:
        running.append(ModelProcess(model, tmp_path_factory.mktemp("s")))
        return running[-1]

    yield start
    for process in running:
        process.close()


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ModelProcess]:
    """A running `asyncio_streams` for all tests that only load it."""
    process = ModelProcess("asyncio_streams", tmp_path_factory.mktemp("s"))
    yield process
    process.close()


Behaviour = Callable[[socket.socket], None]


@contextmanager
def _open_server(behaviour: Behaviour) -> Iterator[tuple[str, int]]:
    """A TCP server of one thread that treats each connection with `behaviour`, then closes it."""
    listener = socket.create_server(("127.0.0.1", 0))

    def serve() -> None:
        while True:
            try:
                connection, _ = listener.accept()
            except OSError:
                return
            with connection:
                connection.settimeout(10)
                try:
                    behaviour(connection)
                except OSError:
                    continue  # the client closed first

    thread = threading.Thread(target=serve)
    thread.start()
    try:
        yield listener.getsockname()
    finally:
        listener.shutdown(socket.SHUT_RDWR)
        listener.close()
        thread.join(15)


def _answer_pings(connection: socket.socket) -> None:
    # It takes a moment, so that a user leaves the cores to what is tested.
    busy = threading.Event()
    while connection.recv(100):
        busy.wait(0.002)
        connection.sendall(b"+PONG\r\n")


def _encode_targets(urls: Mapping[str, str]) -> str:
    """Return LAB_TARGETS for servers that serve every service at one URL each."""
    return json.dumps(
        [
            {
                "model": model,
                "listeners": [{"service": name, "address": url} for name in SERVICES],
            }
            for model, url in urls.items()
        ]
    )


def run_load(
    generator: PersistentGenerator,
    urls: Mapping[str, str],
    *arguments: str,
    users: int = 1,
    seconds: float = 1.0,
    environ: Mapping[str, str] = MappingProxyType({}),
) -> dict[str, LoadResult]:
    """Load servers at the same time; return the result of each, by URL."""
    command = ["--headless", "--only-summary", "--loglevel", "ERROR", "--spawn-rate", "1000"]
    command += ["--users", str(users * len(urls)), "--window", str(seconds), "--warm-up", "0", *arguments]
    done = generator.run(command, environ={"LAB_TARGETS": _encode_targets(urls), **environ}, timeout=60 + seconds)
    assert done.returncode == 0, done.stdout
    return {item.model: item for item in LoadResult.find_all(done.stdout)}


class Page:
    """A client of Locust's web UI that keeps its cookies."""

    def __init__(self, port, base_path=""):
        self.url = f"http://127.0.0.1:{port}{base_path}"
        self._opener = urllib.request.build_opener(urllib.request.HTTPCookieProcessor(http.cookiejar.CookieJar()))

    def get(self, path):
        with self._opener.open(self.url + path, timeout=30) as reply:
            return reply.geturl(), reply.read().decode()

    def post(self, path, headers=None, **fields):
        return self._send(path, headers, fields)[0]

    def swarm(self, **fields):
        """Send the form that starts or edits a run, and return the answer."""
        return json.loads(self._send("/swarm", None, fields)[1])

    def _send(self, path, headers, fields):
        form = urllib.parse.urlencode(fields, doseq=True).encode()
        request = urllib.request.Request(self.url + path, form, headers or {})  # noqa: S310 - http, see above
        with self._opener.open(request, timeout=30) as reply:
            return reply.geturl(), reply.read()

    def statistics(self):
        return json.loads(self.get("/stats/requests")[1])

    def table(self, key):
        return next(item["data"] for item in self.statistics()["extended_stats"] if item["key"] == key)


@contextmanager
def _open_ui(
    url: str,
    *arguments: str,
    workers: int = 0,
    base_path: str = "",
    is_public: bool = True,
    environ: Mapping[str, str] = MappingProxyType({}),
) -> Iterator[Page]:
    """Run Locust's web UI with the lab's locustfile for a server at `url`; yield when it answers."""
    port, master_port = find_port(), find_port()
    command = [sys.executable, "-m", "locust", "-f", "loadtests/locustfile.py", "--loglevel", "ERROR"]
    leading = ["--master", "--master-bind-host", "127.0.0.1", "--master-bind-port", str(master_port)]
    joining = ["--worker", "--master-host", "127.0.0.1", "--master-port", str(master_port)]
    environ = {**os.environ, "LAB_TARGETS": _encode_targets({"it": url}), **environ}
    started: list[subprocess.Popen[bytes]] = []

    def start(*more: str) -> subprocess.Popen[bytes]:
        started.append(subprocess.Popen([*command, *more], cwd=ROOT, env=environ, stdin=subprocess.DEVNULL))
        return started[-1]

    main = start("--web-host", "127.0.0.1", "--web-port", str(port), *(leading if workers else ()), *arguments)
    page = Page(port, base_path)

    def is_up() -> bool:
        assert main.poll() is None, "the web UI ended"
        with suppress(urllib.error.URLError):
            if not is_public:
                return bool(page.get("/login"))
            return len(page.statistics().get("workers", ())) == workers
        return False

    try:
        for _ in range(workers):
            start(*joining)
        wait_until(is_up)
        yield page
    finally:
        for process in started:
            process.terminate()
        for process in started:
            process.wait(60)


_PLAIN = vary(
    MEASUREMENT,
    seconds=2.0,
    answered=20_000,
    histogram=((100.0, 9_900), (1_500.7, 9_800), (52_300.7, 300)),
    mean_us=1_600.0,
    max_us=52_311.0,
    server_cpu_us=45.2,
    server_cores=0.452,
    versions={"locust": "2"},
    verdict=Verdict(Limit.WAITING, "neither side was busy"),
)

# 20,000 exchanges of 1.6 ms in 2 s, by 16 users: neither side is busy.
_BALANCED = LoadResult(
    "m", "tcp", 16.0, 1, 2.0, 20_000, {}, Histogram(), generator_cores=0.5, machine_cores=1.0, cores=2
)


def _judge(
    *, mean_seconds: float | None = 0.0016, rests: bool = False, own: CoreUse | None = None, **changes: Any
) -> Verdict:
    """Return the verdict on a balanced load with some figures changed; those of the server begin with `server_`."""
    used = {name.removeprefix("server_"): changes.pop(name) for name in [*changes] if name.startswith("server_")}
    times = [] if mean_seconds is None else [mean_seconds]
    service = Histogram()
    service.record(times * 20_000)
    load = replace(_BALANCED, service=service, **changes)
    return find_limit(load, ServerUse(**{"cores": 0.5, "allotted": 1} | used), rests=rests, own=own)


# pytest's importlib mode has no `import conftest`: what tests call comes as fixtures.


@pytest.fixture(scope="session")
def generator() -> Iterator[PersistentGenerator]:
    """A generator in which each load is a process of its own, which has not to import Locust."""
    with PersistentGenerator(Processes(f"t{uuid4().hex[:8]}", Catalogue.load()).helpers) as generator:
        yield generator


@pytest.fixture(scope="session")
def run_locust(generator: PersistentGenerator) -> Callable[[Sequence[str], Mapping[str, str]], Completed]:
    """Run Locust with the lab's locustfile to its end; `stdout` has all of its output."""
    return lambda arguments, environ: generator.run(arguments, environ=environ, timeout=60)


@pytest.fixture(scope="session")
def open_server() -> Callable[[Behaviour], AbstractContextManager[tuple[str, int]]]:
    return _open_server


@pytest.fixture
def url() -> Iterator[str]:
    """A server that serves one connection at a time and answers each PING correctly."""
    with _open_server(_answer_pings) as (host, port):
        yield f"tcp://{host}:{port}"


@pytest.fixture(scope="session")
def open_page() -> type[Page]:
    return Page


@pytest.fixture(scope="session")
def open_ui() -> Callable[..., AbstractContextManager[Page]]:
    return _open_ui


@pytest.fixture(scope="session")
def encode_targets() -> Callable[[Mapping[str, str]], str]:
    return _encode_targets


@pytest.fixture(scope="session")
def load(generator: PersistentGenerator) -> Callable[..., dict[str, LoadResult]]:
    """Load servers with a persistent generator: each load is a separate process."""
    return partial(run_load, generator)


@pytest.fixture(scope="session")
def make_measurement() -> Callable[..., Measurement]:
    """Make a measurement with default values except for the given fields."""
    return lambda **changes: vary(_PLAIN, **changes)


@pytest.fixture(scope="session")
def judge() -> Callable[..., Verdict]:
    """Judge a load in which neither side is busy, except for the given figures."""
    return _judge
