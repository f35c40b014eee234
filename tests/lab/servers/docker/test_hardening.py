"""The lab's own safety: what every service of compose.yaml is held to, and what is in the images.

`tests/support/hardening.py` reads what the kernel says inside the containers; `test_containers.py` and
`test_gallery.py` run it, and the former tries the way to the host and to the internet.
"""

import re
import subprocess
import tarfile
from collections.abc import Iterable, Iterator
from contextlib import suppress

import pytest

from lab.base.paths import ROOT
from lab.servers.catalogue import Catalogue
from lab.servers.certificates import CA, ensure_certificates
from lab.servers.docker.containers import Containers
from tests.support.hardening import ROOT_AT_FIRST, SERVICES, USERS

CATALOGUE = Catalogue.load()

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


def test_services_use_only_features_of_the_oldest_engine() -> None:
    """`start_interval` came with Engine 25: on an older one Compose refuses to start a container that has it."""
    for name, service in SERVICES.items():
        assert set(service.get("healthcheck", {})) <= {"test", "interval", "timeout", "retries", "start_period"}, name
        assert not {"develop", "gpus", "provider", "models"} & set(service), name


@pytest.mark.docker
@pytest.mark.xdist_group("docker")
@pytest.mark.usefixtures("engine")
def test_image_layers_contain_no_key_and_no_ca() -> None:
    """In no layer: a file that a later layer removes would be found as well."""
    services = ["plain_socket", "shell"]
    Containers("t", CATALOGUE).build(services)
    certificate = (ensure_certificates(CATALOGUE.names) / CA).read_bytes().splitlines()[2]
    found = [
        name
        for name, content in files_of(CATALOGUE.image(service) for service in services)
        if certificate in content or (PRIVATE_KEY.search(content) and not PUBLIC_KEYS.search(name))
    ]
    assert not found


def files_of(images: Iterable[str]) -> Iterator[tuple[str, bytes]]:
    """Yield every small file of every layer; layers that images share are saved once."""
    with subprocess.Popen(["docker", "save", *images], stdout=subprocess.PIPE) as saving:
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
