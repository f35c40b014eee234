"""Read the context switches of a server's threads every few milliseconds: run as a script, beside its processes.

    python -c SOURCE TOP DONE

It needs only the standard library. TOP is the pid above the server's processes; 1 stands for a container's init and is
left out. It reads until the file DONE exists, and prints JSON: [[time, {thread: switches}], ...].
"""

import json
import re
import sys
import time
from pathlib import Path

_PERIOD = 0.02
_LONGEST = 120.0


def list_pids(top: int) -> list[int]:
    """Return the processes from TOP down."""
    pids, waiting = [], [top]
    while waiting:
        pid = waiting.pop()
        if pid != 1:
            pids.append(pid)
        try:
            waiting += map(int, Path(f"/proc/{pid}/task/{pid}/children").read_text().split())
        except OSError:  # it has ended
            continue
    return pids


def read_switches(top: int) -> dict[str, int]:
    """Return the switches of each thread, voluntary and not."""
    found = {}
    for pid in list_pids(top):
        for path in Path(f"/proc/{pid}/task").glob("*/status"):
            try:
                text = path.read_text(errors="replace")  # a name that the kernel has cut may be no UTF-8
            except OSError:
                continue
            found[path.parent.name] = sum(map(int, re.findall(r"ctxt_switches:\s+(\d+)", text)))
    return found


def main() -> None:
    """Read until told to stop."""
    top, done = int(sys.argv[1]), Path(sys.argv[2])
    end = time.monotonic() + _LONGEST
    looks: list[tuple[int, dict[str, int]]] = []
    while not done.exists() and time.monotonic() < end:
        begin = time.monotonic_ns()
        looks.append((begin, read_switches(top)))
        time.sleep(_PERIOD)
    print(json.dumps(looks))


if __name__ == "__main__":
    main()
