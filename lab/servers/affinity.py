"""Pin processes to cores."""

import contextlib
import os
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import psutil

from lab.base.errors import LabError
from lab.base.units import show_cores


def pin_process(pid: int, cores: Sequence[int]) -> None:
    """Pin a process and its descendants, with all present and future threads.

    Raises:
        OSError: the cores are not available.
        LabError: there is no such process.
    """
    kept: set[int] = set()
    try:
        root = psutil.Process(pid)
        # A new thread inherits the cores of its creator. Threads that started meanwhile are found by the next pass.
        while new := {*_list_threads([root, *root.children(recursive=True)])} - kept:
            for thread in new:
                with contextlib.suppress(ProcessLookupError):  # it has ended
                    os.sched_setaffinity(thread, cores)
            kept |= new
    except psutil.Error as error:
        raise LabError(f"the process {pid} cannot be pinned to {show_cores(cores)}: {error}") from None


def _list_threads(processes: Iterable[psutil.Process]) -> Iterator[int]:
    for process in processes:
        with contextlib.suppress(FileNotFoundError):  # it has ended
            yield from (int(thread.name) for thread in Path(f"/proc/{process.pid}/task").iterdir())
