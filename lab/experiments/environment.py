"""Describe the machine and the software of a measurement. A fact that is not known is None."""

import os
import platform
import subprocess
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from types import MappingProxyType

import psutil

from lab.base.paths import ROOT

# Servers that are processes of this machine.
PROCESS: Mapping[str, str | None] = MappingProxyType({"backend": "process"})


def describe_environment(
    place: Mapping[str, str | None] = PROCESS, *, versions: Mapping[str, str] | None = None
) -> dict[str, str | None]:
    """Return the facts about the machine, the software and the commit.

    Args:
        place: where the servers run, as `Servers.describe` returns it.
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
        **place,
    }
    facts["lab"] = f"Python {platform.python_version()}"
    facts["load generator"] = ", ".join(f"{name} {version}" for name, version in (versions or {}).items()) or None
    return facts


def read_commit() -> str | None:
    commit = _output(["git", "rev-parse", "--short=12", "HEAD"])
    if commit is None:
        return None
    changes = _output(["git", "status", "--porcelain"])
    return f"{commit} with uncommitted changes" if changes else commit


def read_processor() -> str | None:
    try:
        lines = Path("/proc/cpuinfo").read_text(errors="replace").splitlines()
    except OSError:
        return platform.processor() or None
    # x86 has "model name". On Arm there is none, and platform.processor() has no name either.
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), None)


def read_distribution() -> str | None:
    try:
        return platform.freedesktop_os_release().get("PRETTY_NAME")
    except OSError:
        return None


def _output(command: list[str]) -> str | None:
    try:
        done = subprocess.run(  # noqa: S603  # fixed commands
            command, cwd=ROOT, capture_output=True, text=True, timeout=10, check=True
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip()
