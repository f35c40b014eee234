"""What `lab clean --all` removes: every lab of this machine, and the images. It is listed first, and only that goes."""

import shutil
from collections.abc import Iterator
from dataclasses import dataclass

from lab.servers import processes
from lab.servers.backend import has_engine, open_backend
from lab.servers.catalogue import Catalogue


@dataclass(frozen=True, slots=True)
class Everything:
    """What labs have left on this machine.

    Args:
        processes: the projects that have processes.
        containers: the projects that have containers, networks or volumes.
        images: the ids of the images.
        engine_is_away: Docker is installed, and no engine answers: the two above are empty because nobody could say.
    """

    processes: tuple[str, ...]
    containers: tuple[str, ...]
    images: tuple[str, ...]
    engine_is_away: bool

    @property
    def is_nothing(self) -> bool:
        """Whether there is nothing to remove."""
        return not (self.processes or self.containers or self.images)

    def describe(self) -> Iterator[str]:
        """Give a line for each thing that would be removed."""
        yield from (f"{project} (process)" for project in self.processes)
        yield from (f"{project} (docker)" for project in self.containers)
        if self.images:
            yield f"{len(self.images)} {'image' if len(self.images) == 1 else 'images'}"


def find_everything() -> Everything:
    """Look for what labs have left; change nothing."""
    found = tuple(processes.find_projects())
    if not has_engine():
        return Everything(found, (), (), engine_is_away=shutil.which("docker") is not None)
    from lab.servers.docker import containers

    return Everything(found, tuple(containers.find_projects()), tuple(containers.find_images()), engine_is_away=False)


def remove(everything: Everything, catalogue: Catalogue) -> None:
    """Remove that, and nothing that has come since.

    Raises:
        LabError: something cannot be removed.
    """
    for project in everything.processes:
        open_backend("process", project, catalogue=catalogue).down()
    if everything.containers or everything.images:
        from lab.servers.docker import containers

        for project in everything.containers:
            containers.purge(project)
        containers.remove_images(everything.images)
