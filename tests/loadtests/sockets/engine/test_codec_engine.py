"""The engine with a codec: servers that greet, that close after their reply, datagrams, and wrong replies."""

import contextlib
import socket
import ssl
import threading

import pytest

from lab.servers.certificates import SERVER, ensure_certificates

LINES = """
def reply_size(data, request):
    size = data.find(b"\\n") + 1
    if size and data[:size] != request.upper():
        raise ValueError(f"got {data!r}")
    return size or None

def encode(number):
    return b"hello %d\\n" % number
"""
GREETED = (
    LINES
    + """
def greeting_size(data):
    if not b"ready\\n".startswith(data[:6]):
        raise ValueError(f"greeted with {data!r}")
    return 6 if len(data) >= 6 else None
"""
)
CLOSED = """
UNTIL_CLOSE = True

def encode(number):
    return b"hello\\n"

def reply_size(data, request):
    return len(data) if data.endswith(b"!") else None
"""


def converse(connection):
    """Answer lines in upper case."""
    while data := connection.recv(100):
        connection.sendall(data.upper())


def greet(*parts, then=converse):
    def behave(connection):
        for part in parts:
            connection.sendall(part)
            # Segments that are sent apart, so that the client's reads are.
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        then(connection)

    return behave


def wait_for_the_client(connection):
    while connection.recv(100):
        pass


def answer_and_close(reply):
    def behave(connection):
        connection.recv(100)
        connection.sendall(reply)

    return behave


def over_tls(behaviour):
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(ensure_certificates([]) / SERVER)

    def behave(connection):
        with context.wrap_socket(connection, server_side=True) as secure:
            behaviour(secure)

    return behave


@pytest.fixture
def run(tmp_path, load, open_server):
    def run(text, behaviours, *arguments, scheme="tcp"):
        path = tmp_path / "lines_codec.py"
        path.write_text(text)
        with contextlib.ExitStack() as stack:
            urls = {
                name: "{}://{}:{}".format(scheme, *stack.enter_context(open_server(behaviour)))
                for name, behaviour in behaviours.items()
            }
            options = ["--transport", scheme, "--timeout", "1", *arguments]
            return load(urls, *options, seconds=2.5, environ={"LAB_CODEC": str(path)})

    return run


@pytest.mark.parametrize("loop", [(), ("--loop", "open", "--rate", "50", "--arrivals", "even")])
def test_greeting_is_read_before_the_first_request(loop, run):
    behaviours = {
        "right": greet(b"ready\n"),
        "in-parts": greet(b"re", b"ad", b"y\n"),
        "none": converse,
        "wrong": greet(b"go away\n"),
        "half": greet(b"rea", then=lambda connection: None),
        "stuck": greet(b"rea", then=wait_for_the_client),
        "nothing": lambda connection: None,
        "more": greet(b"ready\nready\n"),
    }
    found = run(GREETED, behaviours, *loop)
    for name in ("right", "in-parts"):
        assert found[name].failures == {}
        assert found[name].answered > 10
    told = {name: {text for text in found[name].failures if not text.startswith("dropped")} for name in found}
    assert told["none"] == {"time-out: no reply (no greeting)"}
    assert told["wrong"] == {"wrong bytes (greeted with b'go away\\n')"}
    assert told["half"] == {"short reply: closed in the middle (3 bytes received)"}
    assert told["stuck"] == {"time-out: no reply (3 bytes received)"}
    assert told["nothing"] == {"closed without a reply (no greeting)"}
    assert told["more"] == {"more than was asked for (behind the greeting)"}


def test_greeting_in_the_last_record_of_the_handshake_is_read(run):
    found = run(GREETED, {"right": over_tls(greet(b"ready\n"))}, scheme="tls")["right"]
    assert found.failures == {}
    assert found.answered > 10


def test_reply_ends_when_the_server_closes(run):
    behaviours = {
        "right": answer_and_close(b"bye!"),
        "short": answer_and_close(b"bye"),
        "nothing": answer_and_close(b""),
        "open": greet(b"bye!", then=wait_for_the_client),
    }
    found = run(CLOSED, behaviours)
    assert found["right"].failures == {}
    assert found["right"].answered > 10
    assert set(found["short"].failures) == {"short reply: closed in the middle (3 bytes received)"}
    assert set(found["nothing"].failures) == {"closed without a reply"}
    assert set(found["open"].failures) == {"time-out: no reply (4 bytes received)"}


def test_failures_with_details_are_limited(run):
    text = LINES.replace('f"got {data!r}"', 'f"asked {request!r}"').replace("hello %d", "%d")
    text += "\nimport itertools\nnumbers = itertools.count()\nencode = lambda _: b'%d\\n' % next(numbers)\n"
    failures = run(text, {"liar": answer_and_close(b"no\n")}, "--users", "16")["liar"].failures
    assert len([reason for reason in failures if reason.startswith("wrong bytes (asked b'")]) == 8
    assert failures["wrong bytes"] > 0


def test_datagram_of_a_codec_is_a_whole_reply(tmp_path, load):
    path = tmp_path / "lines_codec.py"
    path.write_text(LINES)
    answers = {"right": lambda data: data.upper(), "wrong": lambda data: b"x\n", "half": lambda data: data[:2]}
    with contextlib.ExitStack() as stack:
        urls = {}
        for name, answer in answers.items():
            server = stack.enter_context(socket.socket(socket.AF_INET, socket.SOCK_DGRAM))
            server.bind(("127.0.0.1", 0))
            urls[name] = "udp://{}:{}".format(*server.getsockname())

            def serve(server=server, answer=answer):
                while (found := server.recvfrom(100))[0] != b"end":
                    server.sendto(answer(found[0]), found[1])

            thread = threading.Thread(target=serve)
            thread.start()
            stack.callback(thread.join)
            stack.callback(send, server.getsockname())
        found = load(urls, "--transport", "udp", environ={"LAB_CODEC": str(path)})
    assert found["right"].failures == {}
    assert found["right"].answered > 10
    assert set(found["wrong"].failures) == {"wrong bytes (got b'x\\n')"}
    assert set(found["half"].failures) == {"wrong bytes (the datagram is not a whole reply)"}


def send(where):
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client:
        client.sendto(b"end", where)
