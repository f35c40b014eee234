"""Starts dockerd where no service manager does, over whatever an earlier one left behind.

Strategy: a machine without systemd (a container, a CI sandbox) keeps /var/run over a crash or a snapshot, so the
pid files and sockets there may describe processes that are gone, or numbers that belong to another program now. dockerd
refuses to start over a pid file whose number is alive, whatever that process is; it takes a containerd for running
when only its pid is alive, or when only its socket exists (Engine 20.10, `systemContainerdRunning`: a bare lstat). So
before a start each of these is compared with what really runs, and only what is provably stale is removed. The API
socket itself needs no care: dockerd unlinks it before it binds.
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
# A first start on a slow disk builds its storage and its iptables chains: 2 s here, 20 s seen on busy CI machines.
START_SECONDS = 60.0


def is_stale(pid_file: Path, program: str, *, proc: Path = Path("/proc")) -> bool:
    """Whether a pid file names no living process of that program.

    Args:
        pid_file: the file; one that is absent is not stale.
        program: the name that the kernel has for the process (`/proc/PID/comm`).
        proc: where the kernel lists the processes.
    """
    try:
        pid = int(pid_file.read_text().strip())
    except FileNotFoundError:
        return False
    except ValueError:
        return True  # empty or torn: the machine stopped while it was written
    try:
        comm = (proc / str(pid) / "comm").read_text().strip()
        status = (proc / str(pid) / "status").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return True
    # A zombie keeps its number and name until it is reaped, and serves nobody.
    return comm != program or "\nState:\tZ" in status


def is_dead_socket(path: Path) -> bool:
    """Whether a Unix socket file is there with nobody listening behind it."""
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
    """Remove what a dead engine left behind and a new one would trip over.

    Returns:
        The files that were removed. A file of a living dockerd or containerd is never among them.
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


def is_answering(api: Path = RUN / "docker.sock", *, timeout: float = 2.0) -> bool:
    """Whether an engine answers `GET /_ping` on its Unix socket: a millisecond, where the client takes fifty."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as link:
        link.settimeout(timeout)
        try:
            link.connect(str(api))
            link.sendall(b"GET /_ping HTTP/1.0\r\nHost: docker\r\n\r\n")
            return b" 200 " in link.recv(64)
        except OSError:
            return False


def read_nofile_limit(pid_file: Path = RUN / "docker.pid", *, proc: Path = Path("/proc")) -> int | None:
    """How many open files (RLIMIT_NOFILE) this machine's engine can give to a container at most.

    An engine without CAP_SYS_RESOURCE (a sandbox, a container) cannot raise a hard limit above its own: a container
    that asks for more fails to start, with "error setting rlimit type 7: operation not permitted".

    Returns:
        None where the engine may give any, or is not one whose process can be seen from here.
    """
    try:
        process = proc / pid_file.read_text().strip()
        capabilities = re.search(r"^CapEff:\s*([0-9a-f]+)$", (process / "status").read_text(), re.MULTILINE)
        limit = re.search(r"^Max open files +\S+ +(\d+)", (process / "limits").read_text(), re.MULTILINE)
    except OSError:
        return None
    may_raise = capabilities is None or int(capabilities[1], 16) >> CAP_SYS_RESOURCE & 1
    return None if may_raise or limit is None else int(limit[1])


def start() -> None:
    """Start the Docker engine of this machine and wait until it answers; nothing where it answers already.

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
        say(f"engine: removed {path}, left behind by a process that is gone")
    if (RUN / "docker.pid").exists():
        # Alive, or else clear_stale() had removed it: perhaps the package's own init script has just started it.
        if not _wait_answering(None):
            pid = (RUN / "docker.pid").read_text().strip()
            raise EngineError(
                f"dockerd runs (pid {pid}) but does not answer on {RUN}/docker.sock",
                "end that process and call again",
            )
        return
    LOG.parent.mkdir(parents=True, exist_ok=True)
    with LOG.open("ab") as log:
        begin = log.tell()
        # A session of its own: it must outlive this command, its terminal and the Ctrl-C typed there.
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
        # It lives on by design: nothing here will wait for it, and Popen would warn about that when collected.
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
