"""Start dockerd where no service manager does, in spite of files that an earlier one has left.

Strategy: a machine without systemd (a container, a CI sandbox) keeps /var/run after a crash or a snapshot. So its pid
files and sockets may belong to processes that have ended, or the pids to other programs. dockerd does not start if the
pid in its pid file is alive, even as another program. It believes that a containerd runs if its pid is alive, or if its
socket exists (Engine 20.10, `systemContainerdRunning`: only lstat). So before a start these files are compared with the
running processes, and only those that are provably stale are removed. dockerd itself unlinks its API socket.
"""

import contextlib
import os
import re
import socket
import subprocess
import time
from pathlib import Path
from shutil import which

from lab.engine.command import PATH, UMASK, run, say, tail
from lab.engine.errors import EngineError

LOG = Path("/var/log/dockerd-lab.log")
RUN = Path("/var/run")
CAP_SYS_RESOURCE = 24  # linux/capability.h
# A first start creates the storage and the iptables chains: usually 2 s; 20 s on busy CI machines.
START_SECONDS = 60.0
_PING_SECONDS = 2.0


def is_stale(pid_file: Path, program: str, *, proc: Path = Path("/proc")) -> bool:
    """Return whether a pid file names no living process of a program.

    Args:
        pid_file: the file; a missing file is not stale.
        program: the kernel's name of the process (`/proc/PID/comm`).
        proc: the kernel's list of processes.
    """
    try:
        pid = int(pid_file.read_text().strip())
    except FileNotFoundError:
        return False
    except ValueError:
        return True  # empty or incomplete: the machine stopped while it was written
    try:
        # The kernel cuts a name at 15 bytes, which may be in the middle of a letter.
        comm = (proc / str(pid) / "comm").read_text(errors="replace").strip()
        status = (proc / str(pid) / "status").read_text(errors="replace")
    except (FileNotFoundError, ProcessLookupError):
        return True
    # A zombie keeps its pid and name until it is reaped.
    return comm != program or "\nState:\tZ" in status


def is_dead_socket(path: Path) -> bool:
    """Return whether a Unix socket file exists on which no process listens."""
    if not path.is_socket():
        return False
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        try:
            probe.connect(str(path))
        except ConnectionRefusedError:
            return True
        except OSError:
            return False
    return False


def clear_stale(run_dir: Path = RUN, *, proc: Path = Path("/proc")) -> list[Path]:
    """Remove files of a dead engine that would keep a new one from starting.

    Returns:
        The removed files. Files of a living dockerd or containerd are never removed.
    """
    managed = run_dir / "docker" / "containerd"
    stale = [
        path
        for path, program in [
            (run_dir / "docker.pid", "dockerd"),
            (managed / "containerd.pid", "containerd"),
        ]
        if is_stale(path, program, proc=proc)
    ]
    sockets = [run_dir / "containerd" / "containerd.sock", managed / "containerd.sock"]
    stale += [path for path in sockets if is_dead_socket(path)]
    for path in stale:
        path.unlink(missing_ok=True)
    return stale


def is_answering(api: Path = RUN / "docker.sock") -> bool:
    """Return whether an engine answers `GET /_ping` on its Unix socket. It takes 1 ms; the client takes 50."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as link:
        link.settimeout(_PING_SECONDS)
        try:
            link.connect(str(api))
            link.sendall(b"GET /_ping HTTP/1.0\r\nHost: docker\r\n\r\n")
            return b" 200 " in link.recv(64)
        except OSError:
            return False


def read_nofile_limit(pid_file: Path = RUN / "docker.pid", *, proc: Path = Path("/proc")) -> int | None:
    """Return the highest limit of open files (RLIMIT_NOFILE) that this machine's engine can give a container.

    An engine without CAP_SYS_RESOURCE (a sandbox, a container) cannot raise a hard limit above its own: a container
    with a higher limit does not start, with "error setting rlimit type 7: operation not permitted".

    Returns:
        None if there is no such limit, or the engine's process is not visible.
    """
    try:
        process = proc / pid_file.read_text().strip()
        status = (process / "status").read_text(errors="replace")
        capabilities = re.search(r"^CapEff:\s*([0-9a-f]+)$", status, re.MULTILINE)
        limit = re.search(r"^Max open files +\S+ +(\d+)", (process / "limits").read_text(), re.MULTILINE)
    except OSError:
        return None
    may_raise = capabilities is None or int(capabilities[1], 16) >> CAP_SYS_RESOURCE & 1
    return None if may_raise or limit is None else int(limit[1])


def start() -> None:
    """Start the Docker engine of this machine and wait until it answers; do nothing if it answers.

    Raises:
        EngineError: it ended, or did not answer in time; with the last lines of its log.
    """
    if is_answering():
        return
    if Path("/run/systemd/system").is_dir():
        _start_service()
    else:
        _start_process()


def _start_service() -> None:
    done = run(["systemctl", "start", "docker"], timeout=START_SECONDS)
    if done.returncode or not _wait_answering(None):
        raise EngineError(
            "systemd could not start docker.service",
            "read `journalctl -u docker` and `systemctl status docker`" + tail(done.stderr),
        )


def _start_process() -> None:
    dockerd = which("dockerd", path=PATH)
    if dockerd is None:
        raise EngineError("no dockerd on this machine", "run `make engine` as root")
    for path in clear_stale():
        say(f"engine: removed {path}, left by a process that has ended")
    if (RUN / "docker.pid").exists():
        # Its process is alive, or clear_stale() would have removed it: the init script may have just started it.
        if not _wait_answering(None):
            pid = (RUN / "docker.pid").read_text().strip()
            raise EngineError(
                f"dockerd runs (pid {pid}) but does not answer on {RUN}/docker.sock",
                "end that process and try again",
            )
        return
    LOG.parent.mkdir(parents=True, exist_ok=True)
    with LOG.open("ab") as log:
        begin = log.tell()
        # In its own session, so that it outlives this command and its terminal, and gets no Ctrl-C.
        process = subprocess.Popen(  # noqa: S603 - the path was found just above
            [dockerd],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            cwd="/",
            env={**os.environ, "PATH": PATH},
            start_new_session=True,
            umask=UMASK,
        )
    if _wait_answering(process):
        # It stays up, and nothing waits for it. Without a return code, Popen would warn about that.
        process.returncode = 0
        return
    code = process.poll()
    if code is None:
        process.terminate()
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(10)
    what = f"gave no answer within {START_SECONDS:g} s" if code is None else f"ended with exit code {code}"
    with LOG.open(errors="replace") as log_text:
        log_text.seek(begin)
        last = tail(log_text.read(), 12)
    raise EngineError(f"dockerd {what}", f"its log is {LOG}; it ends with:{last}")


def _wait_answering(process: "subprocess.Popen[bytes] | None") -> bool:
    deadline = time.monotonic() + START_SECONDS
    while time.monotonic() < deadline:
        if is_answering():
            return True
        if process is not None and process.poll() is not None:
            return False
        time.sleep(0.05)
    return False
