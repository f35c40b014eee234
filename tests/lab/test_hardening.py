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
from contextlib import suppress
from typing import Any
from uuid import uuid4

import docker
import pytest
from docker.models.containers import Container

from lab.backends.containers import Containers
from lab.catalogue import ROOT, Catalogue
from lab.certificates import CA, provide

CATALOGUE = Catalogue.load()
SERVICES = CATALOGUE.definitions
DOCKER = [pytest.mark.docker, pytest.mark.xdist_group("docker")]

# Who may do what the others may not, and why.
ROOT_AT_FIRST = {"gallery_smtp": ["CHOWN", "FOWNER", "SETGID", "SETUID", "SYS_CHROOT"]}  # becomes its own users
USERS = {"gallery_news": "news", "gallery_smtp": "root"}  # whom INN's files belong to; as above
SECOND_NETWORK = {"locust": ["lab", "ui"]}  # an internal network publishes nothing, and its page is to be seen

# Test certificates that a package of Debian's brings along: anybody can read them there.
PUBLIC_KEYS = re.compile(r"aiosmtpd/tests/certs/")
PRIVATE_KEY = re.compile(rb"-----BEGIN [A-Z ]*PRIVATE KEY-----\s+[A-Za-z0-9+/=\s]{64}")


@pytest.mark.parametrize("name", SERVICES)
def test_every_service_is_hardened_or_declared_here(name: str) -> None:
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
    """What is mounted are volumes by name; the two that there are, are memory."""
    volumes = {str(volume).split(":")[0] for volume in SERVICES[name]["volumes"]}
    assert volumes <= {"sockets", "gallery_pub"}


@pytest.mark.parametrize("name", SERVICES)
def test_only_the_interface_is_published_and_only_here(name: str) -> None:
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
    """/proc/PID/status of every process in it, from within."""
    code, output = container.exec_run(["sh", "-c", "cat /proc/[0-9]*/status"], user=USERS.get(name_of(container), ""))
    assert code in (0, 1)  # `cat` itself may be in the list, and gone
    blocks = re.split(r"^(?=Name:)", output.decode(), flags=re.MULTILINE)[1:]
    return [
        {key: value.split() for key, _, value in (line.partition(":") for line in block.splitlines())}
        for block in blocks
    ]


def test_no_process_has_more_than_was_declared(container: Container) -> None:
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


def test_only_declared_places_can_be_written_to(container: Container) -> None:
    service = SERVICES[name_of(container)]
    declared = {re.split(":", str(place))[0] for place in service.get("tmpfs", [])}
    declared |= {str(volume).split(":")[1] for volume in service["volumes"]}
    # The engine's own: files of the container's name and addresses, and memory that no other container sees.
    declared |= {"/dev", "/dev/shm", "/dev/mqueue", "/dev/pts"}  # noqa: S108 - places; nothing is written
    declared |= {"/proc", "/etc/resolv.conf", "/etc/hostname", "/etc/hosts"}
    code, output = container.exec_run(["cat", "/proc/self/mounts"])
    assert code == 0
    mounts = [line.split() for line in output.decode().splitlines()]
    (root,) = (options for _, where, _, options, *_ in mounts if where == "/")
    assert "ro" in root.split(",")
    writable = {where for _, where, _, options, *_ in mounts if "rw" in options.split(",")}
    assert {where for where in writable if not where.startswith(("/proc/", "/sys/"))} <= declared
    code, output = container.exec_run(["sh", "-c", "echo > /usr/x"], user="root")
    assert code != 0
    assert b"Read-only file system" in output


def test_the_engine_is_nowhere(container: Container) -> None:
    code, _ = container.exec_run(["sh", "-c", "ls /var/run/docker.sock /run/docker.sock /run/containerd"])
    assert code != 0
    assert not [
        mount
        for mount in container.attrs["Mounts"]
        if mount["Type"] == "bind" and "secrets" not in mount["Destination"]
    ]


def test_nothing_is_published(container: Container) -> None:
    assert not [port for port in container.attrs["NetworkSettings"]["Ports"].values() if port]


@pytest.mark.parametrize("model", [pytest.param("plain_socket", marks=DOCKER)])
def test_the_host_cannot_be_reached(engine: docker.DockerClient, backend: Containers, model: str) -> None:
    """At none of its addresses, those of its bridges among them; it listens on all of them, and answers itself."""
    container = engine.containers.get(f"{backend.project}-{model}-1")
    (network,) = container.attrs["NetworkSettings"]["Networks"]
    gateway = engine.networks.get(network).attrs["IPAM"]["Config"][0]["Gateway"]
    own = subprocess.run(["hostname", "-I"], capture_output=True, text=True, check=True).stdout.split()
    hosts = sorted({gateway, "127.0.0.1", *(address for address in own if ":" not in address)})
    script = (
        "import socket, sys\n"
        "for host in sys.argv[2:]:\n"
        "    try: socket.create_connection((host, int(sys.argv[1])), 1)\n"
        "    except OSError: continue\n"
        "    print(host)\n"
    )
    with socket.create_server(("0.0.0.0", 0)) as listener:  # noqa: S104 - all addresses are the point
        port = listener.getsockname()[1]
        accepted: list[object] = []
        threading.Thread(target=lambda: accept_all(listener, accepted), daemon=True).start()
        socket.create_connection(("127.0.0.1", port), 5).close()
        code, output = container.exec_run(["python3", "-c", script, str(port), *hosts])
        listener.shutdown(socket.SHUT_RDWR)
    assert (code, output) == (0, b"")
    assert len(accepted) == 1


def accept_all(listener: socket.socket, accepted: list[object]) -> None:
    with suppress(OSError):
        while True:
            link, peer = listener.accept()
            link.close()
            accepted.append(peer)


@pytest.mark.parametrize("image", [pytest.param(image, marks=DOCKER) for image in ("plain_socket", "instrument")])
def test_no_key_and_no_ca_of_the_labs_is_in_a_layer(backend: Containers, image: str) -> None:
    """In no layer: also what a later one has removed would be found."""
    certificate = (provide(CATALOGUE.names) / CA).read_bytes().splitlines()[2]
    found = [
        name
        for name, content in files_of(f"socketlab/{image}")
        if certificate in content or (PRIVATE_KEY.search(content) and not PUBLIC_KEYS.search(name))
    ]
    assert not found


def files_of(image: str) -> Iterator[tuple[str, bytes]]:
    """Every small file of every layer."""
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
                            yield file.name, layer.extractfile(file).read()
    assert saving.returncode == 0
    assert count > 1000


def test_what_is_built_gets_secrets_only_as_such() -> None:
    """No build argument and no copied file is one, and nothing of `.lab` is sent to the engine."""
    for service in SERVICES.values():
        assert set(service["build"].get("args", {})) <= {"MODEL", "EXTRA", "BASE"}
        assert service["build"].get("secrets", ["ca"]) == ["ca"]
    ignored = (ROOT / ".dockerignore").read_text().splitlines()
    assert ".lab" in ignored or "*" in ignored or "**" in ignored
