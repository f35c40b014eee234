"""When a lab's models were broken, for whoever watches them meanwhile: a file for each lab, a line for each stamp.

`lab faults` and the load that shows in Locust's web UI are two commands, each with a terminal of its own. The one
writes, the other reads (lab/load/telemetry.py), and neither waits.
"""

import json
from collections.abc import Mapping, Sequence
from datetime import datetime

from lab.servers.runtime import find_stamps, make_private


def note(project: str, stamp: Mapping[str, object]) -> None:
    """Add a stamp, or the same one again when it has its end.

    Raises:
        LabError, OSError: it cannot be written.
    """
    path = find_stamps(project)
    make_private(path.parent)
    with path.open("a", encoding="utf-8") as file:
        file.write(f"{json.dumps(stamp)}\n")


def read(project: str, since: datetime) -> Sequence[Mapping[str, object]]:
    """The stamps that have begun since then, or last still, in their order; each once."""
    try:
        lines = find_stamps(project).read_text(encoding="utf-8").split("\n")[:-1]
    except FileNotFoundError:
        return []
    # Of two that begin alike the later line has the end.
    stamps = {(line["model"], line["fault"], line["begin"]): line for line in map(json.loads, lines)}
    return [item for item in stamps.values() if not item["end"] or datetime.fromisoformat(item["end"]) >= since]
