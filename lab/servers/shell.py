"""Open a shell from which the models can be reached, with a banner that shows how."""

import json
import sys
from collections.abc import Iterable

from lab.base.environ import ENV_TARGETS
from lab.base.errors import LabError
from lab.servers.backend import Backend
from lab.servers.catalogue import Listener
from services.protocol import Address


def open_shell(backend: Backend, model: str | None, command: str | None) -> int:
    """Open a shell on this terminal, or for a script on stdin.

    Args:
        model: the model that LAB_HOST, LAB_PORT and the banner name.
        command: run this command instead.

    Returns:
        The exit code.

    Raises:
        LabError: nothing is running.
    """
    states = [state for state in backend.state() if state.state == "running"]
    running = [state.model for state in states]
    if model and model not in running:
        raise LabError(f"{model} is not running: start it with `lab up {model}`")
    if not running and all(state.state != "running" for state in backend.gallery()):
        raise LabError("no model is running: start them with `lab up`")
    environ = {ENV_TARGETS: json.dumps([state.as_json() for state in states])}
    addresses = {
        item.model: Address.parse(item.address)
        for item in _command_listeners(backend.targets())
        if item.model in running
    }
    if model in addresses:
        environ |= {"LAB_MODEL": model, "LAB_HOST": addresses[model].host, "LAB_PORT": str(addresses[model].port)}
    if command is not None:
        return backend.helpers.run(["sh", "-c", command], environ=environ, interactive=True).returncode
    if sys.stdin.isatty():
        for name in [model] if model else running:
            if name in addresses:
                print(f"  redis-cli -h {addresses[name].host} -p {addresses[name].port}   # {name}")
        if backend.in_containers:
            # Without these options they trust only public CAs.
            print("  curl --cacert $LAB_TLS_CA; openssl s_client -CAfile $LAB_TLS_CA; lftp, telnet, nc")
        print("  LAB_TARGETS contains every address; `exit` leaves")
    return backend.helpers.run([backend.helpers.find_shell()], environ=environ, interactive=True).returncode


def _command_listeners(listeners: Iterable[Listener]) -> Iterable[Listener]:
    return (item for item in listeners if (item.service, item.transport) == ("command", "tcp"))
