"""The owner of an address: real sockets of real processes, and tables in the kernel's format."""

import errno
import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from ipaddress import ip_address
from pathlib import Path
from types import SimpleNamespace

import pytest

from lab.base.errors import LabError
from lab.load.external_server import ExternalServer, check_reachable, parse_target
from lab.load.workloads import CUSTOM_PROTOCOL, WORKLOADS
from lab.metrics import socket_owner
from lab.metrics.process import ProcessMeter
from lab.metrics.sample import NoMeter
from lab.metrics.socket_owner import (
    Owner,
    _ask_listener,
    _decode,
    _find_unix_inodes,
    _list_ancestors,
    _read_command,
    _Socket,
    count_connections,
    find_owner,
    match,
)
from lab.servers.process_helpers import find_port
from services.protocol import Address, Transport
from tests.support.ports import closed_port

# Listens at each of its arguments, says where, and waits for the end of its stdin. `fork`: with a child that has the
# sockets as well. Others may have the same port, as Linux lets only those have it who all say so.
_LISTEN = """
import os, socket, sys
held = []
for word in sys.argv[1:]:
    if word == "fork":
        if os.fork() == 0:
            sys.stdin.read()
            os._exit(0)
        continue
    kind, host, port = word.split(",")
    family = socket.AF_UNIX if host.startswith("/") else socket.AF_INET6 if ":" in host else socket.AF_INET
    held.append(socket.socket(family, socket.SOCK_DGRAM if kind == "udp" else socket.SOCK_STREAM))
    if family != socket.AF_UNIX:
        held[-1].setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    held[-1].bind(host if family == socket.AF_UNIX else (host, int(port)))
    if kind != "udp":
        held[-1].listen()
    print(host if family == socket.AF_UNIX else held[-1].getsockname()[1], flush=True)
sys.stdin.read()
"""


@pytest.fixture
def listen() -> Iterator[object]:
    """Start processes that listen; return the pid and the line that each socket printed."""
    started = []

    def start(*sockets: str) -> tuple[int, list[str]]:
        child = subprocess.Popen(
            [sys.executable, "-c", _LISTEN, *sockets], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        started.append(child)
        assert child.stdout is not None
        said = [child.stdout.readline().strip() for word in sockets if word != "fork"]
        assert all(said), sockets
        return child.pid, said

    yield start
    for child in started:
        child.communicate()


def _find(url: str) -> Owner:
    return find_owner(Address.parse(url))


def test_most_specific_socket_is_the_one_that_answers(listen):
    wildcard, (port,) = listen("tcp,0.0.0.0,0")
    first, _ = listen(f"tcp,127.0.0.1,{port}")
    second, _ = listen(f"tcp,127.0.0.2,{port}")
    assert [_find(f"tcp://127.0.0.{last}:{port}").pid for last in (1, 2, 3)] == [first, second, wildcard]
    assert _find(f"tls://127.0.0.2:{port}").pid == second
    # As a client's connect() takes it.
    assert _find(f"tcp://0.0.0.0:{port}").pid == first


def test_udp_and_tcp_sockets_at_one_port_have_two_owners(listen):
    stream, (port,) = listen("tcp,127.0.0.1,0")
    datagrams, _ = listen(f"udp,127.0.0.1,{port}")
    assert _find(f"tcp://127.0.0.1:{port}").pid == stream
    assert _find(f"udp://127.0.0.1:{port}").pid == datagrams


def test_ipv6_wildcard_takes_ipv4_after_all_others(listen):
    both, (port,) = listen("tcp,::,0")
    assert _find(f"tcp://127.0.0.1:{port}").pid == both
    assert _find(f"tcp://[::1]:{port}").pid == both
    four, _ = listen(f"tcp,127.0.0.1,{port}")
    assert _find(f"tcp://127.0.0.1:{port}").pid == four
    assert _find(f"tcp://[::1]:{port}").pid == both


def test_unix_socket_belongs_to_the_process_that_listens(listen, tmp_path):
    path, datagrams = tmp_path / "a b.sock", tmp_path / "dgram.sock"
    old, _ = listen(f"tcp,{path},0")
    assert _find(f"unix://{path}").pid == old
    # Replaced: the table now has the path twice.
    path.unlink()
    new, _ = listen(f"tcp,{path},0")
    assert _find(f"unix://{path}").pid == new
    sender, _ = listen(f"udp,{datagrams},0")
    assert _find(f"unixgram://{datagrams}").pid == sender
    # One that nobody has made, and a file that is none.
    for address in (f"unixgram://{tmp_path}/none", f"unix://{tmp_path}/none", f"unix://{__file__}"):
        assert _find(address).unknown == f"no process of this network namespace has a socket at {address}"


def test_forked_workers_are_owned_by_their_parent(listen):
    parent, (port,) = listen("tcp,127.0.0.1,0", "fork")
    assert _find(f"tcp://127.0.0.1:{port}").pid == parent


def test_unrelated_processes_that_share_a_port_are_unknown(listen):
    first, (port,) = listen("tcp,127.0.0.1,0")
    second, _ = listen(f"tcp,127.0.0.1,{port}")
    found = _find(f"tcp://127.0.0.1:{port}")
    assert found.pid is None
    assert "2 processes share" in found.unknown
    assert {str(first), str(second)} <= set(found.unknown.replace(",", " ").split())


def test_server_that_started_the_lab_is_unknown():
    with socket.create_server(("127.0.0.1", 0)) as listener:
        found = _find(f"tcp://127.0.0.1:{listener.getsockname()[1]}")
    assert found.pid is None
    assert "started this lab" in found.unknown


def test_remote_address_has_no_local_owner(listen):
    _, (port,) = listen("tcp,0.0.0.0,0")
    # A network for documentation, RFC 5737: the wildcard here does not answer there.
    assert _find(f"tcp://192.0.2.1:{port}") == Owner(container="192.0.2.1")
    meter = ExternalServer([f"echo=tcp://192.0.2.1:{port}"]).meter("target")
    assert isinstance(meter, NoMeter)
    assert "192.0.2.1 is neither this machine nor a container" in meter.reason


def test_address_without_a_listener_is_unknown():
    with closed_port() as port:
        assert "no process of this network namespace" in _find(f"tcp://127.0.0.1:{port}").unknown


def test_targets_of_two_processes_are_unknown(listen):
    first, (port,) = listen("tcp,127.0.0.1,0")
    _, (other,) = listen("tcp,127.0.0.1,0")
    one = ExternalServer([f"echo=tcp://127.0.0.1:{port}"])
    assert one.meter("target").pid == first
    meter = one.meter("target")
    assert isinstance(meter, ProcessMeter)
    assert meter.pid == first
    two = ExternalServer([f"echo=tcp://127.0.0.1:{port}", f"discard=tcp://127.0.0.1:{other}"])
    assert two.meter("target").pid is None
    meter = two.meter("target")
    assert isinstance(meter, NoMeter)
    assert meter.reason == "the targets do not belong to one process"


@pytest.fixture
def proc(tmp_path):
    """A /proc with a socket that listens at 127.0.0.1:9000, inode 77, and the processes that hold it."""
    folder = tmp_path / "self" / "net"
    folder.mkdir(parents=True)
    local = f"{int.from_bytes(socket.inet_aton('127.0.0.1'), sys.byteorder):08X}:2328"
    row = f"   0: {local} 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 77 1 0"
    (folder / "tcp").write_text(f"  sl  local_address ...\n{row}\n")

    def hold(pid: int, parent: int, *command: str, inode: int = 77) -> None:
        (tmp_path / str(pid) / "fd").mkdir(parents=True)
        (tmp_path / str(pid) / "fd" / "3").symlink_to(f"socket:[{inode}]")
        (tmp_path / str(pid) / "stat").write_text(f"{pid} (a ) name) S {parent} 1 1")
        (tmp_path / str(pid) / "cmdline").write_text("\0".join(command) + "\0")

    return tmp_path, hold


def _find_in(proc: Path) -> Owner:
    return find_owner(Address.parse("tcp://127.0.0.1:9000"), proc=proc)


def test_docker_proxy_leads_to_its_container(proc):
    folder, hold = proc
    hold(50, 1, "/usr/bin/docker-proxy", "-proto", "tcp", "-container-ip", "172.17.0.5", "-container-port", "9000")
    assert _find_in(folder) == Owner(container="172.17.0.5")
    # Its daemon made the socket, and is above it.
    hold(1, 0, "/sbin/init")
    hold(49, 1, "/usr/bin/dockerd")
    assert _find_in(folder) == Owner(container="172.17.0.5")


@pytest.mark.parametrize("name", ["docker-proxy", "/usr/bin/rootlessport", "ssh", "sshd:", "conmon"])
def test_forwarder_is_not_a_server(proc, name):
    folder, hold = proc
    hold(50, 1, name, "-L", "9000:localhost:9000")
    assert _find_in(folder).unknown.endswith("(pid 50) at tcp://127.0.0.1:9000 only forwards to a server")


def test_socket_opened_by_init_is_owned_by_the_service(proc):
    folder, hold = proc
    hold(1, 0, "/sbin/init")
    hold(60, 1, "server")
    hold(61, 60, "server")
    assert _find_in(folder) == Owner(pid=60)


def test_first_process_of_a_container_can_be_the_server(proc):
    folder, hold = proc
    hold(1, 0, "server")
    assert _find_in(folder) == Owner(pid=1)


def test_process_above_the_lab_is_not_measured(proc):
    folder, hold = proc
    hold(60, 1, "server")
    (folder / str(os.getpid())).mkdir()
    (folder / str(os.getpid()) / "stat").write_text(f"{os.getpid()} (python) S 60 1 1")
    assert _find_in(folder).unknown.startswith("the process at tcp://127.0.0.1:9000 (pid 60) started this lab")


def test_process_that_changes_meanwhile_is_found(proc, monkeypatch):
    """A descriptor has been closed, and its command line cannot be read."""
    folder, hold = proc
    hold(60, 1, "server")
    (folder / "60" / "fd" / "2").touch()
    (folder / "60" / "cmdline").unlink()
    listdir = os.listdir
    monkeypatch.setattr(os, "listdir", lambda folder: sorted(listdir(folder)))
    assert _find_in(folder) == Owner(pid=60)


def test_socket_of_another_user_is_unknown(proc):
    folder, hold = proc
    hold(60, 1, "server", inode=78)
    assert "belongs to another user" in _find_in(folder).unknown


def test_parent_is_found_whatever_the_order_of_pids(proc):
    folder, hold = proc
    hold(60, 90, "worker")
    hold(90, 1, "server")
    assert _find_in(folder) == Owner(pid=90)


def test_parent_is_found_over_several_generations(proc):
    """A grandchild has the socket; the process between has closed it."""
    folder, hold = proc
    hold(60, 1, "server")
    hold(61, 60, "worker", inode=78)
    hold(62, 61, "worker")
    assert _find_in(folder) == Owner(pid=60)


def test_most_exact_socket_matches_first():
    def make(ip, inode, port=7):
        return _Socket(ip_address(ip), port, inode, "0A", None)

    sockets = [
        make("::", 1),
        make("0.0.0.0", 2),  # noqa: S104 - never bound
        make("::ffff:10.0.0.1", 3),
        make("10.0.0.2", 4),
        make("10.0.0.1", 5, 8),
    ]
    asked = {ip: match(sockets, ip_address(ip), 7) for ip in ("10.0.0.1", "10.0.0.2", "10.0.0.3", "fe80::1")}
    assert asked == {"10.0.0.1": [3], "10.0.0.2": [4], "10.0.0.3": [2], "fe80::1": [1]}
    assert match([make("10.0.0.2", 4), make("10.0.0.2", 6)], ip_address("10.0.0.2"), 7) == [4, 6]
    assert match([make("10.0.0.2", 4)], ip_address("fe80::1"), 7) == []


def _listen_at(*hosts: str) -> list[socket.socket]:
    """Sockets that listen at one port of several addresses without other connections."""
    found: list[socket.socket] = []
    for host in hosts:
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        try:
            found.append(socket.create_server((host, found[0].getsockname()[1] if found else 0), family=family))
        except OSError:  # another process has this port there
            for each in found:
                each.close()
            return _listen_at(*hosts)
    return found


def test_connections_of_a_server_are_counted(tmp_path):
    one, two, three = _listen_at("127.0.0.1", "127.0.0.2", "::1")
    with one, two, three:
        port = one.getsockname()[1]
        urls = [f"tcp://127.0.0.1:{port}", f"udp://127.0.0.1:{port}", "unix:///nowhere"]
        addresses = [Address.parse(url) for url in urls]
        assert count_connections(addresses) == 0
        clients = [socket.create_connection(each.getsockname()[:2]) for each in (one, one, two, three)]
        try:
            assert count_connections(addresses) == 2
            # A client of a wildcard arrives at the loopback address.
            hosts = ("127.0.0.1", "0.0.0.0", "127.0.0.2", "[::1]", "[::]", "localhost")  # noqa: S104 - never bound
            counts = [count_connections([Address.parse(f"tls://{host}:{port}")]) for host in hosts]
            assert counts == [2, 2, 1, 1, 1, 3]
            # A name is that of a container, which is looked for in its own namespace alone.
            named = [Address.parse(f"tcp://some-model:{port}")]
            assert count_connections(named) == 0
            # All of a namespace count, so one of its own: in this one, others may use the number of the port.
            folder = tmp_path / "7" / "net"
            folder.mkdir(parents=True)
            for name in ("tcp", "tcp6"):
                header, *rows = Path(f"/proc/self/net/{name}").read_text().splitlines()
                ours = [row for row in rows if row.split()[1] in (f"0100007F:{port:04X}", f"0200007F:{port:04X}")]
                (folder / name).write_text("\n".join([header, *ours]))
            assert count_connections(named, pid=7, proc=tmp_path) == 3
        finally:
            for client in clients:
                client.close()


def test_clients_of_a_datagram_server_are_counted():
    with socket.socket(type=socket.SOCK_DGRAM) as server, socket.socket(type=socket.SOCK_DGRAM) as client:
        server.bind(("127.0.0.1", 0))
        here = [Address.parse("udp://{}:{}".format(*server.getsockname()))]
        named = [Address.parse(f"udp://some-model:{server.getsockname()[1]}")]
        client.sendto(b"x", server.getsockname())  # a socket without a peer is not known
        assert count_connections(here) == 0
        client.connect(server.getsockname())
        assert count_connections(here) == 1
        assert [count_connections(named, pid=pid) for pid in (None, os.getpid())] == [0, 1]
        # The same port of another transport is another server.
        assert count_connections([Address.parse(str(here[0]).replace("udp", "tcp"))]) == 0


def test_connections_at_a_path_are_counted(tmp_path, monkeypatch):
    monkeypatch.setattr(socket_owner, "_PAUSE", 0)
    with socket.socket(socket.AF_UNIX) as server, socket.socket(socket.AF_UNIX) as other:
        for listener, name in ((server, "a b.sock"), (other, "other.sock")):
            listener.bind(str(tmp_path / name))
            listener.listen()
        here = [Address.parse(f"unix://{tmp_path}/a b.sock")]
        with socket.socket(socket.AF_UNIX) as one, socket.socket(socket.AF_UNIX) as two:
            one.connect(str(tmp_path / "other.sock"))
            assert count_connections(here) == 0
            two.connect(str(tmp_path / "a b.sock"))
            assert count_connections(here) == 1  # in the backlog
            with server.accept()[0]:
                assert count_connections(here) == 1
            assert count_connections(here) == 0


def test_connection_that_a_server_is_about_to_close_is_not_counted(tmp_path, monkeypatch):
    """The kernel does not show whether its client has closed it."""
    with socket.socket(socket.AF_UNIX) as server, socket.socket(socket.AF_UNIX) as client:
        server.bind(str(tmp_path / "s"))
        server.listen()
        client.connect(str(tmp_path / "s"))
        accepted = server.accept()[0]
        client.close()
        waited = []

        def close_late(seconds):
            waited.append(seconds)
            if len(waited) == 3:
                accepted.close()

        monkeypatch.setattr(time, "sleep", close_late)
        assert count_connections([Address.parse(f"unix://{tmp_path}/s")]) == 0
        assert waited == [0.1] * 3


def test_connections_at_a_path_are_the_fewest_of_ten_looks(monkeypatch):
    """Further clients come and go in between; only what is there at each look lasts."""
    row = socket_owner._UnixSocket("/run/s", "0001", 7, listens=False)
    # What listens is no connection, nor is a datagram socket, of a server that was there before.
    others = [replace(row, listens=True), replace(row, kind="0002")]
    counts = [4, 3, 2, 3, 3, 3, 3, 3, 3, 5]
    monkeypatch.setattr(socket_owner, "_PAUSE", 0)
    monkeypatch.setattr(socket_owner, "_read_unix", lambda process: [row] * counts.pop(0) + others)
    assert count_connections([Address.parse("unix:///run/s")]) == 2
    assert counts == []


def test_connected_datagram_socket_is_not_a_server():
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client:
        client.connect(("127.0.0.1", 9))
        port = client.getsockname()[1]
        assert "no process" in _find(f"udp://127.0.0.1:{port}").unknown


def test_host_without_an_address_is_unknown():
    assert "has no address" in _find("tcp://no-such-host.invalid:7").unknown


def test_next_address_of_a_name_is_tried(listen, monkeypatch):
    pid, (port,) = listen("tcp,127.0.0.1,0")
    found = [(socket.AF_INET, 0, 0, "", (ip, int(port))) for ip in ("192.0.2.1", "127.0.0.1")]
    monkeypatch.setattr(socket, "getaddrinfo", lambda host, port, type: found)  # noqa: A006 - that of the original
    assert _find(f"tcp://some-name:{port}").pid == pid


def test_socket_of_another_address_does_not_answer():
    sockets = [_Socket(ip_address("10.0.0.2"), 7, 4, "0A", None)]
    assert match(sockets, ip_address("10.0.0.9"), 7) == []


def test_addresses_are_counted_one_by_one():
    # Addresses that nothing else of this machine uses: a port may be taken at 127.0.0.1 by another process's client.
    here = f"127.{os.getpid() >> 16 & 127}.{os.getpid() >> 8 & 255}"
    with socket.create_server((f"{here}.11", 0)) as one, socket.create_server((f"{here}.12", 0)) as two:
        addresses = [Address.parse("tcp://{}:{}".format(*each.getsockname())) for each in (one, two)]
        with socket.create_connection(one.getsockname()), socket.create_connection(two.getsockname()):
            assert count_connections(addresses) == 2


def test_ipv6_table_is_read_without_an_ipv4_table(tmp_path):
    (tmp_path / "self" / "net").mkdir(parents=True)
    words = [int.from_bytes(bytes(3) + bytes([last]), sys.byteorder) for last in (0, 0, 0, 1)]
    local = "".join(f"{word:08X}" for word in words)
    row = f"   0: {local}:2328 {'0' * 32}:0000 0A 0:0 0:0 0 0 0 77 1 0"
    (tmp_path / "self" / "net" / "tcp6").write_text(f"  sl  local_address ...\n{row}\n")
    # A client of `::` is connected to `::1`.
    for host in ("[::1]", "[::]"):
        found = find_owner(Address.parse(f"tcp://{host}:9000"), proc=tmp_path)
        assert "belongs to another user" in found.unknown


def test_listener_in_another_namespace_is_the_process_that_the_kernel_names(proc, monkeypatch):
    folder, hold = proc
    monkeypatch.setattr("lab.metrics.socket_owner._ask_listener", lambda path: 60)
    address = Address.parse("unix:///run/lab/echo.sock")
    assert "has ended" in find_owner(address, proc=folder).unknown
    # In another network namespace: no line of this one's table has its path.
    hold(60, 1, "server")
    assert find_owner(address, proc=folder) == Owner(pid=60)


def test_owner_with_invisible_holders_is_unknown(proc):
    folder, hold = proc
    table = folder / "self" / "net" / "tcp"
    table.write_text(table.read_text() + table.read_text().splitlines()[1].replace(" 77 ", " 78 ") + "\n")
    hold(60, 1, "server")
    assert "some of the processes" in _find_in(folder).unknown


@pytest.mark.parametrize("ip", ["127.0.0.200", "203.0.113.255", "2001:db8:1:2:3:4:ff00:fe", "::1"])
def test_address_is_read_as_the_kernel_writes_it(ip):
    packed = ip_address(ip).packed
    words = [int.from_bytes(packed[place : place + 4], sys.byteorder) for place in range(0, len(packed), 4)]
    assert _decode("".join(f"{word:08X}" for word in words)) == ip_address(ip)


def test_table_of_unix_sockets_is_read(tmp_path):
    """A path may contain spaces and invalid UTF-8; a connection has the path of its server."""
    (tmp_path / "self" / "net").mkdir(parents=True)
    rows = [
        b"00010000 0001 01    77 /run/a b  c.sock",
        b"00000000 0001 03    78 /run/a b  c.sock",
        b"00000000 0002 01    79 /run/a b  c.sock",
        b"00010000 0001 01    80",
        b"00010000 0001 01    81 /run/\xff.sock",
    ]
    table = b"".join(b"0000000000000000: 00000002 00000000 %b\n" % row for row in rows)
    (tmp_path / "self" / "net" / "unix").write_bytes(b"Num       RefCount Protocol Flags Type St Inode Path\n" + table)
    assert _find_unix_inodes(tmp_path, "/run/a b  c.sock", "0001") == [77]
    assert _find_unix_inodes(tmp_path, "/run/a b  c.sock", "0002") == [79]
    assert _find_unix_inodes(tmp_path, "/run/\udcff.sock", "0001") == [81]
    assert _find_unix_inodes(tmp_path, "/run/none.sock", "0001") == []


def test_socket_that_does_not_listen_is_not_a_server(proc):
    folder, hold = proc
    hold(60, 1, "server")
    table = folder / "self" / "net" / "tcp"
    table.write_text(table.read_text().replace(" 0A ", " 07 "))
    assert _find_in(folder).unknown == "no process of this network namespace has a socket at tcp://127.0.0.1:9000"


def test_name_is_looked_up_for_its_kind_of_socket(monkeypatch):
    asked = []

    def look_up(host, port, type):  # noqa: A002 - the argument's name in `socket`
        asked.append((host, port, type))
        return []

    monkeypatch.setattr(socket, "getaddrinfo", look_up)
    for transport in ("tcp", "tls", "udp"):
        assert "no process" in _find(f"{transport}://some-name:7").unknown
    kinds = [socket.SOCK_STREAM, socket.SOCK_STREAM, socket.SOCK_DGRAM]
    assert asked == [("some-name", 7, kind) for kind in kinds]


@pytest.mark.parametrize(
    ("inodes", "found"),
    # It was passed to another process; or neither of two sockets belongs to the process that the kernel names.
    [([77], Owner(pid=61)), ([77, 78], Owner(unknown="the process that made unix:///run/echo.sock has ended"))],
)
def test_listener_that_passed_its_socket_on(proc, monkeypatch, inodes, found):
    folder, hold = proc
    hold(61, 1, "server")
    hold(62, 1, "server", inode=78)
    rows = [f"0: 00000002 00000000 00010000 0001 01 {inode} /run/echo.sock\n" for inode in inodes]
    (folder / "self" / "net" / "unix").write_text("Num ...\n" + "".join(rows))
    monkeypatch.setattr("lab.metrics.socket_owner._ask_listener", lambda path: 60)
    assert find_owner(Address.parse("unix:///run/echo.sock"), proc=folder) == found


def test_listener_that_holds_neither_of_two_sockets_is_not_their_owner(proc, monkeypatch):
    folder, hold = proc
    for pid, inode in ((60, 76), (61, 77), (62, 78)):
        hold(pid, 1, "server", inode=inode)
    rows = [f"0: 00000002 00000000 00010000 0001 01 {inode} /run/echo.sock\n" for inode in (77, 78)]
    (folder / "self" / "net" / "unix").write_text("Num ...\n" + "".join(rows))
    monkeypatch.setattr("lab.metrics.socket_owner._ask_listener", lambda path: 60)
    assert find_owner(Address.parse("unix:///run/echo.sock"), proc=folder).pid is None


@pytest.mark.parametrize(("told", "is_listed"), [(None, True), (60, True), (60, False)])
def test_forwarder_at_a_path_is_named_with_its_address(proc, monkeypatch, told, is_listed):
    """Whether the kernel tells who listens, and whether this network namespace has the socket."""
    folder, hold = proc
    hold(60, 1, "ssh")
    row = "0: 00000002 00000000 00010000 0001 01 77 /run/echo.sock\n"
    (folder / "self" / "net" / "unix").write_text("Num ...\n" + row * is_listed)
    monkeypatch.setattr("lab.metrics.socket_owner._ask_listener", lambda path: told)
    said = "ssh (pid 60) at unix:///run/echo.sock only forwards to a server"
    assert find_owner(Address.parse("unix:///run/echo.sock"), proc=folder) == Owner(unknown=said)


def test_listener_of_another_pid_namespace_is_unknown(tmp_path, monkeypatch):
    """The kernel gives 0 for a process that has no number here."""
    path = str(tmp_path / "s")
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(path)
        listener.listen()
        assert _ask_listener(path) == os.getpid()
        monkeypatch.setattr(socket_owner, "_UCRED", SimpleNamespace(size=12, unpack=lambda data: (0, 65534, 65534)))
        assert _ask_listener(path) is None


def test_listener_with_a_full_queue_is_not_waited_for(tmp_path):
    path = str(tmp_path / "s")
    clients = []
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(path)
        listener.listen(0)
        for _ in range(10):
            clients.append(socket.socket(socket.AF_UNIX))
            clients[-1].setblocking(False)
        # A backlog of 0 holds one connection; ten clients fill it on any kernel.
        assert errno.EAGAIN in [client.connect_ex(path) for client in clients]
        assert _ask_listener(path) is None
        for client in clients:
            client.close()


@pytest.mark.parametrize(
    ("words", "found"),
    [
        (["docker-proxy", "-container-ip", "172.17.0.5"], Owner(container="172.17.0.5")),
        (["server", "-container-ip", "172.17.0.5"], Owner(pid=50)),
        (
            ["docker-proxy", "-container-ip"],
            Owner(unknown="docker-proxy (pid 50) at tcp://127.0.0.1:9000 only forwards to a server"),
        ),
    ],
)
def test_docker_proxy_needs_a_container_address(proc, words, found):
    folder, hold = proc
    hold(50, 1, *words)
    assert _find_in(folder) == found


def test_ancestors_end_at_init_or_where_they_began(tmp_path):
    for pid, parent in ((60, 2), (2, 1), (1, 0), (7, 8), (8, 7)):
        (tmp_path / str(pid)).mkdir()
        # A name may have brackets, and be no UTF-8: the kernel cuts it at 15 bytes.
        (tmp_path / str(pid) / "stat").write_bytes(b"%d (a ) b\xd0) S %d 1" % (pid, parent))
    assert _list_ancestors(60, tmp_path) == [2, 1]
    # A pid that was reused meanwhile.
    assert _list_ancestors(7, tmp_path) == [8, 7]


def test_command_line_that_is_not_utf8_is_read(tmp_path):
    (tmp_path / "7").mkdir()
    (tmp_path / "7" / "cmdline").write_bytes(b"/bin/\xff\0-x\0")
    assert _read_command(7, tmp_path) == ["/bin/\ufffd", "-x"]


@pytest.mark.parametrize(
    ("text", "service", "url"),
    [
        ("echo=tcp://host:7007", "echo", "tcp://host:7007"),
        ("echo=tcp://host", "echo", "tcp://host:7"),
        ("echo=tcp://host:1", "echo", "tcp://host:1"),
        ("echo=unix:///run/a=b", "echo", "unix:///run/a=b"),
        ("tcp://host:9000", CUSTOM_PROTOCOL.service, "tcp://host:9000"),
    ],
)
def test_target_is_a_service_and_an_address(text, service, url):
    target = parse_target(text)
    assert (target.service, target.address, target.path) == (service, Address.parse(url), "")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("nothing=tcp://host:7", "is not SERVICE=URL with one of "),
        ("host:7", "is not SERVICE=URL with one of "),
        ("echo=host:7", "--target 'echo=host:7': 'host:7' does not start with "),
        ("echo", "--target 'echo': '' does not start with "),
        ("tcp://host", "has no port, and a custom protocol has no default: add it, as in tcp://host:9000"),
        ("echo=tcp://host:0", "nothing can listen on port 0: name the server's port"),
    ],
)
def test_invalid_target_is_refused(text, said):
    with pytest.raises(LabError) as raised:
        parse_target(text)
    assert said in str(raised.value)


def test_target_is_reachable_where_something_listens():
    with socket.create_server(("127.0.0.1", 0)) as listener:
        check_reachable("echo", Address.parse(f"tcp://127.0.0.1:{listener.getsockname()[1]}"))
    with closed_port() as port:
        said = rf"^--target echo=tcp://127.0.0.1:{port}: Connection refused: is the server running there\?$"
        with pytest.raises(LabError, match=said):
            check_reachable("echo", Address.parse(f"tcp://127.0.0.1:{port}"))
    with pytest.raises(LabError, match=r"^--target echo=.*/none.*: is the server running there\?$"):
        check_reachable("echo", Address.parse("unix:///run/lab/none"))


def test_datagram_target_is_unreachable_only_after_a_refusal():
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as silent:
        silent.bind(("127.0.0.1", 0))
        address = Address.parse(f"udp://127.0.0.1:{silent.getsockname()[1]}")
        check_reachable("echo", address)
    with pytest.raises(LabError, match=r"Connection refused: is the server running there\?$"):
        check_reachable("echo", address)


def test_only_the_loaded_target_has_to_be_reachable():
    with socket.create_server(("127.0.0.1", 0)) as one:
        ports = one.getsockname()[1], find_port()
        targets = ExternalServer([f"echo=tcp://127.0.0.1:{ports[0]}", f"discard=tcp://127.0.0.1:{ports[1]}"])
        echo, discard = WORKLOADS["echo_1k"], WORKLOADS["upload"]
        targets.check(echo, Transport.TCP)
        targets.check(discard, Transport.UDP)
        # A workload without an exchange, in which nothing could be checked.
        ExternalServer([f"command=tcp://127.0.0.1:{ports[0]}"]).check(WORKLOADS["think"], Transport.TCP)
        with pytest.raises(LabError, match=f"discard=tcp://127.0.0.1:{ports[1]}"):
            targets.check(discard, Transport.TCP)


def test_targets_are_one_model_of_two_services():
    targets = ExternalServer(["echo=tcp://host:7007", "discard=udp://host:9", "echo=udp://host:7007"])
    assert targets.model.services == ("echo", "discard")
    assert targets.model.only_in_container
    assert [(item.service, item.transport, item.address) for item in targets.targets()] == [
        ("echo", "tcp", "tcp://host:7007"),
        ("discard", "udp", "udp://host:9"),
        ("echo", "udp", "udp://host:7007"),
    ]


def test_reasons_for_an_unknown_owner_are_listed_once(monkeypatch):
    owners = {7: Owner(pid=5), 8: Owner(unknown="one"), 9: Owner(unknown="two")}
    monkeypatch.setattr("lab.load.external_server.find_owner", lambda address: owners[address.port])
    targets = ExternalServer([f"echo=tcp://host:{port}" for port in (7, 8, 9)])
    meter = targets.meter("target")
    assert isinstance(meter, NoMeter)
    assert meter.reason == "one; two"
    assert targets.meter("target").pid is None


def test_meter_of_a_container_is_that_of_its_engine(monkeypatch):
    monkeypatch.setattr("lab.load.external_server.find_owner", lambda address: Owner(container="172.17.0.5"))
    monkeypatch.setattr("lab.metrics.meters.find_container", {"172.17.0.5": "abc"}.get)
    monkeypatch.setattr("lab.metrics.meters.open_container_meter", lambda name: f"meter of {name}")
    meter: object = ExternalServer(["echo=tcp://host:7"]).meter("target")
    assert meter == "meter of abc"
