"""A server that is not of the catalogue, wherever it listens: what `--target` names, as a backend with one model."""

from collections.abc import Iterable
from typing import Any

import psutil

from lab.backends import open_backend
from lab.catalogue import Listener, Model
from lab.errors import LabError
from lab.workloads import OWN
from services.protocol import SERVICES, Address, AddressError, port_of

NAME = "target"


def parse_target(text: str) -> tuple[str, Address]:
    """Read `SERVICE=URL`, or a URL alone, for a protocol that only a codec knows.

    Raises:
        LabError: what is wrong with it.
    """
    service, separator, url = text.partition("=")
    if not separator and "://" in text:
        service, url = OWN.service, text
    elif service not in SERVICES:
        raise LabError(f"--target {text!r} is not SERVICE=URL with one of {', '.join(SERVICES)}")
    try:
        address = Address.parse(url)
    except AddressError as error:
        raise LabError(f"--target {text!r}: {error}") from None
    if not address.transport.is_unix and address.port is None:
        if service == OWN.service:
            raise LabError(f"--target {text!r} has no port, and a protocol of one's own has no usual one")
        address = Address(address.transport, address.host, port_of(service, address.transport))
    return service, address


class Foreign:
    """As much of a `Backend` as a measurement needs. The load generator runs on this machine.

    Args:
        targets: what `--target` was given, once or more.

    Raises:
        LabError: a target that is none.
    """

    name = "process"

    def __init__(self, targets: Iterable[str]) -> None:
        self._found = [parse_target(target) for target in targets]
        self._generator = open_backend("process")
        services = tuple(dict.fromkeys(service for service, _ in self._found))
        listeners = tuple(Listener(NAME, service, item.transport.value, str(item)) for service, item in self._found)
        where = ", ".join(dict.fromkeys(str(address) for _, address in self._found))
        self.model = Model(NAME, "yours", where, None, {}, services, listeners, only_in_container=True)

    def targets(self) -> list[Listener]:
        """As `Backend.targets`."""
        return list(self.model.addresses)

    def run_service(self, *arguments: Any, **options: Any) -> Any:
        """As `Backend.run_service`."""
        return self._generator.run_service(*arguments, **options)

    def start_service(self, *arguments: Any, **options: Any) -> Any:
        """As `Backend.start_service`."""
        return self._generator.start_service(*arguments, **options)

    def pid(self, model: str) -> int | None:
        """The process of this machine that listens there, for its CPU and memory; None if it cannot be seen."""
        ports = {address.port for _, address in self._found if not address.transport.is_datagram}
        try:
            found = psutil.net_connections("tcp")
        except psutil.AccessDenied:
            return None
        owners = {
            item.pid for item in found if item.status == psutil.CONN_LISTEN and item.laddr and item.laddr.port in ports
        }
        # Forked servers share a listening socket: the oldest is the parent of the others.
        return min((pid for pid in owners if pid), key=lambda pid: psutil.Process(pid).create_time(), default=None)
