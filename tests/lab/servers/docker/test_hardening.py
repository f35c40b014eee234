"""The lab's own safety: what every service of compose.yaml is held to, and what the kernel says inside of containers.

`test_containers.py` reads the privileges, the root and the limits of every model. Here are the other kinds of
containers, the way to the host, what is published, and what is in the images.
"""

import re
import socket
import subprocess
import tarfile
import threading
from collections.abc import Iterator
from contextlib import ExitStack, suppress
from ipaddress import IPv6Address, ip_network
from pathlib import Path
from typing import Any
from uuid import uuid4

import docker
import pytest
from docker.models.containers import Container

from lab.base.paths import ROOT
from lab.servers.catalogue import Catalogue
from lab.servers.certificates import CA, ensure_certificates
from lab.servers.docker.containers import Containers
from tests.lab.conftest import run_once
from tests.support.container_commands import execute

CATALOGUE = Catalogue.load()
SERVICES = CATALOGUE.definitions
DOCKER = [pytest.mark.docker, pytest.mark.xdist_group("docker")]

# Who may do what the others may not, and why.
ROOT_AT_FIRST = {"gallery_smtp": ["CHOWN", "FOWNER", "SETGID", "SETUID", "SYS_CHROOT"]}  # becomes its own users
USERS = {"gallery_news": "news", "gallery_smtp": "root"}  # the owner of INN's files; as above
SECOND_NETWORK = {"locust": ["lab", "ui"]}  # an internal network publishes nothing, and its page is to be seen

# Public test certificates of a Debian package.
PUBLIC_KEYS = re.compile(r"aiosmtpd/tests/certs/")
PRIVATE_KEY = re.compile(rb"-----BEGIN [A-Z ]*PRIVATE KEY-----\s+[A-Za-z0-9+/=\s]{64}")


@pytest.mark.parametrize("name", SERVICES)
def test_service_is_hardened_or_declared_here(name: str) -> None:
    service = SERVICES[name]
    assert service["cap_drop"] == ["ALL"]
    assert service.get("cap_add", []) == ROOT_AT_FIRST.get(name, [])
    assert service["user"] == USERS.get(name, "1000:1000")
    assert service["read_only"] is True
    assert service["init"] is True
    assert service["security_opt"] == ["no-new-privileges:true"]
    assert service["networks"] == SECOND_NETWORK.get(name, ["lab"])
    assert not {"privileged", "pid", "ipc", "network_mode", "devices", "userns_mode", "extra_hosts"} & set(service)


@pytest.mark.parametrize("name", SERVICES)
def test_no_service_can_take_the_machine_down(name: str) -> None:
    service = SERVICES[name]
    assert 0 < service["pids_limit"] <= 2048
    size = re.fullmatch(r"(\d+)([mg])", service["mem_limit"])
    assert size
    assert int(size[1]) * {"m": 1, "g": 1024}[size[2]] <= 2048
    assert service["ulimits"]["nofile"]
    assert service["restart"] == "no"


@pytest.mark.parametrize("name", SERVICES)
def test_no_service_has_the_engines_socket_or_a_folder_of_the_host(name: str) -> None:
    """Only the two named volumes are mounted, and both are in memory; and the folder that `lab load-file` is given."""
    volumes = {str(volume) for volume in SERVICES[name]["volumes"]}
    if name in ("locust", "locust_worker"):
        volumes.remove("/dev/null:/locustfiles:ro")
    assert {volume.split(":")[0] for volume in volumes} <= {"sockets", "gallery_pub"}


@pytest.mark.parametrize("name", SERVICES)
def test_only_the_web_ui_is_published_and_only_on_loopback(name: str) -> None:
    ports = SERVICES[name].get("ports", [])
    assert [str(port).split(":")[0] for port in ports] == (["127.0.0.1"] if name == "locust" else [])


# One of each kind: a model, an instrument, a server of the gallery, and the one that begins as root.
KINDS = ["plain_socket", "shell", "gallery_gopher", "gallery_smtp"]


@pytest.fixture(scope="module")
def backend(find_of_project: Any) -> Iterator[Containers]:
    backend = Containers(f"t{uuid4().hex[:8]}", CATALOGUE)
    try:
        backend.up(["plain_socket"], timeout=60)
        backend.up_gallery(CATALOGUE.select_gallery([name for name in KINDS if name.startswith("gallery")]), timeout=60)
        yield backend
    finally:
        backend.down()
        assert not find_of_project(backend.project)


@pytest.fixture(params=[pytest.param(kind, marks=DOCKER) for kind in KINDS])
def container(request: pytest.FixtureRequest, engine: docker.DockerClient, backend: Containers) -> Container:
    return engine.containers.get(f"{backend.project}-{request.param}-1")


def name_of(container: Container) -> str:
    return str(container.labels["com.docker.compose.service"])


def statuses(container: Container) -> list[dict[str, list[str]]]:
    """Return /proc/PID/status of every process, read inside the container."""
    code, output = execute(container, "sh", "-c", "cat /proc/[0-9]*/status", user=USERS.get(name_of(container), ""))
    assert code in (0, 1)  # `cat` itself may be in the list, and gone
    blocks = re.split(r"^(?=Name:)", output.decode(), flags=re.MULTILINE)[1:]
    return [
        {key: value.split() for key, _, value in (line.partition(":") for line in block.splitlines())}
        for block in blocks
    ]


def test_processes_have_only_declared_privileges(container: Container) -> None:
    numbers = {"CHOWN": 0, "FOWNER": 3, "SETGID": 6, "SETUID": 7, "SYS_CHROOT": 18}
    allowed = sum(1 << numbers[capability] for capability in ROOT_AT_FIRST.get(name_of(container), []))
    found = statuses(container)
    assert len(found) >= 2
    for status in found:
        for kind in ("CapEff", "CapPrm", "CapBnd", "CapAmb"):
            assert not int(status[kind][0], 16) & ~allowed, status
        assert status["NoNewPrivs"] == ["1"]
        assert status["Seccomp"] == ["2"]
        assert allowed or "0" not in status["Uid"]


def test_only_declared_paths_are_writable(container: Container) -> None:
    service = SERVICES[name_of(container)]
    declared = {re.split(":", str(place))[0] for place in service.get("tmpfs", [])}
    declared |= {str(volume).split(":")[1] for volume in service["volumes"]}
    # The engine's own: files of the container's name and addresses, and memory that no other container sees.
    declared |= {"/dev", "/dev/shm", "/dev/mqueue", "/dev/pts"}  # noqa: S108 - places; nothing is written
    declared |= {"/proc", "/etc/resolv.conf", "/etc/hostname", "/etc/hosts"}
    code, output = execute(container, "cat", "/proc/self/mounts")
    assert code == 0
    mounts = [line.split() for line in output.decode().splitlines()]
    (root,) = (options for _, where, _, options, *_ in mounts if where == "/")
    assert "ro" in root.split(",")
    writable = {where for _, where, _, options, *_ in mounts if "rw" in options.split(",")}
    assert {where for where in writable if not where.startswith(("/proc/", "/sys/"))} <= declared
    code, output = execute(container, "sh", "-c", "echo > /usr/x", user="root")
    assert code != 0
    assert b"Read-only file system" in output


def test_engine_socket_is_in_no_container(container: Container) -> None:
    code, _ = container.exec_run(["sh", "-c", "ls /var/run/docker.sock /run/docker.sock /run/containerd"])
    assert code != 0
    assert not [
        mount
        for mount in container.attrs["Mounts"]
        if mount["Type"] == "bind" and "secrets" not in mount["Destination"]
    ]


def test_models_publish_no_port(container: Container) -> None:
    assert not [port for port in container.attrs["NetworkSettings"]["Ports"].values() if port]


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


@DOCKER[0]
@DOCKER[1]
def test_host_is_unreachable_from_containers(engine: docker.DockerClient, backend: Containers) -> None:
    """Not by TCP or UDP at any address, IPv4 or IPv6. A container on an ordinary network reaches it."""
    inside = [engine.containers.get(f"{backend.project}-{name}-1") for name in ("plain_socket", "shell")]
    (network,) = inside[0].attrs["NetworkSettings"]["Networks"]
    hosts = sorted(addresses_of_host(engine.networks.get(network)))
    with ExitStack() as stack:
        listener = stack.enter_context(open_server(socket.SOCK_STREAM, 0))
        port = listener.getsockname()[1]
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


@pytest.mark.parametrize("service", [pytest.param(service, marks=DOCKER) for service in ("plain_socket", "shell")])
def test_internet_is_unreachable_from_containers(
    engine: docker.DockerClient, backend: Containers, service: str
) -> None:
    """There is no default route, or one to an unused gateway: 20.10 sets one, later engines set none."""
    command = ["python3", "-c", LEAVE]
    assert execute(engine.containers.get(f"{backend.project}-{service}-1"), *command) == (0, b"\n")
    # On an ordinary network there is one.
    assert run_once("socketlab/instrument", *command, options=["--network=bridge"]) == "way out\n"


def test_services_use_only_features_of_the_oldest_engine() -> None:
    """`start_interval` came with Engine 25: on an older one Compose refuses to start a container that has it."""
    for name, service in SERVICES.items():
        assert set(service.get("healthcheck", {})) <= {"test", "interval", "timeout", "retries", "start_period"}, name
        assert not {"develop", "gpus", "provider", "models"} & set(service), name


@pytest.mark.parametrize("image", [pytest.param(image, marks=DOCKER) for image in ("plain_socket", "instrument")])
def test_image_layers_contain_no_key_and_no_ca(backend: Containers, image: str) -> None:
    """In no layer: a file that a later layer removes would be found as well."""
    certificate = (ensure_certificates(CATALOGUE.names) / CA).read_bytes().splitlines()[2]
    found = [
        name
        for name, content in files_of(f"socketlab/{image}")
        if certificate in content or (PRIVATE_KEY.search(content) and not PUBLIC_KEYS.search(name))
    ]
    assert not found


def files_of(image: str) -> Iterator[tuple[str, bytes]]:
    """Yield every small file of every layer."""
    with subprocess.Popen(["docker", "save", image], stdout=subprocess.PIPE) as saving:
        count = 0
        with tarfile.open(fileobj=saving.stdout, mode="r|") as archive:
            for member in archive:
                if not member.isfile() or not (member.name.endswith("layer.tar") or member.name.startswith("blobs/")):
                    continue
                with (
                    suppress(tarfile.ReadError),
                    tarfile.open(fileobj=archive.extractfile(member), mode="r|*") as layer,
                ):
                    for file in layer:
                        if file.isfile() and 0 < file.size < 100_000:
                            count += 1
                            content = layer.extractfile(file)
                            assert content is not None
                            yield file.name, content.read()
    assert saving.returncode == 0
    assert count > 1000


def test_builds_get_secrets_only_as_build_secrets() -> None:
    """No build argument and no copied file holds a secret, and `.lab` is not sent to the engine."""
    for service in SERVICES.values():
        assert set(service["build"].get("args", {})) <= {"MODEL", "EXTRA", "BASE", "LOCK"}
        assert service["build"].get("secrets", ["ca"]) == ["ca"]
    ignored = (ROOT / ".dockerignore").read_text().splitlines()
    assert ".lab" in ignored or "*" in ignored or "**" in ignored
