"""Provide `debian:trixie-slim`: pull it, or build it from Debian's packages if no registry answers.

Strategy: a pull gives the published image, so it is tried first. If it fails, the image is built in the same way
(debuerreotype): a minbase of Debian's packages, without manuals, documentation and translations, and with apt
configured to leave no files in a layer. The packages come from the machine's own mirror, checked by its own key.
mmdebstrap takes seconds and, with user namespaces, no root; debootstrap is the second choice and needs root. Both make
a tar archive for `docker import` under the same tag, so that Dockerfiles need not differ.
"""

import io
import os
import tarfile
import tempfile
from pathlib import Path
from shutil import which

from lab.engine import apt
from lab.engine.command import PATH, run, run_or_raise, say, tail
from lab.engine.errors import EngineError
from lab.engine.probe import BASE_IMAGE, is_running

SUITE = "trixie"
# An unreachable registry fails in milliseconds; if packets are dropped, the engine takes 15 s. The image has 30 MB.
PULL_SECONDS = 60.0

# Settings of the published image that a plain minbase lacks (debuerreotype-minimizing-config, debuerreotype-slimify).
DPKG_OPTIONS = (
    "path-exclude=/usr/share/doc/*",
    "path-include=/usr/share/doc/*/copyright",
    *(f"path-exclude=/usr/share/{folder}/*" for folder in ("groff", "info", "linda", "lintian", "locale", "man")),
)
# Folders with files of packages that were unpacked before dpkg had these options.
EXCLUDED = ("groff", "info", "linda", "lintian", "locale", "man")
_CLEAN = "rm -f /var/cache/apt/archives/*.deb /var/cache/apt/archives/partial/*.deb /var/cache/apt/*.bin || true"
ADDED = {
    "etc/dpkg/dpkg.cfg.d/docker": ("\n".join(DPKG_OPTIONS) + "\n", 0o644),
    "etc/apt/apt.conf.d/docker-clean": (
        f'DPkg::Post-Invoke {{ "{_CLEAN}"; }};\nAPT::Update::Post-Invoke {{ "{_CLEAN}"; }};\n'
        'Dir::Cache::pkgcache "";\nDir::Cache::srcpkgcache "";\n',
        0o644,
    ),
    "etc/apt/apt.conf.d/docker-no-languages": ('Acquire::Languages "none";\n', 0o644),
    "etc/apt/apt.conf.d/docker-gzip-indexes": ('Acquire::GzipIndexes "true";\n', 0o644),
    "etc/apt/apt.conf.d/docker-autoremove-suggests": ('Apt::AutoRemove::SuggestsImportant "false";\n', 0o644),
    # No daemon starts when its package is installed: nothing would stop it in a build.
    "usr/sbin/policy-rc.d": ("#!/bin/sh\nexit 101\n", 0o755),
}


def provide() -> None:
    """Provide the base image; do nothing if the engine has it.

    Raises:
        EngineError: no engine answers, or the image can neither be pulled nor built here.
    """
    if run(["docker", "image", "inspect", BASE_IMAGE]).returncode == 0:
        return
    if not is_running():
        raise EngineError(f"no Docker engine answers that could hold {BASE_IMAGE}", "run `make engine` first")
    pull = run(["docker", "pull", "--quiet", BASE_IMAGE], timeout=PULL_SECONDS)
    if pull.returncode == 0:
        return
    say(f"engine: {BASE_IMAGE} cannot be pulled; building it from Debian's packages")
    tool = _find_tool(pull.stderr.strip())
    with tempfile.TemporaryDirectory(prefix="lab-base-") as scratch:
        folder = Path(scratch)
        folder.chmod(0o755)  # apt's unprivileged user reads the sources from here
        archive = _build(tool, folder)
        # The label says that the image was built here, and with which tool.
        changes = ["--change", 'CMD ["bash"]', "--change", f"LABEL lab.base={tool}"]
        run_or_raise(
            ["docker", "import", *changes, str(archive), BASE_IMAGE], fix="check whether the engine's disk is full"
        )


def _find_tool(why_no_pull: str) -> str:
    """Find a program that builds a base system; as root, install one if necessary."""
    tools = ("mmdebstrap", "debootstrap") if os.geteuid() == 0 else ("mmdebstrap",)
    for tool in tools:
        if which(tool, path=PATH):
            return tool
    if os.geteuid() != 0 or not apt.read_release().uses_apt:
        raise EngineError(
            f"{BASE_IMAGE} cannot be pulled ({why_no_pull}) and there is no mmdebstrap to build it",
            "install mmdebstrap (`sudo apt-get install mmdebstrap uidmap`), or load the image with `docker load`",
        )
    try:
        apt.install(["mmdebstrap"])
    except EngineError:
        apt.install(["debootstrap"])
        return "debootstrap"
    return "mmdebstrap"


def _build(tool: str, folder: Path) -> Path:
    sources = find_sources(apt.read_release(), apt.read_sources())
    archive = folder / "base.tar"
    if tool == "mmdebstrap":
        done = run(mmdebstrap_argv(archive, folder, sources), env={"TMPDIR": str(folder)})
        if done.returncode:
            hint = "" if os.geteuid() == 0 else "; without root it needs user namespaces and newuidmap (package uidmap)"
            raise EngineError(
                f"mmdebstrap could not build {BASE_IMAGE} (exit code {done.returncode})",
                f"fix the problem that it names, or run `make engine` as root{hint}" + tail(done.stderr),
            )
    else:
        root = str(folder / "root")
        main = [source.uris[0] for source in sources if SUITE in source.suites]
        fix = "fix the problem that it names, or install mmdebstrap"
        run_or_raise(["debootstrap", "--variant=minbase", SUITE, root, *main[:1]], fix=fix)
        run_or_raise(["sh", "-c", clean_script(bool(sources)), "sh", root], fix=fix)
        run_or_raise(["tar", "-C", root, "--numeric-owner", "-cf", str(archive), "."], fix=fix)
    # Appended, not written by a hook: both tools use, and then remove, their own policy-rc.d.
    add_files(archive, sources)
    return archive


def find_sources(release: apt.Release, sources: list[apt.Source]) -> list[apt.Source]:
    """Return the machine's own mirrors for the base image's release.

    Returns:
        [] if the machine is not a Debian: the tool then uses its default mirror.
    """
    return apt.sources_of_release(sources, release.codename, SUITE) if release.id == "debian" else []


def mmdebstrap_argv(archive: Path, folder: Path, sources: list[apt.Source]) -> list[str]:
    """Return the command that builds the base system into a tar archive.

    Args:
        archive: the path of the archive.
        folder: the folder for the file with the sources.
        sources: the sources of the packages; if empty, the default of the program.
    """
    argv = ["mmdebstrap", "--variant=minbase", "--format=tar"]
    argv += [f"--dpkgopt={option}" for option in DPKG_OPTIONS]
    argv += ["--aptopt=Acquire::Languages none"]
    # The tool leaves these options in files of its own. ADDED has them under the published names.
    argv += ['--customize-hook=rm -f "$1"/etc/dpkg/dpkg.cfg.d/99mmdebstrap "$1"/etc/apt/apt.conf.d/99mmdebstrap']
    argv += [f"--customize-hook={clean_script(bool(sources))}", SUITE, str(archive)]
    if sources:
        listed = folder / "debian.sources"
        listed.write_text("\n".join(source.stanza() for source in sources))
        listed.chmod(0o644)
        argv.append(str(listed))
    return argv


def clean_script(own_sources: bool) -> str:
    """Return a shell script that removes from the base system in `$1` what an image does not need.

    Args:
        own_sources: whether to remove the list of sources too, which a deb822 file then replaces.
    """
    folders = " ".join(f'"$1"/usr/share/{folder}/*' for folder in EXCLUDED)
    lists = ' "$1"/etc/apt/sources.list "$1"/etc/apt/sources.list.d/*' if own_sources else ""
    return (
        f'rm -rf {folders} "$1"/var/lib/apt/lists/* "$1"/var/cache/apt/* "$1"/var/cache/debconf/*-old '
        f'"$1"/var/log/*.log "$1"/var/log/apt/*{lists} && '
        'find "$1"/usr/share/doc -mindepth 2 ! -type d ! -name copyright -delete'
    )


def add_files(path: Path, sources: list[apt.Source]) -> None:
    """Append the files that the image has in addition to its packages, owned by root.

    Args:
        path: the tar archive of a base system.
        sources: the image's package sources; with their keys if Debian's own package lacks them.
    """
    files = {name: (text.encode(), mode) for name, (text, mode) in ADDED.items()}
    if sources:
        stanzas = "\n".join(source.stanza() for source in sources)
        files["etc/apt/sources.list.d/debian.sources"] = (stanzas.encode(), 0o644)
    for source in sources:
        for key in source.signed_by.split():
            if key.startswith("/") and "/debian-archive-" not in key and Path(key).is_file():
                files[key.lstrip("/")] = (Path(key).read_bytes(), 0o644)
    with tarfile.open(path, "a") as archive:
        for name, (content, mode) in files.items():
            member = tarfile.TarInfo(name)
            member.size, member.mode = len(content), mode
            archive.addfile(member, io.BytesIO(content))
