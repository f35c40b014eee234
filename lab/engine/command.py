"""One way to run another program, so that each failure reads the same."""

import os
import subprocess
import sys
from collections.abc import Mapping, Sequence

from lab.engine.client import make_environ
from lab.engine.errors import EngineError

# A root shell from cron or `su` may lack the sbin folders, where dockerd, iptables and dpkg's own tools live.
PATH = os.pathsep.join([os.environ.get("PATH", os.defpath), "/usr/local/sbin", "/usr/sbin", "/sbin"])

# Others must be able to read what it makes (packages, a base image, the engine's folders), whatever a person's umask.
UMASK = 0o022


def say(line: str) -> None:
    """Tell a person what takes the time now; stdout stays free for what a script reads."""
    print(line, file=sys.stderr, flush=True)


def run(
    argv: Sequence[str], *, timeout: float | None = None, env: Mapping[str, str] | None = None, cwd: str | None = None
) -> subprocess.CompletedProcess[str]:
    """Run a program to its end and keep what it wrote, whatever its exit code.

    Args:
        argv: the program and its arguments; no shell is involved.
        timeout: seconds after which the program is killed.
        env: variables to set beside those of this process.
        cwd: the folder to run it in.
    Returns:
        The exit code with stdout and stderr as text. A program that is missing has the shell's code, 127; one that
        took too long has that of timeout(1), 124.
    """
    own = make_environ() if argv[0] == "docker" else os.environ
    environ = {**own, "PATH": PATH, "LC_ALL": "C", **(env or {})}
    try:
        return subprocess.run(  # noqa: S603 - the callers' arguments are constants and paths, and no shell reads them
            argv,
            capture_output=True,
            text=True,
            errors="replace",
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
        EngineError: it did not exit with 0; the message ends with the last lines that it wrote.
    """
    done = run(argv, env=env, cwd=cwd)
    if done.returncode:
        raise EngineError(f"`{' '.join(argv[:3])}` ended with exit code {done.returncode}", fix + tail(done.stderr))
    return done.stdout


def tail(text: str, lines: int = 8) -> str:
    """The last lines of a log, indented to hang below a message; nothing where there are none."""
    return "".join(f"\n    {line}" for line in text.strip().splitlines()[-lines:])
