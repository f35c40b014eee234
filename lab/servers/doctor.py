"""`lab doctor`: check this machine for what the lab needs, and say how to fix what is missing."""

import os
import re
import resource
import shutil
import socket
import sys
import tempfile
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

from lab.base.environ import ENV_UI_PORT
from lab.base.errors import LabError
from lab.base.ui_port import choose_ui_port
from lab.engine import EngineStatus, status
from lab.servers.catalogue import Catalogue

# A load needs two sockets for each user, one at each end. The usual soft limit, 1024, is enough for hundreds of users.
_ENOUGH_FILES = 8192
_ENOUGH_CORES = 2
_HTTP_CHECK = "checks our HTTP figures in `lab bench` on the process backend; containers have it"
# The oldest and the newest version on which the whole test suite has passed.
TESTED = {"engine": ("20.10", "28"), "compose": ("2.26", "2.40"), "buildx": ("0.13", "0.29")}


@dataclass(frozen=True, slots=True)
class Finding:
    """The result of one check.

    Args:
        good: whether it is as the lab needs it.
        what: the version or the problem that was found.
        fix: how to fix it; empty if it is good.
        needed_for: the backend that cannot run without it: docker, process or both; empty if it is optional.
    """

    part: str
    good: bool
    what: str
    fix: str = ""
    needed_for: str = ""


def examine() -> list[Finding]:
    """Check all parts; change nothing."""
    return [*_examine_project(), *_examine_docker(status()), *_examine_processes(), *_examine_tools()]


def can_run(findings: Iterable[Finding]) -> bool:
    bad = {item.needed_for for item in findings if not item.good}
    return "both" not in bad and not {"docker", "process"} <= bad


def _examine_project() -> Iterator[Finding]:
    version = ".".join(map(str, sys.version_info[:3]))
    yield Finding("python", sys.version_info >= (3, 11), version, "Python 3.11 or later", "both")
    try:
        models = Catalogue.load().models
    except LabError as error:
        yield Finding("catalogue", False, str(error), "correct that line", "both")
        return
    yield Finding("catalogue", True, f"{len(models)} models")
    for extra in sorted({model.extra for model in models if model.extra}):
        good = find_spec(extra) is not None
        yield Finding(
            f"library {extra}",
            good,
            "installed" if good else "not installed: its models run in containers only",
            f"pip install -e '.[{extra}]'",
        )


def _examine_docker(engine: EngineStatus) -> Iterator[Finding]:
    problems = {problem.part: problem for problem in engine.problems}
    found = {
        "client": engine.client_version,
        "engine": engine.server_version,
        "compose": engine.compose_version,
        "buildx": engine.buildx_version,
    }
    for part, version in found.items():
        if problem := problems.get(part):
            yield Finding(part, False, problem.what, problem.fix, "docker")
        else:
            yield _examine_version(part, str(version))
    # Not needed: `lab up` provides a missing base image itself.
    problem = problems.get("base_image")
    yield Finding(
        "base image",
        problem is None,
        problem.what if problem else "there",
        f"`lab up` does, or {problem.fix}" if problem else "",
    )
    if engine.reachable:
        limits = engine.cgroup_version is not None and engine.cgroup_driver != "none"
        what = f"version {engine.cgroup_version}, driver {engine.cgroup_driver}, storage {engine.storage_driver}"
        yield Finding(
            "cgroups", limits, what, "give the engine a cgroup driver; without one, limits of containers have no effect"
        )


def _examine_version(part: str, version: str) -> Finding:
    """Compare a version with the tested range. A version outside of it may work too, so it is not needed."""
    if part not in TESTED:
        return Finding(part, True, version)
    oldest, newest = TESTED[part]
    tested = f"tested: {oldest} to {newest}"
    number = _number(version)
    if _number(oldest) <= number and number[: newest.count(".") + 1] <= _number(newest):
        return Finding(part, True, f"{version} ({tested})")
    fix = f"`make test` shows whether the lab works with it; else install one of {oldest} to {newest}"
    return Finding(part, False, f"{version} is not among the tested versions ({tested})", fix)


def _number(version: str) -> list[int]:
    """Return the major and minor number of a version; [] if it has none."""
    found = re.match(r"v?(\d+)(?:\.(\d+))?", version)
    return [int(part) for part in found.groups() if part] if found else []


def _examine_processes() -> Iterator[Finding]:
    yield Finding(
        "fork", hasattr(os, "fork"), "this system forks" if hasattr(os, "fork") else "none", "a Unix", "process"
    )
    yield _examine_unix_sockets()
    yield _examine_loopback()
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    yield Finding(
        "open files",
        hard >= _ENOUGH_FILES or hard == -1,
        f"{soft}, up to {hard}",
        f"ulimit -n {_ENOUGH_FILES}, as root",
    )
    cores = len(os.sched_getaffinity(0))
    yield Finding(
        "cores",
        cores >= _ENOUGH_CORES,
        str(cores),
        "use two or more: on one core, servers and load generator compete",
    )


def _examine_unix_sockets() -> Finding:
    try:
        with tempfile.TemporaryDirectory(prefix="lab-") as directory, socket.socket(socket.AF_UNIX) as probe:
            probe.bind(str(Path(directory) / "s"))
    except OSError as error:
        return Finding(
            "unix sockets",
            False,
            str(error),
            "set TMPDIR to a folder on a file system that supports sockets",
            "process",
        )
    return Finding("unix sockets", True, "can be bound", "", "process")


def _examine_loopback() -> Finding:
    try:
        with socket.create_server(("127.0.0.1", 0)) as listener, socket.create_connection(listener.getsockname(), 2):
            pass
    except OSError as error:
        return Finding("loopback", False, str(error), "bring the interface up: ip link set lo up", "process")
    return Finding("loopback", True, "127.0.0.1 connects", "", "process")


def _examine_ui_port() -> Finding:
    try:
        port = choose_ui_port(os.environ)
    except LabError as error:
        return Finding("port", False, str(error), f"set {ENV_UI_PORT} to a number from 1 to 65535")
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError as error:
            why = error.strerror or str(error)
            return Finding(f"port {port}", False, why, f"set {ENV_UI_PORT} to another port for Locust's web UI")
    return Finding(f"port {port}", True, "free for Locust's web UI")


def _examine_tools() -> Iterator[Finding]:
    yield _examine_ui_port()
    tools = {
        "redis-cli": ("redis-tools", "a Redis client for `lab shell` on the process backend; containers have it"),
        "redis-benchmark": (
            "redis-tools",
            "checks our figures in `lab bench` on the process backend; containers have it",
        ),
        "wrk": ("wrk", _HTTP_CHECK),
        "h2load": ("nghttp2-client", _HTTP_CHECK),
        "hey": ("hey", _HTTP_CHECK),
        "strace": ("strace", "counts system calls for `lab xray --count`"),
        "perf": ("linux-perf", "profiles a server by function"),
    }
    for tool, (package, use) in tools.items():
        path = shutil.which(tool)
        yield Finding(tool, path is not None, path or f"not installed: {use}", f"apt-get install {package}")
