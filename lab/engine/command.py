"""Run other programs, with the same kind of message for each failure."""

import os
import subprocess
import sys
from collections.abc import Mapping, Sequence

from lab.engine.client import make_environ
from lab.engine.errors import EngineError

# A root shell from cron or `su` may lack the sbin folders, which have dockerd, iptables and dpkg's tools.
PATH = os.pathsep.join([os.environ.get("PATH", os.defpath), "/usr/local/sbin", "/usr/sbin", "/sbin"])

# Other users have to read the files that it creates (packages, a base image, the engine's folders).
UMASK = 0o022


def say(line: str) -> None:
    """Print a line of progress on stderr; stdout is for scripts."""
    print(line, file=sys.stderr, flush=True)


def run(
    argv: Sequence[str], *, timeout: float | None = None, env: Mapping[str, str] | None = None, cwd: str | None = None
) -> subprocess.CompletedProcess[str]:
    """Run a program to its end and keep its output.

    Args:
        argv: the program and its arguments; no shell is involved.
        timeout: seconds after which the program is killed.
        env: added to the environment of this process.
        cwd: the working directory.
    Returns:
        Any exit code, with stdout and stderr as text: 127 for a missing program, as from a shell; 124 after the
        timeout, as from timeout(1).
    """
    own = make_environ() if argv[0] == "docker" else os.environ
    environ = {**own, "PATH": PATH, "LC_ALL": "C", **(env or {})}
    try:
        return subprocess.run(  # noqa: S603 - the callers' arguments are constants and paths, and no shell reads them
            argv,
            capture_output=True,
            errors="replace",  # so it is text
            timeout=timeout,
            env=environ,
            cwd=cwd,
            check=False,
            umask=UMASK,
        )
    except FileNotFoundError:
        return subprocess.CompletedProcess(argv, 127, "", f"{argv[0]}: not found")
    except subprocess.TimeoutExpired:
        return subprocess.CompletedProcess(argv, 124, "", f"{argv[0]}: no answer within {timeout:g} s")


def run_or_raise(argv: Sequence[str], *, fix: str, env: Mapping[str, str] | None = None, cwd: str | None = None) -> str:
    """Run a program that has to succeed.

    Returns:
        Its stdout.
    Raises:
        EngineError: its exit code is not 0; the message ends with its last lines.
    """
    done = run(argv, env=env, cwd=cwd)
    if done.returncode:
        raise EngineError(f"`{' '.join(argv[:3])}` ended with exit code {done.returncode}", fix + tail(done.stderr))
    return done.stdout


def tail(text: str, lines: int = 8) -> str:
    """Return the last lines of a log, indented to follow a message; "" if there are none."""
    return "".join(f"\n    {line}" for line in text.strip().splitlines()[-lines:])
