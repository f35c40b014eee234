"""What a measurement ran on. A fact that cannot be found out is None."""

import contextlib
import json
import os
import platform
import subprocess
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import psutil

from lab.base.errors import LabError
from lab.base.paths import ROOT
from lab.engine import EngineError
from lab.engine.client import make_environ
from lab.servers.catalogue import Model


def describe_environment(backend: str, *, versions: Mapping[str, str] | None = None) -> dict[str, str | None]:
    """The machine, the software and the state of the project.

    Args:
        backend: docker or process.
        versions: of the load generator, as it reports them itself: in a container they are not this process's.
    """
    cores, memory = os.cpu_count(), psutil.virtual_memory().total
    facts: dict[str, str | None] = {
        "date": datetime.now(UTC).strftime("%Y-%m-%d %H:%M:%S UTC"),
        "commit": read_commit(),
        "processor": f"{read_processor() or 'unknown model'}, {cores} cores, {memory / 2**30:.1f} GiB memory",
        "system": " ".join(
            filter(None, (read_distribution(), platform.system(), platform.release(), platform.machine()))
        ),
        "backend": backend,
    }
    if backend == "docker":
        facts["engine"] = read_engine()
    facts["lab"] = f"Python {platform.python_version()}"
    facts["load generator"] = ", ".join(f"{name} {version}" for name, version in (versions or {}).items()) or None
    return facts


def describe_servers(backend: Any, models: Iterable[Model]) -> str | None:
    """Python and libraries that the models run on: in a container they say so in the first line of their log."""
    found: dict[str, str] = {}
    for model in models:
        if backend.name == "process":
            found["Python"] = platform.python_version()
            if model.extra:
                with contextlib.suppress(PackageNotFoundError):
                    found[model.extra] = version(model.extra)
            continue
        with contextlib.suppress(LabError):
            for line in backend.logs(model.name).splitlines():
                if line.startswith('{"model"'):
                    with contextlib.suppress(ValueError, KeyError):
                        header = json.loads(line)
                        python = "Python" if header.get("gil", True) else "Python without the GIL"
                        found |= {python: header["python"]} | header["libraries"]
    return ", ".join(f"{name} {text}" for name, text in found.items()) or None


def read_commit() -> str | None:
    """The commit of the project, and whether the files differ from it."""
    commit = _output(["git", "rev-parse", "--short=12", "HEAD"])
    if commit is None:
        return None
    changes = _output(["git", "status", "--porcelain"])
    return f"{commit} with uncommitted changes" if changes else commit


def read_processor() -> str | None:
    """The processor's name."""
    try:
        lines = Path("/proc/cpuinfo").read_text(errors="replace").splitlines()
    except OSError:
        return platform.processor() or None
    # x86 says "model name"; Arm says less, and platform.processor() is no better there.
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), None)


def read_distribution() -> str | None:
    """The distribution's name and version."""
    try:
        return platform.freedesktop_os_release().get("PRETTY_NAME")
    except OSError:
        return None


def read_engine() -> str | None:
    """The Docker engine's version, and that of its client where Compose is a part of it."""
    engine = _output(["docker", "version", "--format", "{{.Server.Version}}"])
    compose = _output(["docker", "compose", "version", "--short"])
    if engine is None:
        return None
    return f"Docker Engine {engine}" + (f", Compose {compose}" if compose else "")


def _output(command: list[str]) -> str | None:
    try:
        done = subprocess.run(  # noqa: S603  # fixed commands
            command, cwd=ROOT, env=make_environ(), capture_output=True, text=True, timeout=10, check=True
        )
    except (OSError, subprocess.SubprocessError, EngineError):
        return None
    return done.stdout.strip() or None
