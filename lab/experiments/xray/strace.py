"""Trace the system calls of a model with strace, which is attached for the length of a block."""

import json
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from lab.base.errors import LabError
from lab.experiments.xray import switches
from lab.servers.backend import Backend
from lab.servers.children import die_with_lab

_SECONDS = 20.0
_LIST = "\nprint(json.dumps(list_pids(int(sys.argv[1]))))\n"
# All threads, absolute times, lengths, and no content.
_OPTIONS = ("-f", "-ttt", "-T", "-s", "0")


class Log:
    """What strace has written: complete after the block."""

    def __init__(self) -> None:
        self.lines: list[str] = []


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
    pids = list_pids(backend, model)
    found = Log()
    with tempfile.TemporaryDirectory() as folder:
        said = Path(folder, "said")
        command += options
        for pid in pids:
            command += ["-p", str(pid)]
        with said.open("wb") as stderr:
            process = subprocess.Popen(  # noqa: S603 - strace
                command, stdin=subprocess.DEVNULL, stdout=stderr, stderr=stderr, preexec_fn=die_with_lab
            )
        try:
            _wait_attached(process, said, len(pids))
            yield found
        finally:
            process.send_signal(signal.SIGINT)  # it lets go of the processes; a Docker client passes it on
            process.wait()
            found.lines += said.read_text(errors="replace").splitlines()


def _find_strace(backend: Backend, model: str) -> list[str]:
    """Return the command that runs strace where the model's processes are.

    Raises:
        LabError: this machine has none.
    """
    if container := backend.faults.container:
        return [*container.tracing_command(model), "strace"]
    program = shutil.which("strace")
    if program is None:
        raise LabError("strace is not installed: apt-get install strace")
    return [program]


def _wait_attached(process: "subprocess.Popen[bytes]", said: Path, count: int) -> None:
    """Wait until strace has said of so many processes that it is attached.

    Raises:
        LabError: it ended, and why; or it took too long.
    """
    deadline = time.monotonic() + _SECONDS
    while (text := said.read_text(errors="replace")).count(" attached") < count:
        if process.poll() is not None:
            raise LabError(f"{text.strip().splitlines()[-1] if text.strip() else 'strace ended'}")
        if time.monotonic() > deadline:
            raise LabError(f"strace was not attached within {_SECONDS:g} s")
        time.sleep(0.01)
