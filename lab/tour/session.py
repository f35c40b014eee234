"""A session with the gallery: start the servers of some exhibits, run the exhibits, and stop the servers again."""

import json
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

from lab.base import interrupts
from lab.base.errors import LabError, NotReadyError
from lab.base.messages import build
from lab.servers.backend import READY_SECONDS, Backend, Servers
from lab.servers.cleanup import SATELLITES
from lab.servers.open import open_backend
from lab.tour.registry import Exhibit
from lab.tour.runner import ExhibitRun

# A separate lab, always with the same name, so that the next session finds the leftovers of a killed one.
SUFFIX = SATELLITES[0]

# Timeout in seconds: several times that of the slowest exhibit on a busy machine.
_EXHIBIT_SECONDS = 120
# When the servers do not start together, each is tried again alone for this many seconds, to name the failing one.
_SECOND_SECONDS = 5.0


@dataclass(frozen=True)
class GallerySession:
    """The running servers of the gallery.

    Args:
        backend: where they run.
        unavailable: a server that did not start -> why, with the end of its log.
    """

    backend: Backend
    unavailable: dict[str, str] = field(default_factory=dict)

    def find_obstacle(self, exhibit: Exhibit) -> str | None:
        """Return why an exhibit cannot run: the error of its first unavailable server; None if it can."""
        return next((self.unavailable[server] for server in exhibit.servers if server in self.unavailable), None)

    def run(self, exhibit: Exhibit) -> ExhibitRun:
        """Run an exhibit in the lab's shell container.

        Raises:
            LabError: it could not run, or timed out.
        """
        command = ["python", "-m", "lab.tour.runner", exhibit.module]
        done = self.backend.helpers.run(command, capture=True, timeout=_EXHIBIT_SECONDS)
        try:
            return build(ExhibitRun, json.loads(done.stdout))
        except ValueError:
            said = (done.stderr or done.stdout).strip().splitlines()
            raise LabError(
                "\n  ".join([f"{exhibit.module} could not run (exit code {done.returncode}):", *said[-15:]])
            ) from None


@contextmanager
def open_gallery(backend: Backend, exhibits: Iterable[Exhibit], *, fresh: bool = False) -> Iterator[GallerySession]:
    """Provide the servers of these exhibits: those of this lab if all of them run, else in a separate lab.

    Args:
        fresh: always use a separate lab, with new servers.

    Raises:
        LabError: the backend has no containers, or no server starts.
    """
    if not backend.in_containers:
        raise LabError("the gallery's servers run only in containers, and this backend has none: see `lab doctor`")
    wanted = list(dict.fromkeys(server for exhibit in exhibits for server in exhibit.servers))
    running = {state.model for state in [*backend.state(), *backend.gallery()] if state.state == "running"}
    if running.issuperset(wanted) and not fresh:
        # Leave the running servers as they are, and start the container that runs the exhibits.
        backend.up_gallery(())
        yield GallerySession(backend)
        return
    if sys.stderr.isatty():
        print(f"lab: starting {', '.join(wanted)} ...", file=sys.stderr, flush=True)
    own = open_backend(backend.name, f"{backend.project}{SUFFIX}", catalogue=backend.catalogue)
    own.down()  # leftovers of a killed session
    with interrupts.sure(own.down):
        yield GallerySession(own, _start(own, wanted))


def _start(servers: Servers, names: Sequence[str]) -> dict[str, str]:
    """Start servers of the gallery and models; the failure of one does not prevent the others.

    Returns:
        See `GallerySession.unavailable`.
    """
    catalogue = servers.catalogue
    models = [name for name in names if name in catalogue.names]
    gallery = [name for name in names if name not in catalogue.names]
    unavailable: dict[str, str] = {}

    def up_servers(chosen: Sequence[str], timeout: float) -> None:
        servers.up_gallery(catalogue.select_gallery(chosen), timeout=timeout)

    def up_models(chosen: Sequence[str], timeout: float) -> None:
        servers.up(chosen, timeout=timeout)

    for start, chosen in ((up_servers, gallery), (up_models, models)):
        if chosen:
            unavailable |= _start_each(start, chosen)
    return unavailable


def _start_each(start: Callable[[Sequence[str], float], None], names: Sequence[str]) -> dict[str, str]:
    """Start all at once; if that fails, one by one, to find the failing ones."""
    unavailable = {}
    try:
        start(names, READY_SECONDS)
    except NotReadyError:
        for name in names:
            try:
                start([name], _SECOND_SECONDS)
            except NotReadyError as error:
                unavailable[name] = str(error)
    return unavailable
