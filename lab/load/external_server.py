"""A server outside the catalogue, named by `--target`."""

import re
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass

from lab.base.errors import LabError
from lab.load.http_exchanges import ask_page
from lab.load.workloads import CUSTOM_PROTOCOL, Workload
from lab.metrics.process import open_process_meter
from lab.metrics.sample import Meter, NoMeter
from lab.metrics.socket_owner import Owner, find_owner
from lab.servers.backend import Helpers
from lab.servers.catalogue import Listener, Model
from lab.servers.open import open_backend
from loadtests.sockets.connection import BlockingConnection
from loadtests.sockets.errors import ClientError, SetupError
from loadtests.sockets.exchange import Body, Exchange, Framing
from loadtests.sockets.failures import ClosedError, ExchangeError
from loadtests.sockets.http import AUTHORITY, ReplyReader, make_authority
from services.protocol import SERVICES, Address, AddressError, Transport, port_of

NAME = "target"

_HINT = (
    "a server without this lab's routes needs the path of a page that answers with status 200, as in "
    "--target http=http://HOST:PORT/PATH"
)
_FITTING = "with a path, the workloads http_ping and http_churn ask for that page, which must answer with status 200"

# Seconds for a connection with its TLS handshake, and for a machine to refuse a UDP port.
_CONNECT_SECONDS = 10.0

# How people write the address of a web server, with the ports that RFC 9110, 4.2, gives these schemes.
_WEB_SCHEMES = (("http", Transport.TCP, 80), ("https", Transport.TLS, 443))
_REFUSAL_SECONDS = 0.2
# RFC 3986, 3.3 and 3.4, without a fragment.
_PATH = re.compile(r"(?:/(?:[!$&-;=?-Z_a-z~]|%[0-9A-Fa-f]{2})*)?")


@dataclass(frozen=True, slots=True)
class Target:
    """A server outside the catalogue.

    Args:
        text: as it was given.
        path: of the URL of a web server, with its query; empty if the server has this lab's routes.
    """

    text: str
    service: str
    address: Address
    path: str = ""

    def __str__(self) -> str:
        return f"--target {self.text}"


def parse_target(text: str) -> Target:
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
            authority, slash, rest = url.removeprefix(f"{scheme}://").partition("/")
            url = f"{transport}://{authority}" + ("" if re.search(r":\d*$", authority) else f":{port}")
            path = slash + rest
            break
    else:
        path = ""
    if not _PATH.fullmatch(path):
        raise LabError(
            f"--target {text!r}: {path!r} is not a path: escape other characters than printable ASCII with %"
        )
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
    return Target(text, service, address, path)


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


def check_page(target: Target, exchange: Exchange) -> None:
    """Send the first request of an exchange over HTTP, and check the reply.

    Raises:
        LabError: it is not the expected one.
    """
    request, body = exchange.turns[0]
    request = request.replace(AUTHORITY, make_authority(target.address), 1)
    what = " ".join(request.split(None, 2)[:2][number].decode() for number in (0, 1))
    reader = ReplyReader()
    reader.begin(body if exchange.body is Body.GIVEN else None)
    try:
        with BlockingConnection(target.address, timeout=_CONNECT_SECONDS) as connection:
            connection.send(request)
            while data := connection.receive():
                if reader.feed(data):
                    return
            if not reader.end():
                raise ClosedError
    except ExchangeError as error:
        raise LabError(f"{target}: {what}: {error}; {_FITTING if target.path else _HINT}") from None
    except (ClientError, ConnectionError) as error:
        raise LabError(f"{target}: {what}: {error}") from None


class ExternalServer:
    """A `Loadable` with one model. The load generator runs on this machine.

    Args:
        targets: the values of `--target`, at least one.
        any_body: replies of a page may differ.

    Raises:
        LabError: a target is invalid.
    """

    name = "process"
    in_containers = False

    def __init__(self, targets: Iterable[str], *, any_body: bool = False) -> None:
        self._found = [parse_target(target) for target in targets]
        self._any_body = any_body
        if any_body and not any(item.path for item in self._found):
            raise LabError("--any-body needs a page: --target http=http://HOST:PORT/PATH")
        self.helpers: Helpers = open_backend("process").helpers
        services = tuple(dict.fromkeys(item.service for item in self._found))
        listeners = tuple(
            Listener(NAME, item.service, item.address.transport.value, str(item.address), item.path, any_body)
            for item in self._found
        )
        where = ", ".join(dict.fromkeys(f"{item.address}{item.path}" for item in self._found))
        self.model = Model(NAME, "yours", where, None, {}, services, listeners, only_in_container=True)

    def check(self, workload: Workload, transport: Transport) -> None:
        """Check that the targets answer a workload over a transport, before a load starts.

        Raises:
            LabError: no server listens, or it lacks the routes that the workload asks.
        """
        for item in self._found:
            if (item.service, item.address.transport) != (workload.service, transport):
                continue
            exchange = workload.exchange
            if item.path and exchange is not None:
                try:
                    exchange = ask_page(exchange, item.path, any_body=self._any_body)
                except ValueError as error:
                    raise LabError(f"{workload.name} does not fit {item}: {error}; {_FITTING}") from None
            check_reachable(item.service, item.address)
            if exchange is not None and exchange.framing is Framing.HTTP:
                check_page(item, exchange)

    def targets(self) -> list[Listener]:
        return list(self.model.addresses)

    def meter(self, model: str) -> Meter:
        owner = self._find_owner()
        if owner.pid:
            return open_process_meter(owner.pid)
        if owner.container is None:
            return NoMeter(owner.unknown)
        # It imports the engine's client, which takes longer than all else here, and few servers are in a container.
        from lab.metrics.meters import find_container, open_container_meter

        name = find_container(owner.container)
        if name is None:
            return NoMeter(f"{owner.container} is neither this machine nor a container that its Docker engine knows")
        return open_container_meter(name)

    def _find_owner(self) -> Owner:
        owners = dict.fromkeys(find_owner(item.address) for item in self._found)
        if len(owners) == 1:
            return next(iter(owners))
        said = "; ".join(dict.fromkeys(owner.unknown for owner in owners if owner.unknown))
        return Owner(unknown=said or "the targets do not belong to one process")
