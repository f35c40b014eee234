"""Programs of the lab as child processes on this machine."""

import contextlib
import os
import random
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Unpack

from lab.base.errors import LabError
from lab.base.paths import ROOT
from lab.servers.backend import Completed, RunOptions
from lab.servers.catalogue import Catalogue
from lab.servers.children import close_child, die_with_lab, open_child, open_lifeline
from lab.servers.helper import Helper
from lab.servers.runtime import ENV_RUNTIME

_HOST = "127.0.0.1"

# Ports below are known services', such as those of the models in containers.
_FIRST_PORT = 10_000
_GIVEN_PORTS = Path("/proc/sys/net/ipv4/ip_local_port_range")
_TRIES = 100


class ProcessHelpers:
    """See `lab.servers.backend.Helpers`.

    Args:
        directory: of the project. Every process has it in its environment, which is how `down` finds it.
    """

    def __init__(self, directory: Path, catalogue: Catalogue) -> None:
        self._directory = directory
        self._catalogue = catalogue

    def run(
        self,
        arguments: Sequence[str],
        *,
        environ: Mapping[str, str] | None = None,
        capture: bool = False,
        stdin: str | None = None,
        interactive: bool = False,
        timeout: float | None = None,
    ) -> Completed:
        command = [sys.executable if word == "python" else word for word in arguments[:1]] + list(arguments[1:])
        try:
            with open_lifeline(environ) as nothing:
                return subprocess.run(  # noqa: S603 - the lab's own commands, and those that its user types
                    command,
                    cwd=ROOT,
                    env=self.environ(environ),
                    input=stdin,
                    stdin=nothing if stdin is None and not interactive else None,
                    stdout=subprocess.PIPE if capture else None,
                    stderr=subprocess.PIPE if capture else None,
                    text=True,
                    errors="replace",
                    timeout=timeout,
                    check=False,
                    preexec_fn=die_with_lab,
                )
        except FileNotFoundError:
            raise LabError(f"{command[0]}: no such command on this machine") from None
        except subprocess.TimeoutExpired:
            raise LabError(f"`{' '.join(arguments)}` took longer than {timeout:g} s and was ended") from None

    def start(self, name: str, arguments: Sequence[str]) -> AbstractContextManager[Helper]:
        command = [sys.executable if word == "python" else word for word in arguments]
        return self._open(name, command, self.environ())

    def run_service(
        self,
        service: str,
        arguments: Sequence[str] = (),
        *,
        environ: Mapping[str, str] | None = None,
        **options: Unpack[RunOptions],
    ) -> Completed:
        return self.run(["python", *self._module_of(service), *arguments], environ=environ, **options)

    def start_service(
        self,
        name: str,
        service: str,
        arguments: Sequence[str] = (),
        *,
        environ: Mapping[str, str] | None = None,
        publish: bool = False,
    ) -> AbstractContextManager[Helper]:
        command = [sys.executable, *self._module_of(service), *arguments]
        return self._open(name, command, self.environ(environ))

    @contextlib.contextmanager
    def _open(self, name: str, command: Sequence[str], environ: Mapping[str, str]) -> Iterator[Helper]:
        with tempfile.TemporaryFile(prefix="socketlab-") as log:
            process = open_child(command, environ=environ, output=log, cwd=ROOT)
            try:
                yield Helper(name, process, _HOST, log)
            finally:
                close_child(process)

    def choose_bind(self, port: int, *, local: int | None = None) -> tuple[str, int]:
        return _HOST, find_port() if local is None else local

    def find_shell(self) -> str:
        # The one that the user has chosen on this machine.
        return os.environ.get("SHELL", "sh")

    def environ(self, more: Mapping[str, str] | None = None) -> dict[str, str]:
        return {**os.environ, **(more or {}), ENV_RUNTIME: str(self._directory)}

    def _module_of(self, service: str) -> list[str]:
        """Return an instrument's entry point without the interpreter."""
        command = self._catalogue.entrypoint(service)
        # As a module, a command of a package does not depend on PATH.
        return command[1:] if command[0] == "python" else ["-m", *command]


def find_port() -> int:
    """Return a free TCP port of the loopback interface.

    If possible, the kernel gives it to no program meanwhile: it is outside of the range from which clients, and servers
    that ask for any port, get theirs, ip(7).
    """
    lowest, highest = (int(text) for text in _GIVEN_PORTS.read_text().split())
    others = [*range(_FIRST_PORT, lowest), *range(highest + 1, 65536)]
    choose = random.SystemRandom().choice  # two programs that seed `random` would choose the same port
    for _ in range(_TRIES if others else 0):
        with contextlib.suppress(OSError), socket.create_server((_HOST, choose(others))) as listener:
            return int(listener.getsockname()[1])
    with socket.create_server((_HOST, 0)) as listener:
        return int(listener.getsockname()[1])
