"""Trace the system calls of a model with strace, which is attached for the length of a block."""

import json
import re
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from lab.base.errors import LabError, last_line
from lab.experiments.xray import switches
from lab.servers.backend import Backend
from lab.servers.children import die_with_lab

_SECONDS = 20.0
_LIST = "\nprint(json.dumps(list_pids(int(sys.argv[1]))))\n"
# All threads, absolute times, lengths, and no content.
_OPTIONS = ("-f", "-ttt", "-T", "-s", "0")
# With a file for its output, strace begins each line with the thread.
_OUTPUT = ("-o", "/dev/stdout")

_CALL = re.compile(r"^(\d+) +(\d+)\.(\d{6}) (?:<\.\.\. (\w+) resumed>|(\w+)\()")
_OPEN = re.compile(r"<(unfinished|detached) \.\.\.>$")


@dataclass(frozen=True, slots=True)
class Call:
    """A system call of a thread, in nanoseconds of CLOCK_REALTIME. Its end is None if it has not returned."""

    thread: int
    name: str
    start: int
    end: int | None
    result: int = 0


@dataclass(slots=True)
class Log:
    """What strace has written: complete after the block.

    Args:
        fault: why there is nothing.
    """

    lines: list[str] = field(default_factory=list)
    fault: str = ""


def parse_log(lines: Iterable[str]) -> Iterator[Call]:
    """Give the calls of a log of `strace -f -ttt -T`: first those that have returned."""
    begun: dict[int, tuple[str, int]] = {}
    for line in lines:
        text = line.rstrip()
        found = _CALL.match(text)
        if not found:
            if ended := re.match(r"(\d+) .*\+\+\+$", text):
                begun.pop(int(ended[1]), None)
            continue  # a signal, or the end of a thread
        seconds, micros = int(found[2]), int(found[3])
        thread, time_ = int(found[1]), seconds * 1_000_000_000 + micros * 1000
        if _OPEN.search(text):
            begun[thread] = (found[5] or found[4], time_)
            continue
        result = re.search(r"\) += (-?\d+)", text)
        length = re.search(r"<(\d+\.\d+)>$", text)
        took = int(float(length[1]) * 1e9) if length else 0
        # The line shows the time of its start, unless the call is shown in two parts.
        _, start = begun.pop(thread, ("", time_ - took)) if found[4] else ("", time_)
        end = time_ if found[4] else time_ + took
        yield Call(thread, found[4] or found[5], start, end, int(result[1]) if result else 0)
    for thread, (name, start) in begun.items():
        yield Call(thread, name, start, None)


def list_pids(backend: Backend, model: str) -> list[int]:
    """Return the processes of a model, as they see themselves.

    Raises:
        LabError: it is not running.
    """
    source = Path(switches.__file__).read_text(encoding="utf-8").partition('if __name__ == "__main__":')[0]
    pids: list[int] = json.loads(backend.faults.run_beside(model, source + _LIST))
    return pids


@contextmanager
def traced(backend: Backend, model: str, options: Sequence[str] = _OPTIONS) -> Iterator[Log]:
    """Attach strace to all processes of a model for the length of the block.

    Raises:
        LabError: there is no strace, or it may not trace them; the message says which.
    """
    command = _find_strace(backend, model)
    with _attached([*command, *options], list_pids(backend, model)) as log:
        yield log


@contextmanager
def traced_process(top: int) -> Iterator[Log]:
    """Attach strace to a process of this machine and those below it, for the length of the block.

    Raises:
        LabError: as `traced`.
    """
    with _attached([_find_program(), *_OPTIONS], switches.list_pids(top)) as log:
        yield log


@contextmanager
def _attached(command: Sequence[str], pids: Sequence[int]) -> Iterator[Log]:
    found = Log()
    with tempfile.TemporaryDirectory() as folder:
        said, log = Path(folder, "said"), Path(folder, "log")
        command = [*command, *_OUTPUT, *(f"--attach={pid}" for pid in pids)]
        with said.open("wb") as stderr, log.open("wb") as stdout:
            process = subprocess.Popen(  # noqa: S603 - strace
                command, stdin=subprocess.DEVNULL, stdout=stdout, stderr=stderr, preexec_fn=die_with_lab
            )
        try:
            _wait_attached(process, said, len(pids))
            yield found
        finally:
            process.send_signal(signal.SIGINT)  # it lets go of the processes; a Docker client passes it on
            process.wait()
            found.lines += log.read_text(errors="replace").splitlines()


def _find_strace(backend: Backend, model: str) -> list[str]:
    """Return the command that runs strace where the model's processes are.

    Raises:
        LabError: this machine has none.
    """
    if container := backend.faults.container:
        return [*container.tracing_command(model), "strace"]
    return [_find_program()]


def _find_program() -> str:
    program = shutil.which("strace")
    if program is None:
        raise LabError("strace is not installed: apt-get install strace")
    return program


def _wait_attached(process: "subprocess.Popen[bytes]", said: Path, count: int) -> None:
    """Wait until strace has said of so many processes that it is attached.

    Raises:
        LabError: it ended, and why; or it took too long.
    """
    deadline = time.monotonic() + _SECONDS
    while (text := said.read_text(errors="replace")).count(" attached") < count:
        if process.poll() is not None:
            raise LabError(last_line(text, "strace ended"))
        if time.monotonic() > deadline:
            raise LabError(f"strace was not attached within {_SECONDS:g} s")
        time.sleep(0.01)
