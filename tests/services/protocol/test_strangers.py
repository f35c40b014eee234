"""Clients of other protocols: what they send is not carried out, they are told, and the log has a line."""

import logging
from collections.abc import Callable

import pytest

from fuzz.oracle import Outcome
from lab.clients.reference import answer
from services.protocol import Close, Connection, DatagramConnection, Send
from services.serving.log import SparseLog

Pull = Callable[..., Outcome]

FORM = b"Content-Type: text/plain\r\nContent-Length: 14\r\n\r\nBURN 2000000\r\n"

# As in redis, without a word. (What is sent, what is answered before it.)
SILENT = {
    "post": (b"POST / HTTP/1.1\r\nHost: localhost:6379\r\n" + FORM, b""),
    "post-lower-case": (b"post / HTTP/1.1\r\n" + FORM, b""),
    "post-mixed-case": (b"pOsT\n" + FORM, b""),
    "post-bare": (b"POST\r\nBURN 2000000\r\n", b""),
    "post-array": (b"*2\r\n$4\r\nPost\r\n$1\r\n/\r\nBURN 2000000\r\n", b""),
    "post-after-others": (b"PING\r\nPOST / HTTP/1.1\r\n" + FORM, b"+PONG\r\n"),
    "post-http-1.0": (b"POST / HTTP/1.0\r\nConnection: close\r\n" + FORM, b""),
    "host": (b"Host: localhost\r\n" + FORM, b""),
    "host-lower-case": (b"host: localhost\r\n" + FORM, b""),
    "host-without-blank": (b"HOST:localhost\r\n" + FORM, b""),
    "host-array": (b"*1\r\n$5\r\nhOST:\r\nBURN 2000000\r\n", b""),
    "put-of-no-version-then-host": (b"PUT /\r\nHost: localhost\r\n" + FORM, b"-ERR unknown command 'PUT'\r\n"),
    "method-is-a-command": (
        b"PING / HTTP/1.1\r\nHost: localhost\r\n" + FORM,
        b"-ERR wrong number of arguments for 'ping' command\r\n",
    ),
    "in-a-transaction": (b"MULTI\r\nPOST /\r\nEXEC\r\n", b"+OK\r\n"),
}
# With an error. (What is sent, what it is.)
TOLD = {
    "get": (b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n", "HTTP"),
    "get-lower-case": (b"get /index.html http/1.0\r\n", "HTTP"),
    "put": (b"PUT /x HTTP/1.1\r\nHost: localhost\r\n" + FORM, "HTTP"),
    "delete": (b"DELETE http://localhost/ HTTP/1.1\r\n" + FORM, "HTTP"),
    "any-method": (b"BREW /pot HTTP/1.0\r\n" + FORM, "HTTP"),
    "options": (b"OPTIONS * HTTP/1.1\r\n", "HTTP"),
    "connect": (b"CONNECT localhost:443 HTTP/1.1\r\n", "HTTP"),
    "http-2": (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", "HTTP"),
    "rtsp": (b"DESCRIBE rtsp://localhost/ RTSP/1.0\r\n", "RTSP"),
    "sip": (b"REGISTER sip:localhost SIP/2.0\r\n", "SIP"),
    "smtp": (b"EHLO client.test\r\nMAIL FROM:<a@b>\r\n", "SMTP"),
    "smtp-old": (b"helo client.test\r\n", "SMTP"),
    "lmtp": (b"LHLO client.test\r\n", "SMTP"),
    "ssh": (b"SSH-2.0-OpenSSH_9.2\r\n", "SSH"),
    "ssh-with-comments": (b"SSH-2.0-x_1 build:7 Debian\r\n", "SSH"),
    "tls": (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", "TLS"),
    "tls-1.0-with-a-line-feed": (b"\x16\x03\x01\x00\x0a\n\"'PING\r\n", "TLS"),
}
# Near to these, and none of them.
OURS = {
    "set-an-http-version": (b"SET key HTTP/1.1\r\n", b"-ERR unknown command 'SET'\r\n"),
    "get-of-two-words": (b"GET /key\r\n", b"-ERR unknown command 'GET'\r\n"),
    "get-of-four-words": (b"GET / HTTP/1.1 x\r\n", b"-ERR unknown command 'GET'\r\n"),
    "version-in-the-middle": (b"GET / xHTTP/1.1\r\n", b"-ERR unknown command 'GET'\r\n"),
    "post-as-a-part": (b"POSTED\r\nXPOST\r\n", b"-ERR unknown command 'POSTED'\r\n-ERR unknown command 'XPOST'\r\n"),
    "post-as-an-argument": (b"ECHO POST\r\nECHO Host:\r\n", b"$4\r\nPOST\r\n$5\r\nHost:\r\n"),
    "host-without-colon": (b"HOST x\r\n", b"-ERR unknown command 'HOST'\r\n"),
    "echo-http": (b"ECHO HTTP/1.1\r\n", b"$8\r\nHTTP/1.1\r\n"),
    "another-record": (b"\x17\x03\r\n", b"-ERR unknown command '\\x17\\x03'\r\n"),
    "another-version": (b"\x16\x02\r\n", b"-ERR unknown command '\\x16\\x02'\r\n"),
    "later-than-at-the-start": (b"PING\r\n\x16\x03\r\n", b"+PONG\r\n-ERR unknown command '\\x16\\x03'\r\n"),
}


def serve(pull: Pull, stream: bytes, size: int) -> tuple[Outcome, list[str]]:
    """What a connection does with a stream in pieces of `size`, without its end, and what it reports."""
    reports: list[str] = []
    connection = Connection("command", "192.0.2.1:4711", report=reports.append)
    outcome = Outcome()
    for start in range(0, len(stream), size):
        connection.receive_data(stream[start : start + size])
        pull(connection, outcome)
        if outcome.closed:
            assert connection.next_event() == Close()
    return outcome, reports


@pytest.mark.parametrize("size", [1, 3, 1000])
@pytest.mark.parametrize(("stream", "before"), SILENT.values(), ids=SILENT)
def test_form_of_a_web_page_ends_the_connection_and_runs_nothing(
    pull: Pull, stream: bytes, before: bytes, size: int
) -> None:
    outcome, reports = serve(pull, stream, size)
    assert outcome.closed
    assert outcome.rounds == []
    assert outcome.sent == before
    assert reports == ["closed a connection from '192.0.2.1:4711': it speaks HTTP to the port of command"]
    assert answer("command", stream).sent == before


@pytest.mark.parametrize("size", [1, 3, 1000])
@pytest.mark.parametrize(("stream", "protocol"), TOLD.values(), ids=TOLD)
def test_client_of_another_protocol_is_told_and_closed(pull: Pull, stream: bytes, protocol: str, size: int) -> None:
    outcome, reports = serve(pull, stream, size)
    error = f"-ERR Protocol error: this is {protocol}, and this port speaks RESP\r\n".encode()
    assert outcome.closed
    assert outcome.rounds == []
    assert outcome.sent == error
    assert reports == [f"closed a connection from '192.0.2.1:4711': it speaks {protocol} to the port of command"]
    assert answer("command", stream).sent == error


def test_client_of_another_protocol_is_told_once(pull: Pull) -> None:
    """More of its handshake comes before the reply is asked for."""
    reports: list[str] = []
    connection = Connection("command", "p", report=reports.append)
    for data in (b"\x16\x03", b"\x01\x02", b"\x00"):
        connection.receive_data(data)
    outcome = pull(connection)
    assert outcome.closed
    assert outcome.sent == b"-ERR Protocol error: this is TLS, and this port speaks RESP\r\n"
    assert len(reports) == 1


@pytest.mark.parametrize("size", [1, 3, 1000])
@pytest.mark.parametrize(("stream", "expected"), OURS.values(), ids=OURS)
def test_what_only_looks_like_another_protocol_is_answered(
    pull: Pull, stream: bytes, expected: bytes, size: int
) -> None:
    outcome, reports = serve(pull, stream, size)
    assert outcome.sent == expected
    assert not outcome.closed
    assert reports == []


def test_line_of_the_log_cannot_be_broken_out_of(pull: Pull) -> None:
    """The path of a Unix socket is its client's choice."""
    reports: list[str] = []
    connection = Connection("command", "/run/a\nERROR forged\udcff", report=reports.append)
    connection.receive_data(b"POST\r\n")
    assert pull(connection).closed
    assert reports == ["closed a connection from '/run/a\\nERROR forged\\udcff': it speaks HTTP to the port of command"]


def test_datagram_of_another_protocol_runs_nothing() -> None:
    reports: list[str] = []
    conversation = DatagramConnection("command", b"POST /\r\nBURN 5\r\n", "p", report=reports.append)
    assert conversation.next_event() == Close()
    assert reports == ["closed a connection from 'p': it speaks HTTP to the port of command"]
    conversation = DatagramConnection("command", b"\x16\x03\x01BURN 5\r\n", "p", report=reports.append)
    told = b"-ERR Protocol error: this is TLS, and this port speaks RESP\r\n"
    assert [conversation.next_event(), conversation.next_event()] == [Send(told), Close()]
    assert len(reports) == 2


def test_log_has_one_line_a_minute_and_says_how_many_were_left_out(caplog: pytest.LogCaptureFixture) -> None:
    now = 100.0
    log = SparseLog(logging.getLogger("services"), clock=lambda: now)
    for seconds, text in ((0.0, "first"), (1.0, "second"), (58.9, "third"), (0.1, "fourth"), (60.0, "fifth")):
        now += seconds
        log.warning(text)
    # At 100, 101, 159.9, 160 and 220 seconds.
    assert [record.getMessage() for record in caplog.records] == ["first", "fourth (and 2 more before)", "fifth"]
