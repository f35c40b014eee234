"""Child processes that end with this one, however it ends."""

import contextlib
import ctypes
import os
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import IO, Any

from lab.base.environ import ENV_LIFELINE

# How long SIGTERM gets before SIGKILL, in seconds: as in compose.yaml, and above LAB_GRACE_SECONDS.
STOP_SECONDS = 10.0


def open_child(
    command: Sequence[str],
    *,
    environ: Mapping[str, str],
    output: IO[bytes] | None = None,
    cwd: Path | None = None,
    has_lifeline: bool = False,
) -> "subprocess.Popen[bytes]":
    """Start a process that ends with this one and has a pipe as its stdin.

    Args:
        output: takes its stdout and stderr; default: those of this process.
        has_lifeline: the end of its stdin ends it, so it needs no signal. A signal may come too early: a Docker client
            that is killed while it starts a container leaves a container whose stdin is never closed.
    """
    return subprocess.Popen(  # noqa: S603 - the lab's own commands
        command,
        stdin=subprocess.PIPE,
        stdout=output,
        stderr=subprocess.STDOUT if output else None,
        env=environ,
        cwd=cwd,
        preexec_fn=None if has_lifeline else die_with_lab,
    )


def close_child(process: "subprocess.Popen[bytes]") -> None:
    """End a process of `open_child`: by SIGTERM, then by SIGKILL."""
    process.terminate()
    try:
        process.wait(STOP_SECONDS)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
    # Last: a thread that still writes to this pipe then gets an error, and does not write to another file.
    if process.stdin:
        with contextlib.suppress(BrokenPipeError):
            process.stdin.close()


@contextlib.contextmanager
def open_lifeline(environ: Mapping[str, str] | None) -> Iterator[int]:
    """Yield the stdin for a child: empty, or with `ENV_LIFELINE` in its environment open until this process ends."""
    if not environ or ENV_LIFELINE not in environ:
        yield subprocess.DEVNULL
        return
    theirs, ours = os.pipe()
    try:
        yield theirs
    finally:
        os.close(theirs)
        os.close(ours)


@cache
def _libc() -> Any:
    return ctypes.CDLL(None)


def die_with_lab() -> None:
    """In a child: ask the kernel for SIGTERM when the parent dies (prctl(2), PR_SET_PDEATHSIG).

    SIGTERM is unblocked, since a child inherits the blocked signals of its parent (`interrupts.are_held`). SIGINT stays
    as it is.
    """
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGTERM})
    if sys.platform == "linux":
        _libc().prctl(1, signal.SIGTERM)
