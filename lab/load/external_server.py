"""A server outside the catalogue, named by `--target`."""

import re
from collections.abc import Iterable
from contextlib import suppress

from lab.base.errors import LabError
from lab.load.workloads import CUSTOM_PROTOCOL
from lab.metrics.meters import find_container, open_container_meter
from lab.metrics.process import open_process_meter
from lab.metrics.sample import Meter, NoMeter
from lab.metrics.socket_owner import Owner, find_owner
from lab.servers.backend import Helpers
from lab.servers.catalogue import Listener, Model
from lab.servers.open import open_backend
from loadtests.sockets.connection import BlockingConnection
from loadtests.sockets.errors import ClientError, SetupError
from services.protocol import SERVICES, Address, AddressError, Transport, port_of

NAME = "target"

# Seconds for a connection with its TLS handshake, and for a machine to refuse a UDP port.
_CONNECT_SECONDS = 10.0

# How people write the address of a web server, with the ports that RFC 9110, 4.2, gives these schemes.
_WEB_SCHEMES = (("http", Transport.TCP, 80), ("https", Transport.TLS, 443))
_REFUSAL_SECONDS = 0.2


def parse_target(text: str) -> tuple[str, Address]:
    """Parse `SERVICE=URL`, or only a URL for the custom protocol of a codec.

    Raises:
        LabError: the target is invalid.
    """
    service, separator, url = text.partition("=")
    if not separator and "://" in text:
        service, url = CUSTOM_PROTOCOL.service, text
    elif service not in SERVICES:
        raise LabError(f"--target {text!r} is not SERVICE=URL with one of {', '.join(SERVICES)}")
    for scheme, transport, port in _WEB_SCHEMES:
        if service == "http" and url.startswith(f"{scheme}://"):
            rest = url.removeprefix(f"{scheme}://").removesuffix("/")
            url = f"{transport}://{rest}" + ("" if re.search(r":\d*$", rest) else f":{port}")
    try:
        address = Address.parse(url)
    except AddressError as error:
        raise LabError(f"--target {text!r}: {error}") from None
    if not address.transport.is_unix and address.port is None:
        is_custom = service == CUSTOM_PROTOCOL.service
        usual = None if is_custom else port_of(service, address.transport)
        if usual is None:
            what = "a custom protocol" if is_custom else f"{service} over {address.transport}"
            raise LabError(f"--target {text!r} has no port, and {what} has no default: add it, as in {url}:9000")
        address = Address(address.transport, address.host, usual)
    if address.port == 0:
        raise LabError(f"--target {text!r}: nothing can listen on port 0: name the server's port")
    return service, address


def check_reachable(service: str, address: Address) -> None:
    """Check that a server listens at a target before a load starts.

    For UDP, the check fails only if the machine refuses the datagram.

    Raises:
        LabError: no server listens, or the TLS handshake failed.
    """
    try:
        with BlockingConnection(address, timeout=_CONNECT_SECONDS) as connection:
            if address.transport is Transport.UDP:
                connection.send(b"")
                connection.socket.settimeout(_REFUSAL_SECONDS)
                with suppress(TimeoutError):
                    connection.socket.recv(1)
    except ConnectionError as error:
        raise LabError(f"--target {service}={address}: {error.strerror}: is the server running there?") from None
    except ClientError as error:
        raise LabError(f"--target {service}={error}: is the server running there?") from None
    except SetupError as error:
        raise LabError(str(error)) from None


class ExternalServer:
    """A `Loadable` with one model. The load generator runs on this machine.

    Args:
        targets: the values of `--target`, at least one.

    Raises:
        LabError: a target is invalid.
    """

    name = "process"
    in_containers = False

    def __init__(self, targets: Iterable[str]) -> None:
        self._found = [parse_target(target) for target in targets]
        self.helpers: Helpers = open_backend("process").helpers
        services = tuple(dict.fromkeys(service for service, _ in self._found))
        listeners = tuple(Listener(NAME, service, item.transport.value, str(item)) for service, item in self._found)
        where = ", ".join(dict.fromkeys(str(address) for _, address in self._found))
        self.model = Model(NAME, "yours", where, None, {}, services, listeners, only_in_container=True)

    def check_reachable(self, service: str, transport: Transport) -> None:
        """Check that a server listens at the targets of a service and transport.

        Raises:
            LabError: no server listens.
        """
        for known, address in self._found:
            if (known, address.transport) == (service, transport):
                check_reachable(known, address)

    def targets(self) -> list[Listener]:
        return list(self.model.addresses)

    def meter(self, model: str) -> Meter:
        owner = self._find_owner()
        if owner.pid:
            return open_process_meter(owner.pid)
        if owner.container is None:
            return NoMeter(owner.unknown)
        name = find_container(owner.container)
        if name is None:
            return NoMeter(f"{owner.container} is neither this machine nor a container that its Docker engine knows")
        return open_container_meter(name)

    def _find_owner(self) -> Owner:
        owners = dict.fromkeys(find_owner(address) for _, address in self._found)
        if len(owners) == 1:
            return next(iter(owners))
        said = "; ".join(dict.fromkeys(owner.unknown for owner in owners if owner.unknown))
        return Owner(unknown=said or "the targets do not belong to one process")
