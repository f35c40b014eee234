"""The faults injected into a lab's models, in one file per lab with a line of JSON per fault.

`lab faults` and the load with Locust's web UI are two commands in two terminals. The first one appends to the file, the
other one reads it (lab/load/telemetry.py).
"""

import json
from collections.abc import Mapping, Sequence
from datetime import datetime

from lab.servers.runtime import find_stamps, make_private


def note(project: str, stamp: Mapping[str, object]) -> None:
    """Append a fault; append it again with its end when it is healed.

    Raises:
        LabError, OSError: the file cannot be written.
    """
    path = find_stamps(project)
    make_private(path.parent)
    with path.open("a", encoding="utf-8") as file:
        file.write(f"{json.dumps(stamp)}\n")


def read(project: str, since: datetime) -> Sequence[Mapping[str, object]]:
    """Return the faults that were active since then or still are, in order, each once."""
    try:
        lines = find_stamps(project).read_text(encoding="utf-8").split("\n")[:-1]
    except FileNotFoundError:
        return []
    # The later of two lines with the same begin has the end.
    stamps = {(line["model"], line["fault"], line["begin"]): line for line in map(json.loads, lines)}
    return [item for item in stamps.values() if not item["end"] or datetime.fromisoformat(item["end"]) >= since]
