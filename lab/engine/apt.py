"""Install packages of the distribution, and of the Debian release after it.

Strategy: Debian 12 has the engine but neither Compose v2 nor buildx. Debian 13 has both, built against a C library that
Debian 12 satisfies. So these two come from the next release, with separate package lists in a temporary folder: the
machine's sources, lists and pins do not change, and no later upgrade jumps a release. The mirror and its key are those
that the machine uses already, since a firewall may block all others. An ordinary `apt-get install ./file.deb` then
takes dependencies only from the machine's own release: if they are missing there, it refuses, and upgrades nothing
(above all not libc) from the next one.
"""

import os
import re
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from lab.engine.command import run, run_or_raise, say
from lab.engine.errors import EngineError

ETC = Path("/etc/apt")
# Release without Compose v2 or buildx -> the release that has them, built against a compatible libc.
# Debian 11 is missing: its libc 2.31 is too old for the packages of any such release.
NEXT_RELEASE = {"bookworm": "trixie"}
# Names in Docker's own repository, in Ubuntu and in Debian. The first one that the machine's sources offer is used.
COMPOSE = ("docker-compose-plugin", "docker-compose-v2", "docker-compose")
BUILDX = ("docker-buildx-plugin", "docker-buildx")
# From Debian 13 on; in Ubuntu and up to Debian 12 the client is a part of docker.io.
CLIENT = ("docker-cli",)


@dataclass(frozen=True, slots=True)
class Source:
    """A source of packages: a stanza of a `.sources` file, or a `deb` line (sources.list(5))."""

    uris: tuple[str, ...]
    suites: tuple[str, ...]
    components: tuple[str, ...]
    signed_by: str = ""
    trusted: str = ""

    def stanza(self) -> str:
        """Return this source in the deb822 format."""
        fields = {
            "Types": "deb",
            "URIs": " ".join(self.uris),
            "Suites": " ".join(self.suites),
            "Components": " ".join(self.components),
            "Signed-By": self.signed_by,
            "Trusted": self.trusted,
        }
        return "".join(f"{name}: {value}\n" for name, value in fields.items() if value)


@dataclass(frozen=True, slots=True)
class Release:
    """The distribution of a machine, from os-release(5)."""

    id: str
    codename: str

    @property
    def uses_apt(self) -> bool:
        """Whether the names of this distribution's packages are known here."""
        return self.id in ("debian", "ubuntu")


def read_release(path: Path = Path("/etc/os-release")) -> Release:
    """Read the distribution of a machine; missing names are empty."""
    fields: dict[str, str] = {}
    if path.exists():
        for line in path.read_text().splitlines():
            name, _, value = line.partition("=")
            fields[name] = value.strip().strip("\"'")
    return Release(fields.get("ID", ""), fields.get("VERSION_CODENAME", ""))


def read_sources(etc: Path = ETC) -> list[Source]:
    """Read a machine's own package sources, in either format, in the order in which apt reads them."""
    parts = sorted((etc / "sources.list.d").glob("*"))
    lines = [etc / "sources.list", *(path for path in parts if path.suffix == ".list")]
    sources = [source for path in lines if path.exists() for source in parse_one_line(path.read_text())]
    for path in parts:
        if path.suffix == ".sources":
            sources += parse_deb822(path.read_text())
    return sources


def parse_one_line(text: str) -> Iterator[Source]:
    """Parse lines such as `deb [signed-by=/key.gpg] URI SUITE COMPONENT...`; comments and `deb-src` are left out."""
    for line in text.splitlines():
        entry = re.match(r"deb\s+(?:\[(?P<options>[^]]*)\]\s*)?(?P<rest>\S.*)", line.partition("#")[0].strip())
        words = entry["rest"].split() if entry else []
        if entry is None or len(words) < 2:
            continue
        options = dict(re.findall(r"(\S+?)=(\S+)", entry["options"] or ""))
        signed_by = options.get("signed-by", "").replace(",", " ")
        yield Source((words[0],), (words[1],), tuple(words[2:]), signed_by, options.get("trusted", ""))


def parse_deb822(text: str) -> Iterator[Source]:
    """Parse stanzas of `Field: value`; the disabled ones and those without binaries are left out.

    A key that is written out inside `Signed-By` keeps its lines, indented as they stand.
    """
    kept = "\n".join(line for line in text.splitlines() if not line.startswith("#"))
    for stanza in re.split(r"\n\s*\n", kept):
        fields: dict[str, str] = {}
        name = ""
        for line in stanza.splitlines():
            if line[:1].isspace() and name:
                fields[name] += "\n" + line
            elif ":" in line:
                name, _, value = line.partition(":")
                name = name.strip().lower()
                fields[name] = value.strip()
        binaries = "deb" in fields.get("types", "").split()
        if not binaries or fields.get("enabled", "yes").lower() in ("no", "false", "0", "off"):
            continue
        yield Source(
            tuple(fields.get("uris", "").split()),
            tuple(fields.get("suites", "").split()),
            tuple(fields.get("components", "").split()),
            fields.get("signed-by", ""),
            fields.get("trusted", ""),
        )


def sources_of_release(sources: Iterable[Source], here: str, wanted: str) -> list[Source]:
    """Return the machine's mirrors and keys for another release of the same distribution.

    Args:
        sources: the machine's own.
        here: the codename of the machine's release.
        wanted: the codename to ask for.
    Returns:
        Those that serve the release, its updates or its security fixes. Others (backports, third-party repositories)
        are left out, since they may not have the wanted release.
    """
    renamed = {here + suffix: wanted + suffix for suffix in ("", "-updates", "-security")}
    found = [
        replace(source, suites=suites, components=("main",))
        for source in sources
        if "main" in source.components
        and (suites := tuple(renamed[suite] for suite in source.suites if suite in renamed))
    ]
    return found if any(wanted in source.suites for source in found) else []


def read_candidates(policy: str) -> dict[str, str]:
    """Read the version of each installable package from the output of `apt-cache policy`."""
    found = re.findall(r"^(\S+):\n  Installed: .*\n  Candidate: (.*)$", policy, re.MULTILINE)
    return {name: version for name, version in found if version != "(none)"}


def choose(names: Sequence[str], candidates: dict[str, str]) -> str | None:
    """Return the first package that can be installed; `docker-compose` below 2 is another program, not a plugin."""
    for name in names:
        version = candidates.get(name)
        if version and not (name == "docker-compose" and re.match(r"(\d+:)?[01]\.", version)):
            return name
    return None


def install_docker(*, client: bool, engine: bool, compose: bool, buildx: bool) -> None:
    """Install parts of Docker.

    Raises:
        EngineError: apt could not, or no source of this machine has it.
    """
    _update_if_empty()
    names = ["docker.io", *CLIENT, *COMPOSE, *BUILDX]
    candidates = read_candidates(run(["apt-cache", "policy", *names]).stdout)
    wanted = ["docker.io"] if engine else []
    later: list[str] = []
    if client:
        wanted.append(choose(CLIENT, candidates) or "docker.io")
    for is_wanted, options in [(compose, COMPOSE), (buildx, BUILDX)]:
        if is_wanted:
            here = choose(options, candidates)
            (wanted if here else later).append(here or options[-1])
    if wanted:
        say(f"engine: installing {', '.join(dict.fromkeys(wanted))}")
        install(list(dict.fromkeys(wanted)))
    if later:
        _install_from_next_release(later)


def install(packages: Sequence[str]) -> None:
    """Install packages (names, or paths of .deb files) from the machine's own sources.

    Raises:
        EngineError: apt could not; with its last lines.
    """
    _update_if_empty()
    argv = ["apt-get", "install", "-qq", "--no-install-recommends", "-o", "DPkg::Lock::Timeout=300", *packages]
    env = {"DEBIAN_FRONTEND": "noninteractive"}
    if run(argv, env=env).returncode == 0:
        return
    # Old lists name files that the mirror has replaced: update the lists, and try once more.
    _update()
    run_or_raise(argv, env=env, fix="fix the problem that apt names, then try again")


def _update_if_empty() -> None:
    if not read_candidates(run(["apt-cache", "policy", "docker.io"]).stdout):
        _update()


def _update() -> None:
    run_or_raise(
        ["apt-get", "update", "-qq", "-o", "DPkg::Lock::Timeout=300"],
        fix="check that the sources in /etc/apt answer, then try again",
    )


def _install_from_next_release(packages: Sequence[str]) -> None:
    release = read_release()
    wanted = NEXT_RELEASE.get(release.codename)
    missing = " and ".join(packages)
    own_way = "install Compose v2 and buildx as plugins of the docker client yourself, then try again"
    if wanted is None:
        raise EngineError(f"{release.id} {release.codename} has no package {missing}", own_way)
    sources = sources_of_release(read_sources(), release.codename, wanted)
    if not sources:
        raise EngineError(f"no source in /etc/apt serves {release.codename}, so {missing} cannot be fetched", own_way)
    say(f"engine: installing {missing} from the next release, {wanted}")
    with tempfile.TemporaryDirectory(prefix="lab-apt-") as scratch:
        folder = Path(scratch)
        for name in ("sources", "lists/partial", "cache/archives/partial", "debs"):
            (folder / name).mkdir(parents=True)
        (folder / "sources" / "next.sources").write_text("\n".join(source.stanza() for source in sources))
        private = [
            "Dir::Etc::sourcelist=/dev/null",
            f"Dir::Etc::sourceparts={folder / 'sources'}",
            f"Dir::State::lists={folder / 'lists'}",
            f"Dir::Cache={folder / 'cache'}",
            "Acquire::Languages=none",
            "APT::Sandbox::User=root",  # its own user cannot write to a folder that only root can enter
        ]
        options = [word for option in private for word in ("-o", option)]
        fix = f"check that the mirror in /etc/apt serves {wanted}, or {own_way}"
        run_or_raise(["apt-get", "update", "-qq", *options], fix=fix)
        run_or_raise(["apt-get", "download", "-qq", *options, *packages], fix=fix, cwd=str(folder / "debs"))
        folder.chmod(0o755)  # apt's unprivileged user reads the packages from here
        install([os.fspath(path) for path in sorted((folder / "debs").glob("*.deb"))])
