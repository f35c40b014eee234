"""Labs of containers, on a real engine: what they start, how that ends, and that the hardening is really in force.

What compose.yaml asks for is not looked at here: each test reads what the kernel says inside the container.
"""

import json
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, suppress
from pathlib import Path
from subprocess import CompletedProcess
from uuid import uuid4

import docker
import psutil
import pytest
from docker.models.containers import Container
from testcontainers.core.config import testcontainers_config
from testcontainers.core.container import DockerContainer

from lab.base.errors import LabError, NotReadyError
from lab.base.paths import ROOT
from lab.clients.call import call
from lab.experiments.conformance.suite import PARALLEL, PLUGIN, read_report
from lab.load.measurement import encode_targets
from lab.servers.backend import ModelState
from lab.servers.catalogue import PEERS, Catalogue, Listener
from lab.servers.docker.cleanup import find_projects, purge
from lab.servers.docker.containers import Containers
from lab.servers.docker.images import read_built, read_sources
from loadtests.sockets.errors import ClientError
from services.protocol import Address
from tests.support.container_commands import execute
from tests.support.waiting import wait_until

pytestmark = [pytest.mark.docker, pytest.mark.xdist_group("docker")]

CATALOGUE = Catalogue.load()
MODELS = [model.name for model in CATALOGUE.select()]
INSTRUMENT = "shell"


Find = Callable[[str], list[str]]


@pytest.fixture(scope="module")
def backend(find_of_project: Find) -> Iterator[Containers]:
    """The whole lab, running; shared by the tests that do not change it."""
    backend = Containers(f"t{uuid4().hex[:8]}", CATALOGUE)
    try:
        backend.up(timeout=60)
        yield backend
    finally:
        backend.down()
        assert not find_of_project(backend.project)


@pytest.fixture
def container(engine: docker.DockerClient, backend: Containers) -> Callable[[str], Container]:
    """Return the container of a Compose service."""
    return lambda service: engine.containers.get(f"{backend.project}-{service}-1")


def succeed(container: Container, *command: str) -> str:
    code, output = execute(container, *command)
    assert code == 0, output
    return output.decode()


def ask(backend: Containers, model: str, *request: str, transport: str = "tcp") -> str:
    address = next(
        item.address
        for item in backend.catalogue.listeners_of(model)
        if (item.service, item.transport) == ("command", transport)
    )
    return backend.helpers.run(["python", "-m", "lab.clients.call", "command", address, *request], capture=True).stdout


# A model's server is not the container's first process, which is Docker's init.
STATUS = """
for process in /proc/[0-9]*; do
  tr '\\0' ' ' < $process/cmdline | grep -q -- "$0" || continue
  grep -E '^(Uid|Gid|CapEff|CapBnd|CapAmb|NoNewPrivs|Seccomp):' $process/status
  grep '^Max open files' $process/limits
  exit 0
done
exit 1
"""


class TestHardening:
    @pytest.fixture(params=[*MODELS, INSTRUMENT])
    def service(self, request: pytest.FixtureRequest) -> str:
        return str(request.param)

    def test_no_privileges(self, container: Callable[[str], Container], service: str) -> None:
        pattern = "sleep infinity" if service == INSTRUMENT else "services.run"
        lines = succeed(container(service), "sh", "-c", STATUS, pattern).splitlines()
        status = {name: value.split() for name, _, value in (line.partition(":") for line in lines)}
        assert set(status["Uid"]) == set(status["Gid"]) == {"1000"}
        assert {int(status[name][0], 16) for name in ("CapEff", "CapBnd", "CapAmb")} == {0}
        assert status["NoNewPrivs"] == ["1"]
        assert status["Seccomp"] == ["2"]
        wanted = container(service).attrs["HostConfig"]["Ulimits"][0]["Hard"]
        assert lines[-1].split()[3:5] == [str(wanted)] * 2

    def test_root_file_system_is_read_only(self, container: Callable[[str], Container], service: str) -> None:
        for path in ("/x", "/srv/x", "/usr/x", "/lab/x"):
            code, output = execute(container(service), "sh", "-c", f"echo > {path}")
            assert code != 0, path
            assert b"Read-only file system" in output or b"nonexistent" in output, output
        succeed(container(service), "sh", "-c", "echo > /run/lab/$$ && rm /run/lab/$$ && echo done")

    def test_limits_of_processes_and_memory(self, container: Callable[[str], Container], service: str) -> None:
        # The files of cgroup v2 first, then those of v1.
        pids = "cat /sys/fs/cgroup/pids.max 2>/dev/null || cat /sys/fs/cgroup/pids/pids.max"
        memory = "cat /sys/fs/cgroup/memory.max 2>/dev/null || cat /sys/fs/cgroup/memory/memory.limit_in_bytes"
        wanted = CATALOGUE.definitions[service]
        units = {"m": 1 << 20, "g": 1 << 30}
        size = str(wanted["mem_limit"])
        assert int(succeed(container(service), "sh", "-c", pids)) == wanted["pids_limit"]
        assert int(succeed(container(service), "sh", "-c", memory)) == int(size[:-1]) * units[size[-1]]

    def test_services_publish_no_port(self, container: Callable[[str], Container], service: str) -> None:
        assert not [port for port in container(service).attrs["NetworkSettings"]["Ports"].values() if port]


@pytest.mark.parametrize("model", MODELS)
def test_every_model_answers_over_tcp_and_unix(backend: Containers, model: str) -> None:
    for transport in ("tcp", "unix", "udp", "unixgram"):
        assert ask(backend, model, "PING", transport=transport) == "PONG\n"


def test_state_and_targets(backend: Containers) -> None:
    """Models of a profile are listed, but not started."""
    states = backend.state()
    wanted = [(model.name, "missing" if model.profile else "running") for model in CATALOGUE.models]
    assert [(state.model, state.state) for state in states] == wanted
    assert {item.address for item in backend.targets()} == {
        item.address for name in MODELS for item in CATALOGUE.listeners_of(name)
    }
    assert backend.project in find_projects()
    header, *_ = backend.logs("asyncio_streams").splitlines()
    assert json.loads(header)["model"] == "asyncio_streams"


def test_run_passes_input_output_and_codes(backend: Containers) -> None:
    script = "import os; print(os.environ['A'], input())"
    done = backend.helpers.run(["python", "-c", script], environ={"A": "b"}, capture=True, stdin="c")
    assert (done.returncode, done.stdout) == (0, "b c\n")
    assert backend.helpers.run(["sh", "-c", "exit 7"]).returncode == 7


def test_run_that_times_out_is_ended_in_the_container_too(
    backend: Containers, container: Callable[[str], Container]
) -> None:
    with pytest.raises(LabError, match="took longer than"):
        backend.helpers.run(["sleep", "4321"], timeout=2)
    processes = container(INSTRUMENT).top()["Processes"]
    assert not [process for process in processes if "sleep 4321" in " ".join(process)]


@pytest.mark.parametrize(
    ("command", "said"),
    [
        ("redis-cli -h asyncio_streams PING", "PONG"),
        ("redis-benchmark -h asyncio_streams -t ping -n 1 -c 1 --csv", '"PING'),
        ("echo hello | nc -N asyncio_streams 7", "hello"),
        ("curl -s --max-time 20 telnet://asyncio_streams:1234 </dev/null", "Thank you for connecting"),
        (
            "printf 'PING\\r\\nQUIT\\r\\n' | openssl s_client -quiet -verify_return_error -CAfile $LAB_TLS_CA $TLS",
            "+PONG",
        ),
        ("curl -sv --max-time 5 --cacert $LAB_TLS_CA https://$HOST 2>&1", "SSL certificate verify ok"),
        ("lftp --version", "LFTP"),
        ("sleep 1 | telnet asyncio_streams 1234 2>&1", "Connected to asyncio_streams"),
    ],
    ids=lambda value: value.split()[0] if " " in value else "said",
)
def test_shell_has_the_clients_that_the_readme_names(backend: Containers, command: str, said: str) -> None:
    host = next(
        Address.parse(item.address)
        for item in CATALOGUE.listeners_of("asyncio_streams")
        if (item.service, item.transport) == ("command", "tls")
    )
    environ = {"TLS": f"-connect {host.host}:{host.port}", "HOST": f"{host.host}:{host.port}"}
    done = backend.helpers.run(["sh", "-c", command], environ=environ, capture=True, timeout=60)
    assert said in done.stdout, done.stdout + done.stderr


# Asks for a PING and a SLEEP at once: the first answer proves that the server has taken up both.
IN_FLIGHT = """
import sys
from lab.clients.call import ReplyReader, pack, read_resp
from loadtests.sockets.connection import BlockingConnection
from services.protocol import Address
with BlockingConnection(Address.parse(sys.argv[1]), timeout=30) as link:
    reader = ReplyReader()
    link.send(pack([b"PING"]) + pack([b"SLEEP", b"2000"]))
    print(read_resp(link, reader), flush=True)
    print(read_resp(link, reader), link.receive(), flush=True)
"""


def test_stop_lets_requests_in_flight_finish(backend: Containers) -> None:
    """All models at once, which takes no longer than one."""
    shell = f"{backend.project}-{INSTRUMENT}-1"
    with ExitStack() as stack:
        clients = {}
        for model in MODELS:
            command = ["docker", "exec", shell, "python", "-c", IN_FLIGHT, f"tcp://{model}:6379"]
            clients[model] = stack.enter_context(subprocess.Popen(command, stdout=subprocess.PIPE, text=True))
        answers = {model: [client.stdout.readline()] for model, client in clients.items() if client.stdout}
        with ThreadPoolExecutor(len(clients)) as pool:
            codes = dict(zip(clients, pool.map(backend.stop, clients), strict=True))
        for model, client in clients.items():
            answers[model].append(client.communicate()[0])
    assert codes == dict.fromkeys(MODELS, 0)
    assert {tuple(lines) for lines in answers.values()} == {("(b'PONG', False)\n", "(b'OK', False) b''\n")}
    restart_all(backend)


def test_killed_model_is_noticed_and_restarts(backend: Containers) -> None:
    for model in MODELS:
        backend.faults.kill(model, signal.SIGKILL)
    wait_until(lambda: {state.state for state in states_of(backend)} == {"exited"})
    assert {state.exit_code for state in states_of(backend)} == {137}
    with pytest.raises(LabError, match="plain_socket is not running"):
        backend.faults.kill("plain_socket", signal.SIGTERM)
    # What a killed server leaves behind are its Unix sockets; the next one must not trip over them.
    restart_all(backend)


def restart_all(backend: Containers) -> None:
    with ThreadPoolExecutor(len(MODELS)) as pool:
        list(pool.map(backend.restart, MODELS))
    assert {state.state for state in states_of(backend)} == {"running"}


def states_of(backend: Containers) -> list[ModelState]:
    return [state for state in backend.state() if state.model in MODELS]


def test_labs_are_isolated_from_each_other(
    backend: Containers, docker_project: str, lab: Callable[..., "CompletedProcess[str]"]
) -> None:
    """By the command line, while the other lab runs."""
    options = ["--backend", "docker", "--project", docker_project]
    up = lab(*options, "up", "plain_socket")
    assert (up.returncode, up.stdout) == (0, "1 model answers: `lab ls` lists them\n"), up.stderr
    rows = json.loads(lab(*options, "ls", "--json").stdout)
    assert {row["model"] for row in rows if row["state"] == "running"} == {"plain_socket"}
    other = Containers(docker_project, CATALOGUE)
    assert other.container_name("plain_socket") != backend.container_name("plain_socket")
    called = lab(*options, "call", "plain_socket", "greet")
    assert (called.returncode, called.stdout) == (0, "Thank you for connecting\n")
    assert lab(*options, "down").returncode == 0
    assert lab(*options, "down").returncode == 0
    assert ask(backend, "plain_socket", "PING") == "PONG\n"
    called = lab(*options, "call", "plain_socket", "greet")
    assert (called.returncode, called.stderr) == (
        2,
        "lab: plain_socket is not running: start it with `lab up plain_socket`\n",
    )
    with pytest.raises(LabError, match="is not up"):
        other.helpers.run(["true"])


def test_model_of_a_profile_starts_if_named(
    find_of_project: Find,
    docker_project: str,
    tmp_path_factory: pytest.TempPathFactory,
    lab: Callable[..., "CompletedProcess[str]"],
) -> None:
    path = tmp_path_factory.mktemp("profile") / "compose.yaml"
    path.write_text((ROOT / "compose.yaml").read_text().replace("context: .", f"context: {ROOT}"))
    path.with_name("compose.override.yaml").write_text("services: {plain_socket: {profiles: [spare]}}")
    options = ["--file", str(path), "--backend", "docker", "--project", docker_project]

    def states() -> dict[str, str]:
        rows = json.loads(lab(*options, "ls", "--json").stdout)
        return {row["model"]: row["state"] for row in rows if row["model"] in ("plain_socket", "asyncio_streams")}

    assert lab(*options, "up", "asyncio_streams").returncode == 0
    assert states() == {"plain_socket": "missing", "asyncio_streams": "running"}
    up = lab(*options, "up", "asyncio_streams", "--profile", "spare")
    assert (up.returncode, up.stdout) == (0, "2 models answer: `lab ls` lists them\n"), up.stderr
    assert states() == {"plain_socket": "running", "asyncio_streams": "running"}
    Containers(docker_project, Catalogue.load(path)).stop("plain_socket")
    assert lab(*options, "up", "plain_socket").returncode == 0
    assert states()["plain_socket"] == "running"
    assert "plain_socket: " in lab(*options, "logs").stdout
    assert lab(*options, "down").returncode == 0
    assert find_of_project(docker_project) == []


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGINT, signal.SIGTERM])
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
    path = folder / "compose.yaml"
    text = (ROOT / "compose.yaml").read_text().replace("context: .", f"context: {ROOT}")
    path.write_text(text)
    (folder / "compose.override.yaml").write_text("services: {plain_socket: {command: [--listen, 'echo=gopher://x']}}")
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


@pytest.mark.parametrize("model", ["plain_socket", "asyncio_streams"])
def test_image_serves_without_compose(engine: docker.DockerClient, backend: Containers, model: str) -> None:
    """Without Compose, with a published port, for a look at one model."""
    testcontainers_config.ryuk_disabled = True  # its image cannot be pulled everywhere, and `with` cleans up here
    with DockerContainer(CATALOGUE.image(model)).with_exposed_ports(6379) as served:
        address = f"tcp://{served.get_container_host_ip()}:{served.get_exposed_port(6379)}"

        def answers() -> bool:
            try:
                return call("command", address, ["PING"], timeout=1).value == b"PONG"
            except ClientError:
                return False  # a published port accepts before the server listens

        wait_until(answers)


def test_digest_covers_all_inputs_of_an_image() -> None:
    """The expected inputs of each image, which the digest reads from its Dockerfile."""
    assert read_sources((ROOT / "services" / "Dockerfile").read_text()) == {"services/", "requirements"}
    instrument = read_sources((ROOT / "loadtests" / "Dockerfile").read_text())
    assert {"compose.yaml", "pyproject.toml", "services/", "lab/", "loadtests/", "tests/"} <= instrument


def test_conformance_suite_runs_in_the_network(backend: Containers) -> None:
    """The whole way: Compose, the `tests` container, the suite, the plugin, the report.

    Of the suite, what every model's process has not been asked already: to be found by its name, TLS under that name,
    and redis-tools.
    """
    files = [f"tests/conformance/test_{name}.py" for name in ("greet", "tls", "redis_tools")]
    arguments = [*files, *PLUGIN, *PARALLEL, "--network", "--models", ",".join(MODELS)]
    report = read_report(backend.helpers.run_service("tests", arguments, capture=True, timeout=150), MODELS)
    assert report.holds, report.failures
    columns, rows = report.table()
    assert columns == ["model", "tcp", "tls", "udp", "unix", "unixgram"]
    assert [row[0] for row in rows] == MODELS


@pytest.mark.parametrize(
    "peers",
    [
        [model.name for model in CATALOGUE.select(["peer_redis"], [PEERS])],
        # One of each kind: processes with threads, a loop, the standard library, C.
        ["peer_gunicorn_gthread", "peer_uvicorn", "peer_http_server", "peer_nginx"],
    ],
    ids=["peers", "http"],
)
def test_peers_pass_the_suite(find_of_project: Find, docker_project: str, peers: list[str]) -> None:
    """All tests for RFCs and RESP. Differences are declared or recorded, as strict expected failures."""
    backend = Containers(docker_project, CATALOGUE)
    assert all(CATALOGUE[name].rfc_only for name in peers)
    try:
        backend.up(peers)
        arguments = ["tests/conformance", *PLUGIN, *PARALLEL, "--network", "--models", ",".join(peers)]
        report = read_report(backend.helpers.run_service("tests", arguments, capture=True, timeout=150), peers)
    finally:
        backend.down()
    assert report.holds, report.failures
    assert [row[0] for row in report.table()[1]] == peers
    assert not [item for item in report.findings if item.outcome == "skipped"]
    assert find_of_project(docker_project) == []


def test_custom_image_is_a_model(
    find_of_project: Find,
    docker_project: str,
    tmp_path_factory: pytest.TempPathFactory,
    lab: Callable[..., "CompletedProcess[str]"],
) -> None:
    """As in docs/adding-a-server.md: a server in Perl with only an entry in compose.override.yaml."""
    path = tmp_path_factory.mktemp("own") / "compose.yaml"
    path.write_text((ROOT / "compose.yaml").read_text().replace("context: .", f"context: {ROOT}"))
    example = ROOT / "docs" / "examples" / "perl_echo"
    override = (example / "compose.override.yaml").read_text()
    path.with_name("compose.override.yaml").write_text(override.replace("docs/examples/perl_echo", str(example)))
    options = ["--file", str(path), "--backend", "docker", "--project", docker_project]
    assert lab(*options, "up", "perl_echo", "plain_socket").returncode == 0
    assert lab(*options, "call", "perl_echo", "echo", "hello").stdout == "hello\n"
    checked = lab(*options, "check", "perl_echo")
    assert (checked.returncode, checked.stdout) == (0, "perl_echo\t5 pass\n5 passed\n"), checked.stderr
    loaded = lab(*options, "load", "perl_echo", "--preset", "closed_echo_1k", "--json", "--duration", "1s")
    (found,) = json.loads(loaded.stdout)
    assert found["answered"] > 100
    assert found["failures"] == {}
    assert found["memory_bytes"] > 0
    # A locustfile from this machine, with a module of its folder.
    path.parent.chmod(0o755)
    path.with_name("paths.py").write_text("PING = '/ping'\n")
    file = path.with_name("mine.py")
    file.write_text(
        "from locust import FastHttpUser, task\n"
        "from paths import PING\n"
        "class Mine(FastHttpUser):\n"
        "    @task\n"
        "    def ping(self): self.client.get(PING)\n"
    )
    loaded = lab(
        *options, "load-file", "plain_socket", "--file", str(file), "--json", "--users", "1", "--duration", "1s"
    )
    (row,) = json.loads(loaded.stdout)
    assert (row["protocol"], row["step"], row["failures"]) == ("GET", "/ping", 0)
    assert row["taken"] > 0
    assert lab(*options, "down").returncode == 0
    assert find_of_project(docker_project) == []


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


def test_missing_images_are_no_error(engine: docker.DockerClient) -> None:
    """A new machine has none of them, and the engine then prints an empty line."""
    command = ["docker", "image", "inspect", f"socketlab/{uuid4().hex}", "--format", "{{json .RepoTags}} {{json .Id}}"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode
    assert read_built(done.stdout) == {}


def test_digest_of_an_image_is_read_from_its_label() -> None:
    lines = '["a:latest","a:1"] {"lab.inputs":"abc","other":"x y] z"}\n["b:latest"] null\n'
    assert read_built(lines) == {"a:latest": "abc", "a:1": "abc", "b:latest": None}
