"""Images do not depend on modes, owners and times of the clone."""

import os
import re
import shutil
import subprocess
from collections.abc import Iterator
from datetime import date
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from uuid import uuid4

import docker
import pytest

from lab.base.errors import LabError
from lab.base.paths import ROOT
from lab.engine.command import run
from lab.servers.catalogue import Catalogue
from lab.servers.docker.containers import Containers
from lab.servers.docker.images import digest_context, read_built, read_inputs, read_sources
from tests.lab.conftest import run_once

DOCKER = [pytest.mark.docker, pytest.mark.xdist_group("docker")]
DOCKERFILES = sorted(path for path in ROOT.glob("**/Dockerfile") if ".venv" not in path.parts)
NORMALISE = (
    "RUN find /files -type d -exec chmod 755 {} + -o -exec chmod 644 {} + && find /files -exec touch -d 2000-01-01 {} +"
)
# One of each Dockerfile, and of the gallery those that have files of ours in different places.
SERVICES = ["plain_socket", "shell", "peer_socat", "browser", "gallery_web", "gallery_gopher", "gallery_telnet"]
# What images have from the clone; bytecode is made in a build.
LIST = (
    "find /srv /lab /browser /usr/local/bin/answers /etc/lighttpd -name __pycache__ -prune -o "
    "'(' -type f -printf '%p %m %U:%G %TY\\n' ')' -o -printf '%p %y %m %U:%G\\n' 2>/dev/null; true"
)


def test_every_dockerfile_is_checked() -> None:
    folders = {str(path.parent.relative_to(ROOT)) for path in DOCKERFILES}
    assert folders == {
        "services",
        "services/apps",
        "services/peers",
        "services/gallery",
        "loadtests",
        "tools/browser",
        "docs/examples/perl_echo",
    }


@pytest.mark.parametrize("path", DOCKERFILES, ids=lambda path: str(path.parent.relative_to(ROOT)))
def test_copied_files_lose_the_modes_of_the_clone(path: Path) -> None:
    """Each COPY from the clone sets the mode, or is in a stage that sets all modes."""
    lines = path.read_text().splitlines()
    for number, line in enumerate(lines):
        if re.match(r"(COPY|ADD) (?!--from=|--chmod=\d+ )", line):
            rest = [other for other in lines[number:] if not other.startswith(("COPY ", "ADD ", "WORKDIR "))]
            assert rest[0] == NORMALISE, line


def test_programs_of_the_gallery_are_executable() -> None:
    """Exactly those in git, because gophernicus runs executable files."""
    text = (ROOT / "services" / "gallery" / "Dockerfile").read_text()
    (named,) = re.findall(r"^RUN chmod 755 (.*)$", text, re.MULTILINE)
    folder = ROOT / "services" / "gallery"
    programs = {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file() and is_program(path)}
    assert {name.removeprefix("/files/") for name in named.split()} == programs


def is_program(path: Path) -> bool:
    return path.read_bytes().startswith(b"#!")


def test_digest_of_inputs_is_independent_of_the_umask(tmp_path: Path) -> None:
    (tmp_path / "a.sh").write_text("x")
    # A comment may be in any encoding.
    (tmp_path / "Dockerfile").write_bytes(b"# \xff\nFROM scratch\nCOPY a.sh /\n")
    (tmp_path / "a.sh").chmod(0o755)
    usual = digest_context(tmp_path, "Dockerfile")
    (tmp_path / "a.sh").chmod(0o700)
    os.utime(tmp_path / "a.sh", (1, 1))
    assert digest_context(tmp_path, "Dockerfile") == usual
    (tmp_path / "a.sh").chmod(0o644)
    assert digest_context(tmp_path, "Dockerfile") != usual
    (tmp_path / "a.sh").chmod(0o755)
    (tmp_path / "a.sh").write_text("y")
    assert digest_context(tmp_path, "Dockerfile") != usual


def test_digest_covers_folders_and_leaves_out_caches(tmp_path: Path) -> None:
    folder = tmp_path / "a" / "b"
    folder.mkdir(parents=True)
    (folder / "c.py").write_text("x")
    (tmp_path / "Dockerfile").write_text("FROM scratch\nCOPY a /\n")
    usual = digest_context(tmp_path, "Dockerfile")
    for name in ("__pycache__", ".mypy_cache", "x.egg-info"):
        (folder / name).mkdir()
        (folder / name / "d").write_text("y")
    (folder / "c.pyc").write_text("y")
    (tmp_path / "elsewhere").write_text("y")
    assert digest_context(tmp_path, "Dockerfile") == usual
    (folder / "c.py").rename(folder / "e.py")
    renamed = digest_context(tmp_path, "Dockerfile")
    assert renamed != usual
    (folder / "e.py").rename(tmp_path / "a" / "e.py")
    assert digest_context(tmp_path, "Dockerfile") not in (usual, renamed)
    (tmp_path / "a" / "e.py").rename(folder / "e.py")
    assert digest_context(tmp_path, "Dockerfile") == renamed
    (folder / "e.py").write_text("z")
    assert digest_context(tmp_path, "Dockerfile") not in (usual, renamed)
    with pytest.raises(LabError, match=r"none: No such file or directory; compose\.yaml names it as a Dockerfile$"):
        digest_context(tmp_path, "none")


@pytest.mark.parametrize("source", ["a/*.txt", "/a/*", "a/[.b].txt", "/a", "/"])
def test_digest_covers_what_a_pattern_or_a_path_from_the_top_takes(source: str, tmp_path: Path) -> None:
    """An asterisk is for hidden files too, and a path from the top begins at the context."""
    (tmp_path / "a").mkdir()
    (tmp_path / "Dockerfile").write_text(f"FROM scratch\nCOPY {source} /\n")
    digests = [digest_context(tmp_path, "Dockerfile")]
    for name in ("b.txt", "..txt"):
        for text in ("x", "y"):
            (tmp_path / "a" / name).write_text(text)
            digests.append(digest_context(tmp_path, "Dockerfile"))
    assert len(set(digests)) == 5
    assert digest_context(tmp_path, "Dockerfile") == digests[-1]


def test_sources_of_an_image_are_what_it_takes_from_its_context() -> None:
    """What it takes from another stage or image is not in the context."""
    dockerfile = """
FROM x AS build
RUN --mount=type=bind,source=locks,target=/l --mount=type=bind,from=build,source=/out,target=/o \\
    --mount=type=cache,target=/c --mount=type=bind,source=keys,target=/k true
COPY --from=build /usr /usr
COPY --chown=1 a b /c/
ADD ["d e", "/f"]
copy g h/
run --mount=type=bind,source=i,target=/i true
"""
    assert read_sources(dockerfile) == {"locks", "keys", "a", "b", "d e", "g", "i"}
    assert read_sources("RUN --mount=target=/all,type=bind true") == {"."}
    assert read_sources("RUN --mount=type=bind,src=a/b,target=/l true") == {"a/b"}  # its other name


def test_dockerfile_counts_whatever_its_encoding(tmp_path: Path) -> None:
    digests = set()
    for text in (b"FROM scratch\n# \xff\n", b"FROM scratch\n# \xfe\n"):
        (tmp_path / "Dockerfile").write_bytes(text)
        digests.add(digest_context(tmp_path, "Dockerfile"))
    assert len(digests) == 2


def test_image_depends_on_its_context_and_its_options_wherever_it_is(tmp_path: Path) -> None:
    for name, text in (("Dockerfile", "FROM scratch\n"), ("other", "FROM other\n")):
        for folder in ("a", "b"):
            (tmp_path / folder).mkdir(exist_ok=True)
            (tmp_path / folder / name).write_text(text)

    def read(**builds: object) -> dict[str, str]:
        definitions = {name: {"build": build} if build else {} for name, build in builds.items()}
        catalogue: Any = SimpleNamespace(files=[tmp_path / "compose.yaml"], definitions=definitions)
        return read_inputs(catalogue, builds)

    # A day is a value of YAML.
    arguments = {"args": {"A": "1", "B": date(2026, 1, 2)}}
    digests = read(
        image=None,
        first={"context": "a", **arguments},
        moved={**arguments, "context": "b"},
        swapped={"args": dict(reversed(arguments["args"].items())), "context": "a"},
        bare={"context": "a"},
        other_day={"context": "a", "args": {"A": "1", "B": date(2026, 1, 3)}},
        other_file={"context": "a", "dockerfile": "other", **arguments},
    )
    assert list(digests) == ["first", "moved", "swapped", "bare", "other_day", "other_file"]
    assert digests["first"] == digests["moved"] == digests["swapped"]
    assert len(set(digests.values())) == 4
    (tmp_path / "b" / "Dockerfile").write_text("FROM new\n")
    changed = read(moved={"context": "b", **arguments})
    assert changed["moved"] not in digests.values()


def test_labels_of_an_image_may_have_any_text() -> None:
    output = '\n["a:1", "b:2"] {"lab.inputs": "x", "note": "[1] [2] 3"}\n["c:1"] null\n["d:1"] {"n": "] "}\n'
    assert read_built(output) == {"a:1": "x", "b:2": "x", "c:1": None, "d:1": None}


def test_programs_for_the_engine_write_readable_files(tmp_path: Path) -> None:
    before = os.umask(0o077)
    try:
        assert run(["sh", "-c", "umask; mkdir d; touch f"], cwd=str(tmp_path)).stdout == "0022\n"
    finally:
        os.umask(before)
    assert [(tmp_path / name).stat().st_mode & 0o777 for name in "df"] == [0o755, 0o644]


@pytest.fixture
def private_clone(tmp_path: Path) -> Iterator[Path]:
    """The project's files as of an old clone under `umask 077`; its images have another name."""
    listed = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard", "-z"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    clone = tmp_path / "clone"
    for name in filter(None, listed.stdout.split("\0")):
        if not (ROOT / name).is_file():
            continue
        copy = clone / name
        copy.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / name, copy)
        copy.chmod(0o700 if is_program(copy) else 0o600)
        os.utime(copy, (10**9, 10**9))
    for folder, _, _ in os.walk(clone):
        Path(folder).chmod(0o700)
    prefix = f"t{uuid4().hex[:8]}"
    compose = clone / "compose.yaml"
    compose.write_text(compose.read_text().replace("image: socketlab/", f"image: {prefix}/"))
    example = (clone / "docs/examples/perl_echo/compose.override.yaml").read_text()
    (clone / "compose.override.yaml").write_text(example.replace("image: socketlab/", f"image: {prefix}/"))
    yield clone
    client = docker.from_env()
    for image in client.images.list(filters={"reference": f"{prefix}/*"}):
        client.images.remove(image.tags[0], force=True)
    client.close()


@pytest.mark.usefixtures("engine")
class TestBuilds:
    pytestmark = DOCKER

    def test_clone_readable_only_by_its_owner_builds_the_same_image(self, private_clone: Path) -> None:
        usual, private = Catalogue.load(), Catalogue.load(private_clone / "compose.yaml")
        Containers("t", usual).build(SERVICES)
        Containers("t", private).build([*SERVICES, "perl_echo"])
        for service in SERVICES:
            images = [catalogue.image(service) for catalogue in (usual, private)]
            assert images[0] != images[1]
            here, there = (listed(image) for image in images)
            assert len(here) >= 3
            assert here == there
        for service in [*SERVICES, "perl_echo"]:
            script = "find / -xdev -path /proc -prune -o ! -readable -print 2>/dev/null | grep -E '^/(srv|lab|browser)'"
            assert listed(private.image(service), f"{script}; true") == []

    def test_image_is_built_when_it_is_missing_or_its_inputs_have_changed(
        self, engine: docker.DockerClient, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        image = f"t{uuid4().hex[:8]}/mine"
        labels = "{lab.model: mine, lab.family: f, lab.summary: s}"
        compose = tmp_path / "compose.yaml"
        compose.write_text(f"services: {{mine: {{image: {image}, build: ., labels: {labels}}}}}\n")
        (tmp_path / "Dockerfile").write_text("FROM debian:trixie-slim\nCOPY file /file\n")

        def build() -> tuple[str, str]:
            """Return the content of the image and the output."""
            Containers("t", Catalogue.load(compose)).build(["mine"])
            return run_once(image, "cat", "/file"), re.sub(r" in \d+ s$", "", capsys.readouterr().err, flags=re.M)

        try:
            (tmp_path / "file").write_text("one")
            assert build() == ("one", "lab: built mine\n")
            assert build() == ("one", "")
            (tmp_path / "file").write_text("two")
            assert build() == ("two", "lab: built mine\n")
            assert build() == ("two", "")
            compose.write_text(compose.read_text().replace("build: .", "build: {context: ., args: {A: b}}"))
            assert build() == ("two", "lab: built mine\n")
            assert build() == ("two", "")
            engine.images.remove(image, force=True)
            assert build() == ("two", "lab: built mine\n")
        finally:
            engine.images.remove(image, force=True)


def listed(image: str, script: str = LIST) -> list[str]:
    options = ["--user=1000", "--network=none", "--entrypoint=sh"]
    return sorted(run_once(image, "-c", script, options=options).splitlines())
