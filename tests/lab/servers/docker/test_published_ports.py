"""Servers in containers behind a published port, and generators in containers whose lab was killed."""

import os
import subprocess
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import docker
import pytest

from lab.load.external_server import ExternalServer
from lab.metrics.cgroup import CgroupMeter
from lab.servers.docker.containers import Containers
from lab.servers.open import open_backend
from lab.servers.process_helpers import find_port
from tests.support.waiting import wait_until

ROOT = Path(__file__).resolve().parents[4]
MODEL = "asyncio_streams"

pytestmark = [pytest.mark.docker, pytest.mark.xdist_group("containers")]


def test_published_container_is_read_and_docker_proxy_is_not(engine: docker.DockerClient, docker_project: str) -> None:
    backend = open_backend("docker", docker_project)
    assert isinstance(backend, Containers)
    backend.build([MODEL])
    container = engine.containers.create(
        backend.catalogue.image(MODEL),
        ["--listen", "command=tcp://0.0.0.0:9000"],
        ports={"9000/tcp": ("127.0.0.1", None)},  # type: ignore[dict-item]  # None is any free port, unlike in its stubs
        labels={"com.docker.compose.project": docker_project},
    )
    try:
        container.start()
        container.reload()
        bound = container.ports["9000/tcp"]
        assert bound is not None
        (published,) = bound
        (network,) = container.attrs["NetworkSettings"]["Networks"].values()
        for address in (f"127.0.0.1:{published['HostPort']}", f"{network['IPAddress']}:9000"):
            meter = ExternalServer([f"command=tcp://{address}"]).meter("target")
            assert isinstance(meter, CgroupMeter), address
            assert meter.pid == container.attrs["State"]["Pid"]
            assert meter.read().memory_bytes
        # What has the port at another address of this machine is another server.
        assert ExternalServer([f"command=tcp://127.0.0.2:{published['HostPort']}"]).meter("target").pid is None
    finally:
        container.remove(force=True)


# Twice, the lab starts a generator in a container: on a busy machine, a minute each.
@pytest.mark.timeout(600)
def test_generator_in_a_container_ends_with_a_killed_lab(
    engine: docker.DockerClient, docker_project: str, find_of_project: Callable[[str], object]
) -> None:
    backend = open_backend("docker", docker_project)
    assert isinstance(backend, Containers)

    def find_generators() -> list[dict[str, Any]]:
        label = f"com.docker.compose.project={docker_project}"
        running = engine.api.containers(filters={"label": label, "status": "running"})
        return [item for item in running if "-locust" in item["Names"][0]]

    def has_ended_or_runs(lab: "subprocess.Popen[bytes]", count: int) -> bool:
        return lab.poll() is not None or len(find_generators()) == count

    port = find_port()
    try:
        backend.up([MODEL])
        backend.build(["locust", "locust_worker"])
        # A master and its worker; then a generator alone.
        for more, count in ((["--headless", "--workers", "1"], 2), ([], 1)):
            command = [sys.executable, "-m", "lab", "--backend", "docker", "--project", docker_project, "load"]
            command += [MODEL, "--preset", "closed_ping", "--duration", "10m", "--users", "2", *more]
            environ = {**os.environ, "LAB_UI_PORT": str(port)}
            lab = subprocess.Popen(command, cwd=ROOT, env=environ, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
            try:
                wait_until(partial(has_ended_or_runs, lab, count))
                found = find_generators()
                assert len(found) == count
                # The page is published for this machine alone, and only where there is one.
                ports = [each for item in found for each in item["Ports"] if "PublicPort" in each]
                published = [(each["IP"], each["PublicPort"]) for each in ports]
                assert published == ([] if more else [("127.0.0.1", port)])
            finally:
                lab.kill()
                lab.wait()
            wait_until(lambda: not find_generators())
    finally:
        backend.down()
    assert not find_of_project(docker_project)
