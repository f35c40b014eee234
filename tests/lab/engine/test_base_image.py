"""How the base image is provided: by a pull, or built by a program of Debian. No program runs."""

import os
import tarfile
from pathlib import Path

import pytest

from lab.engine import EngineError, apt, base_image
from lab.engine.apt import Release, Source
from tests.support.programs import Answer, Programs, put_programs

IMAGE = "debian:trixie-slim"
INSPECT, PULL = f"docker image inspect {IMAGE}", f"docker pull --quiet {IMAGE}"
SOURCES = [
    Source(("http://updates.example/debian",), ("trixie-updates",), ("main",)),
    Source(("http://mirror.example/debian", "http://b.example"), ("trixie",), ("main",)),
    Source(("http://c.example/debian",), ("trixie",), ("main",)),
]


def start(
    monkeypatch: pytest.MonkeyPatch,
    answers: dict[str, Answer],
    *,
    found: tuple[str, ...] = ("mmdebstrap",),
    euid: int = 0,
    distribution: str = "debian",
) -> Programs:
    """Let no engine have the image, and a registry not answer, unless told otherwise."""
    monkeypatch.setattr(base_image, "is_running", lambda: True)
    monkeypatch.setattr(base_image, "which", lambda tool, *, path: tool if tool in found else None)
    monkeypatch.setattr(os, "geteuid", lambda: euid)
    monkeypatch.setattr(apt, "read_release", lambda: Release(distribution, "trixie"))
    monkeypatch.setattr(apt, "read_sources", lambda: SOURCES)
    return put_programs(monkeypatch, {**answers, INSPECT: 1, PULL: 1}, base_image)


def make_archive(programs: Programs) -> str:
    """Write an empty archive, as the program does whose command line was noted last."""
    line = programs.asked[-1]
    path = next(word for word in line.split() if word.endswith("base.tar"))
    with tarfile.open(path, "w"):
        pass
    return ""


def test_image_that_is_there_is_neither_pulled_nor_built(monkeypatch: pytest.MonkeyPatch) -> None:
    programs = start(monkeypatch, {INSPECT: ""})
    programs._answers = {}
    base_image.provide()
    assert programs.asked == [INSPECT]


def test_published_image_is_pulled(monkeypatch: pytest.MonkeyPatch) -> None:
    programs = start(monkeypatch, {})
    programs._answers = {INSPECT: 1}
    base_image.provide()
    assert programs.asked == [INSPECT, PULL]
    # If packets are dropped, the client would wait for much longer.
    assert programs.timeouts == [None, 60.0]


def test_image_needs_an_engine(monkeypatch: pytest.MonkeyPatch) -> None:
    programs = start(monkeypatch, {})
    monkeypatch.setattr(base_image, "is_running", lambda: False)
    with pytest.raises(EngineError, match=rf"^no Docker engine answers that could hold {IMAGE}: run `make engine`"):
        base_image.provide()
    assert programs.asked == [INSPECT]


@pytest.mark.parametrize(("distribution", "has_sources"), [("debian", True), ("ubuntu", False)])
def test_image_is_built_from_the_mirror_of_this_machine(
    monkeypatch: pytest.MonkeyPatch, distribution: str, has_sources: bool
) -> None:
    """That of another distribution has other packages."""
    seen: list[object] = []

    def read(path: str) -> str:
        with tarfile.open(path) as archive:
            seen.extend(archive.getnames())
        seen.append(Path(path).parent.stat().st_mode & 0o777)
        return ""

    answers: dict[str, Answer] = {
        "mmdebstrap": lambda: make_archive(programs),
        "docker import": lambda: read(programs.asked[-1].split()[-2]),
    }
    programs = start(monkeypatch, answers, distribution=distribution)
    base_image.provide()
    _, _, built, imported = programs.asked
    words = imported.split()
    folder = words[-2].removesuffix("/base.tar")
    assert built.startswith("mmdebstrap --variant=minbase --format=tar ")
    assert (f"{folder}/debian.sources" in built) == has_sources
    assert programs.environs[2] == {"TMPDIR": folder}
    assert imported == (
        f'docker import --change CMD ["bash"] --change LABEL lab.base=mmdebstrap {folder}/base.tar {IMAGE}'
    )
    assert seen[-1] == 0o755  # apt's own user reads the sources
    assert ("etc/apt/sources.list.d/debian.sources" in seen) == has_sources
    assert "usr/sbin/policy-rc.d" in seen
    assert not Path(folder).exists()


def test_second_program_builds_the_same_in_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    programs = start(monkeypatch, {"tar ": lambda: make_archive(programs)}, found=("debootstrap",))
    base_image.provide()
    _, _, built, cleaned, packed, imported = programs.asked
    folder = imported.split()[-2].removesuffix("/base.tar")
    # Of the mirrors it takes one.
    assert built == f"debootstrap --variant=minbase trixie {folder}/root http://mirror.example/debian"
    assert cleaned.endswith(f" sh {folder}/root")
    assert packed == f"tar -C {folder}/root --numeric-owner -cf {folder}/base.tar ."
    assert "LABEL lab.base=debootstrap" in imported


def test_build_that_fails_is_an_error_with_its_last_lines(monkeypatch: pytest.MonkeyPatch) -> None:
    programs = start(monkeypatch, {"mmdebstrap": 25}, euid=1000)
    said = r"^mmdebstrap could not build debian:trixie-slim \(exit code 25\): .* needs user namespaces .*\n.*it failed"
    with pytest.raises(EngineError, match=f"(?s){said}"):
        base_image.provide()
    assert not [line for line in programs.asked if "import" in line]
    start(monkeypatch, {"mmdebstrap": 25})
    with pytest.raises(EngineError) as raised:
        base_image.provide()
    assert "user namespaces" not in str(raised.value)


@pytest.mark.parametrize(
    ("found", "euid", "distribution", "tool"),
    [
        (("mmdebstrap", "debootstrap"), 0, "debian", "mmdebstrap"),
        (("debootstrap",), 0, "debian", "debootstrap"),
        (("mmdebstrap",), 1000, "debian", "mmdebstrap"),
        (("debootstrap",), 1000, "debian", None),  # it needs root
        ((), 1000, "debian", None),
        ((), 0, "fedora", None),
    ],
)
def test_program_that_can_build_here_is_chosen(
    monkeypatch: pytest.MonkeyPatch, found: tuple[str, ...], euid: int, distribution: str, tool: str | None
) -> None:
    start(monkeypatch, {}, found=found, euid=euid, distribution=distribution)
    if tool:
        assert base_image._find_tool("refused") == tool
        return
    with pytest.raises(EngineError, match=r"cannot be pulled \(refused\) and there is no mmdebstrap to build it"):
        base_image._find_tool("refused")


@pytest.mark.parametrize(("lacking", "tool"), [((), "mmdebstrap"), (("mmdebstrap",), "debootstrap")])
def test_root_installs_the_first_program_that_there_is(
    monkeypatch: pytest.MonkeyPatch, lacking: tuple[str, ...], tool: str
) -> None:
    start(monkeypatch, {}, found=())
    asked: list[str] = []

    def install(packages: list[str]) -> None:
        asked.extend(packages)
        if packages[0] in lacking:
            raise EngineError("no such package", "-")

    monkeypatch.setattr(apt, "install", install)
    assert base_image._find_tool("refused") == tool
    assert asked == [*lacking, tool]


def test_added_files_have_the_modes_and_the_text_of_the_published_image(tmp_path: Path) -> None:
    key, other = tmp_path / "own.gpg", tmp_path / "missing.gpg"
    key.write_bytes(b"key")
    official = "/usr/share/keyrings/debian-archive-keyring.gpg"
    sources = [Source(("http://a.example",), ("trixie",), ("main",), f"{key} {official} {other} own-name")]
    with tarfile.open(tmp_path / "base.tar", "w"):
        pass
    base_image.add_files(tmp_path / "base.tar", sources)
    with tarfile.open(tmp_path / "base.tar") as archive:
        found = {item.name: (item.mode, archive.extractfile(item).read()) for item in archive}  # type: ignore[union-attr]
    configured = "etc/apt/apt.conf.d/docker-"
    expected = {
        "etc/dpkg/dpkg.cfg.d/docker": 0o644,
        **{f"{configured}{name}": 0o644 for name in ("clean", "no-languages", "gzip-indexes", "autoremove-suggests")},
        "usr/sbin/policy-rc.d": 0o755,
        "etc/apt/sources.list.d/debian.sources": 0o644,
        # Debian's own key is in its package; what is not here cannot be copied.
        str(key).lstrip("/"): 0o644,
    }
    assert {name: mode for name, (mode, _) in found.items()} == expected
    assert found["usr/sbin/policy-rc.d"][1] == b"#!/bin/sh\nexit 101\n"
    assert found[str(key).lstrip("/")][1] == b"key"
    assert found["etc/apt/sources.list.d/debian.sources"][1].decode() == sources[0].stanza()
    options = found["etc/dpkg/dpkg.cfg.d/docker"][1].decode().splitlines()
    assert options[:2] == ["path-exclude=/usr/share/doc/*", "path-include=/usr/share/doc/*/copyright"]
    # The files of packages that were unpacked before are removed.
    assert options[2:] == [f"path-exclude=/usr/share/{folder}/*" for folder in base_image.EXCLUDED]


def test_base_system_is_unpacked_with_the_same_options(tmp_path: Path) -> None:
    before = os.umask(0o077)
    try:
        words = base_image.mmdebstrap_argv(tmp_path / "base.tar", tmp_path, SOURCES)
    finally:
        os.umask(before)
    assert words[:3] == ["mmdebstrap", "--variant=minbase", "--format=tar"]
    assert words[3:-6] == [f"--dpkgopt={option}" for option in base_image.DPKG_OPTIONS]
    assert words[-6] == "--aptopt=Acquire::Languages none"
    own = '"$1"/etc/dpkg/dpkg.cfg.d/99mmdebstrap "$1"/etc/apt/apt.conf.d/99mmdebstrap'
    assert words[-5] == f"--customize-hook=rm -f {own}"
    assert words[-4] == f"--customize-hook={base_image.clean_script(True)}"
    # apt's own user reads it, whatever the mask.
    assert (tmp_path / "debian.sources").stat().st_mode & 0o777 == 0o644
