"""The timeline of a lab's faults: a file for each lab, with a line for each event.

`lab faults` and `lab load` run in terminals of their own. The first writes the file, the second reads it
(lab/load/telemetry.py), and neither waits for the other.
"""

import json
from collections.abc import Mapping, Sequence
from datetime import datetime

from lab.servers.runtime import find_stamps, make_private


def note(project: str, stamp: Mapping[str, object]) -> None:
    """Append a fault; append it again when it ends.

    Raises:
        LabError, OSError: the file cannot be written.
    """
    path = find_stamps(project)
    make_private(path.parent)
    with path.open("a", encoding="utf-8") as file:
        file.write(f"{json.dumps(stamp)}\n")


def read(project: str, since: datetime) -> Sequence[Mapping[str, object]]:
    """Return the faults that have not ended or ended after `since`, in order, each once."""
    try:
        lines = find_stamps(project).read_text(encoding="utf-8").split("\n")[:-1]
    except FileNotFoundError:
        return []
    # Of two lines with the same beginning, the later one has the end.
    stamps = {(line["model"], line["fault"], line["begin"]): line for line in map(json.loads, lines)}
    return [item for item in stamps.values() if not item["end"] or datetime.fromisoformat(item["end"]) >= since]
