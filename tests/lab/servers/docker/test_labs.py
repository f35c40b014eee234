"""Labs with something of their own: a compose file, a broken server, an image, a signal while they start.

Each test has a project of its own, except those of `own`.
"""

import json
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from subprocess import CompletedProcess
from uuid import uuid4

import docker
import psutil
import pytest

from lab.base.errors import LabError, NotReadyError
from lab.base.paths import ROOT
from lab.experiments.conformance.suite import PARALLEL, PLUGIN, read_report
from lab.load.measurement import encode_targets
from lab.servers.catalogue import PEERS, Catalogue, Listener
from lab.servers.docker.cleanup import purge
from lab.servers.docker.containers import Containers
from tests.lab.conftest import copy_catalogue
from tests.support.waiting import wait_until

pytestmark = [pytest.mark.docker, pytest.mark.xdist_group("labs")]

CATALOGUE = Catalogue.load()

Find = Callable[[str], list[str]]
Lab = Callable[..., "CompletedProcess[str]"]


@pytest.fixture(scope="module")
def own(find_of_project: Find, tmp_path_factory: pytest.TempPathFactory) -> Iterator[list[str]]:
    """The options of a lab with a server in Perl, as in docs/adding-a-server.md, and a model of a profile."""
    example = ROOT / "docs" / "examples" / "perl_echo"
    override = (example / "compose.override.yaml").read_text().replace("docs/examples/perl_echo", str(example))
    path = copy_catalogue(tmp_path_factory.mktemp("own"), f"{override}  plain_socket: {{profiles: [spare]}}\n")
    project = f"t{uuid4().hex[:8]}"
    try:
        yield ["--file", str(path), "--backend", "docker", "--project", project]
    finally:
        Containers(project, CATALOGUE).down()
        assert find_of_project(project) == []


def test_model_of_a_profile_starts_if_named(own: list[str], lab_here: Lab) -> None:
    def states() -> dict[str, str]:
        rows = json.loads(lab_here(*own, "ls", "--json").stdout)
        return {row["model"]: row["state"] for row in rows if row["model"] in ("plain_socket", "asyncio_streams")}

    assert lab_here(*own, "up", "asyncio_streams").returncode == 0
    assert states() == {"plain_socket": "missing", "asyncio_streams": "running"}
    up = lab_here(*own, "up", "asyncio_streams", "--profile", "spare")
    assert (up.returncode, up.stdout) == (0, "2 models answer: `lab ls` lists them\n"), up.stderr
    assert states() == {"plain_socket": "running", "asyncio_streams": "running"}
    Containers(own[-1], Catalogue.load(Path(own[1]))).stop("plain_socket")
    assert lab_here(*own, "up", "plain_socket").returncode == 0
    assert states()["plain_socket"] == "running"
    assert "plain_socket: " in lab_here(*own, "logs").stdout


def test_custom_image_is_a_model(own: list[str], lab_here: Lab) -> None:
    """As in docs/adding-a-server.md: a server in Perl with only an entry in compose.override.yaml."""
    assert lab_here(*own, "up", "perl_echo").returncode == 0
    assert lab_here(*own, "call", "perl_echo", "echo", "hello").stdout == "hello\n"
    checked = lab_here(*own, "check", "perl_echo")
    assert (checked.returncode, checked.stdout) == (0, "perl_echo\t5 pass\n5 passed\n"), checked.stderr
    loaded = lab_here(*own, "load", "perl_echo", "--preset", "closed_echo_1k", "--json", "--duration", "1s")
    (found,) = json.loads(loaded.stdout)
    assert found["answered"] > 10
    assert found["failures"] == {}
    assert found["memory_bytes"] > 0


def test_locustfile_of_this_machine_has_a_module_of_its_folder(own: list[str], lab_here: Lab) -> None:
    assert lab_here(*own, "up", "plain_socket").returncode == 0
    folder = Path(own[1]).parent
    folder.chmod(0o755)
    folder.joinpath("paths.py").write_text("PING = '/ping'\n")
    file = folder / "mine.py"
    file.write_text(
        "from locust import FastHttpUser, task\n"
        "from paths import PING\n"
        "class Mine(FastHttpUser):\n"
        "    @task\n"
        "    def ping(self): self.client.get(PING)\n"
    )
    loaded = lab_here(
        *own, "load-file", "plain_socket", "--file", str(file), "--json", "--users", "1", "--duration", "1s"
    )
    (row,) = json.loads(loaded.stdout)
    assert (row["protocol"], row["step"], row["failures"]) == ("GET", "/ping", 0)
    assert row["taken"] > 0


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGINT])
def test_interrupted_up_leaves_nothing(find_of_project: Find, docker_project: str, number: int) -> None:
    """After Ctrl-C by itself; after a kill -9 with `lab down`."""
    command = [sys.executable, "-m", "lab", "--backend", "docker", "--project", docker_project, "up"]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as up:
        wait_until(lambda: find_of_project(docker_project), 60)
        clients = psutil.Process(up.pid).children(recursive=True)
        up.send_signal(number)
        up.wait(60)
    if number == signal.SIGKILL:
        psutil.wait_procs(clients, 60)
        Containers(docker_project, CATALOGUE).down()
        # What Compose had asked of the engine before it was ended may come late: until there is nothing to remove.
        wait_until(lambda: not purge(docker_project))
    assert find_of_project(docker_project) == []


def test_model_that_exits_is_distinguished_from_a_slow_one(
    find_of_project: Find, docker_project: str, tmp_path_factory: pytest.TempPathFactory
) -> None:
    folder = tmp_path_factory.mktemp("broken")
    path = copy_catalogue(folder, "services: {plain_socket: {command: [--listen, 'echo=gopher://x']}}")
    backend = Containers(docker_project, Catalogue.load(path))
    with pytest.raises(NotReadyError, match=r"plain_socket exited with code 2 .*\n.*'gopher://x' does not start with"):
        backend.up(["plain_socket"])
    assert find_of_project(docker_project) == []
    (folder / "compose.override.yaml").write_text(
        "services: {plain_socket: {entrypoint: [python3, -c, 'import time; time.sleep(60)'], command: []}}"
    )
    backend = Containers(docker_project, Catalogue.load(path))
    with pytest.raises(NotReadyError, match=r"plain_socket runs, but gave no answer within 1 s .*Connection refused"):
        backend.up(["plain_socket"], timeout=1)


def test_refusal_of_compose_is_a_one_line_error(docker_project: str, tmp_path_factory: pytest.TempPathFactory) -> None:
    path = tmp_path_factory.mktemp("refused") / "compose.yaml"
    labels = "{lab.model: mine, lab.family: f, lab.summary: s}"
    path.write_text(
        "services:\n"
        "  shell: {image: socketlab/instrument}\n"
        f"  mine: {{image: socketlab/plain_socket, colour: red, labels: {labels}}}\n"
    )
    with pytest.raises(LabError, match="colour") as caught:
        Containers(docker_project, Catalogue.load(path)).up()
    assert "\n" not in str(caught.value)


def test_purge_finds_containers_created_meanwhile(engine: docker.DockerClient, docker_project: str) -> None:
    """A network cannot be removed before its last container, and containers may be created meanwhile."""
    labels = {"com.docker.compose.project": docker_project, "lab.part": "test"}
    network = engine.networks.create(f"{docker_project}_lab", labels=labels, internal=True)

    def make() -> None:
        with suppress(docker.errors.APIError):  # it may be removed between its creation and its start
            engine.containers.run(
                "socketlab/plain_socket", entrypoint=["sleep", "60"], labels=labels, network=network.name, detach=True
            )

    thread = threading.Thread(target=make)
    thread.start()
    # `engine.containers.list` inspects each one that it finds, and Docker lists a container before it can be inspected.
    wait_until(
        lambda: engine.api.containers(all=True, filters={"label": f"com.docker.compose.project={docker_project}"})
    )
    purge(docker_project)
    thread.join()
    purge(docker_project)


def test_codec_is_loaded_in_a_container_with_a_module_of_its_folder(docker_project: str, tmp_path: Path) -> None:
    """As in docs/adding-a-server.md: the folder is mounted, and LAB_CODEC names the file."""
    Containers(docker_project, CATALOGUE).build(["locust"])
    # The container's user is not this one.
    folder = tmp_path / "codec"
    shutil.copytree(ROOT / "docs" / "examples" / "banner", folder, copy_function=shutil.copyfile)
    for path in (folder, *folder.iterdir()):
        path.chmod(0o755)
    targets = encode_targets([Listener("target", "custom", "tcp", "tcp://127.0.0.1:9002")])
    script = (
        "perl /codec/server.pl 9002 >/tmp/said & until grep -q listening /tmp/said; do sleep 0.1; done; "
        "exec locust -f loadtests/locustfile.py --headless --users 2 --spawn-rate 100 --window 1 --warm-up 0.1"
    )
    command = [
        "docker",
        "run",
        "--rm",
        "--name",
        docker_project,
        "--network",
        "none",
        "--volume",
        f"{folder}:/codec:ro",
    ]
    command += ["--env", "LAB_CODEC=/codec/codec.py", "--env", f"LAB_TARGETS={targets}"]
    command += ["--entrypoint", "sh", CATALOGUE.image("locust"), "-c", script]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=120)
    (line,) = (line for line in done.stdout.splitlines() if line.startswith("LOAD-RESULT "))
    found = json.loads(line.removeprefix("LOAD-RESULT "))
    assert found["answered"] > 10
    assert found["failures"] == {}
    assert done.returncode == 0, done.stderr


# Two minutes on two busy cores.
@pytest.mark.timeout(600)
def test_peers_pass_the_suite(find_of_project: Find, docker_project: str) -> None:
    """All tests for RFCs and RESP. Differences are declared or recorded, as strict expected failures."""
    # Of those for HTTP one of each kind: processes with threads, a loop, the standard library, C.
    http = ["peer_gunicorn_gthread", "peer_uvicorn", "peer_http_server", "peer_nginx"]
    peers = [model.name for model in CATALOGUE.select(["peer_redis"], [PEERS])] + http
    backend = Containers(docker_project, CATALOGUE)
    assert all(CATALOGUE[name].rfc_only for name in peers)
    try:
        backend.up(peers)
        arguments = ["tests/conformance", *PLUGIN, *PARALLEL, "--network", "--models", ",".join(peers)]
        report = read_report(backend.helpers.run_service("tests", arguments, capture=True, timeout=400), peers)
    finally:
        backend.down()
    assert report.holds, report.failures
    assert [row[0] for row in report.table()[1]] == peers
    assert not [item for item in report.findings if item.outcome == "skipped"]
