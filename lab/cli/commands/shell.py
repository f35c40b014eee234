"""`lab shell`: a shell from which the models can be reached, and a banner that says how."""

import json
import os
import sys
from collections.abc import Iterable

from lab.base.errors import LabError
from lab.servers.backend import Backend
from lab.servers.catalogue import Listener
from services.protocol import Address


def open_shell(backend: Backend, model: str | None, command: str | None) -> int:
    """Open it, on this terminal or for what stands on stdin.

    Args:
        model: the model that LAB_HOST and LAB_PORT shall name, and the banner speak of.
        command: run this instead.

    Returns:
        The shell's exit code.

    Raises:
        LabError: nothing runs that could be reached.
    """
    states = [state for state in backend.state() if state.state == "running"]
    running = [state.model for state in states]
    if model and model not in running:
        raise LabError(f"{model} is not running: `lab up {model}` starts it")
    if not running and all(state.state != "running" for state in backend.gallery()):
        raise LabError("no model is running: `lab up` starts them")
    environ = {"LAB_TARGETS": json.dumps([state.as_json() for state in states])}
    addresses = {
        item.model: Address.parse(item.address)
        for item in _command_listeners(backend.targets())
        if item.model in running
    }
    if model and model in addresses:
        environ |= {"LAB_MODEL": model, "LAB_HOST": addresses[model].host, "LAB_PORT": str(addresses[model].port)}
    if command is not None:
        return backend.run(["sh", "-c", command], environ=environ, interactive=True).returncode
    if sys.stdin.isatty():
        for name in [model] if model else running:
            if name in addresses:
                print(f"  redis-cli -h {addresses[name].host} -p {addresses[name].port}   # {name}")
        if backend.name == "docker":
            # These know only public authorities by themselves.
            print("  curl --cacert $LAB_TLS_CA; openssl s_client -CAfile $LAB_TLS_CA; lftp, telnet, nc")
        print("  LAB_TARGETS holds every address; `exit` leaves")
    # A container has the shell that it has; on this machine, the user has a favourite.
    favourite = os.environ.get("SHELL", "sh") if backend.name == "process" else "bash"
    return backend.run([favourite], environ=environ, interactive=True).returncode


def _command_listeners(listeners: Iterable[Listener]) -> Iterable[Listener]:
    return (item for item in listeners if (item.service, item.transport) == ("command", "tcp"))
