"""The gallery on a real engine: its suite, inside its network; privileges and limits by the kernel; failures."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from subprocess import CompletedProcess
from typing import Any
from urllib.parse import urlencode
from urllib.request import urlopen
from uuid import uuid4

import docker
import pytest

from lab.base.paths import ROOT
from lab.experiments.conformance.suite import PLUGIN, read_report
from lab.servers.catalogue import Catalogue
from lab.servers.docker.containers import Containers
from lab.servers.process_helpers import find_port
from lab.tour import registry
from tests.lab.conftest import copy_catalogue
from tests.support.hardening import HardeningTests, Inside, look_inside
from tests.support.waiting import wait_until

# A separate group: with xdist, the models' labs run meanwhile in another worker.
# The time: at first there may be ten images to build, which takes a minute on two cores that have nothing else to do.
pytestmark = [pytest.mark.docker, pytest.mark.xdist_group("gallery"), pytest.mark.timeout(600)]

CATALOGUE = Catalogue.load()
SERVERS = [server.name for server in CATALOGUE.gallery]
# Some of the tour's exhibits talk to these.
MODELS = sorted({name for exhibit in registry.load() for name in exhibit.servers} - set(SERVERS))

Find = Callable[[str], list[str]]
Lab = Callable[..., "CompletedProcess[str]"]


@pytest.fixture(scope="module")
def backend(find_of_project: Find) -> Iterator[Containers]:
    """The gallery, running; shared by the tests that do not change it."""
    backend = Containers(f"t{uuid4().hex[:8]}", CATALOGUE)
    try:
        backend.up_gallery(CATALOGUE.gallery, timeout=60)
        yield backend
    finally:
        backend.down()
        assert not find_of_project(backend.project)


# 40 s on two busy cores; and images may have to be built first.
@pytest.mark.timeout(600)
def test_gallery_suite_passes_inside_the_network(backend: Containers) -> None:
    """tests/gallery in one run: pytest in a container of the network, with results by the lab's plugin."""
    arguments = ["tests/gallery", *PLUGIN, "--numprocesses", "2", "--dist", "loadgroup", "--network"]
    backend.up(MODELS, timeout=60)
    try:
        report = read_report(backend.helpers.run_service("tests", arguments, capture=True, timeout=400), [])
    finally:
        for model in MODELS:
            backend.stop(model)
    assert report.holds, "\n".join(f"{item.name}\n{item.detail}" for item in report.failures)
    assert not [item for item in report.findings if item.outcome == "skipped"]
    assert all(state.state == "running" for state in backend.gallery())


def test_third_party_clients_succeed(backend: Containers) -> None:
    """curl, lftp, swaks, telnet and INN's own, from Debian."""
    script = (ROOT / "tests" / "gallery" / "clients.sh").read_text()
    done = backend.helpers.run_service("clients", ["sh", "-c", script], capture=True, timeout=170)
    assert done.returncode == 0, done.stdout
    assert done.stdout.count("ok ") == script.count("\ntry ")


def test_gallery_works_under_moderate_load(backend: Containers, lab_here: Lab) -> None:
    """A user of each kind and two more: each step runs, and each reply is correct."""
    options = ["--backend", "docker", "--project", backend.project]
    done = lab_here(*options, "load-gallery", "--json", "--users", "8", "--duration", "12s")
    rows = json.loads(done.stdout)
    assert not [row for row in rows if row["failures"]], done.stderr
    assert done.returncode == 0
    assert {row["protocol"] for row in rows} == {"FTP", "HTTP", "NNTP", "XML-RPC", "mail"}
    assert all(row["taken"] > 0 and row["p99_ms"] >= row["p50_ms"] > 0 for row in rows)
    assert {"GET /lines.txt, kept", "GET /lines.txt, new", "IMAP fetch", "upload"} <= {row["step"] for row in rows}


def test_web_ui_has_users_of_the_gallery_and_of_the_models(backend: Containers) -> None:
    """Two kinds of users are chosen and started: both make steps, and Ctrl-C ends everything."""
    port = find_port()
    backend.up(["asyncio_streams"], timeout=60)

    def ask(path: str, **form: Any) -> str:
        data = urlencode(form, doseq=True).encode() if form else None
        with urlopen(f"http://127.0.0.1:{port}{path}", data, timeout=10) as response:
            return str(response.read().decode())

    def front_page() -> str:
        with suppress(OSError):  # it is not there yet
            return ask("/")
        return ""

    command = [sys.executable, "-m", "lab", "--backend", "docker", "--project", backend.project, "load-gallery"]
    environ = {**os.environ, "LAB_UI_PORT": str(port)}
    with subprocess.Popen(command, cwd=ROOT, env=environ, stdout=subprocess.DEVNULL) as ui:
        try:
            page = wait_until(front_page)
            assert all(f'"{name}"' in page for name in ("FtpUser", "NewsUser", "LabUser"))
            ask("/swarm", user_count=4, spawn_rate=4, user_classes=["FtpUser", "LabUser"])
            wait_until(lambda: {"FTP", "TCP"} <= {row["method"] for row in json.loads(ask("/stats/requests"))["stats"]})
            assert not [row for row in json.loads(ask("/stats/requests"))["errors"] if row["method"] == "FTP"]
        finally:
            ui.send_signal(signal.SIGINT)
            code = ui.wait(60)
            backend.stop("asyncio_streams")
    assert code == 0


def test_docker_reports_each_server_healthy(engine: docker.DockerClient, backend: Containers) -> None:
    """By the same checks, which Docker runs for `docker ps` and `docker compose up --wait`."""

    def are_healthy() -> bool:
        found = [engine.api.inspect_container(f"{backend.project}-{name}-1")["State"]["Health"] for name in SERVERS]
        return {health["Status"] for health in found} == {"healthy"}

    wait_until(are_healthy)


@pytest.fixture(scope="module")
def insides(backend: Containers, engine: docker.DockerClient) -> dict[str, Inside]:
    return look_inside(engine, backend.project, SERVERS)


class TestHardening(HardeningTests):
    @pytest.fixture(params=SERVERS)
    def inside(self, insides: dict[str, Inside], request: pytest.FixtureRequest) -> Inside:
        return insides[request.param]


def test_gallery_servers_stop_on_sigterm_and_restart(engine: docker.DockerClient, backend: Containers) -> None:
    """All at once. A killed server would have exit code 137."""
    with ThreadPoolExecutor(len(SERVERS)) as pool:
        names = [f"{backend.project}-{name}-1" for name in SERVERS]
        list(pool.map(lambda name: engine.containers.get(name).stop(timeout=10), names))
    states = backend.gallery()
    assert {state.state for state in states} == {"exited"}
    # 128 and a signal's number: one without a handler for SIGTERM ends by it, and Docker's init passes that on.
    assert {state.exit_code for state in states} <= {0, 128 + signal.SIGTERM}
    backend.up_gallery(CATALOGUE.gallery, timeout=60)
    assert {state.state for state in backend.gallery()} == {"running"}


def test_gallery_is_listed_and_is_not_a_model(backend: Containers, lab_here: Lab) -> None:
    options = ["--backend", "docker", "--project", backend.project]
    rows = json.loads(lab_here(*options, "ls", "--json").stdout)
    running = {row["model"]: row for row in rows if row["state"] == "running"}
    assert list(running) == SERVERS
    assert {row["family"] for row in running.values()} == {"gallery"}
    assert {"service": "imap", "transport": "tls", "address": "tls://gallery_mail:993"} in running["gallery_mail"][
        "listeners"
    ]
    assert (
        f"gallery\tgallery_ftp\trunning\t{CATALOGUE.gallery[0].summary}" in lab_here(*options, "ls").stdout.splitlines()
    )
    assert "gallery_xmlrpc: XML-RPC at port 8000" in lab_here(*options, "logs", "gallery_xmlrpc").stdout
    assert "gallery_mail: " in lab_here(*options, "logs").stdout
    assert backend.targets() == []
    for command in (["check"], ["load", "--headless"], ["call"]):
        done = lab_here(
            *options,
            *command,
            "gallery_ftp",
            *(["ftp"] if command[0] == "call" else []),
        )
        assert (done.returncode, done.stderr) == (2, "lab: gallery_ftp is a server of the gallery, not a model\n")
    assert lab_here(*options, "shell", "-c", "true").returncode == 0


def test_gallery_server_that_does_not_start_is_named_and_the_others_run(
    docker_project: str, tmp_path_factory: pytest.TempPathFactory, lab_here: Lab
) -> None:
    """One exits, one answers wrongly, one has no health check, one is correct, and one fails under load."""
    override = """
services:
  gallery_xmlrpc:
    command:
      - python3
      - -c
      - |
        from xmlrpc.server import SimpleXMLRPCServer
        server = SimpleXMLRPCServer(("0.0.0.0", 8000))
        server.register_introspection_functions()
        server.register_multicall_functions()
        server.register_function(lambda a, b: a + b + 1, "add")
        server.register_function(lambda data: data, "reverse")
        server.serve_forever()
  gallery_ftp: {command: [sh, -c, "echo no such luck >&2; exit 3"]}
  gallery_web: {healthcheck: {test: [CMD, answers, "80", "-", GET / HTTP/1.0, "666"]}}
  gallery_gopher: {healthcheck: {test: [NONE]}}
"""
    path = copy_catalogue(tmp_path_factory.mktemp("broken"), override)
    options = ["--file", str(path), "--backend", "docker", "--project", docker_project]
    names = ["gallery_ftp", "gallery_web", "gallery_gopher", "gallery_xmlrpc", "gallery_asynchat"]
    up = lab_here(*options, "up", *names, "--timeout", "20s")
    assert up.returncode == 2
    assert "gallery_ftp exited with code 3 instead of answering; its log ends with:\n  no such luck\n" in up.stderr
    assert "gallery_web runs, but gave no answer within 20 s (port 80 does not say '666' but " in up.stderr
    assert "gallery_gopher runs, but gave no answer within 20 s (it has no health check in compose.yaml)" in up.stderr
    assert "gallery_asynchat" not in up.stderr
    rows = json.loads(lab_here(*options, "ls", "--json").stdout)
    states = {row["model"]: row["state"] for row in rows if row["model"] in names}
    assert states == dict.fromkeys(names, "running") | {"gallery_ftp": "exited"}
    loaded = lab_here(*options, "load-gallery", "xmlrpc", "--json", "--users", "2", "--duration", "3s")
    assert loaded.returncode == 1
    steps = {row["step"]: row for row in json.loads(loaded.stdout)}
    assert steps["add"]["failures"] == steps["add"]["taken"] > 0
    missing = lab_here(*options, "load-gallery", "ftp", "--headless")
    wanted = "lab: ftp needs gallery_ftp: start what is missing with `lab up gallery_ftp`\n"
    assert (missing.returncode, missing.stderr) == (2, wanted)
    assert lab_here(*options, "down").returncode == 0


def test_lab_starts_only_named_servers_with_new_data(docker_project: str, lab_here: Lab) -> None:
    options = ["--backend", "docker", "--project", docker_project]
    script = "; ".join(
        [
            "import ftplib, io",
            "client = ftplib.FTP('gallery_ftp', 'ann', 'anns-secret', timeout=20)",
            "print(client.nlst('pub'))",
            "client.storbinary('STOR pub/left', io.BytesIO(b'x'))",
            "client.quit()",
        ]
    )
    for names in (["gallery_ftp", "plain_socket"], ["gallery_ftp"]):
        up = lab_here(*options, "up", *names)
        assert up.returncode == 0, up.stderr
        assert up.stdout.splitlines() == [
            "1 of the gallery's servers answers: `lab ls` lists them",
            *["1 model answers: `lab ls` lists them"][: len(names) - 1],
        ]
        rows = json.loads(lab_here(*options, "ls", "--json").stdout)
        assert {row["model"] for row in rows if row["state"] == "running"} == set(names)
        assert lab_here(*options, "shell", "-c", f'python -c "{script}"').stdout == "[]\n"
        assert lab_here(*options, "down").returncode == 0


def test_gallery_needs_containers(process_project: str, lab_here: Lab) -> None:
    options = ["--backend", "process", "--project", process_project]
    for names in (["--profile", "gallery"], ["gallery_ftp", "plain_socket"]):
        up = lab_here(*options, "up", *names)
        assert (up.returncode, up.stdout) == (2, "")
        assert up.stderr == "lab: the servers of the gallery run only in containers: use --backend docker\n"
    assert {row["state"] for row in json.loads(lab_here(*options, "ls", "--json").stdout)} == {"missing"}
