"""`lab doctor`: its findings, and whether the lab can run."""

import os
import resource
import shutil
import socket
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from lab.engine import EngineStatus, Problem
from lab.servers import doctor
from lab.servers.doctor import Finding, can_run

# Every part is there, in versions that were tested.
WELL = {
    "reachable": True,
    "client_version": "28.2.2",
    "server_version": "20.10.24+dfsg1",
    "compose_version": "2.26.1-4",
    "buildx_version": "0.13.1",
    "base_image": "sha256:1",
    "storage_driver": "overlay2",
    "cgroup_version": "2",
    "cgroup_driver": "systemd",
    "nofile_limit": None,
    "problems": (),
}


def examine(**changes: object) -> dict[str, Finding]:
    found = list(doctor._examine_docker(EngineStatus(**{**WELL, **changes})))  # type: ignore[arg-type]
    return {finding.part: finding for finding in found}


def test_docker_is_fine() -> None:
    found = examine()
    assert list(found) == ["client", "engine", "compose", "buildx", "base image", "cgroups"]
    assert all(finding.good for finding in found.values())
    assert found["engine"].what == "20.10.24+dfsg1 (tested: 20.10 to 28)"
    assert found["cgroups"].what == "version 2, driver systemd, storage overlay2"
    assert can_run(found.values())


@pytest.mark.parametrize("part", ["client", "engine", "compose", "buildx"])
def test_missing_part_is_reported_with_its_fix(part: str) -> None:
    found = examine(problems=(Problem(part, f"no {part}", "run `make engine` as root"),))
    assert [name for name, finding in found.items() if not finding.good] == [part]
    assert found[part] == Finding(part, False, f"no {part}", "run `make engine` as root", "docker")
    # Models as processes need no Docker.
    assert can_run(found.values())
    assert not can_run([*found.values(), Finding("fork", False, "none", "a Unix", "process")])


def test_missing_base_image_is_not_a_failure() -> None:
    found = examine(problems=(Problem("base_image", "no image", "run `python3 -m lab.engine base`"),))
    assert found["base image"] == Finding(
        "base image", False, "no image", "`lab up` does, or run `python3 -m lab.engine base`"
    )
    assert can_run([*found.values(), Finding("fork", False, "none", "a Unix", "process")])


@pytest.mark.parametrize(
    ("version", "driver", "good"), [("1", "cgroupfs", True), ("2", "none", False), (None, "cgroupfs", False)]
)
def test_engine_without_limits_is_reported(version: str | None, driver: str, good: bool) -> None:
    assert examine(cgroup_version=version, cgroup_driver=driver)["cgroups"].good == good


def test_missing_engine_has_no_cgroups() -> None:
    away = Problem("engine", "Cannot connect", "run `make engine` as root")
    assert "cgroups" not in examine(reachable=False, cgroup_version=None, problems=(away,))


@pytest.mark.parametrize(
    ("part", "version", "good"),
    [
        ("engine", "20.10.24+dfsg1", True),
        ("engine", "20.9.1", False),
        ("engine", "19.03.15", False),
        ("engine", "24.0.7", True),
        ("engine", "28.5.2", True),
        ("engine", "29.0.0", False),
        ("compose", "v2.26.0", True),
        ("compose", "2.40.3-desktop.1", True),
        ("compose", "2.25.9", False),
        ("compose", "2.41.0", False),
        ("compose", "5.0.0", False),
        ("buildx", "0.13.1", True),
        ("buildx", "v0.29.1", True),
        ("buildx", "0.12.0", False),
        ("buildx", "0.30.0", False),
        ("engine", "dev", False),
    ],
)
def test_tested_range_is_named(part: str, version: str, good: bool) -> None:
    """The lab may run outside of the tested range as well."""
    versions = {"server_version" if part == "engine" else f"{part}_version": version}
    found = examine(**versions)[part]
    oldest, newest = doctor.TESTED[part]
    assert found.good == good
    assert f"tested: {oldest} to {newest}" in found.what
    assert version in found.what
    assert ("`make test`" in found.fix) != good
    assert found.needed_for == ""


def need(part: str, needed_for: str, good: bool = False) -> Finding:
    return Finding(part, good, "", "", needed_for)


@pytest.mark.parametrize(
    ("findings", "able"),
    [
        ([], True),
        ([need("a", "")], True),
        ([need("a", "both")], False),
        ([need("a", "both", good=True)], True),
        ([need("a", "docker")], True),
        ([need("a", "process")], True),
        ([need("a", "docker"), need("b", "process")], False),
        ([need("a", "docker", good=True), need("b", "process")], True),
        ([need("a", "docker"), need("b", "process", good=True), need("c", "")], True),
    ],
)
def test_lab_can_run_on_one_backend_or_the_other(findings: list[Finding], able: bool) -> None:
    assert can_run(findings) == able


def by_part(found: list[Finding]) -> dict[str, Finding]:
    return {finding.part: finding for finding in found}


@pytest.mark.parametrize(
    ("limits", "good"), [((1024, 8192), True), ((1024, 8191), False), ((1024, -1), True), ((8192, 8192), True)]
)
def test_open_files(monkeypatch: pytest.MonkeyPatch, limits: tuple[int, int], good: bool) -> None:
    monkeypatch.setattr(resource, "getrlimit", lambda _: limits)
    found = by_part(list(doctor._examine_processes()))["open files"]
    assert (found.good, found.what, found.needed_for) == (good, f"{limits[0]}, up to {limits[1]}", "")


@pytest.mark.parametrize(("cores", "good"), [({0}, False), ({3, 5}, True)])
def test_cores(monkeypatch: pytest.MonkeyPatch, cores: set[int], good: bool) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", {0: cores}.__getitem__)
    found = by_part(list(doctor._examine_processes()))["cores"]
    assert (found.good, found.what) == (good, str(len(cores)))


def test_requirements_of_processes(monkeypatch: pytest.MonkeyPatch) -> None:
    found = by_part(list(doctor._examine_processes()))
    assert {part for part, finding in found.items() if finding.needed_for == "process"} == {
        "fork",
        "unix sockets",
        "loopback",
    }
    assert all(found[part].good for part in ("fork", "unix sockets", "loopback"))
    assert found["fork"].what == "this system forks"
    monkeypatch.delattr(os, "fork")
    monkeypatch.setattr(socket.socket, "bind", refuse)
    monkeypatch.setattr(socket, "create_server", refuse)
    found = by_part(list(doctor._examine_processes()))
    for part in ("fork", "unix sockets", "loopback"):
        assert not found[part].good
        assert found[part].fix
    assert found["loopback"].what == "refused here"
    assert not can_run([*found.values(), need("engine", "docker")])


def refuse(*_: object, **__: object) -> None:
    raise OSError("refused here")


def test_port_of_the_web_ui(monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
        monkeypatch.setenv("LAB_UI_PORT", str(port))
        taken = by_part(list(doctor._examine_tools()))[f"port {port}"]
    free = by_part(list(doctor._examine_tools()))[f"port {port}"]
    assert (taken.good, taken.what) == (False, "Address already in use")
    assert free.good
    assert "LAB_UI_PORT" in taken.fix


@pytest.mark.parametrize("text", ["abc", "0", "65536", "-1", "8089 ", "\N{SUPERSCRIPT TWO}"])
def test_invalid_port_of_the_web_ui_is_reported_with_its_fix(monkeypatch: pytest.MonkeyPatch, text: str) -> None:
    monkeypatch.setenv("LAB_UI_PORT", text)
    found = by_part(list(doctor._examine_tools()))
    assert found["port"] == Finding(
        "port", False, f"LAB_UI_PORT={text!r} is not a port", "set LAB_UI_PORT to a number from 1 to 65535"
    )
    assert "strace" in found  # the other checks are made too
    assert can_run(found.values())


@pytest.mark.parametrize(("text", "port"), [("1", 1), ("65535", 65535), ("", 8089)])
def test_lowest_and_highest_port_of_the_web_ui(monkeypatch: pytest.MonkeyPatch, text: str, port: int) -> None:
    monkeypatch.setenv("LAB_UI_PORT", text)
    assert f"port {port}" in by_part(list(doctor._examine_tools()))


def test_port_in_time_wait_is_free(monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener, socket.create_connection(listener.getsockname()) as client:
        port = listener.getsockname()[1]
        listener.accept()[0].close()
        # The end that closes first keeps the address for a while.
        assert client.recv(1) == b""
    monkeypatch.setenv("LAB_UI_PORT", str(port))
    assert by_part(list(doctor._examine_tools()))[f"port {port}"].good


def test_loopback_is_tested_with_a_free_port(monkeypatch: pytest.MonkeyPatch) -> None:
    create = socket.create_server
    asked: list[tuple[str, int]] = []

    def create_one(address: tuple[str, int]) -> socket.socket:
        asked.append(address)
        return create(address)

    monkeypatch.setattr(socket, "create_server", create_one)
    assert doctor._examine_loopback().good
    assert asked == [("127.0.0.1", 0)]


def test_tools(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "which", lambda tool: "/x/perf" if tool == "perf" else None)
    found = by_part(list(doctor._examine_tools()))
    assert (found["perf"].good, found["perf"].what) == (True, "/x/perf")
    assert not found["redis-cli"].good
    fixes = {part: finding.fix for part, finding in found.items() if not part.startswith("port")}
    assert {part: fix.removeprefix("apt-get install ") for part, fix in fixes.items()} == {
        "redis-cli": "redis-tools",
        "redis-benchmark": "redis-tools",
        "wrk": "wrk",
        "h2load": "nghttp2-client",
        "hey": "hey",
        "strace": "strace",
        "perf": "linux-perf",
    }
    assert found["strace"].what == "not installed: counts system calls for `lab xray --count`"
    # The lab runs without any of them.
    assert not any(finding.needed_for for finding in found.values())


@pytest.fixture
def compose_file(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Callable[[str], object]:
    path = tmp_path / "compose.yaml"
    monkeypatch.setattr("lab.servers.catalogue.COMPOSE_FILE", path)
    return path.write_text


def test_project(compose_file: Callable[[str], object]) -> None:
    labels = "lab.model: mine, lab.family: f, lab.summary: s"
    compose_file(f"services: {{mine: {{image: x, labels: {{{labels}, lab.extra: no_such_library}}}}}}\n")
    found = by_part(list(doctor._examine_project()))
    assert found["catalogue"] == Finding("catalogue", True, "1 models")
    assert found["library no_such_library"] == Finding(
        "library no_such_library",
        False,
        "not installed: its models run in containers only",
        "pip install -e '.[no_such_library]'",
    )
    assert can_run(found.values())
    compose_file("services: [")
    found = by_part(list(doctor._examine_project()))
    assert not found["catalogue"].good
    assert not can_run(found.values())


def test_old_python_is_reported(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "version_info", (3, 10, 9))
    found = by_part(list(doctor._examine_project()))["python"]
    assert (found.good, found.what, found.needed_for) == (False, "3.10.9", "both")


@pytest.mark.parametrize(
    ("version", "good"), [((3, 11, 0), True), ((3, 11), True), ((3, 10, 99), False), ((3, 12, 1, 2, 7), True)]
)
def test_oldest_python(monkeypatch: pytest.MonkeyPatch, version: tuple[int, ...], good: bool) -> None:
    monkeypatch.setattr(sys, "version_info", version)
    found = by_part(list(doctor._examine_project()))["python"]
    assert (found.good, found.what) == (good, ".".join(map(str, version[:3])))


def test_libraries_of_models() -> None:
    found = by_part(list(doctor._examine_project()))
    assert (found["library trio"].good, found["library trio"].what) == (True, "installed")


def test_default_port_of_the_web_ui_is_locusts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("LAB_UI_PORT", raising=False)
    assert "port 8089" in by_part(list(doctor._examine_tools()))


def test_port_in_use_has_a_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LAB_UI_PORT", "9")
    monkeypatch.setattr(socket.socket, "bind", refuse)
    assert by_part(list(doctor._examine_tools()))["port 9"].what == "refused here"
