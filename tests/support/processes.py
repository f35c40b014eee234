"""Processes that may end while a test looks at them."""

from contextlib import suppress

import psutil


def find_descendants(process: psutil.Process, word: str) -> list[psutil.Process]:
    """Return the descendants of a process with this word in their command lines."""
    found = []
    for child in process.children(recursive=True):
        with suppress(psutil.NoSuchProcess):
            if word in child.cmdline():
                found.append(child)
    return found


def is_alive(process: psutil.Process) -> bool:
    """Return whether a process has not ended; a zombie has."""
    with suppress(psutil.NoSuchProcess):
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    return False
