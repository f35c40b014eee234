"""Run Locust's web UI for a load: its port, its login, and its path behind a proxy."""

import contextlib
import os
import socket
import subprocess
from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import Protocol

from lab.base.environ import (
    ENV_FAULTS,
    ENV_TARGETS,
    ENV_TELEMETRY,
    ENV_UI_BASE_PATH,
    ENV_UI_LOGIN,
    ENV_UI_ORIGINS,
    ENV_UI_PORT,
)
from lab.base.errors import LabError
from lab.base.ui_port import UI_PORT, choose_ui_port
from lab.load import origins
from lab.load.generator import open_generator
from lab.load.measurement import encode_targets
from lab.load.telemetry import send_telemetry
from lab.servers.backend import Backend
from lab.servers.catalogue import Model
from lab.servers.helper import Helper

# Locust's time to end by itself after it was told to.
_END_SECONDS = 3.0


class FaultRequests(Protocol):
    """Injects the faults that users ask for in the UI."""

    def advance(self, *, inject: bool = True) -> None:
        """Handle what the generator has logged since; without `inject`, only pass its output on."""


def check_settings() -> None:
    """Check the variables of the UI before anything starts.

    Raises:
        LabError: its port is in use, or a variable is invalid.
    """
    read_ui_port()
    read_login()
    read_base_path()


def serve_ui(
    backend: Backend,
    models: Sequence[Model],
    chosen: Sequence[str],
    *,
    faults: Sequence[str],
    open_requests: Callable[[Sequence[str], Helper], FaultRequests],
    workers: int = 0,
    worker_arguments: Sequence[str] = (),
    environ: Mapping[str, str] = MappingProxyType({}),
) -> None:
    """Run Locust's web UI until it is interrupted.

    Args:
        chosen: the load generator's arguments: the first values of its form.
        faults: the faults that its form offers.
        open_requests: returns the handler of the generator's requests for faults in these models.
        workers: the number of processes that generate the load, led by the one with the UI; 0: that one generates it.
        worker_arguments: see `open_generator`.
        environ: further variables for the generator.

    Raises:
        LabError: its port is in use, its login is invalid, a worker did not join, or it ended by itself.
    """
    port = read_ui_port()
    names = [model.name for model in models]
    host, inner_port = backend.helpers.choose_bind(UI_PORT, local=port)
    binding = ["--web-host", host, "--web-port", str(inner_port)]
    listeners = [item for item in backend.targets() if item.model in names]
    base_path = read_base_path()
    arguments = [*binding, *chosen, "--loglevel", "WARNING", *read_login()]
    arguments += ["--web-base-path", base_path] if base_path else []
    shared = {ENV_TARGETS: encode_targets(listeners), **environ}
    own = {ENV_TELEMETRY: "stdin", ENV_FAULTS: ",".join(faults)}
    own |= {name: os.environ[name] for name in (ENV_UI_LOGIN, ENV_UI_ORIGINS) if name in os.environ}
    try:
        with open_generator(
            backend.helpers,
            arguments,
            workers=workers,
            environ=shared,
            own=own,
            publish=True,
            worker_arguments=worker_arguments,
        ) as generator:
            requests = open_requests(names, generator.main)
            with_workers = f" with {workers} workers" if workers else ""
            where = f"http://127.0.0.1:{port}{base_path}"
            print(f"Locust's web UI{with_workers}: {where}  (choose, then Start; Ctrl-C here ends it)", flush=True)
            try:
                with send_telemetry(backend, names, generator.main):
                    code = generator.wait(meanwhile=requests.advance)
            finally:
                # Ctrl-C reaches Locust as well, which prints a last summary.
                with contextlib.suppress(subprocess.TimeoutExpired):
                    generator.main.process.wait(_END_SECONDS)
                requests.advance(inject=False)
    except KeyboardInterrupt:
        print("\nended")
        return
    # Ctrl-C reaches Locust as well. It then exits with 1 after failed requests, else as an interrupted process.
    if code not in (0, 1, 130, -2):
        raise LabError(f"the web UI ended with exit code {code}")


def read_login() -> list[str]:
    """Return Locust's argument for the login that LAB_UI_LOGIN=USER:PASSWORD asks for.

    Raises:
        LabError: the variable is not of this form.
    """
    text = os.environ.get(ENV_UI_LOGIN)
    if not text:
        return []
    user, _, password = text.partition(":")
    if not (user and password):
        raise LabError(f"{ENV_UI_LOGIN} is not USER:PASSWORD")
    return ["--web-login"]


def read_base_path() -> str:
    """Return the path of the web UI behind a proxy, empty if it has none; check the allowed origins as well.

    Raises:
        LabError: LAB_UI_BASE_PATH is not a path, or LAB_UI_ORIGINS contains an invalid origin.
    """
    name = ENV_UI_ORIGINS
    try:
        origins.parse_origins(os.environ.get(name, ""))
        name = ENV_UI_BASE_PATH
        return origins.parse_base_path(os.environ.get(name, ""))
    except ValueError as error:
        raise LabError(f"{name}: {error}") from None


def read_ui_port() -> int:
    """Return the port of the web UI on this machine.

    Raises:
        LabError: LAB_UI_PORT is not a port, or the port is in use.
    """
    port = choose_ui_port(os.environ)
    try:
        socket.create_server(("127.0.0.1", port)).close()
    except OSError as error:
        why = os.strerror(error.errno or 0)
        raise LabError(f"port {port} is not available ({why}): set {ENV_UI_PORT} to another port") from None
    return port
