"""The lab's clients over TLS: which CA they trust, and what they offer."""

import os
import resource
import socket
import ssl
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, suppress
from pathlib import Path

import pytest

from lab.clients.call import call
from lab.servers.ca import create_ca, issue
from lab.servers.certificates import CA, CLIENT, DIRECTORY
from loadtests.sockets import tls
from loadtests.sockets.connection import BlockingConnection
from loadtests.sockets.errors import SetupError, WrongAnswerError
from loadtests.sockets.tls import TlsPipe, TlsStream, ca_file, certificate_file, client_context
from services.protocol import Address

NEVER = 4102444800.0  # 2100


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Servers with a good certificate, one of another CA, and one for another name."""
    directory = tmp_path_factory.mktemp("secure")
    ca, key = create_ca(NEVER)
    foreign, foreign_key = create_ca(NEVER)
    (directory / "ca.pem").write_bytes(ca)
    (directory / "good.pem").write_bytes(issue(ca, key, ["127.0.0.1"], NEVER)[0])
    (directory / "client.pem").write_bytes(issue(ca, key, ["127.0.0.1"], NEVER)[1])
    (directory / "foreign.pem").write_bytes(issue(foreign, foreign_key, ["127.0.0.1"], NEVER)[0])
    (directory / "name.pem").write_bytes(issue(ca, key, ["127.0.0.2", "localhost"], NEVER)[0])
    return directory


@pytest.fixture(autouse=True)
def trust(certificates: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv("LAB_TLS_CA", str(certificates / "ca.pem"))
    monkeypatch.delenv("LAB_TLS_CLIENT_CERT", raising=False)
    client_context.cache_clear()
    yield
    client_context.cache_clear()


@pytest.fixture
def serve(certificates: Path) -> Iterator[Callable[[str], Address]]:
    """Start a server with this certificate; it answers PONG to one client."""
    threads = []

    def serve(name: str) -> Address:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(certificates / f"{name}.pem")
        listener = socket.create_server(("127.0.0.1", 0))

        def answer() -> None:
            with listener, suppress(OSError):  # the client breaks the handshake off
                listener.settimeout(20)
                link, _ = listener.accept()
                link.settimeout(20)
                with context.wrap_socket(link, server_side=True) as tls:
                    if tls.recv(100):
                        tls.sendall(b"+PONG\r\n")
                    while tls.recv(100):
                        pass

        threads.append(threading.Thread(target=answer))
        threads[-1].start()
        return Address.parse(f"tls://127.0.0.1:{listener.getsockname()[1]}")

    yield serve
    for thread in threads:
        thread.join()


def ask_by_link(where: Address) -> bytes:
    with BlockingConnection(where, timeout=20) as link:
        link.send(b"PING\r\n")
        return link.receive()


def ask_by_pipe(where: Address) -> bytes:
    """Connect as the load generator does."""
    with socket.create_connection((where.host, where.port or 0), timeout=20) as raw:
        pipe = TlsPipe(raw, where.host)
        while not pipe.handshake():
            raw.sendall(pipe.unsent())
            pipe.feed()
        raw.sendall(pipe.unsent() + pipe.seal(b"PING\r\n"))
        while True:
            try:
                return pipe.recv(100)
            except BlockingIOError:  # no more than a ticket has come
                continue


@pytest.mark.parametrize("ask", [ask_by_link, ask_by_pipe], ids=["link", "generator"])
def test_client_trusts_the_labs_ca(serve: Callable[[str], Address], ask: Callable[[Address], bytes]) -> None:
    assert ask(serve("good")) == b"+PONG\r\n"


@pytest.mark.parametrize("certificate", ["foreign", "name"])
@pytest.mark.parametrize("ask", [ask_by_link, ask_by_pipe], ids=["link", "generator"])
def test_client_refuses_foreign_ca_and_wrong_name(
    serve: Callable[[str], Address], ask: Callable[[Address], bytes], certificate: str
) -> None:
    with pytest.raises((WrongAnswerError, ssl.SSLCertVerificationError), match="CERTIFICATE_VERIFY_FAILED"):
        ask(serve(certificate))


def test_certificate_has_to_be_for_the_name_that_was_asked_for_and_not_for_its_address(
    serve: Callable[[str], Address],
) -> None:
    """As in a lab of containers, whose addresses are in no certificate."""
    where = Address.parse(f"tls://localhost:{serve('name').port}")
    assert ask_by_link(where) == b"+PONG\r\n"


@pytest.mark.parametrize("certificate", ["foreign", "name"])
def test_call_refuses_foreign_ca_and_wrong_name(serve: Callable[[str], Address], certificate: str) -> None:
    """`call` is used by the readiness probe and by `lab call`."""
    with pytest.raises(WrongAnswerError, match="CERTIFICATE_VERIFY_FAILED"):
        call("command", serve(certificate), ["PING"], timeout=20)


def make_lax(monkeypatch: pytest.MonkeyPatch) -> None:
    """Make contexts with the defaults of the least strict builds of Python and OpenSSL."""
    make: Callable[..., ssl.SSLContext] = ssl.SSLContext.__new__

    def make_one(cls: type[ssl.SSLContext], *arguments: object) -> ssl.SSLContext:
        context = make(cls, *arguments)
        context.minimum_version = ssl.TLSVersion.MINIMUM_SUPPORTED
        return context

    monkeypatch.setattr(ssl.SSLContext, "__new__", make_one)


def test_client_offers_only_the_documented_versions(monkeypatch: pytest.MonkeyPatch) -> None:
    make_lax(monkeypatch)
    context = client_context()
    assert (context.minimum_version, context.maximum_version) == (ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3)
    assert context.verify_mode is ssl.CERT_REQUIRED
    assert context.check_hostname
    assert context.options & ssl.OP_NO_RENEGOTIATION
    assert context.options & ssl.OP_NO_COMPRESSION


@pytest.mark.parametrize(
    ("variable", "look"),
    [("LAB_TLS_CA", ca_file), ("LAB_TLS_CLIENT_CERT", certificate_file)],
    ids=["ca", "certificate"],
)
def test_missing_file_of_the_environment_is_an_error(
    variable: str, look: Callable[[], str | None], certificates: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """There is no fallback to the system's CAs, or to no certificate."""
    monkeypatch.setenv(variable, "/no/such.pem")
    with pytest.raises(SetupError, match=f"{variable}='/no/such.pem': there is no such file"):
        look()
    monkeypatch.setenv(variable, str(certificates / "client.pem"))
    assert look() == str(certificates / "client.pem")


@pytest.mark.parametrize("value", [None, ""], ids=["unset", "empty"])
def test_files_are_the_labs_if_they_exist(value: str | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without a lab, the system's CAs are trusted, and no certificate is shown."""
    assert tls._DIRECTORY == DIRECTORY
    for variable in ("LAB_TLS_CA", "LAB_TLS_CLIENT_CERT"):
        monkeypatch.delenv(variable, raising=False)
        if value is not None:
            monkeypatch.setenv(variable, value)
    monkeypatch.setattr(tls, "_DIRECTORY", tmp_path)
    assert (ca_file(), certificate_file()) == (None, None)
    for name in (CA, CLIENT):
        (tmp_path / name).touch()
    assert (ca_file(), certificate_file()) == (str(tmp_path / "ca.pem"), str(tmp_path / "client.pem"))


def test_client_shows_its_certificate(certificates: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LAB_TLS_CLIENT_CERT", str(certificates / "client.pem"))
    client_context.cache_clear()
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificates / "good.pem")
    context.load_verify_locations(certificates / "ca.pem")
    context.verify_mode = ssl.CERT_REQUIRED
    server_in, server_out = ssl.MemoryBIO(), ssl.MemoryBIO()
    client_in, client_out = ssl.MemoryBIO(), ssl.MemoryBIO()
    server = context.wrap_bio(server_in, server_out, server_side=True)
    client = client_context().wrap_bio(client_in, client_out, server_hostname="127.0.0.1")
    for _ in range(3):
        for side in (client, server):
            with suppress(ssl.SSLWantReadError):
                side.do_handshake()
            server_in.write(client_out.read())
            client_in.write(server_out.read())
    shown = server.getpeercert()
    assert shown is not None
    assert shown["subject"] == ((("commonName", "socketlab client"),),)


def test_client_never_negotiates_again_and_never_compresses() -> None:
    wanted = ssl.OP_NO_RENEGOTIATION | ssl.OP_NO_COMPRESSION
    assert client_context().options & wanted == wanted


def test_half_close_leaves_the_other_half_open(serve: Callable[[str], Address]) -> None:
    with BlockingConnection(serve("good"), timeout=20) as link:
        link.send(b"PING\r\n")
        assert link.receive() == b"+PONG\r\n"
        link.half_close()  # the server reads to this end, and then closes without its own close_notify
        with pytest.raises(WrongAnswerError, match="within TLS"):
            link.receive()


def test_client_with_a_thousand_descriptors_is_served(serve: Callable[[str], Address]) -> None:
    """`select` takes none above 1023."""
    where = serve("good")
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    with ExitStack() as stack:
        if soft < 2048:
            resource.setrlimit(resource.RLIMIT_NOFILE, (2048, hard))
            stack.callback(resource.setrlimit, resource.RLIMIT_NOFILE, (soft, hard))
        for _ in range(1024):
            stack.callback(os.close, os.open(os.devnull, os.O_RDONLY))
        link = stack.enter_context(BlockingConnection(where, timeout=20))
        assert link.socket.fileno() > 1023
        link.send(b"PING\r\n")
        assert link.receive() == b"+PONG\r\n"


def test_stream_takes_no_more_while_the_server_reads_nothing(certificates: Path) -> None:
    """A record at a time, and none before the last one has left: memory that grows instead would hide back-pressure."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificates / "good.pem")
    ours, theirs = socket.socketpair()
    reads = threading.Event()
    received = bytearray()

    def serve() -> None:
        with suppress(OSError), context.wrap_socket(theirs, server_side=True) as tls:
            reads.wait(60)
            while data := tls.recv(65536):
                received.extend(data)

    server = threading.Thread(target=serve)
    server.start()
    taken: list[int] = []
    try:
        with ours:
            ours.settimeout(20)
            stream = TlsStream(ours, lambda: 20.0, "127.0.0.1", "the server")
            ours.setblocking(False)
            with suppress(BlockingIOError):
                # Far more than the buffers of a socket hold.
                while sum(taken) < 5_000_000:
                    taken.append(stream.send_some(bytes(65536)))
            assert sum(taken) < 5_000_000
            ours.settimeout(20)
            reads.set()
            stream.send(b"end")
    finally:
        reads.set()
        server.join()
    assert set(taken) == {16384}
    assert bytes(received) == bytes(sum(taken)) + b"end"


def test_end_of_the_socket_is_the_end_of_the_stream() -> None:
    """Also if the peer says nothing within TLS: a reader that waited for that would never end."""
    ours, peers = socket.socketpair()
    with ours, peers:
        pipe = TlsPipe(ours, "127.0.0.1")
        peers.close()
        assert pipe.recv(100) == b""
