"""Files that a running project keeps outside of the clone: sockets, state and notes, in a folder of this user."""

import contextlib
import os
import stat
from pathlib import Path

from lab.base.errors import LabError

# In the environment of each process of a project: the project's folder. `down` finds the processes by it.
ENV_RUNTIME = "LAB_RUNTIME"


def runtime_directory(project: str) -> Path:
    """Return the folder of a project that runs as processes: its state and its Unix sockets.

    It exists while the project runs.
    """
    return runtime_base() / project


def runtime_base() -> Path:
    """Return the folder of this user's projects. Its path is short: that of a Unix socket has at most 107 bytes."""
    home = os.environ.get("XDG_RUNTIME_DIR", "")
    return Path(home if home and os.access(home, os.W_OK) else "/tmp") / f"socketlab-{os.getuid()}"  # noqa: S108 - the process backend checks who owns it


def make_private(directory: Path) -> None:
    """Make a folder that only this user can enter. /tmp is open to all users, so an existing folder is checked.

    Raises:
        LabError: the path is something else.
    """
    with contextlib.suppress(FileExistsError):  # also of a file, which `exist_ok` is not for
        directory.mkdir(mode=0o700)
    status = directory.lstat()
    if not stat.S_ISDIR(status.st_mode) or status.st_uid != os.getuid() or status.st_mode & 0o077:
        raise LabError(f"{directory} is not a private directory of this user: remove it, then run the command again")


def find_stamps(project: str) -> Path:
    """Return the file of a project's fault intervals (lab/load/timeline.py); it need not exist."""
    # A file and not a folder: the folders here are the projects that run as processes.
    return runtime_base() / f"{project}.faults"


def find_mark(project: str) -> Path:
    """Return the empty file that says that a project was started in containers, for when no engine can say so."""
    return runtime_base() / f"{project}.docker"


def forget(project: str) -> None:
    """Remove the notes about a project, and the folder of all projects if it is empty."""
    find_stamps(project).unlink(missing_ok=True)
    with contextlib.suppress(OSError):
        runtime_base().rmdir()
