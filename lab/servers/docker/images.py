"""Build the images of Compose services when they are missing or out of date.

An image carries a digest of what it was built from as the label `lab.inputs`. So it takes one question to the engine,
and no build, to know that an image is up to date; this is a part of every `lab up`. A stamp file in the clone would be
wrong after each `docker rmi`, and for each other engine.
"""

import hashlib
import json
import math
import re
import subprocess
import sys
import time
from collections import deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from glob import glob
from pathlib import Path

from lab.base.errors import LabError, last_lines
from lab.base.progress import is_shown, progress_line
from lab.engine import EngineError
from lab.servers.catalogue import Catalogue
from lab.servers.docker.build_progress import BuildProgress
from lab.servers.docker.command import check_engine, end, last_words, open_process, read_lines, run_docker
from lab.servers.docker.compose import Compose

_INPUTS = "lab.inputs"
_IGNORED = {"__pycache__", ".pytest_cache", ".mypy_cache", ".ruff_cache", ".hypothesis"}
# The lines of a failed build that are shown.
_LOG_LINES = 40
# How often the time on the line of progress changes while a step says nothing.
_TICK_SECONDS = 0.5


def build_images(compose: Compose, services: Iterable[str]) -> None:
    """Build the images of these services that are missing, or older than what they are built from.

    Raises:
        LabError: a build failed; with the end of its output.
    """
    catalogue = compose.catalogue
    wanted = read_inputs(catalogue, services)
    if not wanted:
        return
    images = {service: catalogue.image(service) for service in wanted}
    form = "{{json .RepoTags}} {{json .Config.Labels}}"
    built = read_built(run_docker("image", "inspect", *images.values(), "--format", form, check=False).stdout)
    stale = [service for service, image in images.items() if built.get(_with_tag(image)) != wanted[service]]
    if stale:
        _build(compose, stale, wanted)


def _build(compose: Compose, services: Sequence[str], inputs: Mapping[str, str]) -> None:
    # Needed only where an image is built: its modules (tarfile) would cost each `lab up` 8 ms.
    from lab.engine import base_image

    try:
        base_image.provide()
    except EngineError as error:
        raise LabError(str(error)) from None
    labels = {service: {"build": {"labels": {_INPUTS: inputs[service]}}} for service in services}
    command = [*compose.command("-"), "build", *services]
    process = open_process(command, environ=compose.environ(for_build=True), stdin=json.dumps({"services": labels}))
    log = follow(process, {service: compose.catalogue.image(service) for service in services})
    if process.returncode:
        check_engine("\n".join(log))
        said = last_lines("\n".join(log), _LOG_LINES)
        raise LabError("\n  ".join([f"building {', '.join(services)} failed; its output ends with:", *said]))
    # The images that these replaced have lost their name. The filter leaves images of other programs alone.
    run_docker("image", "prune", "--force", "--filter", f"label={_INPUTS}", check=False)


def follow(process: "subprocess.Popen[bytes]", images: Mapping[str, str]) -> list[str]:
    """Wait for a build. Show its progress in one line on a terminal; elsewhere print one line for each image.

    Args:
        process: of `open_process`.
        images: the services that it builds, with their images.

    Returns:
        The end of its output.
    """
    log: deque[str] = deque(maxlen=_LOG_LINES)
    build = BuildProgress(images)
    began = time.monotonic()

    def report(what: str) -> None:
        print(f"lab: built {what} in {time.monotonic() - began:.0f} s", file=sys.stderr, flush=True)

    with progress_line() as show:
        try:
            for line in read_lines(process, math.inf, quiet_seconds=_TICK_SECONDS):
                finished = build.read(line) if line else None
                if line and line.strip():
                    log.append(line)
                if finished and not is_shown():
                    report(finished)
                show(build.describe(time.monotonic() - began))
        finally:
            end(process)
    if process.returncode == 0:
        if is_shown():
            report(next(iter(images)) if len(images) == 1 else f"{len(images)} images")
        else:
            # Images whose end the output did not show.
            for service in build.unfinished:
                report(service)
    return list(log)


def find_images() -> list[str]:
    """Return the ids of the images that labs are started from; they belong to no project."""
    images = set(run_docker("image", "ls", "--quiet", "--filter", "reference=socketlab/*").stdout.split())
    images |= set(run_docker("image", "ls", "--quiet", "--filter", f"label={_INPUTS}").stdout.split())
    return sorted(images)


def remove_images(images: Sequence[str]) -> None:
    """Remove images by id.

    Raises:
        LabError: an image cannot be removed; with Docker's reason.
    """
    if images:
        done = run_docker("image", "rm", "--force", *images, check=False)
        if done.returncode:
            raise LabError(last_words(done.stderr))


def read_built(output: str) -> dict[str, str | None]:
    """Read tag -> digest of what the image was built from, from the output of `docker image inspect`.

    It has an empty line for each image that does not exist.
    """
    built: dict[str, str | None] = {}
    for line in filter(str.strip, output.splitlines()):
        tags, labels = (json.loads(part) for part in re.split(r"(?<=\]) ", line, maxsplit=1))
        built |= dict.fromkeys(tags, (labels or {}).get(_INPUTS))
    return built


def read_inputs(catalogue: Catalogue, services: Iterable[str]) -> dict[str, str]:
    """Return service -> digest of what its image is built from; services that only name an image are left out."""
    digests = {}
    root = catalogue.files[0].parent
    for service in services:
        build = catalogue.definitions.get(service, {}).get("build")
        if build is None:
            continue
        context = root / build.get("context", ".")
        # The path of the context does not count: the clone may be moved.
        options = {key: value for key, value in build.items() if key != "context"}
        digest = hashlib.sha256(json.dumps(options, sort_keys=True, default=str).encode())
        digest.update(digest_context(context, build.get("dockerfile", "Dockerfile")))
        digests[service] = digest.hexdigest()
    return digests


def digest_context(context: Path, dockerfile: str) -> bytes:
    """Return a digest of a Dockerfile and of all that it takes from its context, by name and content."""
    digest = hashlib.sha256()
    path = context / dockerfile
    try:
        text = path.read_bytes()
    except OSError as error:
        raise LabError(f"{path}: {error.strerror}; compose.yaml names it as a Dockerfile") from None
    digest.update(text)
    for source in sorted(read_sources(text.decode(errors="replace"))):
        for file in _find_files(context, source):
            # Of the mode only the bit that git keeps: the rest depends on the umask of the clone.
            digest.update(f"{file.relative_to(context)}\0{file.stat().st_mode & 0o100}\0".encode())
            digest.update(hashlib.sha256(file.read_bytes()).digest())
    return digest.digest()


def read_sources(dockerfile: str) -> set[str]:
    """Return the paths that a Dockerfile takes from its context by COPY, ADD and bind mounts."""
    sources: set[str] = set()
    for line in dockerfile.replace("\\\n", " ").splitlines():
        instruction, _, rest = line.strip().partition(" ")
        if instruction.upper() in ("COPY", "ADD") and "--from=" not in rest:
            words = json.loads(rest) if rest.startswith("[") else [word for word in rest.split() if word[:2] != "--"]
            sources.update(words[:-1])
        elif instruction.upper() == "RUN":
            for mount in re.findall(r"--mount=(\S*type=bind\S*)", rest):
                options = dict(option.partition("=")[::2] for option in mount.split(","))
                if "from" not in options:
                    sources.add(options.get("source") or options.get("src") or ".")
    return sources


def _find_files(context: Path, source: str) -> Iterator[Path]:
    """Yield the files that a source takes: a path or a pattern below the context, also if it begins with a slash."""
    # `Path.glob` takes neither "." nor "a**".
    for found in sorted(glob(source.lstrip("/") or ".", root_dir=context, include_hidden=True)):  # noqa: PTH207
        yield from _walk(context / found)


def _walk(path: Path) -> Iterator[Path]:
    if path.is_file():
        yield path
    elif path.is_dir():
        for entry in sorted(path.iterdir()):
            if entry.name not in _IGNORED and not entry.name.endswith((".pyc", ".egg-info")):
                yield from _walk(entry)


def _with_tag(image: str) -> str:
    return image if ":" in image.rpartition("/")[2] else f"{image}:latest"
