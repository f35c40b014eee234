"""Which packages are installed, from where, and in which order. No program runs."""

from pathlib import Path

import pytest

from lab.engine import EngineError, apt
from lab.engine.apt import Release, Source
from tests.support.programs import Answer, Programs, put_programs

KEY = "/usr/share/keyrings/debian-archive-keyring.gpg"
BOOKWORM = [Source(("http://mirror.example/debian",), ("bookworm", "bookworm-security"), ("main",), KEY)]
INSTALL = "apt-get install -qq --no-install-recommends -o DPkg::Lock::Timeout=300"
UPDATE = "apt-get update -qq -o DPkg::Lock::Timeout=300"


def list_candidates(**versions: str) -> str:
    """Return what `apt-cache policy` prints of packages, whose names have _ for a hyphen and two for a dot."""
    names = {name.replace("__", ".").replace("_", "-"): version for name, version in versions.items()}
    return "".join(f"{name}:\n  Installed: (none)\n  Candidate: {version}\n" for name, version in names.items())


def start(monkeypatch: pytest.MonkeyPatch, answers: dict[str, Answer], codename: str = "bookworm") -> Programs:
    monkeypatch.setattr(apt, "read_release", lambda: Release("debian", codename))
    monkeypatch.setattr(apt, "read_sources", lambda: BOOKWORM)
    return put_programs(monkeypatch, answers, apt)


UBUNTU = list_candidates(docker__io="28", docker_compose_v2="2.40", docker_buildx="0.29")
TRIXIE = list_candidates(docker__io="26", docker_cli="26", docker_compose="2.26", docker_buildx="0.13")
DOCKERS = list_candidates(docker__io="28", docker_compose_plugin="2.40", docker_buildx_plugin="0.29", docker_cli="28")
ALL = {"client": True, "engine": True, "compose": True, "buildx": True}


@pytest.mark.parametrize(
    ("candidates", "missing", "installed"),
    [
        (UBUNTU, ALL, "docker.io docker-compose-v2 docker-buildx"),
        (UBUNTU, {"client": True}, "docker.io"),
        (TRIXIE, ALL, "docker.io docker-cli docker-compose docker-buildx"),
        (TRIXIE, {"client": True}, "docker-cli"),
        (TRIXIE, {"engine": True}, "docker.io"),
        (TRIXIE, {"compose": True}, "docker-compose"),
        (TRIXIE, {"buildx": True}, "docker-buildx"),
        (DOCKERS, {"compose": True, "buildx": True}, "docker-compose-plugin docker-buildx-plugin"),
    ],
)
def test_missing_parts_are_installed_by_the_names_that_the_release_has(
    monkeypatch: pytest.MonkeyPatch, candidates: str, missing: dict[str, bool], installed: str
) -> None:
    programs = start(monkeypatch, {"apt-cache policy": candidates})
    apt.install_docker(**{**dict.fromkeys(ALL, False), **missing})
    assert [line for line in programs.asked if line.startswith("apt-get")] == [f"{INSTALL} {installed}"]
    assert programs.environs[-1] == {"DEBIAN_FRONTEND": "noninteractive"}


def test_plugins_that_the_release_lacks_are_those_of_the_next_one(monkeypatch: pytest.MonkeyPatch) -> None:
    """Debian 12: the engine is its own; Compose 1 is another program. The machine's own lists stay as they are."""
    seen: dict[str, object] = {}

    def note_sources() -> str:
        (folder,) = {word.rpartition("/")[0] for word in programs.asked[-1].split() if "Dir::Etc::sourceparts=" in word}
        place = Path(folder.partition("=")[2])
        seen["sources"] = (place / "sources" / "next.sources").read_text()
        seen["place"] = place
        return ""

    def fetch() -> str:
        folder = programs.folders[-1]
        assert folder is not None
        seen["folder"] = folder
        for name in ("docker-compose_2.deb", "docker-buildx_0.deb"):
            (Path(folder) / name).touch()
        return ""

    def note_mode() -> str:
        seen["mode"] = seen["place"].stat().st_mode & 0o777  # type: ignore[attr-defined]
        return ""

    candidates = list_candidates(docker__io="20.10", docker_compose="1:1.29.2-3", docker_buildx="(none)")
    answers: dict[str, Answer] = {
        "apt-cache policy": candidates,
        "apt-get update": note_sources,
        "apt-get download": fetch,
        f"{INSTALL} /": note_mode,
    }
    programs = start(monkeypatch, answers)
    apt.install_docker(client=False, engine=True, compose=True, buildx=True)
    folder = str(seen["folder"])
    asked = [line for line in programs.asked if line.startswith("apt-get")]
    assert asked[0] == f"{INSTALL} docker.io"
    assert asked[1].startswith("apt-get update -qq -o Dir::Etc::sourcelist=/dev/null -o Dir::Etc::sourceparts=")
    assert asked[2].startswith("apt-get download -qq -o Dir::Etc::sourcelist=/dev/null ")
    assert asked[2].endswith(" docker-compose docker-buildx")
    # Both from the separate lists.
    assert asked[2].removeprefix("apt-get download -qq").startswith(asked[1].removeprefix("apt-get update -qq"))
    for option in ("Dir::State::lists=", "Dir::Cache=", "Acquire::Languages=none", "APT::Sandbox::User=root"):
        assert option in asked[1]
    # Dependencies come from the machine's own release.
    assert asked[3:] == [f"{INSTALL} {folder}/docker-buildx_0.deb {folder}/docker-compose_2.deb"]
    trixie = Source(("http://mirror.example/debian",), ("trixie", "trixie-security"), ("main",), KEY)
    assert seen["sources"] == trixie.stanza()
    assert seen["mode"] == 0o755  # apt's own user reads the packages
    assert not Path(folder).exists()


@pytest.mark.parametrize(
    ("codename", "sources", "said"),
    [
        ("bullseye", BOOKWORM, "debian bullseye has no package docker-compose and docker-buildx: install Compose v2"),
        ("bookworm", [], "no source in /etc/apt serves bookworm, so docker-compose and docker-buildx cannot be"),
    ],
)
def test_plugins_that_no_release_has_are_an_error(
    monkeypatch: pytest.MonkeyPatch, codename: str, sources: list[Source], said: str
) -> None:
    programs = start(monkeypatch, {"apt-cache policy": list_candidates(docker__io="20.10")}, codename)
    monkeypatch.setattr(apt, "read_sources", lambda: sources)
    with pytest.raises(EngineError, match=f"^{said}"):
        apt.install_docker(client=False, engine=False, compose=True, buildx=True)
    assert not [line for line in programs.asked if line.startswith("apt-get")]


@pytest.mark.parametrize(
    ("codes", "asked", "fails"),
    [([0], ["install"], False), ([100, 0], ["install", "update", "install"], False), ([100, 100], None, True)],
)
def test_packages_that_the_mirror_has_replaced_are_found_by_new_lists(
    monkeypatch: pytest.MonkeyPatch, codes: list[int], asked: list[str] | None, fails: bool
) -> None:
    left = list(codes)
    answers: dict[str, Answer] = {
        "apt-cache policy": list_candidates(docker__io="20.10"),
        "apt-get install": lambda: left.pop(0) or "",
    }
    programs = start(monkeypatch, answers)
    if fails:
        with pytest.raises(EngineError, match="fix the problem that apt names, then try again"):
            apt.install(["a", "b"])
    else:
        apt.install(["a", "b"])
    ran = [line for line in programs.asked if line.startswith("apt-get")]
    assert [line.split()[1] for line in ran] == (asked or ["install", "update", "install"])
    assert {line for line in ran if " install " in line} == {f"{INSTALL} a b"}
    assert [env for line, env in zip(programs.asked, programs.environs, strict=True) if " install " in line] == (
        [{"DEBIAN_FRONTEND": "noninteractive"}] * len(codes)
    )


def test_lists_are_fetched_where_there_are_none(monkeypatch: pytest.MonkeyPatch) -> None:
    """As in the image of a container, which has none."""
    programs = start(monkeypatch, {"apt-cache policy": ""})
    apt.install(["a"])
    assert programs.asked == ["apt-cache policy docker.io", UPDATE, f"{INSTALL} a"]


@pytest.mark.parametrize("word", ["no", "No", "false", "0", "off"])
def test_source_that_is_switched_off_is_left_out(word: str) -> None:
    stanza = "Types: deb\nURIs: http://a.example\nSuites: bookworm\nComponents: main\nEnabled: "
    assert list(apt.parse_deb822(f"{stanza}{word}\n")) == []
    assert len(list(apt.parse_deb822(f"{stanza}yes\n"))) == 1


def test_what_can_be_installed_is_known_only_after_the_first_update(monkeypatch: pytest.MonkeyPatch) -> None:
    def list_known() -> str:
        return TRIXIE if UPDATE in programs.asked else ""

    programs = start(monkeypatch, {"apt-cache policy": list_known})
    apt.install_docker(client=True, engine=False, compose=False, buildx=False)
    assert [line for line in programs.asked if line.startswith("apt-get")] == [UPDATE, f"{INSTALL} docker-cli"]
