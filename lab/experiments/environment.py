"""Describe the machine and the software of a measurement. A fact that is not known is None."""

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
    """Return the facts about the machine, the software and the commit.

    Args:
        backend: docker or process.
        versions: Versions that the load generator reports; in a container they differ from this process's.
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
    """Return the versions of Python and of the models' libraries; in a container, from the first line of the log."""
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
    """Return the commit, and whether there are uncommitted changes."""
    commit = _output(["git", "rev-parse", "--short=12", "HEAD"])
    if commit is None:
        return None
    changes = _output(["git", "status", "--porcelain"])
    return f"{commit} with uncommitted changes" if changes else commit


def read_processor() -> str | None:
    """Return the name of the processor."""
    try:
        lines = Path("/proc/cpuinfo").read_text(errors="replace").splitlines()
    except OSError:
        return platform.processor() or None
    # x86 has "model name". On Arm there is none, and platform.processor() has no name either.
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), None)


def read_distribution() -> str | None:
    """Return name and version of the distribution."""
    try:
        return platform.freedesktop_os_release().get("PRETTY_NAME")
    except OSError:
        return None


def read_engine() -> str | None:
    """Return the versions of the Docker engine and, if it is installed as a plugin, of Compose."""
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
