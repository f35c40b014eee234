"""Labs of containers, on a real engine: what they start, how that ends, and that the hardening is really in force.

What compose.yaml asks for is not looked at here: each test reads what the kernel says inside the container.
"""

import json
import signal
import socket
import subprocess
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, suppress
from ipaddress import IPv6Address, ip_network
from pathlib import Path
from subprocess import CompletedProcess
from typing import Any
from uuid import uuid4

import docker
import pytest
from docker.models.containers import Container
from testcontainers.core.config import testcontainers_config
from testcontainers.core.container import DockerContainer

from lab.base.errors import LabError
from lab.base.paths import ROOT
from lab.clients.call import call
from lab.experiments.conformance.suite import PARALLEL, PLUGIN, read_report
from lab.servers.backend import ModelState
from lab.servers.catalogue import Catalogue
from lab.servers.docker.cleanup import find_projects
from lab.servers.docker.containers import Containers
from lab.servers.docker.images import read_built, read_sources
from lab.servers.process_helpers import find_port
from loadtests.sockets.errors import ClientError
from services.protocol import Address
from tests.lab.conftest import run_once
from tests.support.container_commands import execute
from tests.support.hardening import HardeningTests, Inside, look_inside
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


@pytest.fixture(scope="module")
def insides(backend: Containers, engine: docker.DockerClient) -> dict[str, Inside]:
    return look_inside(engine, backend.project, [*MODELS, INSTRUMENT])


class TestHardening(HardeningTests):
    @pytest.fixture(params=[*MODELS, INSTRUMENT])
    def inside(self, insides: dict[str, Inside], request: pytest.FixtureRequest) -> Inside:
        return insides[request.param]


# One process asks all of them: a line for each address, of what it has answered.
ASK_ALL = """
import sys
from lab.clients.call import call
from loadtests.sockets.errors import ClientError
for address in sys.argv[1:]:
    try:
        print(address, call("command", address, ["PING"]).text())
    except ClientError as error:
        print(address, error)
"""


def test_every_model_answers_over_every_transport(backend: Containers) -> None:
    """At its name in the network; over TLS it proves that name."""
    addresses = [item.address for name in MODELS for item in CATALOGUE.listeners_of(name) if item.service == "command"]
    assert len(addresses) == 5 * len(MODELS)
    done = backend.helpers.run(["python", "-c", ASK_ALL, *addresses], capture=True)
    assert done.stdout.splitlines() == [f"{address} PONG" for address in addresses], done.stderr


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


# Asks each model for a PING and a SLEEP at once: the first answer proves that the server has taken up both. Says "all"
# then, and later a line with the answers of each model.
IN_FLIGHT = """
import sys
from contextlib import ExitStack
from lab.clients.call import ReplyReader, pack, read_resp
from loadtests.sockets.connection import BlockingConnection
from services.protocol import Address
with ExitStack() as stack:
    links = {}
    for model in sys.argv[1:]:
        link = stack.enter_context(BlockingConnection(Address.parse(f"tcp://{model}:6379"), timeout=30))
        link.send(pack([b"PING"]) + pack([b"SLEEP", b"2000"]))
        links[model] = link, ReplyReader()
    firsts = {model: read_resp(*each) for model, each in links.items()}
    print("all", flush=True)
    for model, (link, reader) in links.items():
        print(model, firsts[model], read_resp(link, reader), link.receive())
"""


def test_stop_lets_requests_in_flight_finish(backend: Containers) -> None:
    """All models at once, which takes no longer than one. Afterwards `up` starts them again."""
    command = ["docker", "exec", f"{backend.project}-{INSTRUMENT}-1", "python", "-c", IN_FLIGHT, *MODELS]
    with (
        subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as client,
        ThreadPoolExecutor(len(MODELS)) as pool,
    ):
        assert client.stdout
        assert client.stdout.readline() == "all\n"
        codes = dict(zip(MODELS, pool.map(backend.stop, MODELS), strict=True))
        answers = client.stdout.read()
    assert codes == dict.fromkeys(MODELS, 0)
    assert answers.splitlines() == [f"{model} (b'PONG', False) (b'OK', False) b''" for model in MODELS]
    backend.up(timeout=60)
    assert {state.state for state in states_of(backend)} == {"running"}


def test_killed_model_is_noticed_and_restarts(backend: Containers) -> None:
    """With one process, and with workers: what both run in the container, the engine and the lab treat alike."""
    killed = ["plain_socket", "prefork"]
    for model in killed:
        backend.faults.kill(model, signal.SIGKILL)
    wait_until(lambda: {state.model for state in states_of(backend) if state.state == "exited"} == set(killed))
    assert {state.exit_code for state in states_of(backend) if state.model in killed} == {137}
    with pytest.raises(LabError, match="plain_socket is not running"):
        backend.faults.kill("plain_socket", signal.SIGTERM)
    # What a killed server leaves behind are its Unix sockets; the next one must not trip over them.
    for model in killed:
        backend.restart(model)
    assert {state.state for state in states_of(backend)} == {"running"}


def states_of(backend: Containers) -> list[ModelState]:
    return [state for state in backend.state() if state.model in MODELS]


# Tries every address by TCP and by UDP, all at once; prints those that it could connect to.
REACH = """
import concurrent.futures, socket, sys
def reach(host, kind):
    try:
        (family, _, _, _, address), *_ = socket.getaddrinfo(host, int(sys.argv[1]), type=kind)
        with socket.socket(family, kind) as link:
            link.settimeout(2)
            link.connect(address)
            link.send(b"inside")
            return host if kind == socket.SOCK_STREAM else None
    except OSError:
        return None
with concurrent.futures.ThreadPoolExecutor(8) as pool:
    kinds = (socket.SOCK_STREAM, socket.SOCK_DGRAM)
    asked = [pool.submit(reach, host, kind) for host in sys.argv[2:] for kind in kinds]
print(*filter(None, (each.result() for each in asked)))
"""


def test_host_is_unreachable_from_containers(engine: docker.DockerClient, backend: Containers) -> None:
    """Not by TCP or UDP at any address, IPv4 or IPv6. A container on an ordinary network reaches it."""
    inside = [engine.containers.get(f"{backend.project}-{name}-1") for name in ("plain_socket", "shell")]
    (network,) = inside[0].attrs["NetworkSettings"]["Networks"]
    hosts = sorted(addresses_of_host(engine.networks.get(network)))
    with ExitStack() as stack:
        port = find_port()
        listener = stack.enter_context(open_server(socket.SOCK_STREAM, port))
        datagrams = stack.enter_context(open_server(socket.SOCK_DGRAM, port))
        accepted: list[object] = []
        threading.Thread(target=accept_all, args=(listener, accepted), daemon=True).start()
        stack.callback(lambda: listener.shutdown(socket.SHUT_RDWR))
        for container in inside:
            assert execute(container, "python3", "-c", REACH, str(port), *hosts) == (0, b"\n")
        # What was sent from inside would be before this one.
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as own:
            own.sendto(b"from the host", ("127.0.0.1", port))
        datagrams.settimeout(10)
        assert datagrams.recv(100) == b"from the host"
        assert accepted == []
        command = ["python3", "-c", REACH, str(port), *hosts]
        said = run_once("socketlab/instrument", *command, options=["--network=bridge"])
        assert said.strip(), "no container can reach this host, perhaps for its firewall: nothing was shown"
        assert datagrams.recv(100) == b"inside"


def addresses_of_host(network: Any) -> set[str]:
    """Where a host can be, as seen from a network: the gateway, or where one would be; and its own addresses.

    Engines differ: one reports a gateway where the host has no address, another reports none.
    """
    found = set()
    for config in network.attrs["IPAM"]["Config"]:
        found.add(str(next(ip_network(config["Subnet"]).hosts())))
        found |= {config["Gateway"]} if config.get("Gateway") else set()
    own = subprocess.run(["hostname", "-I"], capture_output=True, text=True, check=True).stdout.split()
    found.update(own)
    # The kernel gives each bridge an address of IPv6 by itself; it is known by the container's interface.
    for line in Path("/proc/net/if_inet6").read_text().splitlines() if Path("/proc/net/if_inet6").exists() else ():
        address, *_ = line.split()
        text = str(IPv6Address(int(address, 16)))
        found.add(f"{text}%eth0" if text.startswith("fe80:") else text)
    return found - {"127.0.0.1", "::1"}


def open_server(kind: socket.SocketKind, port: int) -> socket.socket:
    """A socket at every address of the host."""
    dual = socket.has_dualstack_ipv6()
    server = socket.socket(socket.AF_INET6 if dual else socket.AF_INET, kind)
    if dual:
        server.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
    server.bind(("::" if dual else "0.0.0.0", port))  # noqa: S104 - all addresses are the point
    if kind == socket.SOCK_STREAM:
        server.listen()
    return server


def accept_all(listener: socket.socket, accepted: list[object]) -> None:
    with suppress(OSError):
        while True:
            link, peer = listener.accept()
            link.close()
            accepted.append(peer)


# Sends something out, and prints what the kernel then knows: the gateways of default routes, and the neighbours.
LEAVE = """
import contextlib, socket, struct
with contextlib.suppress(OSError):
    socket.create_connection(("192.0.2.1", 9), 2)
rows = [line.split() for line in open("/proc/net/route").read().splitlines()[1:]]
gateways = {socket.inet_ntoa(struct.pack("<I", int(row[2], 16))) for row in rows if row[1] == row[7] == "00000000"}
known = {line.split()[0]: line.split()[2] for line in open("/proc/net/arp").read().splitlines()[1:]}
print(*("way out" for each in gateways if known.get(each, "0x0") != "0x0"))
for line in open("/proc/net/ipv6_route") if __import__("os").path.exists("/proc/net/ipv6_route") else ():
    words = line.split()
    if words[1] == "00" and words[9] != "lo":
        print("way out by IPv6")
"""


def test_internet_is_unreachable_from_containers(container: Callable[[str], Container]) -> None:
    """There is no default route, or one to an unused gateway: 20.10 sets one, later engines set none."""
    command = ["python3", "-c", LEAVE]
    for name in ("plain_socket", "shell"):
        assert execute(container(name), *command) == (0, b"\n")
    # On an ordinary network there is one.
    assert run_once("socketlab/instrument", *command, options=["--network=bridge"]) == "way out\n"


def test_labs_are_isolated_from_each_other(
    backend: Containers, docker_project: str, lab_here: Callable[..., "CompletedProcess[str]"]
) -> None:
    """By the command line, while the other lab runs."""
    options = ["--backend", "docker", "--project", docker_project]
    up = lab_here(*options, "up", "plain_socket")
    assert (up.returncode, up.stdout) == (0, "1 model answers: `lab ls` lists them\n"), up.stderr
    rows = json.loads(lab_here(*options, "ls", "--json").stdout)
    assert {row["model"] for row in rows if row["state"] == "running"} == {"plain_socket"}
    other = Containers(docker_project, CATALOGUE)
    assert other.container_name("plain_socket") != backend.container_name("plain_socket")
    called = lab_here(*options, "call", "plain_socket", "greet")
    assert (called.returncode, called.stdout) == (0, "Thank you for connecting\n")
    assert lab_here(*options, "down").returncode == 0
    assert lab_here(*options, "down").returncode == 0
    backend.wait_ready("plain_socket")
    called = lab_here(*options, "call", "plain_socket", "greet")
    assert (called.returncode, called.stderr) == (
        2,
        "lab: plain_socket is not running: start it with `lab up plain_socket`\n",
    )
    with pytest.raises(LabError, match="is not up"):
        other.helpers.run(["true"])


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

    Of the suite, what no model's process has been asked already: to be found by its name, and redis-tools. The first
    model of each family stands for it.
    """
    models = list({CATALOGUE[name].family: name for name in reversed(MODELS)}.values())[::-1]
    files = [f"tests/conformance/test_{name}.py" for name in ("greet", "redis_tools")]
    arguments = [*files, *PLUGIN, *PARALLEL, "--network", "--models", ",".join(models)]
    report = read_report(backend.helpers.run_service("tests", arguments, capture=True, timeout=150), models)
    assert report.holds, report.failures
    columns, rows = report.table()
    assert columns == ["model", "tcp", "tls", "udp", "unix", "unixgram"]
    assert sorted(row[0] for row in rows) == sorted(models)


def test_missing_images_are_no_error(engine: docker.DockerClient) -> None:
    """A new machine has none of them, and the engine then prints an empty line."""
    command = ["docker", "image", "inspect", f"socketlab/{uuid4().hex}", "--format", "{{json .RepoTags}} {{json .Id}}"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode
    assert read_built(done.stdout) == {}


def test_digest_of_an_image_is_read_from_its_label() -> None:
    lines = '["a:latest","a:1"] {"lab.inputs":"abc","other":"x y] z"}\n["b:latest"] null\n'
    assert read_built(lines) == {"a:latest": "abc", "a:1": "abc", "b:latest": None}
