"""How much `lab up` costs beyond what Compose itself takes to start the same services, in turns.

    python -m benchmarks.up [ROUNDS]

`lab up` returns when every model has answered; `docker compose up -d` when every container was started. Images are
built before the first round. Prints a line a round, then medians and their ratio; the aim is a ratio of at most 1.3.
"""

import os
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from statistics import median

from benchmarks.figures import in_turn, ratio_of_medians
from lab.base.paths import ROOT
from lab.servers.catalogue import Catalogue
from lab.servers.docker.containers import Containers

PROJECT = f"bench-up-{os.getpid()}"


def measure(command: Sequence[str]) -> float:
    """Seconds that a command takes."""
    begin = time.monotonic()
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)  # noqa: S603 - made below
    if done.returncode:
        sys.exit(f"{' '.join(command)}: {done.stderr}")
    return time.monotonic() - begin


def main(rounds: int) -> None:
    """Alternate which goes first: what the first leaves warm must not always help the second."""
    catalogue = Catalogue.load()
    models = [model.name for model in catalogue.select()]
    backend = Containers(PROJECT, catalogue)
    lab = [sys.executable, "-m", "lab", "--backend", "docker", "--project", PROJECT, "up"]
    bare = ["docker", "compose", "-p", PROJECT, "up", "--detach", "shell", *models]
    times: dict[str, list[float]] = {"lab": [], "bare": [], "lab again": [], "bare again": []}
    try:
        backend.build(["shell", *models])
        for number in range(rounds):
            order = [("lab", lab), ("bare", bare)]
            for name, command in in_turn(order, number):
                times[name].append(measure(command))
                times[f"{name} again"].append(measure(command))
                backend.down()
            print("  ".join(f"{name} {values[-1]:.2f} s" for name, values in times.items()), flush=True)
    finally:
        backend.down()
    print(*list_lines(times), sep="\n")


def list_lines(times: Mapping[str, Sequence[float]]) -> Iterator[str]:
    """Yield the lines of the report: what the start takes, and a start of what runs already."""
    for suffix, what in (("", "nothing ran"), (" again", "all ran already")):
        ours, theirs = times[f"lab{suffix}"], times[f"bare{suffix}"]
        yield (
            f"{what}: lab up {median(ours):.2f} s, docker compose up -d {median(theirs):.2f} s, "
            f"ratio {ratio_of_medians(ours, theirs):.2f}"
        )


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 5)
