"""Find and remove the containers, networks and volumes of projects, by Compose's labels."""

import re
import time
from collections.abc import Iterable

from lab.base import interrupts
from lab.base.errors import LabError
from lab.servers.children import STOP_SECONDS
from lab.servers.docker.command import last_words, run_docker
from lab.servers.runtime import find_mark, forget

PROJECT_LABEL = "com.docker.compose.project"
PART_LABEL = "lab.part"  # on everything of a lab that is not a model: containers, networks, volumes
_OURS = re.compile(r"[ ,]lab\.(model|gallery|part)=")


def purge(project: str) -> bool:
    """Remove the containers, networks and volumes of a project, and the notes about it.

    Strategy: repeat until nothing is found. After a lab was killed, its `docker compose up` may go on for a moment and
    create more; and a network, or a volume, can be removed only after its last container.

    Returns:
        Whether there was anything.

    Raises:
        EngineAwayError: no engine answers.
        LabError: the project belongs to another program, and is left as it is; or something cannot be removed, with
            Docker's reason.
    """
    with interrupts.uninterrupted(f"taking {project} down", f"lab --backend docker --project {project} down"):
        return _purge(project)


def _purge(project: str) -> bool:
    deadline = time.monotonic() + STOP_SECONDS
    _check_is_lab(project)
    found = False
    while True:
        left = False
        complaint = ""
        for kind in ("container", "network", "volume"):
            if ids := list_ids(kind, project):
                found = left = True
                complaint = remove(kind, ids) or complaint
        if not left:
            find_mark(project).unlink(missing_ok=True)
            forget(project)
            return found
        # Without a complaint it only takes time: a dozen containers on a busy machine take longer than this deadline.
        if complaint and time.monotonic() > deadline:
            raise LabError(f"project {project} cannot be removed: {complaint}")


def _check_is_lab(project: str) -> None:
    """Refuse a Compose project of another program: in a lab, a container or a volume has a label of the lab's.

    Raises:
        LabError: with the name of something that it holds.
    """
    named = []
    for kind, every, name in (("container", ["--all"], "{{.Names}}"), ("volume", [], "{{.Name}}")):
        form = f"{name} {{{{.Labels}}}}"
        rows = run_docker(kind, "ls", *every, "--filter", f"label={PROJECT_LABEL}={project}", "--format", form).stdout
        for row in rows.splitlines():
            if _OURS.search(row):
                return
            named.append(f"{kind} {row.split()[0]}")
    if named:
        raise LabError(
            f"the Compose project {project} is no lab ({named[0]} has no label of the lab's), so it is left as it is: "
            "use another --project"
        )


def find_projects() -> list[str]:
    """Return the names of all projects that have something with a label of the lab's."""
    # `docker volume ls` has no placeholder for one label: all labels come as one text, "a=b,c=d".
    projects = set()
    for kind in ("container", "network", "volume"):
        for label in ("lab.model", PART_LABEL):
            every = ["--all"] if kind == "container" else []
            done = run_docker(kind, "ls", *every, "--filter", f"label={label}", "--format", "{{.Labels}}")
            projects |= set(re.findall(rf"(?:^|,){re.escape(PROJECT_LABEL)}=([^,\n]+)", done.stdout, re.MULTILINE))
    return sorted(projects)


def list_ids(kind: str, project: str, *filters: str) -> list[str]:
    """Return the ids of a project's containers, networks or volumes that match all filters."""
    options = [word for each in (f"label={PROJECT_LABEL}={project}", *filters) for word in ("--filter", each)]
    every = ["--all", "--no-trunc"] if kind == "container" else []
    return run_docker(kind, "ls", "--quiet", *every, *options).stdout.split()


def remove(kind: str, ids: Iterable[str]) -> str:
    """Remove containers, networks or volumes; return Docker's reason if some could not be removed, else ""."""
    names = list(ids)
    if not names:
        return ""
    options = {"container": ["--force", "--volumes"], "volume": ["--force"]}.get(kind, [])
    return last_words(run_docker(kind, "rm", *options, *names, check=False).stderr)
