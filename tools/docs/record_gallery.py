"""Record the tour for docs/gallery/: `python -m tools.docs.record_gallery` (`make gallery`).

It runs every exhibit against new servers, stores the results in docs/data/gallery.json and generates the pages. If an
exhibit fails or cannot run, nothing is stored.
"""

import sys
from collections.abc import Iterable

from lab.base import interrupts, output
from lab.base.errors import LabError
from lab.servers.backend import Backend
from lab.servers.open import open_backend
from lab.tour.registry import Exhibit, load
from lab.tour.runner import ExhibitRun
from lab.tour.session import open_gallery
from tools.docs import gallery_page


def record(backend: Backend, exhibits: Iterable[Exhibit]) -> list[ExhibitRun]:
    """Run exhibits against new servers.

    Raises:
        LabError: an exhibit failed or could not run; the message names each one.
    """
    runs, problems = [], []
    exhibits = list(exhibits)
    with open_gallery(backend, exhibits, fresh=True) as session:
        for exhibit in exhibits:
            try:
                if obstacle := session.find_obstacle(exhibit):
                    raise LabError(obstacle)
                run = session.run(exhibit)
            except LabError as error:
                problems.append(f"{exhibit.module}: {error}")
                continue
            runs.append(run)
            if not run.held:
                problems.append(f"{exhibit.module} failed: see `lab tour {exhibit.module}`")
    if problems:
        raise LabError("\n  ".join(["nothing was recorded:", *problems]))
    return runs


def main() -> int:
    """Record all exhibits, and write the pages; return the exit code."""
    try:
        gallery_page.record(record(open_backend("docker"), load()))
        has_changed = gallery_page.write()
    except LabError as error:
        print(f"record_gallery: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("record_gallery: interrupted: nothing was recorded", file=sys.stderr)
        for problem in interrupts.settle():
            print(f"record_gallery: {problem}", file=sys.stderr)
        return 130
    print(f"docs/gallery/: {'written' if has_changed else 'unchanged'}")
    return 0


if __name__ == "__main__":
    output.install()
    interrupts.install()
    sys.exit(main())
