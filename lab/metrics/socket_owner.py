"""Find the process that serves an address, in the kernel's tables of sockets.

Strategy: a port number is not enough. Two processes can use the same port at two addresses, in two network namespaces,
or for TCP and UDP. A wildcard socket serves every address that has no socket of its own. A forwarder listens on behalf
of another server. So the address is matched as the kernel matches it: the most specific socket first, among the sockets
of this network namespace. If several processes remain, the owner is unknown, and the reason is returned.

Sources: proc(5) under /proc/net, unix(7) for SO_PEERCRED, socket(7) for SO_REUSEPORT.
"""

import errno
import os
import socket
import struct
import sys
import time
from collections.abc import Collection, Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address, ip_address
from pathlib import Path

from services.protocol import Address, Transport

# Programs that forward connections to another server.
_FORWARDERS = frozenset(
    {
        *("docker-proxy", "dockerd", "rootlesskit", "rootlessport", "slirp4netns", "pasta", "passt", "conmon"),
        *("kubectl", "ssh", "sshd", "sshd-session"),
    }
)
_DOCKER_PROXY = "docker-proxy"

# States in /proc/net/tcp and /proc/net/udp.
_ESTABLISHED, _UNCONNECTED, _LISTEN = "01", "07", "0A"

# In /proc/net/unix: a socket that listens, and the types of stream and datagram.
_ACCEPTS = 0x10000
_STREAM, _DGRAM = "0001", "0002"

# struct ucred: pid, uid, gid.
_UCRED = struct.Struct("3i")

# How often to check whether a server has closed a connection, and the pause between checks.
_LOOKS = 10
_PAUSE = 0.1

_WILDCARDS = (IPv4Address(0), IPv6Address(0))


@dataclass(frozen=True, slots=True)
class Owner:
    """The server at an address: a process, a container behind docker-proxy, or the reason why it is unknown.

    Args:
        pid: a process, with its descendants.
        container: the IP address of a container.
        unknown: why neither is known; empty if one of them is.
    """

    pid: int | None = None
    container: str | None = None
    unknown: str = ""


@dataclass(frozen=True, slots=True)
class _Socket:
    ip: IPv4Address | IPv6Address
    port: int
    inode: int
    state: str
    peer: tuple[IPv4Address | IPv6Address, int] | None


def find_owner(address: Address, *, proc: Path = Path("/proc")) -> Owner:
    """Find the server at an address, as seen from this network namespace.

    Args:
        proc: mount point of procfs.
    """
    if address.transport is Transport.UNIX:
        return _find_unix(address.path, proc)
    if address.transport is Transport.UNIXGRAM:
        inodes = _find_unix_inodes(proc, address.path, _DGRAM)
        return _own(inodes, str(address), proc)
    kind = socket.SOCK_DGRAM if address.transport.is_datagram else socket.SOCK_STREAM
    try:
        found = socket.getaddrinfo(address.host, address.port, type=kind)
    except OSError as error:
        return Owner(unknown=f"{address.host} has no address: {error.strerror}")
    table, state = ("udp", _UNCONNECTED) if address.transport.is_datagram else ("tcp", _LISTEN)
    # A connected datagram socket, which receives from its peer only, has another state.
    sockets = [item for item in _read_tables(proc / "self", table) if item.state == state]
    elsewhere = []
    # A client tries them in this order.
    for family, _, _, _, where in found:
        ip = ip_address(str(where[0]))
        if not _is_local(family, where):
            elsewhere.append(str(ip))
            continue
        if inodes := match(sockets, _reached(ip), int(where[1])):
            return _own(inodes, str(address), proc)
    if elsewhere:
        return Owner(container=elsewhere[0])
    return Owner(unknown=f"no process of this network namespace has a socket at {address}")


def count_connections(addresses: Iterable[Address], *, pid: int | None = None, proc: Path = Path("/proc")) -> int:
    """Count the connections at addresses, including those that the server has not accepted yet.

    Args:
        addresses: TCP and TLS; Unix, where a connection counts until the server has closed it; UDP, where only clients
            with a connected socket are visible. Clients in other network namespaces are visible only over TCP and TLS.
            Clients of Unix datagram sockets are never visible.
        pid: a process in the network namespace where these addresses are; by default this one.
    """
    process = proc / ("self" if pid is None else str(pid))
    found: dict[Transport, list[Address]] = {}
    for item in addresses:
        found.setdefault(item.transport.carrier, []).append(item)
    tcp, udp = found.get(Transport.TCP, []), found.get(Transport.UDP, [])
    accepted = [(item.ip, item.port) for item in _read_tables(process, "tcp", tcp) if item.state == _ESTABLISHED]
    clients = [item.peer for item in _read_tables(process, "udp", udp) if item.peer]
    return (
        _count_at(accepted, tcp, pid)
        + _count_at(clients, udp, pid)
        + _count_unix(process, {item.path for item in found.get(Transport.UNIX, [])})
    )


def _count_unix(process: Path, paths: Collection[str]) -> int:
    """Count the lasting connections: the kernel does not show whether the client of one has already closed it."""
    counts: list[int] = []
    while paths and len(counts) < _LOOKS and 0 not in counts:
        if counts:
            time.sleep(_PAUSE)
        rows = _read_unix(process)
        counts.append(sum(row.path in paths and row.kind == _STREAM and not row.listens for row in rows))
    return min(counts, default=0)


def _count_at(
    places: Iterable[tuple[IPv4Address | IPv6Address, int]], addresses: Iterable[Address], pid: int | None
) -> int:
    exact: set[tuple[object, int | None]] = set()
    ports: set[int | None] = set()
    for address in addresses:
        with suppress(ValueError):
            exact.add((_reached(ip_address(address.host)), address.port))
            continue
        if address.host == "localhost":
            exact |= {(ip_address(ip), address.port) for ip in ("127.0.0.1", "::1")}
        elif pid is not None:
            ports.add(address.port)  # the name of a container, which has the whole namespace to itself
    return sum(port in ports or (_unmapped(ip), port) in exact for ip, port in places)


def _reached(ip: IPv4Address | IPv6Address) -> IPv4Address | IPv6Address:
    """Return the address at which a client arrives that connects to this one."""
    return ip_address("127.0.0.1" if ip.version == 4 else "::1") if ip in _WILDCARDS else ip


def _unmapped(ip: IPv4Address | IPv6Address) -> IPv4Address | IPv6Address:
    return (ip.ipv4_mapped if ip.version == 6 else None) or ip


def match(sockets: Iterable[_Socket], ip: IPv4Address | IPv6Address, port: int) -> list[int]:
    """Return the inodes of the sockets that receive from an address: those that match it most exactly.

    More than one socket can share it by SO_REUSEPORT.
    """
    ranks: dict[int, list[int]] = {}
    for item in sockets:
        if item.port == port and (rank := _rank(item.ip, ip)) is not None:
            ranks.setdefault(rank, []).append(item.inode)
    return ranks[min(ranks)] if ranks else []


def _rank(bound: IPv4Address | IPv6Address, asked: IPv4Address | IPv6Address) -> int | None:
    """Return how exactly a socket matches an address, 0 is best; None if it does not receive from it."""
    if _unmapped(bound) == asked:
        return 0
    if bound in _WILDCARDS and bound.version == asked.version:
        return 1
    # An IPv6 wildcard socket takes IPv4 as well, unless IPV6_V6ONLY is set, which the kernel does not show.
    return 2 if bound == IPv6Address(0) else None


def _is_local(family: int, where: Sequence[object]) -> bool:
    """Return whether an address belongs to this network namespace: only such an address can be bound."""
    with socket.socket(family, socket.SOCK_DGRAM) as probe:
        try:
            probe.bind((where[0], 0, *where[2:]))
        except OSError as error:
            return error.errno != errno.EADDRNOTAVAIL
    return True


def _read_tables(process: Path, name: str, wanted: object = True) -> Iterator[_Socket]:
    """Yield the sockets of the network namespace of a process; none if `wanted` is empty."""
    for each in (name, f"{name}6") if wanted else ():
        try:
            lines = (process / "net" / each).read_text().splitlines()[1:]
        except OSError:
            continue
        for line in lines:
            fields = line.split()
            ip, _, port = fields[1].partition(":")
            there, _, its_port = fields[2].partition(":")
            peer = (_decode(there), int(its_port, 16)) if int(there, 16) else None
            yield _Socket(_decode(ip), int(port, 16), int(fields[9]), fields[3], peer)


def _decode(text: str) -> IPv4Address | IPv6Address:
    """Decode an address of /proc/net: 32-bit words, each in this machine's byte order."""
    words = [int(text[place : place + 8], 16).to_bytes(4, sys.byteorder) for place in range(0, len(text), 8)]
    return ip_address(b"".join(words))


@dataclass(frozen=True, slots=True)
class _UnixSocket:
    path: str
    kind: str
    inode: int
    listens: bool


def _read_unix(process: Path) -> Iterator[_UnixSocket]:
    """Yield the Unix sockets that have a path, in the network namespace of a process."""
    try:
        lines = (process / "net" / "unix").read_text(errors="surrogateescape").splitlines()[1:]
    except OSError:
        return
    for line in lines:
        # The path is the rest of the line, and may hold spaces.
        fields = line.split(maxsplit=7)
        if len(fields) == 8:
            yield _UnixSocket(fields[7], fields[4], int(fields[6]), bool(int(fields[3], 16) & _ACCEPTS))


def _find_unix_inodes(proc: Path, path: str, kind: str) -> list[int]:
    """Return the inodes of the sockets at a path; of stream sockets, only those that listen."""
    return [
        row.inode
        for row in _read_unix(proc / "self")
        if (row.path, row.kind) == (path, kind) and (kind == _DGRAM or row.listens)
    ]


def _find_unix(path: str, proc: Path) -> Owner:
    """Find the server at a path. A replaced server leaves a second row in the table; the kernel knows which answers."""
    listener = _ask_listener(path)
    inodes = _find_unix_inodes(proc, path, _STREAM)
    if listener is None:
        return _own(inodes, f"unix://{path}", proc)
    owned = [inode for inode in inodes if listener in _find_holders([inode], proc)[0]]
    if owned or len(inodes) == 1:
        return _own(owned or inodes, f"unix://{path}", proc)
    # It listens in another network namespace, or at another path: the socket of a container, on a volume.
    if inodes or not (proc / str(listener)).exists():
        return Owner(unknown=f"the process that made unix://{path} has ended")
    return _check([listener], f"unix://{path}", proc)


def _ask_listener(path: str) -> int | None:
    """Return the process that called listen() on the socket at a path; None if the kernel does not tell."""
    with socket.socket(socket.AF_UNIX) as probe:
        probe.setblocking(False)
        try:
            probe.connect(path)
            pid, _, _ = _UCRED.unpack(probe.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _UCRED.size))
        except OSError:
            return None
    return int(pid) or None


def _own(inodes: Sequence[int], address: str, proc: Path) -> Owner:
    """Return the process that holds the sockets and is the ancestor of all other holders."""
    if not inodes:
        return Owner(unknown=f"no process of this network namespace has a socket at {address}")
    holders, is_whole = _find_holders(inodes, proc)
    if not holders:
        return Owner(unknown=f"the process at {address} belongs to another user: only root may look into it")
    if not is_whole:
        return Owner(unknown=f"some of the processes at {address} belong to another user: only root may look into them")
    return _check(sorted(holders), address, proc)


def _find_holders(inodes: Sequence[int], proc: Path) -> tuple[set[int], bool]:
    """Return the processes that have one of these sockets open, and whether each socket has a visible holder."""
    wanted = {f"socket:[{inode}]": inode for inode in inodes}
    holders: set[int] = set()
    seen: set[int] = set()
    for folder in proc.glob("[0-9]*"):
        # The process has ended meanwhile, or belongs to another user.
        with suppress(OSError):
            for descriptor in os.listdir(folder / "fd"):  # noqa: PTH208 - names are all that counts
                with suppress(OSError):
                    target = os.readlink(folder / "fd" / descriptor)  # noqa: PTH115 - of thousands
                    if target in wanted:
                        holders.add(int(folder.name))
                        seen.add(wanted[target])
    return holders, len(seen) == len(wanted)


def _check(pids: Sequence[int], address: str, proc: Path) -> Owner:
    """Return the process that is the ancestor of all others, if it is a server and not a forwarder or this lab."""
    for pid in pids:
        words = _read_command(pid, proc)
        # Docker's daemon may have the socket open as well.
        if words and Path(words[0]).name == _DOCKER_PROXY and "-container-ip" in words[:-1]:
            return Owner(container=words[words.index("-container-ip") + 1])
    above = {pid: _list_ancestors(pid, proc) for pid in pids}
    # An init that has opened a socket for a service (systemd) still holds it.
    chosen = [pid for pid in pids if pid != 1] or list(pids)
    root = next((pid for pid in chosen if all(pid == other or pid in above[other] for other in chosen)), None)
    if root is None:
        return Owner(
            unknown=f"{len(chosen)} processes share {address}, and none of them started the others: "
            + ", ".join(map(str, chosen))
        )
    words = _read_command(root, proc)
    name = Path(words[0]).name.rstrip(":") if words else ""
    if name in _FORWARDERS:
        return Owner(unknown=f"{name} (pid {root}) at {address} only forwards to a server")
    if os.getpid() in (root, *pids) or root in _list_ancestors(os.getpid(), proc):
        return Owner(
            unknown=f"the process at {address} (pid {root}) started this lab: their CPU times cannot be separated"
        )
    return Owner(pid=root)


def _list_ancestors(pid: int, proc: Path) -> list[int]:
    found: list[int] = []
    with suppress(OSError, ValueError):
        while pid > 1:
            # The second field is a name in brackets, which may contain any bytes.
            pid = int((proc / str(pid) / "stat").read_text(errors="replace").rpartition(")")[2].split()[1])
            if pid in found:  # a pid that was reused meanwhile
                break
            found.append(pid)
    return found


def _read_command(pid: int, proc: Path) -> list[str]:
    with suppress(OSError):
        return (proc / str(pid) / "cmdline").read_text(errors="replace").rstrip("\0").split("\0")
    return []
