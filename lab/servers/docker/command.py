"""Run the Docker client, and read what it says."""

import os
import re
import select
import subprocess
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence

from lab.base import interrupts
from lab.base.errors import EngineAwayError, LabError
from lab.engine import EngineError
from lab.engine.client import make_environ as make_client_environ
from lab.engine.probe import explain_away
from lab.servers.backend import Completed
from lab.servers.children import die_with_lab

NO_DOCKER = "there is no `docker` command on this machine: `lab doctor` says what to do"
# How long `read_lines` waits for a line before it gives None. A lab whose images are in the cache is up sooner.
QUIET_SECONDS = 2.0

# Messages of Docker and Compose that explain no error, and the prefixes of those that do.
_NOISE = re.compile(r"^(time=\S+ level=warning .*|\s*(Container|Network|Volume|Image) .*|\s*)$")
_PREFIX = re.compile(r"^(docker: |error: |error response from daemon: )+", re.IGNORECASE)

# The client's messages when no engine answers, or not to this user; of client versions 20.10 to 28.
_AWAY = re.compile(
    r"cannot connect to the docker daemon|error during connect|failed to connect to the docker api"
    r"|permission denied while trying to connect",
    re.IGNORECASE,
)


def run_docker(*arguments: str, check: bool = True, timeout: float | None = None) -> Completed:
    """Run a command of the Docker client.

    Raises:
        EngineAwayError: no engine answers.
        LabError: the command failed, and `check` is true.
    """
    done = call(["docker", *arguments], capture=True, timeout=timeout)
    if done.returncode:
        check_engine(done.stderr)
    if check and done.returncode:
        raise LabError(f"docker {arguments[0]}: {last_words(done.stderr)}")
    return done


def make_environ(*, for_build: bool = False) -> dict[str, str]:
    """Make the environment for the Docker client; see `lab.engine.client.make_environ`."""
    try:
        return make_client_environ(for_build=for_build)
    except EngineError as error:
        raise LabError(str(error)) from None


def check_engine(output: str) -> None:
    """Raise EngineAwayError if the client's output says that no engine answers."""
    if away := next((line for line in output.splitlines() if _AWAY.search(line)), None):
        problem = explain_away(last_words(away))
        raise EngineAwayError(f"{problem.what}: {problem.fix}")


def call(
    command: Sequence[str],
    *,
    capture: bool = False,
    stdin: str | None = None,
    empty_stdin: int = subprocess.DEVNULL,
    interactive: bool = False,
    environ: Mapping[str, str] | None = None,
    timeout: float | None = None,
) -> Completed:
    """Run a command that ends with this process.

    Args:
        capture: return its output; by default it goes to this process's stdout and stderr.
        stdin: its input. Default: that of this process if `interactive`, else the file descriptor `empty_stdin`.
        environ: default: that of `make_environ`.
        timeout: seconds after which it is ended.

    Raises:
        LabError: there is no such command, or it took too long.
    """
    try:
        return subprocess.run(  # noqa: S603 - docker, with arguments made in this package
            list(command),
            input=stdin,
            stdin=empty_stdin if stdin is None and not interactive else None,
            stdout=subprocess.PIPE if capture else None,
            stderr=subprocess.PIPE if capture else None,
            env=make_environ() if environ is None else environ,
            text=True,
            errors="replace",
            timeout=timeout,
            check=False,
            preexec_fn=die_with_lab,
            process_group=0 if interrupts.are_held() else None,
        )
    except FileNotFoundError:
        raise LabError(NO_DOCKER) from None
    except subprocess.TimeoutExpired:
        raise LabError(f"`{' '.join(command[:4])} ...` took longer than {timeout:g} s and was ended") from None


def open_process(
    command: Sequence[str], *, environ: Mapping[str, str] | None = None, stdin: str = ""
) -> "subprocess.Popen[bytes]":
    """Start a command whose output `read_lines` reads as it comes; `end` ends it."""
    with tempfile.TemporaryFile() as given:
        given.write(stdin.encode())
        given.seek(0)
        try:
            return subprocess.Popen(  # noqa: S603 - docker, with arguments made in this package
                command,
                stdin=given,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                env=make_environ() if environ is None else environ,
                preexec_fn=die_with_lab,
            )
        except FileNotFoundError:
            raise LabError(NO_DOCKER) from None


def end(process: "subprocess.Popen[bytes]") -> None:
    """Wait for a process whose output has ended; send SIGTERM to any other first."""
    if process.stdout is not None and not process.stdout.closed:
        at_end = select.select([process.stdout], [], [], 0)[0] and not os.read(process.stdout.fileno(), 1)
        if not at_end:
            process.terminate()
        process.stdout.close()
    process.wait()


def read_lines(
    process: "subprocess.Popen[bytes]", deadline: float, *, quiet_seconds: float = QUIET_SECONDS
) -> Iterator[str | None]:
    """Yield the output of a process by lines until its end or the deadline; None after a while without a line.

    Args:
        deadline: on the clock of `time.monotonic`.
        quiet_seconds: how long a while is.
    """
    assert process.stdout is not None  # noqa: S101 - for mypy: it was opened with a pipe
    rest = b""
    while time.monotonic() < deadline:
        if not select.select([process.stdout], [], [], quiet_seconds)[0]:
            yield None
            continue
        data = os.read(process.stdout.fileno(), 65536)
        if not data:
            if rest:
                yield rest.decode(errors="replace")
            return
        *lines, rest = (rest + data).split(b"\n")
        yield from (line.decode(errors="replace") for line in lines)


def last_words(output: str) -> str:
    """Return the line in which Docker says what went wrong, without prefixes."""
    lines = [line.strip() for line in output.splitlines() if not _NOISE.match(line)]
    return _PREFIX.sub("", lines[-1]) if lines else ""
