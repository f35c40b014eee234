"""The facts about the machine and the software. What is not known is None, and never a guess."""

import platform
import subprocess
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import NoReturn

import pytest

from lab.experiments import environment
from lab.experiments.bench import runner
from lab.experiments.environment import describe_environment, read_commit, read_processor
from lab.experiments.store import Run

X86 = "processor\t: 0\nvendor_id\t: G\nmodel name\t: A chip: 2.1 GHz\nmodel name\t: of another core\n"
ARM = "processor\t: 0\nBogoMIPS\t: 50.00\n"


@pytest.fixture
def git(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., str]:
    """Run git in a new folder, which is the project's root for the code under test."""
    monkeypatch.setattr(environment, "ROOT", tmp_path)
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path.parent))

    def git(*words: str) -> str:
        who = ["-c", "user.name=a", "-c", "user.email=a@b"]
        return subprocess.run(["git", *who, *words], cwd=tmp_path, capture_output=True, text=True, check=True).stdout

    return git


@pytest.mark.usefixtures("far_from_utc")
def test_times_are_utc_wherever_the_machine_is(tmp_path: Path) -> None:
    shown = (
        (describe_environment()["date"] or "", "%Y-%m-%d %H:%M:%S UTC"),
        (Run.create("bench", {}, root=tmp_path).started, "%Y-%m-%dT%H%M%SZ"),
        (runner._now(), "%Y-%m-%dT%H%M%S.%fZ"),
    )
    for text, form in shown:
        found = datetime.strptime(text, form).replace(tzinfo=UTC)
        assert abs(found - datetime.now(UTC)) < timedelta(hours=1)


def test_commit_is_the_one_of_the_sources(git: Callable[..., str], tmp_path: Path) -> None:
    assert read_commit() is None  # a source archive
    git("init", "--quiet")
    assert read_commit() is None
    (tmp_path / "a").touch()
    git("add", "a")
    git("commit", "--quiet", "--message", "one")
    commit = git("rev-parse", "HEAD")[:12]
    assert read_commit() == commit
    (tmp_path / "b").touch()
    assert read_commit() == f"{commit} with uncommitted changes"


def test_commit_is_unknown_without_git(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    assert read_commit() is None


def test_commit_is_unknown_if_git_takes_more_than_10_s(monkeypatch: pytest.MonkeyPatch) -> None:
    def hang(command: list[str], *, timeout: float, **_: object) -> NoReturn:
        asked.append(timeout)
        raise subprocess.TimeoutExpired(command, timeout)

    asked: list[float] = []
    monkeypatch.setattr(subprocess, "run", hang)
    assert read_commit() is None
    assert asked == [10]


@pytest.mark.parametrize(
    ("cpuinfo", "named", "found"),
    [(X86, "x86_64", "A chip: 2.1 GHz"), (ARM, "aarch64", None), (None, "a chip", "a chip"), (None, "", None)],
)
def test_processor_is_named_by_the_kernel(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, cpuinfo: str | None, named: str, found: str | None
) -> None:
    monkeypatch.setattr(environment, "Path", lambda _: tmp_path / "cpuinfo")
    monkeypatch.setattr(platform, "processor", lambda: named)
    if cpuinfo is not None:
        (tmp_path / "cpuinfo").write_bytes(cpuinfo.encode() + b"flags\t: \xff\n")
    assert read_processor() == found


def test_environment_has_the_machine_and_where_the_servers_run(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse() -> dict[str, str]:
        raise OSError("no os-release")

    monkeypatch.setattr("os.cpu_count", lambda: 4)
    monkeypatch.setattr("psutil.virtual_memory", lambda: SimpleNamespace(total=6 * 2**30))
    monkeypatch.setattr(environment, "read_processor", lambda: None)
    monkeypatch.setattr(platform, "freedesktop_os_release", lambda: {"PRETTY_NAME": "Debian 12"})
    for name in ("system", "release", "machine"):
        monkeypatch.setattr(platform, name, lambda name=name: name)
    found = describe_environment({"backend": "docker", "engine": None}, versions={"Locust": "2.1", "gevent": "25"})
    assert list(found) == ["date", "commit", "processor", "system", "backend", "engine", "lab", "load generator"]
    assert found["processor"] == "unknown model, 4 cores, 6.0 GiB memory"
    assert found["system"] == "Debian 12 system release machine"
    assert (found["backend"], found["engine"]) == ("docker", None)
    assert found["lab"] == f"Python {platform.python_version()}"
    assert found["load generator"] == "Locust 2.1, gevent 25"
    monkeypatch.setattr(environment, "read_processor", lambda: "A chip")
    monkeypatch.setattr(platform, "freedesktop_os_release", refuse)
    found = describe_environment()
    assert found["processor"] == "A chip, 4 cores, 6.0 GiB memory"
    assert found["system"] == "system release machine"
    assert (found["backend"], found["load generator"]) == ("process", None)
