"""Look at each thread of a server every millisecond, through /proc: run as a script, beside the server's processes.

    python -c SOURCE TOP FOLDER PERIOD

It needs only the standard library and the rights of the server's own user. TOP is the pid above the server's processes;
1 stands for a container's init and is left out. It looks until FOLDER has a file `done`, and prints JSON.
"""

import json
import os
import sys
import time
from itertools import pairwise
from pathlib import Path
from typing import Any

_LONGEST = 20.0
# Of more threads than this, those that have not changed for some looks are left alone for as many.
_MANY, _PATIENCE = 16, 8


class Thread:
    """One thread, its files, and what was seen.

    Segments of equal state are [start, end, state, cpu, queued]. A segment may be longer than a round of the scene, so
    switches are apart from them: [start, end, number] for two looks between which the thread was put on a core.

    Args:
        absent: when it was not there yet; 0 if that is not known.
    """

    def __init__(self, pid: int, tid: int, absent: int = 0) -> None:
        root = f"/proc/{pid}/task/{tid}"
        self.pid, self.tid = pid, tid
        # The kernel cuts a name at 15 bytes, which may be in the middle of a letter.
        self.name = Path(f"{root}/comm").read_text(errors="replace").strip()
        self.faults: list[str] = []
        self.state_file, fault = open_state(root)
        self.faults += [fault] if fault else []
        try:
            self.schedule_file = os.open(f"{root}/schedstat", os.O_RDONLY)
        except OSError as error:
            self.schedule_file = -1
            self.faults.append(f"{root}/schedstat: {error.strerror}: waiting for a core cannot be seen")
        self.segments: list[list[Any]] = []
        self.switches: list[tuple[int, int, int]] = []
        self.same = 0  # looks that have shown nothing new
        self.cpu = self.queued = self.switched = 0
        self.looked = absent or time.monotonic_ns()
        self.read_schedule()
        if absent:
            self.switched = 0

    def read_schedule(self) -> tuple[int, int, int]:
        """Return the nanoseconds on a core, and without one, and how often it was put on one, since the last call."""
        if self.schedule_file < 0:
            return 0, 0, 0
        cpu, queued, switched = map(int, os.pread(self.schedule_file, 100, 0).split()[:3])
        since = cpu - self.cpu, queued - self.queued, switched - self.switched
        self.cpu, self.queued, self.switched = cpu, queued, switched
        return since

    def look(self) -> None:
        """See what it does now.

        Raises:
            OSError: it has ended.
        """
        text = os.pread(self.state_file, 400, 0).decode(errors="replace")
        state = text.rpartition(")")[2].split()[0] if ")" in text else text.split()[0]
        now = time.monotonic_ns()
        cpu, queued, switched = self.read_schedule()
        if switched:
            self.switches.append((self.looked, now, switched))
        self.looked = now
        if self.segments:
            last = self.segments[-1]
            last[1] = now
            last[3] += cpu
            last[4] += queued
            if last[2] == state and not cpu:
                self.same += 1
                return
            self.same = 0
            if last[2] == state:
                return
        self.segments.append([now, now, state, 0, 0])

    def close(self) -> None:
        """Close its files."""
        for file in (self.state_file, self.schedule_file):
            if file >= 0:
                os.close(file)
        self.state_file = self.schedule_file = -1


def open_state(root: str) -> tuple[int, str]:
    """Open the file that tells a thread's system call; without the right to it, the one that tells its state's letter.

    Returns:
        The file, and what cannot be seen, if anything.
    """
    try:
        file = os.open(f"{root}/syscall", os.O_RDONLY)
        os.pread(file, 1, 0)
    except OSError as error:
        return os.open(f"{root}/stat", os.O_RDONLY), f"/proc/PID/syscall: {error.strerror}: no system calls are seen"
    return file, ""


class Sampler:
    """All threads below a process."""

    def __init__(self, top: int) -> None:
        self.top = top
        self.threads: dict[int, Thread] = {}
        self.ended: list[Thread] = []
        self.looks: list[int] = []
        self.listed = 0  # when all threads were listed last
        self.faults: set[str] = set()

    def look(self) -> None:
        """Look at each once."""
        self.looks.append(time.monotonic_ns())
        is_full = len(self.threads) <= _MANY or len(self.looks) % _PATIENCE == 0
        before, self.listed = self.listed, self.looks[-1] if is_full else self.listed
        found = self.list_threads() if is_full else {tid: thread.pid for tid, thread in self.threads.items()}
        for tid, pid in found.items():
            try:
                if tid not in self.threads:
                    # /proc may leave out a thread while another one ends: one that was seen before is not new.
                    is_new = not any(each.tid == tid for each in self.ended)
                    self.threads[tid] = Thread(pid, tid, before if is_new else 0)
                if is_full or self.threads[tid].same < _PATIENCE:
                    self.threads[tid].look()
            except OSError as error:
                if tid not in self.threads and isinstance(error, PermissionError):
                    self.faults.add(f"/proc/{pid}: {error.strerror}: it is the process of another user")
        for tid in [tid for tid in self.threads if tid not in found]:
            self.threads[tid].close()
            self.ended.append(self.threads.pop(tid))

    def list_threads(self) -> dict[int, int]:
        """Return the server's threads, each with its process."""
        return {tid: pid for pid in self.list_pids() for tid in list_numbers(f"/proc/{pid}/task")}

    def list_pids(self) -> list[int]:
        """Return the server's processes. They are the children of first threads: no model forks from another."""
        pids, waiting = [], [self.top]
        while waiting:
            pid = waiting.pop()
            if pid != 1:
                pids.append(pid)
            try:
                waiting += map(int, Path(f"/proc/{pid}/task/{pid}/children").read_text().split())
            except OSError:  # it has ended
                continue
        return pids

    def as_json(self) -> dict[str, Any]:
        """Return what was seen."""
        seen = [*self.ended, *self.threads.values()]
        # A kernel that does not count says 0 for all, of a thread that has run too.
        threads = [
            [each.pid, each.tid, each.name, each.segments, each.switches if each.switched else None] for each in seen
        ]
        gaps = sorted(after - before for before, after in pairwise(self.looks))
        return {
            "threads": threads,
            "faults": sorted({*self.faults, *(fault for each in seen for fault in each.faults)}),
            "machine": os.uname().machine,
            "look": gaps[len(gaps) // 2] if gaps else 0,
        }


def list_numbers(folder: str) -> list[int]:
    """Return the threads in a folder of /proc; none if the process has ended."""
    try:
        return [int(name) for name in os.listdir(folder)]  # noqa: PTH208  # a path object for each would cost more
    except OSError:
        return []


def main() -> None:
    """Look until told to stop."""
    top, folder, period = int(sys.argv[1]), Path(sys.argv[2]), float(sys.argv[3])
    sampler = Sampler(top)
    sampler.look()
    (folder / "sampling").touch()
    end = time.monotonic() + _LONGEST
    due = time.monotonic()
    while not (folder / "done").exists() and time.monotonic() < end:
        sampler.look()
        due = max(due + period, time.monotonic())
        time.sleep(max(0.0, due - time.monotonic()))
    print(json.dumps(sampler.as_json()))


if __name__ == "__main__":
    main()
