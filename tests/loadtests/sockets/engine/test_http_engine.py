"""HTTP and WebSocket in the engine, against servers that are wrong on purpose, and right ones of other kinds."""

import contextlib
import hashlib
import itertools
import json
import subprocess
import sys
from base64 import b64encode
from typing import Any

import pytest

from lab.base.paths import ROOT
from lab.load.measurement import encode_targets
from lab.servers.catalogue import Listener

OK = b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nPONG\n"


def read_head(connection):
    data = b""
    while b"\r\n\r\n" not in data:
        if not (more := connection.recv(65536)):
            return b""
        data += more
    return data


def answer(*replies, close=False):
    """Give each request of a connection the next reply, the last one for ever."""

    def behave(connection):
        for number in itertools.count():
            if not read_head(connection):
                return
            connection.sendall(replies[min(number, len(replies) - 1)])
            if close:
                return

    return behave


def upgrade(connection):
    """Do WebSocket's opening handshake."""
    head = read_head(connection)
    key = next(line.split(b": ")[1] for line in head.split(b"\r\n") if line.lower().startswith(b"sec-websocket-key"))
    digest = hashlib.sha1(key + b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11").digest()  # noqa: S324 - what RFC 6455, 4.2.2, asks for
    accept = b"Sec-WebSocket-Accept: " + b64encode(digest)
    lines = [b"HTTP/1.1 101 Switching Protocols", b"Upgrade: websocket", b"Connection: Upgrade", accept, b"", b""]
    connection.sendall(b"\r\n".join(lines))


def read_message(connection):
    """Return the payload of the next binary message, all of which are masked; nothing at the end of the stream."""
    stream = connection.makefile("rb")
    while head := stream.read(2):
        size = head[1] & 0x7F
        size = int.from_bytes(stream.read(2), "big") if size == 126 else size
        mask, payload = stream.read(4), stream.read(size)
        if head[0] == 0x82:
            return bytes(byte ^ mask[at % 4] for at, byte in enumerate(payload))
        assert head[0] == 0x8A, "neither a message nor a pong"
    return b""


def echo_messages(change):
    """Answer each message with the frames that `change` makes of its number and its payload."""

    def behave(connection):
        upgrade(connection)
        for number in itertools.count():
            if not (payload := read_message(connection)):
                return
            connection.sendall(change(number, payload))

    return behave


def frame(payload, first=0x82):
    return bytes((first, 126)) + len(payload).to_bytes(2, "big") + payload


OTHER_BODY = "wrong bytes (another body, in the 5 bytes from 0 on)"
OTHER_MESSAGE = "wrong bytes (another message, in the 1024 bytes from 0 on)"
CHUNKED = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nPO\r\n3\r\nNG\n\r\n0\r\n\r\n"
CLOSING = OK.replace(b"Content", b"Connection: close\r\nContent")
PANG = OK.replace(b"PONG", b"PANG")
PING_FRAME, CLOSE_FRAME = b"\x89\x00", b"\x88\x02\x03\xe9"


def split_by_pings(number, data):
    return PING_FRAME + frame(data[:500], 0x02) + PING_FRAME + frame(data[500:], 0x80)


# (workload, how the server behaves, what must be counted, and nothing else)
LIARS = {
    "other-body": ("http_ping", answer(PANG), OTHER_BODY),
    "other-body-later": ("http_ping", answer(OK, OK, PANG), OTHER_BODY),
    "status": ("http_ping", answer(OK.replace(b"200 OK", b"500 No")), "error reply (status 500)"),
    "status-later": ("http_ping", answer(OK, OK, OK.replace(b"200 OK", b"503 No")), "error reply (status 503)"),
    "resp": ("http_ping", answer(b"+PONG\r\n\r\n"), "wrong bytes (no status line: b'+PONG')"),
    "twice": ("http_ping", answer(OK * 2), "more than was asked for"),
    "twice-later": ("http_ping", answer(OK, OK, OK * 2), "more than was asked for"),
    "short": ("http_ping", answer(OK[:-2], close=True), "short reply: closed in the middle (41 bytes received)"),
    "closed": ("http_ping", answer(b"", close=True), "closed without a reply"),
    "never-ends": ("http_ping", answer(OK[:-2]), "time-out: no reply (41 bytes received)"),
    "closes-by-surprise": ("http_ping", answer(OK, b""), "time-out: no reply"),
    "no-websocket": ("ws_echo", answer(OK), "wrong bytes (no WebSocket: b'HTTP/1.1 200 OK')"),
    "other-message": ("ws_echo", echo_messages(lambda number, data: frame(data[:-1] + b"!")), OTHER_MESSAGE),
    "text": ("ws_echo", echo_messages(lambda number, data: frame(data, 0x81)), "wrong bytes (opcode 1)"),
    "two-messages": ("ws_echo", echo_messages(lambda number, data: frame(data) * 2), "more than was asked for"),
    "closes": ("ws_echo", echo_messages(lambda number, data: CLOSE_FRAME), "closed without a reply (close 1001)"),
}


def waits_for_ever(name):
    return LIARS[name][2].startswith("time-out")


# All servers are loaded once, for all tests of them.
IN_ONE_WORKER = pytest.mark.xdist_group("http-liars")


@pytest.fixture(scope="module")
def found(load, open_server):
    """Each liar's result."""
    results: dict[str, Any] = {}
    # Only where a server does not answer is the time-out short: on a busy machine, others may be late.
    for workload, is_short in dict.fromkeys((LIARS[name][0], waits_for_ever(name)) for name in LIARS):
        with contextlib.ExitStack() as stack:
            urls = {}
            for name, (asked, behaviour, _) in LIARS.items():
                if (asked, waits_for_ever(name)) == (workload, is_short):
                    host, port = stack.enter_context(open_server(behaviour))
                    urls[name] = f"tcp://{host}:{port}"
            timeout, seconds = ("0.3", 1.5) if is_short else ("10", 0.8)
            results |= load(urls, "--workload", workload, "--timeout", timeout, seconds=seconds)
    return results


@IN_ONE_WORKER
@pytest.mark.parametrize("name", LIARS)
def test_lie_is_seen_and_has_its_own_name(name, found):
    assert set(found[name].failures) == {LIARS[name][2]}
    assert found[name].failures[LIARS[name][2]] >= 2  # the engine came back, and was lied to again
    assert bool(found[name].answered) is name.endswith(("-later", "-surprise"))


def dates():
    for number in itertools.count():
        yield OK.replace(b"Content", b"Date: %d\r\nContent" % (number // 3))


def answer_with_dates(connection):
    for reply in dates():
        if not read_head(connection):
            return
        connection.sendall(reply)


# Right replies that differ from the one before, come in pieces, or end their connection.
HONEST = {
    "dates": ("http_ping", answer_with_dates),
    "chunked": ("http_ping", answer(CHUNKED)),
    "closing": ("http_ping", answer(CLOSING, close=True)),
    "old": ("http_ping", answer(b"HTTP/1.0 200 OK\r\n\r\nPONG\n", close=True)),
    "churn": ("http_churn", answer(CLOSING, close=True)),
    "pinging": ("ws_echo", echo_messages(split_by_pings)),
}


@pytest.mark.parametrize("name", HONEST)
@pytest.mark.parametrize("loop", [(), ("--loop", "open", "--rate", "100")], ids=["closed", "open"])
def test_right_reply_of_any_form_is_answered(name, loop, load, open_server):
    workload, behaviour = HONEST[name]
    with open_server(behaviour) as (host, port):
        result = load({name: f"tcp://{host}:{port}"}, "--workload", workload, *loop, seconds=0.5)[name]
    assert result.failures == {}
    assert result.answered > 1


def read_path(connection):
    head = read_head(connection)
    return head.split(b" ")[1] if head else b""


def answer_page(*bodies, fields=b""):
    """Answer `/health?x=1`, and nothing else, with the next body, the last one for ever."""

    def behave(connection):
        for number in itertools.count():
            path = read_path(connection)
            if not path:
                return
            body = bodies[min(number, len(bodies) - 1)] if path == b"/health?x=1" else b"another page"
            status = b"200 OK" if path == b"/health?x=1" else b"404 Not Found"
            head = b"HTTP/1.1 %s\r\nDate: %d\r\n%sContent-Length: %d\r\n\r\n" % (status, number // 3, fields, len(body))
            connection.sendall(head + body)
            if b"close" in fields:
                return

    return behave


OTHER_THAN_FIRST = "wrong bytes (another body, in the 4 bytes from 0 on)"
# (workload, any body?, how the server behaves, failures)
PAGES = {
    "constant": ("http_ping", False, answer_page(b"fine"), []),
    "empty": ("http_ping", False, answer_page(b""), []),
    "large": ("http_ping", False, answer_page(b"fine" * 50_000), []),
    "other": ("http_ping", False, answer_page(b"fine", b"fine", b"evil"), [OTHER_THAN_FIRST]),
    "any": ("http_ping", True, answer_page(b"fine", b"good", b"", b"fine" * 1000), []),
    "churn": ("http_churn", False, answer_page(b"fine", fields=b"Connection: close\r\n"), []),
}


@pytest.mark.parametrize("name", PAGES)
def test_page_of_another_server_has_the_body_of_its_first_reply(name, load, open_server):
    workload, any_body, behaviour, failures = PAGES[name]
    with open_server(behaviour) as (host, port):
        listener = Listener(name, "http", "tcp", f"tcp://{host}:{port}", "/health?x=1", any_body)
        targets = {"LAB_TARGETS": encode_targets([listener])}
        result = load({name: listener.address}, "--workload", workload, seconds=0.5, environ=targets)[name]
    assert list(result.failures) == failures
    assert result.answered > 1


def test_page_that_changes_between_two_connections_is_noticed(load, open_server):
    bodies = itertools.chain([b"fine"], itertools.repeat(b"evil"))

    def behave(connection):
        answer_page(next(bodies), fields=b"Connection: close\r\n")(connection)

    with open_server(behave) as (host, port):
        listener = Listener("it", "http", "tcp", f"tcp://{host}:{port}", "/health?x=1")
        targets = {"LAB_TARGETS": encode_targets([listener])}
        result = load({"it": listener.address}, "--workload", "http_churn", seconds=0.5, environ=targets)["it"]
    assert result.answered <= 1  # it may precede the window
    assert list(result.failures) == [OTHER_THAN_FIRST]


# In a separate process: Locust patches the one that imports it. Prints what becomes of each reply.
FIRST_REPLIES_TOGETHER = """
import json, sys
import locust
from locust.env import Environment
from loadtests.sockets.addresses import Endpoint
from loadtests.sockets.engine import ConnectionGroup, Engine
from loadtests.sockets.engine.http import HttpConnection
from loadtests.sockets.exchange import Body, Exchange, Framing
from loadtests.sockets.recorder import Series

environment = Environment()
environment.create_local_runner()
exchange = Exchange(((b"GET / HTTP/1.1", b""),), framing=Framing.HTTP, body=Body[sys.argv[1]])
series = Series("m", "w", "tcp", "closed")
group = ConnectionGroup(series, Endpoint.parse("tcp://127.0.0.1:1"), exchange, timeout=1)
found = []

class Recorded(HttpConnection):
    def answer(self, now):
        found.append("answered")

    def fail(self, error, now):
        found.append(str(error))

connections = [Recorded(group, Engine.of(environment)) for _ in range(3)]
for connection in connections:
    connection.busy, (connection.request, connection.expected) = True, next(group.repeat_learned())
for connection, body in zip(connections, (b"fine", b"evil", b"fine")):
    connection.receive(b"HTTP/1.1 200 OK\\r\\nContent-Length: 4\\r\\n\\r\\n" + body, 1.0)
print(json.dumps(found))
"""


@pytest.mark.parametrize(
    ("body", "second"), [("FIRST", "wrong bytes (another body than in the first reply)"), ("ANY", "answered")]
)
def test_replies_to_first_requests_that_overlap_are_compared(body: str, second: str) -> None:
    command = [sys.executable, "-c", FIRST_REPLIES_TOGETHER, body]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == ["answered", second, "answered"]
