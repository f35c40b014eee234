"""The progress of a build, from real output of BuildKit, buildx bake and the classic builder."""

import os
import pty
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from lab.base.errors import LabError
from lab.base.progress import progress_line, shorten, shown_by
from lab.servers.catalogue import Catalogue
from lab.servers.docker import images
from lab.servers.docker.build_progress import BuildProgress
from lab.servers.docker.command import open_process
from lab.servers.docker.containers import Containers
from lab.servers.docker.images import follow
from tests.support.fakes import Clock

BUILDS = Path(__file__).parent / "builds"
FORMATS = ("buildkit", "bake", "classic")
IMAGES = {"alpha": "made/alpha", "beta": "made/beta"}

# Answers `docker image inspect` with nothing, and a build with the output and the exit code of another one.
DOCKER = """#!/bin/sh
case "$*" in
  *" build "*) cat >/dev/null; cat "$OUTPUT"; exit "$CODE";;
esac
"""


def read(name: str) -> list[str]:
    return (BUILDS / f"{name}.txt").read_text().splitlines()


@pytest.mark.parametrize("name", FORMATS)
def test_end_of_each_image_is_seen_once(name: str) -> None:
    build = BuildProgress(IMAGES)
    # In all three builds beta, which is a stage of alpha, was finished first.
    assert [service for line in read(name) if (service := build.read(line))] == ["beta", "alpha"]
    assert build.unfinished == []


@pytest.mark.parametrize(
    ("name", "line", "described"),
    [
        (
            "buildkit",
            "#7 [alpha one 2/2] ",
            "building alpha (0/2), 9 s: [one 2/2] RUN echo hello-9231 && sleep 1",
        ),
        # Step 7 is over, and 8 exports beta.
        ("buildkit", "#8 exporting layers", "building beta (0/2), 9 s: exporting to image"),
        ("buildkit", "#9 0.392 again", "building alpha (1/2), 9 s: [stage-1 1/1] RUN echo again && sleep 1"),
        ("bake", "#1 reading", "building images (0/2), 9 s: [internal] load local bake definitions"),
        ("bake", "#10 0.713", "building alpha (1/2), 9 s: [stage-1 1/1] RUN echo again && sleep 1"),
        ("classic", "Step 2/3", "building images (0/2), 9 s: [2/3] RUN echo hello-6235 && sleep 1"),
        ("classic", "Step 4/5", "building alpha (1/2), 9 s: [4/5] RUN echo again && sleep 1"),
    ],
)
def test_current_step_is_described(name: str, line: str, described: str) -> None:
    build = BuildProgress(IMAGES)
    lines = read(name)
    last = next(number for number, text in enumerate(lines) if text.startswith(line))
    for each in lines[: last + 1]:
        build.read(each)
    assert build.describe(9.4) == described


def test_single_image_is_named_before_its_first_step() -> None:
    build = BuildProgress({"alpha": "made/alpha:latest"})
    assert build.describe(0) == "building alpha, 0 s"
    assert build.read("#9 naming to docker.io/made/alpha:latest 0.1s done") == "alpha"


def test_step_of_a_running_image_comes_back_when_another_ends() -> None:
    build = BuildProgress(IMAGES)
    for line in ("#3 [alpha 1/2] RUN a", "#4 [beta 1/2] RUN b", "#4 DONE 1.0s"):
        build.read(line)
    assert build.describe(2) == "building alpha (0/2), 2 s: [1/2] RUN a"


def test_step_that_is_named_again_is_the_current_one() -> None:
    build = BuildProgress(IMAGES)
    for line in ("#3 [alpha 1/2] RUN a", "#4 [beta 1/2] RUN b", "#3 [alpha 1/2] RUN a"):
        build.read(line)
    assert build.describe(2) == "building alpha (0/2), 2 s: [1/2] RUN a"


@pytest.fixture
def clone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A project of two images, and a fake Docker client with the output `OUTPUT` and the exit code `CODE`."""
    (tmp_path / "bin").mkdir()
    docker = tmp_path / "bin" / "docker"
    docker.write_text(DOCKER)
    docker.chmod(0o755)
    monkeypatch.setenv("PATH", f"{docker.parent}:{os.environ['PATH']}")
    monkeypatch.setenv("CODE", "0")
    labels = "{lab.family: f, lab.summary: s, lab.model: "
    services = "".join(
        f"  {name}: {{image: {image}, build: ., labels: {labels}{name}}}}}\n" for name, image in IMAGES.items()
    )
    (tmp_path / "compose.yaml").write_text(f"services:\n{services}")
    (tmp_path / "Dockerfile").write_text("FROM scratch\n")
    yield tmp_path
    shutil.rmtree(tmp_path / "bin")


def build(clone: Path) -> None:
    Containers("t", Catalogue.load(clone / "compose.yaml")).build(IMAGES)


@pytest.mark.parametrize("name", FORMATS)
def test_log_gets_one_line_for_each_image(
    clone: Path, name: str, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("OUTPUT", str(BUILDS / f"{name}.txt"))
    build(clone)
    assert re.sub(r"\d+ s", "N s", capfd.readouterr().err) == "lab: built beta in N s\nlab: built alpha in N s\n"


def test_log_gets_a_line_for_an_image_whose_end_is_not_shown(
    clone: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("OUTPUT", os.devnull)
    build(clone)
    assert re.sub(r"\d+ s", "N s", capfd.readouterr().err) == "lab: built alpha in N s\nlab: built beta in N s\n"


def test_failed_build_shows_the_end_of_its_log(
    clone: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("OUTPUT", str(BUILDS / "failed.txt"))
    monkeypatch.setenv("CODE", "17")
    with pytest.raises(LabError, match="building alpha, beta failed; its output ends with:") as caught:
        build(clone)
    said = str(caught.value).splitlines()
    assert said[-1] == "  " + read("failed")[-1]
    assert "  #5 0.489 some words" in said
    assert "  #4 CACHED" in said
    assert capfd.readouterr().err == ""


def on_terminal(script: str, columns: int) -> str:
    """Return what a Python script writes to a terminal of this width."""
    size = f"struct.pack('4H', 24, {columns}, 0, 0)"
    code = f"import fcntl, struct, termios; fcntl.ioctl(2, termios.TIOCSWINSZ, {size})\n"
    ours, theirs = pty.openpty()
    child = subprocess.Popen([sys.executable, "-c", code + script], stdin=theirs, stdout=theirs, stderr=theirs)
    os.close(theirs)
    said = b""
    try:
        while data := os.read(ours, 4096):
            said += data
    except OSError:
        pass  # EIO: the other end is closed
    os.close(ours)
    assert child.wait() == 0
    return said.decode()


@pytest.mark.parametrize("columns", [60, 120])
def test_terminal_shows_one_line_that_fits(clone: Path, columns: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OUTPUT", str(BUILDS / "bake.txt"))
    said = on_terminal(
        "from pathlib import Path; from tests.lab.servers.docker.test_build_progress import build\n"
        f"build(Path({str(clone)!r}))\n",
        columns,
    )
    shown, ended, last = said.rpartition("\r\x1b[K")
    assert ended
    assert re.fullmatch(r"lab: built 2 images in \d+ s\r\n", last)
    texts = [text.removesuffix("\x1b[K") for text in shown.split("\r")[1:]]
    assert len(texts) >= len(read("bake"))
    assert all(text.startswith("building ") and len(text) < columns for text in texts)
    assert any(re.match(r"building alpha \(1/2\), \d+ s: \[stage-1 1/1\] RUN", text) for text in texts)


@pytest.mark.parametrize(
    ("services", "built", "shown"),
    [(["alpha", "beta"], "2 images", r"alpha \(1/2\)"), (["beta"], "beta", "beta")],
)
def test_course_of_a_build_is_shown_to_a_person_and_its_end_is_one_line(
    clone: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
    services: list[str],
    built: str,
    shown: str,
) -> None:
    monkeypatch.setenv("OUTPUT", str(BUILDS / "bake.txt"))
    monkeypatch.setattr(images, "time", Clock())
    texts: list[str] = []
    with shown_by(texts.append):
        Containers("t", Catalogue.load(clone / "compose.yaml")).build(services)
    assert capfd.readouterr().err == f"lab: built {built} in 0 s\n"
    assert any(re.match(rf"building {shown}, 0 s: ", text) for text in texts), texts


def test_build_that_is_broken_off_is_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    def break_off(*_: object, **__: object) -> Iterator[str]:
        yield "a"
        raise KeyboardInterrupt

    monkeypatch.setattr(images, "read_lines", break_off)
    process = open_process(["/bin/sleep", "60"], environ={})
    with pytest.raises(KeyboardInterrupt):
        follow(process, IMAGES)
    assert process.returncode is not None


def test_time_of_a_build_goes_on_while_it_says_nothing(clone: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(images, "_TICK_SECONDS", 0.01)
    # Blank lines would push out what the build has said last.
    process = open_process(["/bin/sh", "-c", "/bin/sleep 0.2; echo; echo a; echo ' '"], environ={})
    texts: list[str] = []
    with shown_by(texts.append):
        assert follow(process, IMAGES) == ["a"]
    assert len(texts) > 2  # one for the line, and one that takes the last away


def test_spinner_shows_the_text_in_place_of_the_line(capfd: pytest.CaptureFixture[str]) -> None:
    texts: list[str] = []
    with shown_by(texts.append), progress_line() as show:
        show("building alpha")
    assert texts == ["building alpha", ""]
    with progress_line() as show:
        show("not shown")
    assert capfd.readouterr() == ("", "")


def test_long_text_is_cut() -> None:
    assert [shorten("abcdef", columns) for columns in (6, 5)] == ["abcdef", "abcd…"]
