"""The TLS layer by itself: no socket, bytes in and bytes out."""

import logging
import ssl
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import pytest

from lab.servers.ca import create_ca, issue
from services.protocol import Close, Compute, Connection, Event, GiveWay, Send
from services.serving import tls
from services.serving.listeners import ListenError
from services.serving.tls import SecureConnection, open_layer, server_context

NEVER = 4102444800.0  # 2100


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("tls")
    ca, ca_key = create_ca(NEVER)
    server, client = issue(ca, ca_key, ["a_server"], NEVER)
    for name, content in (("ca.pem", ca), ("server.pem", server), ("client.pem", client)):
        (directory / name).write_bytes(content)
    return directory


@pytest.fixture
def server(certificates: Path) -> SecureConnection:
    secure = open_layer({"LAB_TLS_CERT": str(certificates / "server.pem")})
    return secure(Connection("echo"), "somebody")


class Client:
    def __init__(self, certificates: Path, certificate: str | None = None) -> None:
        self.incoming, self.outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        context = ssl.create_default_context(cafile=str(certificates / "ca.pem"))
        if certificate:
            context.load_cert_chain(certificates / certificate)
        self.tls = context.wrap_bio(self.incoming, self.outgoing, server_hostname="a_server")

    def exchange(self, server: SecureConnection, *, step: int = 65536) -> list[object]:
        """Bring everything over in both directions; returns the server's events that are not Send."""
        events: list[object] = []
        data = self.outgoing.read()
        for start in range(0, len(data), step):
            server.receive_data(data[start : start + step])
            while (event := server.next_event()) is not None:
                if not isinstance(event, Send):
                    events.append(event)
                    break
                self.incoming.write(event.data)
        return events

    def shake(self, server: SecureConnection, *, step: int = 65536) -> None:
        for _ in range(3):
            try:
                self.tls.do_handshake()
            except ssl.SSLWantReadError:
                self.exchange(server, step=step)
        self.exchange(server, step=step)


@pytest.mark.parametrize("step", [65536, 1], ids=["whole", "byte-by-byte"])
def test_echoes(certificates: Path, server: SecureConnection, step: int) -> None:
    client = Client(certificates)
    client.shake(server, step=step)
    client.tls.write(b"hello")
    assert not client.exchange(server, step=step)
    assert client.tls.read(100) == b"hello"


def test_the_end_of_the_clients_half_is_answered_by_our_own(certificates: Path, server: SecureConnection) -> None:
    client = Client(certificates)
    client.shake(server)
    client.tls.write(b"last")
    with pytest.raises(ssl.SSLWantReadError):
        client.tls.unwrap()
    assert [type(event) for event in client.exchange(server)] == [Close]
    assert client.tls.read(100) == b"last"
    with pytest.raises(ssl.SSLZeroReturnError):
        client.tls.read(100)  # an end in order, and not a connection that was cut
    assert isinstance(server.next_event(), Close)  # and again


def test_a_stream_that_ends_without_the_alert_ends(certificates: Path, server: SecureConnection) -> None:
    client = Client(certificates)
    client.shake(server)
    server.receive_eof()
    events = [server.next_event(), server.next_event()]
    assert isinstance(events[0], Send)  # our own alert
    assert isinstance(events[1], Close)


def test_a_drain_ends_in_order(certificates: Path, server: SecureConnection) -> None:
    client = Client(certificates)
    client.shake(server)
    server.drain(arrived=1000)
    client.tls.write(b"on its way")
    assert not client.exchange(server)
    server.receive_eof()
    goodbye, end = server.next_event(), server.next_event()
    assert isinstance(goodbye, Send)
    assert isinstance(end, Close)
    client.incoming.write(goodbye.data)
    assert client.tls.read(100) == b"on its way"
    assert client.tls.read(100) == b""  # by the alert that says so; any other would raise


def test_noise_is_answered_with_an_alert_and_a_close(server: SecureConnection) -> None:
    server.receive_data(b"GET / HTTP/1.1\r\n\r\n")
    events: list[Event | None] = []
    while not events or not isinstance(events[-1], Close):
        events.append(server.next_event())
    assert len(events) <= 2
    server.receive_data(b"more")  # dropped
    server.receive_eof()
    assert isinstance(server.next_event(), Close)


def test_noise_after_the_handshake_ends_the_connection(
    certificates: Path, server: SecureConnection, caplog: pytest.LogCaptureFixture
) -> None:
    """As a lost connection, it is no news."""
    caplog.set_level(logging.DEBUG, "services")
    client = Client(certificates)
    client.shake(server)
    server.receive_data(b"\x17\x03\x03\x00\x20" + bytes(32))
    assert isinstance(server.next_event(), Send)  # bad_record_mac
    assert isinstance(server.next_event(), Close)
    (record,) = caplog.records
    assert (record.levelno, record.message.partition(":")[0]) == (logging.DEBUG, "TLS with somebody failed")


def test_client_without_a_name_is_one_in_the_log(certificates: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Over a Unix socket it has none."""
    caplog.set_level(logging.INFO)
    secure = open_layer({"LAB_TLS_CERT": str(certificates / "server.pem")})
    secure(Connection("echo"), "").receive_data(b"hi\n")
    assert caplog.messages == [r"TLS handshake with a client failed: it does not speak TLS, but began with b'hi\n'"]


@pytest.mark.parametrize(
    ("certificate", "refusal"),
    [("client.pem", ""), ("server.pem", "unsupported certificate"), (None, "certificate required")],
)
def test_client_has_to_show_a_certificate_that_the_ca_gives_to_clients(
    certificates: Path, certificate: str | None, refusal: str
) -> None:
    environ = {"LAB_TLS_CERT": "server.pem", "LAB_TLS_CLIENT_CA": "ca.pem"}
    server = open_layer({name: str(certificates / file) for name, file in environ.items()})(Connection("echo"), "c")
    client = Client(certificates, certificate=certificate)
    client.shake(server)
    if refusal:
        with pytest.raises(ssl.SSLError, match=refusal):
            client.tls.read(100)
    else:
        client.tls.write(b"hello")
        client.exchange(server)
        assert client.tls.read(100) == b"hello"


def test_waits_for_a_handshake_that_has_not_come(server: SecureConnection) -> None:
    assert server.next_event() is None
    server.receive_data(b"\x16")
    assert server.next_event() is None


def test_drains_in_the_middle_of_a_handshake_without_a_word_in_the_log(
    server: SecureConnection, caplog: pytest.LogCaptureFixture
) -> None:
    server.receive_data(b"\x16\x03\x01")
    assert server.next_event() is None
    server.drain()
    server.receive_eof()
    events: list[Event | None] = []
    while not events or not isinstance(events[-1], Close):
        events.append(server.next_event())
    assert len(events) <= 2
    assert not caplog.records


@pytest.mark.parametrize(
    ("environ", "named"),
    [
        ({}, "LAB_TLS_CERT"),
        ({"LAB_TLS_CERT": "/no/such.pem"}, "LAB_TLS_CERT='/no/such.pem' cannot be read"),
        ({"LAB_TLS_CERT": "ca.pem"}, "cannot be used"),
        ({"LAB_TLS_CERT": "server.pem", "LAB_TLS_CLIENT_CA": "/no/such.pem"}, "LAB_TLS_CLIENT_CA='/no/such.pem'"),
    ],
    ids=["none", "missing", "no-key", "no-ca"],
)
def test_certificates_that_are_of_no_use_are_named(
    certificates: Path, environ: dict[str, str], named: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(certificates)
    with pytest.raises(ListenError, match=named):
        open_layer(environ)


@pytest.mark.parametrize(
    ("reason", "said"), [("KEY_VALUES_MISMATCH", "KEY_VALUES_MISMATCH"), (None, "[X509] does not match (_ssl.c:1)")]
)
def test_reason_of_openssl_is_given(reason: str | None, said: str) -> None:
    """Which it names depends on its version, and some errors have none."""

    def load(path: str) -> None:
        error = ssl.SSLError(1, "[X509] does not match (_ssl.c:1)")
        error.reason = reason  # type: ignore[assignment] # typeshed lacks the None
        raise error

    with pytest.raises(ListenError) as caught:
        tls._load("LAB_TLS_CERT", "its.pem", load)
    assert str(caught.value) == f"LAB_TLS_CERT='its.pem' cannot be used: {said}"


def make_lax(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have contexts begin as the least strict builds of Python and OpenSSL make them."""
    make: Callable[..., ssl.SSLContext] = ssl.SSLContext.__new__

    def make_one(cls: type[ssl.SSLContext], *arguments: object) -> ssl.SSLContext:
        context = make(cls, *arguments)
        context.minimum_version = ssl.TLSVersion.MINIMUM_SUPPORTED
        context.options = ssl.OP_ALL & ~ssl.OP_NO_COMPRESSION
        return context

    monkeypatch.setattr(ssl.SSLContext, "__new__", make_one)


def test_server_states_what_is_promised(monkeypatch: pytest.MonkeyPatch) -> None:
    """Builds of Python and of OpenSSL have defaults of their own; see docs/protocol.md."""
    make_lax(monkeypatch)
    context = server_context()
    assert (context.minimum_version, context.maximum_version) == (ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3)
    assert context.options & ssl.OP_NO_RENEGOTIATION
    assert context.options & ssl.OP_NO_COMPRESSION
    assert context.num_tickets == 0
    old = {cipher["name"] for cipher in context.get_ciphers() if cipher["protocol"] != "TLSv1.3"}
    assert old == {
        f"ECDHE-{key}-{cipher}"
        for key in ("ECDSA", "RSA")
        for cipher in ("AES128-GCM-SHA256", "AES256-GCM-SHA384", "CHACHA20-POLY1305")
    }


def end_of(server: SecureConnection) -> tuple[bytes, bool]:
    """What is sent before the end, and whether it comes."""
    said = b""
    while isinstance(event := server.next_event(), Send):
        said += event.data
    return said, isinstance(event, Close)


@pytest.mark.parametrize(
    "data",
    [b"G", b"hi\n", b"PING\r\n", b"*1\r\n$4\r\nPING\r\n", b"GET / HTTP/1.1\r\nHost: x\r\n\r\n", b"\0", b"\xff\xfb\x01"],
    ids=["byte", "short-line", "line", "resp", "http", "zero", "telnet"],
)
def test_plain_text_is_refused_at_its_first_byte(
    server: SecureConnection, data: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    """OpenSSL waits for five bytes, and has no alert for most of these."""
    caplog.set_level(logging.INFO)
    server.receive_data(data)
    # RFC 8446, section 6: alert (21), version 3.1, 2 bytes: fatal (2), unexpected_message (10).
    assert end_of(server) == (bytes([21, 3, 1, 0, 2, 2, 10]), True)
    assert caplog.messages == [
        f"TLS handshake with somebody failed: it does not speak TLS, but began with {data[:8]!r}"
    ]


def test_first_byte_of_any_record_is_left_to_tls_itself(certificates: Path) -> None:
    """RFC 8446, section 5.1: change_cipher_spec, alert, handshake, application_data; and heartbeat, of RFC 6520."""
    secure = open_layer({"LAB_TLS_CERT": str(certificates / "server.pem")})
    waits = []
    for first in range(256):
        server = secure(Connection("echo"), "somebody")
        server.receive_data(bytes([first]))
        if server.next_event() is None:  # for the rest of the record
            waits.append(first)
    assert waits == [20, 21, 22, 23, 24]


def test_record_out_of_turn_is_refused_by_tls_itself(server: SecureConnection) -> None:
    server.receive_data(b"\x17\x03\x03\x00\x05hello")
    said, has_ended = end_of(server)
    assert (said[:1], said[5:], has_ended) == (b"\x15", b"\x02\x0a", True)


def held(server: SecureConnection) -> int:
    return server._incoming.pending + server._outgoing.pending


@pytest.mark.parametrize("how", ["noise", "broken-record", "half-close"])
def test_nothing_is_kept_after_the_end(certificates: Path, server: SecureConnection, how: str) -> None:
    """Ten megabytes behind the end, and what came together with it, cost no memory."""
    junk = bytes(1_000_000)
    if how == "noise":
        server.receive_data(b"noise" + junk)
    else:
        client = Client(certificates)
        client.shake(server)
        if how == "broken-record":
            server.receive_data(b"\x17\x03\x03\x00\x20" + bytes(32) + junk)
        else:
            with pytest.raises(ssl.SSLWantReadError):
                client.tls.unwrap()
            server.receive_data(client.outgoing.read() + junk)
    assert end_of(server)[1]
    assert held(server) == 0
    for _ in range(10):
        server.receive_data(junk)
        assert isinstance(server.next_event(), Close)
    assert held(server) == 0


def test_drain_answers_as_many_bytes_as_have_arrived(certificates: Path, server: SecureConnection) -> None:
    """And no more: over TCP a client could send for ever."""
    client = Client(certificates)
    client.shake(server)
    client.tls.write(b"arrived")
    data = client.outgoing.read()
    server.drain(arrived=7)
    server.receive_data(data)
    events: list[Event | None] = []
    while not events or not isinstance(events[-1], Close):
        events.append(server.next_event())
    client.incoming.write(b"".join(event.data for event in events if isinstance(event, Send)))
    assert client.tls.read(100) == b"arrived"


def test_digest_goes_to_the_connection(certificates: Path) -> None:
    secure = open_layer({"LAB_TLS_CERT": str(certificates / "server.pem")})
    server = secure(Connection("command"), "somebody")
    client = Client(certificates)
    client.shake(server)
    client.tls.write(b"BURN 1\r\n")
    (work,) = client.exchange(server)
    assert isinstance(work, Compute)
    server.receive_digest(work.run())
    reply = server.next_event()
    assert isinstance(reply, Send)
    client.incoming.write(reply.data)
    # SHA-256 of 32 zero bytes, from docs/protocol.md.
    assert client.tls.read(100) == b"$64\r\n66687aadf862bd776c8fc18b8e9f8e20089714856ee233b3902a591d0d5f2925\r\n"


def test_turn_ends_though_each_record_is_read_by_itself(certificates: Path) -> None:
    """The connection behind TLS has nothing to do between two records, so it cannot count the events."""
    secure = open_layer({"LAB_TLS_CERT": str(certificates / "server.pem")})
    server = secure(Connection("command"), "somebody")
    client = Client(certificates)
    client.shake(server)
    for _ in range(9):
        client.tls.write(b"PING\r\n")
    server.receive_data(client.outgoing.read())
    events = [type(event) for event in iter(server.next_event, None)]
    assert events == [*[Send] * 4, GiveWay, *[Send] * 4, GiveWay, Send]
    # It was asked to read more, and that lets others run: the turn begins again.
    for _ in range(4):
        client.tls.write(b"PING\r\n")
    server.receive_data(client.outgoing.read())
    assert [type(event) for event in iter(server.next_event, None)] == [Send] * 4 + [GiveWay]


@pytest.mark.parametrize("at_eof", [True, False])
def test_close_says_whether_the_stream_below_has_ended(certificates: Path, at_eof: bool) -> None:
    secure = open_layer({"LAB_TLS_CERT": str(certificates / "server.pem")})
    server = secure(Connection("command"), "somebody")
    client = Client(certificates)
    client.shake(server)
    with suppress(ssl.SSLWantReadError):
        client.tls.unwrap()  # the end of the client's half, within TLS
    server.receive_data(client.outgoing.read())
    if at_eof:
        server.receive_eof()
    closes = [event for event in (server.next_event(), server.next_event()) if isinstance(event, Close)]
    assert [close.at_eof for close in closes] == [at_eof]
