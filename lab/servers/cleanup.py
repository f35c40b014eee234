"""Take labs down: one project (`lab down`, `lab clean`), or all labs of this machine (`lab clean --all`)."""

import shutil
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from lab.base.errors import EngineAwayError
from lab.servers import processes
from lab.servers.catalogue import Catalogue
from lab.servers.docker import cleanup as containers
from lab.servers.docker import images
from lab.servers.open import check_project, has_engine
from lab.servers.runtime import find_mark, runtime_directory

# Names that commands append to a project for a lab of their own: `lab tour`, and `lab bench` for its control server.
# If such a command is killed, its lab is taken down with the project.
SATELLITES = ("-tour", "-control")


@dataclass(frozen=True, slots=True)
class Everything:
    """Leftovers of labs on this machine.

    Args:
        processes: the projects that have processes.
        containers: the projects that have containers, networks or volumes.
        images: the ids of the images.
        engine_is_away: Docker is installed, but no engine answers: `containers` and `images` are unknown, and empty.
    """

    processes: tuple[str, ...]
    containers: tuple[str, ...]
    images: tuple[str, ...]
    engine_is_away: bool

    @property
    def is_nothing(self) -> bool:
        return not (self.processes or self.containers or self.images)

    def describe(self) -> Iterator[str]:
        """Yield a line for each thing that would be removed."""
        yield from (f"{project} (process)" for project in self.processes)
        yield from (f"{project} (docker)" for project in self.containers)
        if self.images:
            yield f"{len(self.images)} {'image' if len(self.images) == 1 else 'images'}"


def find_everything() -> Everything:
    """Find what labs have left; change nothing."""
    found = tuple(processes.find_projects())
    if not has_engine():
        return Everything(found, (), (), engine_is_away=shutil.which("docker") is not None)
    return Everything(found, tuple(containers.find_projects()), tuple(images.find_images()), engine_is_away=False)


def remove(everything: Everything, catalogue: Catalogue) -> None:
    """Remove these things, and nothing that has been started since they were listed.

    Raises:
        LabError: something cannot be removed.
    """
    for project in everything.processes:
        processes.Processes(project, catalogue).down()
    for project in everything.containers:
        containers.purge(project)
    images.remove_images(everything.images)


def take_down(name: str | None, project: str | None, catalogue: Catalogue, *, satellites: bool = False) -> list[str]:
    """Take a project down, on both backends unless one is named.

    Args:
        name: docker or process; None: both.
        project: as for `open_backend`.
        satellites: the labs of `SATELLITES` too.

    Returns:
        What was removed, each as `PROJECT (BACKEND)`.

    Raises:
        EngineAwayError: the project may have containers, and no engine answers. Its processes have been taken down.
    """
    own = check_project(project)
    projects = [own, *(f"{own}{suffix}" for suffix in SATELLITES)] if satellites else [own]
    removed = []
    if name != "docker":
        for each in projects:
            if runtime_directory(each).exists():
                removed.append(f"{each} (process)")
            processes.Processes(each, catalogue).down()
    if name == "docker" or (name is None and _may_have_containers(projects, is_process_lab=bool(removed))):
        try:
            removed += [f"{each} (docker)" for each in projects if containers.purge(each)]
        except EngineAwayError as error:
            known = any(find_mark(each).exists() for each in projects)
            what = "the containers" if known else "containers, if there are any,"
            raise EngineAwayError(f"{what} of project {own} remain, as {error}; then run this command again") from None
    return removed


def _may_have_containers(projects: Iterable[str], *, is_process_lab: bool) -> bool:
    """Return whether to ask Docker for containers of these projects. Without Docker, there are none."""
    if any(find_mark(project).exists() for project in projects):
        return True
    return shutil.which("docker") is not None and (not is_process_lab or has_engine())
