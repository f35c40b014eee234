"""The faults injected into a lab's models, in one file per lab with a message per fault.

`lab faults` and the load with Locust's web UI are two commands in two terminals. The first one appends to the file, the
other one reads it (lab/load/telemetry.py).
"""

from datetime import datetime

from lab.base.messages import decode, encode
from lab.load.messages import FaultEvent
from lab.servers.runtime import find_stamps, make_private


def note(project: str, event: FaultEvent) -> None:
    """Append a fault; append it again with its end when it is healed.

    Raises:
        LabError, OSError: the file cannot be written.
    """
    path = find_stamps(project)
    make_private(path.parent)
    with path.open("a", encoding="utf-8") as file:
        file.write(f"{encode(event)}\n")


def read(project: str, since: datetime) -> list[FaultEvent]:
    """Return the faults that were active since then or still are, in order, each once."""
    try:
        lines = find_stamps(project).read_text(encoding="utf-8").split("\n")[:-1]
    except FileNotFoundError:
        return []
    # The later of two lines with the same begin has the end.
    events = {(event.model, event.fault, event.begin): event for line in lines if (event := decode(line, FaultEvent))}
    return [event for event in events.values() if not event.end or datetime.fromisoformat(event.end) >= since]
