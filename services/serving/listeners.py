"""Bound, listening sockets for the models: made from `--listen`, closed and unlinked at the end.

`--listen SERVICE=ADDRESS`, for example `echo=tcp://0.0.0.0:7`. `all` stands for every service that the transport can
carry, each at its well-known port (or, after `:0`, at a free one); for Unix sockets the address is then a directory.
`{model}` in an address is the model's name.
"""

import errno
import logging
import os
import socket
import stat
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from services.protocol import (
    SERVICES,
    Address,
    AddressError,
    Compute,
    Connection,
    DatagramConnection,
    Limits,
    Send,
    StreamConversation,
    Transport,
    Wait,
    is_offered,
    port_of,
)
from services.protocol.http import replies
from services.serving.accepting import EXHAUSTED, Shortage
from services.serving.clock import CLOCK
from services.serving.log import SparseLog

if TYPE_CHECKING:
    from services.serving.tls import Secure

log = logging.getLogger("services")
# A web page can make a browser come as often as it likes.
_strangers = SparseLog(log)

# What one read takes at most: a Send's worth, and more than the largest datagram.
RECEIVE_SIZE = 64 * 1024

Accepted = tuple[socket.socket, object]


class ListenError(Exception):
    """A `--listen` that cannot be used; the message names it."""


@dataclass(frozen=True, slots=True)
class Listener:
    """One service at one address, with a socket that is bound, listens (streams) and does not block."""

    service: str
    address: Address
    socket: socket.socket
    limits: Limits
    info: Callable[[], str]
    secure: "Secure | None" = None
    # Of descriptors or memory: one for all listeners, since they have them from one process.
    shortage: Shortage = field(default_factory=Shortage)
    # Takes a connection and the client's port, and returns one whose calls are noted: services/serving/recorder.py.
    recorder: Callable[[StreamConversation, int], StreamConversation] | None = None

    @property
    def is_datagram(self) -> bool:
        """Whether the socket receives datagrams, and not connections."""
        return self.address.transport.is_datagram

    def connection(self, peer: object) -> StreamConversation:
        """Make the protocol's side of a connection that was accepted from `peer`, as `accept` returns it."""
        name = _peer_name(peer)
        connection: StreamConversation = Connection(
            self.service, name, limits=self.limits, info=self.info, report=_strangers.warning, clock=CLOCK
        )
        if self.recorder:
            connection = self.recorder(connection, peer[1] if isinstance(peer, tuple) else 0)
        return self.secure(connection, name) if self.secure else connection

    def datagram(self, data: bytes, peer: object) -> DatagramConnection:
        """Make the protocol's side of a datagram that was received from `peer`, as `recvfrom` returns it."""
        return DatagramConnection(
            self.service, data, _peer_name(peer), limits=self.limits, info=self.info, report=_strangers.warning
        )

    def accept(self) -> Accepted | None:
        """Accept a connection.

        Returns:
            None if there is none after all, or if it cannot be accepted. `shortage.pause` is then how long to leave the
            socket alone, in the model's own way: more than 0 if the process or the machine is exhausted.
        """
        self.shortage.pause = 0.0
        accepted = None
        try:
            accepted = self.socket.accept()
        except BlockingIOError:
            pass  # the client went away, or another process was quicker
        except OSError as error:
            failure = f"accept on {self.address} failed: {error.strerror}"
            if error.errno in EXHAUSTED:
                self.shortage.failed(failure)
            else:
                log.warning("%s", failure)
        self.shortage.look()
        return accepted

    def refusal(self) -> bytes:
        """Return the error for a client that a full server has accepted but cannot serve, in RESP and HTTP."""
        if self.secure or self.service not in ("command", "http"):
            return b""
        reason = f"this server holds {self.limits.connections} connections, which is its limit"
        if self.service == "http":
            return replies.text(503, CLOCK.date(), reason, replies.CLOSE)
        return b"-ERR %b\r\n" % reason.encode()

    def receive(self) -> tuple[bytes, object] | None:
        """Receive a datagram; None if none is left."""
        try:
            return self.socket.recvfrom(RECEIVE_SIZE)
        except BlockingIOError:
            return None

    def answer(self, connection: DatagramConnection, peer: object) -> float | None:
        """Take a datagram's conversation as far as it goes without waiting.

        Returns:
            Seconds to wait before the next call; None if the conversation is over, if only because of an error in it.
        """
        try:
            while True:
                match connection.next_event():
                    case Send() as send:
                        self.reply(send.data, peer)
                    case Wait(seconds):
                        return seconds
                    case Compute() as work:
                        connection.receive_digest(work.run())
                    case _:
                        return None
        except Exception:
            log.exception("a conversation ended in an error")  # and no other: the server goes on
            return None

    def reply(self, data: bytes, peer: object) -> None:
        """Send a datagram back. It may be lost, as any datagram: a peer that is gone, full or nameless is no error."""
        if not peer:  # a Unix datagram socket that was not bound has no name to answer to
            log.debug("%s: a datagram came from a socket without a name; no reply", self.address)
            return
        try:
            self.socket.sendto(data, cast(Any, peer))  # what recvfrom gave
        except OSError as error:
            log.debug("%s: reply to %s was lost: %s", self.address, _peer_name(peer), error.strerror)


def _peer_name(peer: object) -> str:
    if isinstance(peer, tuple):
        host = f"[{peer[0]}]" if ":" in peer[0] else peer[0]
        return f"{host}:{peer[1]}"
    return os.fsdecode(peer) if isinstance(peer, (str, bytes)) else ""


def parse_listens(specs: Sequence[str], model: str) -> list[tuple[str, Address]]:
    """Turn the values of `--listen` into services and addresses.

    Raises:
        ListenError: names the value and what is wrong with it.
    """
    wanted: list[tuple[str, Address]] = []
    for spec in specs:
        service, separator, url = spec.partition("=")
        if not separator or (service != "all" and service not in SERVICES):
            raise ListenError(f"--listen {spec!r} does not start with one of {', '.join(SERVICES)} or all, and '='")
        try:
            wanted += _expand(service, Address.parse(url.replace("{model}", model)))
        except AddressError as error:
            raise ListenError(f"--listen {spec!r}: {error}") from None
    return wanted


def _expand(service: str, address: Address) -> list[tuple[str, Address]]:
    if service != "all":
        if not is_offered(service, address.transport):
            over = "datagrams" if address.transport.is_datagram else address.transport
            raise AddressError(f"{service} is not offered over {over}")
        return [(service, address if address.transport.is_unix else _with_port(service, address))]
    if address.port:
        raise AddressError(f"all services cannot share port {address.port}; use :0 or none")
    names = [name for name in SERVICES if is_offered(name, address.transport)]
    if not address.transport.is_unix:
        return [(name, _with_port(name, address)) for name in names]
    ending = ".dgram.sock" if address.transport.is_datagram else ".sock"
    # Parsed again, because the longer path may be too long.
    return [(name, Address.parse(f"{address}/{name}{ending}")) for name in names]


def _with_port(service: str, address: Address) -> Address:
    port = port_of(service, address.transport) if address.port is None else address.port
    return Address(address.transport, host=address.host, port=port)


@contextmanager
def open_listeners(
    wanted: Sequence[tuple[str, Address]], limits: Limits, info: Callable[[], str]
) -> Iterator[list[Listener]]:
    """Bind all addresses, or none; at the end close the sockets, and remove their files.

    Raises:
        ListenError: names the address that could not be bound, or what is wrong with the certificates for TLS.
    """
    secure = None
    if any(address.transport is Transport.TLS for _, address in wanted):
        from services.serving.tls import open_layer  # ssl takes longer to import than most models to start

        secure = open_layer(os.environ)
    with ExitStack() as stack:
        listeners = []
        shortage = Shortage()
        for service, address in wanted:
            try:
                if address.transport.is_unix:
                    opened = _bind_unix(address, stack)
                else:
                    opened = _bind_inet(address, stack, reuse_port=bool(limits.reuse_port))
                opened.setblocking(False)
                if not address.transport.is_datagram:
                    opened.listen(limits.backlog)
            except OSError as error:
                raise ListenError(f"cannot listen on {service}={address}: {error.strerror or error}") from None
            if not address.transport.is_unix:
                address = Address(address.transport, host=address.host, port=opened.getsockname()[1])
            layer = secure if address.transport is Transport.TLS else None
            listeners.append(Listener(service, address, opened, limits, info, layer, shortage))
        yield listeners


def bind_twin(listener: Listener, stack: ExitStack) -> Listener:
    """Bind another TCP socket at the same address (SO_REUSEPORT); the kernel distributes new connections among them.

    Each has its own backlog, and no other can accept from it. The first one must have been opened with
    `Limits.reuse_port`.
    """
    twin = _bind_inet(listener.address, stack, reuse_port=True)
    twin.setblocking(False)
    twin.listen(listener.limits.backlog)
    return replace(listener, socket=twin)


def _bind_inet(address: Address, stack: ExitStack, *, reuse_port: bool) -> socket.socket:
    kind = socket.SOCK_DGRAM if address.transport is Transport.UDP else socket.SOCK_STREAM
    family, _, _, _, where = socket.getaddrinfo(address.host, address.port)[0]
    opened = stack.enter_context(socket.socket(family, kind))
    if kind == socket.SOCK_STREAM:
        # Without it a restarted server waits a minute for connections in TIME_WAIT.
        opened.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if reuse_port:
            opened.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        # Replies are written whole, so holding back the last segment (Nagle) only adds the peer's delayed ACK, some
        # 40 ms. Accepted sockets inherit the option, which saves a call for each.
        opened.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    opened.bind(where)
    return opened


def _bind_unix(address: Address, stack: ExitStack) -> socket.socket:
    path = Path(address.path)
    path.parent.mkdir(parents=True, exist_ok=True)
    kind = socket.SOCK_DGRAM if address.transport is Transport.UNIXGRAM else socket.SOCK_STREAM
    opened = stack.enter_context(socket.socket(socket.AF_UNIX, kind))
    try:
        opened.bind(address.path)
    except OSError as error:
        if error.errno != errno.EADDRINUSE or not _is_abandoned(path, kind):
            raise
        path.unlink(missing_ok=True)
        opened.bind(address.path)
    # The file is removed by the process that made it, not by the workers it forked, and only if it is still the same.
    stack.callback(_unlink_own, path, path.stat().st_ino, os.getpid())
    return opened


def _is_abandoned(path: Path, kind: socket.SocketKind) -> bool:
    """Return whether the file is a socket on which no process listens, as a killed server leaves it."""
    if not stat.S_ISSOCK(path.lstat().st_mode):
        return False
    with socket.socket(socket.AF_UNIX, kind) as probe:
        probe.setblocking(False)
        try:
            probe.connect(str(path))
        except ConnectionRefusedError:
            return True
        except OSError:  # busy, or of another kind: it is in use
            return False
    return False


def _unlink_own(path: Path, inode: int, owner: int) -> None:
    if owner == os.getpid():
        with suppress(FileNotFoundError):
            if path.lstat().st_ino == inode:
                path.unlink()
