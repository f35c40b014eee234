"""What every container of a lab is held to: what the kernel says inside it, against what compose.yaml declares."""

import re
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import docker
from docker.models.containers import Container

from lab.servers.catalogue import Catalogue
from tests.support.container_commands import execute

SERVICES: Mapping[str, Mapping[str, Any]] = Catalogue.load().definitions

# Who may do what the others may not, and why.
ROOT_AT_FIRST = {"gallery_smtp": ["CHOWN", "FOWNER", "SETGID", "SETUID", "SYS_CHROOT"]}  # becomes its own users
USERS = {"gallery_news": "news", "gallery_smtp": "root"}  # the owner of INN's files; as above
_NUMBERS = {"1000:1000": "1000", "news": "9", "root": "0"}
# capabilities(7)
_CAPABILITIES = {"CHOWN": 0, "FOWNER": 3, "SETGID": 6, "SETUID": 7, "SYS_CHROOT": 18}

# One `docker exec` for all questions: each takes a fifth of a second. Files of cgroup v2 first, then those of v1.
_SCRIPT = """
for process in /proc/[0-9]*; do cat $process/status && sed -n 's/^Max open files/Files:/p' $process/limits; done
echo @written
for path in /x /srv/x /usr/x /etc/x /lab/x; do (echo > $path) 2>&1 && echo "$path was written"; done
echo @mounts; cat /proc/self/mounts
echo @pids; cat /sys/fs/cgroup/pids.max || cat /sys/fs/cgroup/pids/pids.max
echo @memory; cat /sys/fs/cgroup/memory.max || cat /sys/fs/cgroup/memory/memory.limit_in_bytes
echo @engine; ls /var/run/docker.sock /run/docker.sock /run/containerd
echo @end
"""


@dataclass(frozen=True, slots=True)
class Inside:
    """What the kernel says inside a container.

    Args:
        service: of compose.yaml.
        container: as the engine describes it.
        processes: /proc/PID/status of every process, and its limits of open files as "Files".
        parts: the other parts of the script's output by name, as lines.
    """

    service: str
    container: Container
    processes: list[dict[str, list[str]]]
    parts: dict[str, list[str]]


def look_inside(engine: docker.DockerClient, project: str, services: Sequence[str]) -> dict[str, Inside]:
    """Look into the containers of these services, four at a time."""

    def look(service: str) -> Inside:
        return _look(service, engine.containers.get(f"{project}-{service}-1"))

    with ThreadPoolExecutor(4) as pool:
        return dict(zip(services, pool.map(look, services), strict=True))


def _look(service: str, container: Container) -> Inside:
    _, output = execute(container, "sh", "-c", f"({_SCRIPT}) 2>/dev/null")
    assert output.endswith(b"@end\n"), output[-500:]
    status, *rest = output.decode().split("\n@")
    blocks = re.split(r"^(?=Name:)", status, flags=re.MULTILINE)[1:]
    processes = [
        {key: value.split() for key, _, value in (line.partition(":") for line in block.splitlines())}
        for block in blocks
        # Not a health check that begins (the engine's own process, with its own limits, until it becomes the
        # container's), nor a process that ended while it was looked at.
        if not block.startswith("Name:\trunc:") and "\nFiles:" in block
    ]
    parts = {name: lines for name, *lines in (part.splitlines() for part in rest)}
    return Inside(service, container, processes, parts)


class HardeningTests:
    """A module that has the fixture `inside` inherits these tests. pytest explains no `assert` of this file."""

    def test_processes_have_only_declared_privileges(self, inside: Inside) -> None:
        declared = sum(1 << _CAPABILITIES[name] for name in ROOT_AT_FIRST.get(inside.service, []))
        assert len(inside.processes) >= 2
        for status in inside.processes:
            for kind in ("CapEff", "CapPrm", "CapBnd", "CapAmb"):
                assert not int(status[kind][0], 16) & ~declared, status
            assert status["NoNewPrivs"] == ["1"], status
            assert status["Seccomp"] == ["2"], status
            assert declared or "0" not in status["Uid"] + status["Gid"], status
        first = next(status for status in inside.processes if status["Pid"] == ["1"])
        assert first["Uid"] == first["Gid"] == [_NUMBERS[USERS.get(inside.service, "1000:1000")]] * 4, first
        assert int(first["CapBnd"][0], 16) == declared, first

    def test_only_declared_paths_are_writable(self, inside: Inside) -> None:
        written = inside.parts["written"]
        assert len(written) == 5, written
        assert all(line.endswith(("Read-only file system", "nonexistent")) for line in written), written
        service = SERVICES[inside.service]
        declared = {str(place).partition(":")[0] for place in service.get("tmpfs", [])}
        declared |= {str(volume).split(":")[1] for volume in service["volumes"]}
        # The engine's own: files of the container's name and addresses, and memory that no other container sees.
        declared |= {"/dev", "/dev/shm", "/dev/mqueue", "/dev/pts"}  # noqa: S108 - places; nothing is written
        declared |= {"/proc", "/etc/resolv.conf", "/etc/hostname", "/etc/hosts"}
        mounts = [line.split() for line in inside.parts["mounts"]]
        (root,) = (options for _, where, _, options, *_ in mounts if where == "/")
        assert "ro" in root.split(","), root
        writable = {where for _, where, _, options, *_ in mounts if "rw" in options.split(",")}
        undeclared = {where for where in writable if not where.startswith(("/proc/", "/sys/"))} - declared
        assert not undeclared, undeclared

    def test_limits_of_processes_memory_and_descriptors(self, inside: Inside) -> None:
        service = SERVICES[inside.service]
        size, unit = int(service["mem_limit"][:-1]), service["mem_limit"][-1]
        assert inside.parts["pids"] == [str(service["pids_limit"])], inside.parts
        assert inside.parts["memory"] == [str(size << {"m": 20, "g": 30}[unit])], inside.parts
        (asked,) = inside.container.attrs["HostConfig"]["Ulimits"]
        limits = {tuple(process["Files"][:2]) for process in inside.processes}
        assert limits == {(str(asked["Soft"]), str(asked["Hard"]))}, limits

    def test_engine_socket_is_in_no_container(self, inside: Inside) -> None:
        assert inside.parts["engine"] == [], inside.parts
        mounts = inside.container.attrs["Mounts"]
        bound = [each for each in mounts if each["Type"] == "bind" and "secrets" not in each["Destination"]]
        assert not bound, bound

    def test_services_publish_no_port(self, inside: Inside) -> None:
        ports = inside.container.attrs["NetworkSettings"]["Ports"]
        assert not any(ports.values()), ports
