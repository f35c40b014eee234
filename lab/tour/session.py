"""A visit to the gallery: what some exhibits need is up while they run, and what was brought up for it goes again."""

import json
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

from lab.base import interrupts
from lab.base.errors import LabError, NotReadyError
from lab.servers.backend import READY_SECONDS, Backend
from lab.servers.cleanup import SATELLITES
from lab.servers.open import open_backend
from lab.tour.registry import Exhibit
from lab.tour.runner import Performance

# A lab of its own beside that of the project, always the same one, so that the next visit finds what a killed one left.
SUFFIX = SATELLITES[0]

# Several times what the slowest exhibit takes on a busy machine, in seconds.
_EXHIBIT_SECONDS = 120
# A server that did not come up together with the others is asked once more, by itself, so that it can be named.
_SECOND_SECONDS = 5.0


@dataclass(frozen=True)
class Visit:
    """The gallery as it is open.

    Args:
        backend: where its servers run.
        closed: a server that did not come up -> why, with the end of its log.
    """

    backend: Backend
    closed: dict[str, str] = field(default_factory=dict)

    def why_not(self, exhibit: Exhibit) -> str | None:
        """Why an exhibit cannot be shown: what is known of the first of its servers that is not there."""
        return next((self.closed[server] for server in exhibit.servers if server in self.closed), None)

    def see(self, exhibit: Exhibit) -> Performance:
        """Run an exhibit in the lab's shell container.

        Raises:
            LabError: it could not be run, or took too long.
        """
        command = ["python", "-m", "lab.tour.runner", exhibit.module]
        done = self.backend.run(command, capture=True, timeout=_EXHIBIT_SECONDS)
        try:
            return Performance.from_json(json.loads(done.stdout))
        except ValueError:
            said = (done.stderr or done.stdout).strip().splitlines()
            raise LabError(
                "\n  ".join([f"{exhibit.module} could not be run (exit code {done.returncode}):", *said[-15:]])
            ) from None


@contextmanager
def open_gallery(backend: Backend, exhibits: Iterable[Exhibit], *, fresh: bool = False) -> Iterator[Visit]:
    """Have the servers of these exhibits up: those of this lab where all of them run, else in a lab of its own.

    Args:
        fresh: in a lab of its own in any case, whose servers have not seen anybody yet.

    Raises:
        LabError: there are no containers to run them in, or none of the servers comes up.
    """
    if backend.name != "docker":
        raise LabError("the gallery's servers run only in containers, and here is no engine: `lab doctor` says more")
    wanted = list(dict.fromkeys(server for exhibit in exhibits for server in exhibit.servers))
    running = {state.model for state in [*backend.state(), *backend.gallery()] if state.state == "running"}
    if running.issuperset(wanted) and not fresh:
        # What runs is left as it is. But the container that exhibits run in has to have them as they are.
        backend.up_gallery(())
        yield Visit(backend)
        return
    if sys.stderr.isatty():
        print(f"lab: bringing up {', '.join(wanted)} ...", file=sys.stderr, flush=True)
    own = open_backend("docker", f"{backend.project}{SUFFIX}", catalogue=backend.catalogue)
    own.down()  # what a killed one has left
    with interrupts.sure(own.down):
        yield Visit(own, _start(own, wanted))


def _start(backend: Backend, names: Sequence[str]) -> dict[str, str]:
    """Start servers of the gallery and models. What does not come up keeps nothing else from it.

    Returns:
        As `Visit.closed`.
    """
    catalogue = backend.catalogue
    models = [name for name in names if name in catalogue.names]
    servers = [name for name in names if name not in catalogue.names]
    closed: dict[str, str] = {}

    def up_servers(chosen: Sequence[str], timeout: float) -> None:
        backend.up_gallery(catalogue.select_gallery(chosen), timeout=timeout)

    def up_models(chosen: Sequence[str], timeout: float) -> None:
        backend.up(chosen, timeout=timeout)

    for start, chosen in ((up_servers, servers), (up_models, models)):
        if chosen:
            closed |= _start_each(start, chosen)
    return closed


def _start_each(start: Callable[[Sequence[str], float], None], names: Sequence[str]) -> dict[str, str]:
    """Start all at once; where that fails, one by one, to know which."""
    closed = {}
    try:
        start(names, READY_SECONDS)
    except NotReadyError:
        for name in names:
            try:
                start([name], _SECOND_SECONDS)
            except NotReadyError as error:
                closed[name] = str(error)
    return closed
