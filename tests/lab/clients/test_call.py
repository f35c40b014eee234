"""The client, against servers that answer correctly, wrongly, late or not at all."""

import socket
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast
from uuid import uuid4

import pytest

from lab.base.errors import LabError
from lab.clients.call import Reply, ReplyReader, Value, _echo, _greet, call, main, read_resp
from lab.servers.catalogue import Catalogue
from lab.servers.processes import Processes
from lab.servers.readiness import choose_targets, wait_ready
from loadtests.sockets.connection import RECEIVE_SIZE, BlockingConnection
from loadtests.sockets.errors import NoAnswerError, UnreachableError, WrongAnswerError
from services.protocol import DATAGRAM_SIZE, Address
from tests.support.ports import closed_port

GREETING = b"Thank you for connecting\r\n"


@pytest.fixture(scope="module")
def server() -> Iterator[dict[tuple[str, str], str]]:
    """A real server: (service, transport) -> address."""
    backend = Processes(f"t{uuid4().hex[:8]}", Catalogue.load())
    try:
        backend.up(["socketserver_threading"])
        yield {(item.service, item.transport): item.address for item in backend.targets()}
    finally:
        backend.down()


@pytest.mark.parametrize("transport", ["tcp", "udp", "unix", "unixgram"])
@pytest.mark.parametrize(
    ("service", "arguments", "value"),
    [
        ("greet", [], GREETING),
        ("echo", ["one", b"\x00\xff"], b"one \x00\xff"),
        ("discard", ["anything"], b""),
        ("command", ["ECHO", "twice\r\n"], b"twice\r\n"),
    ],
    ids=["greet", "echo", "discard", "command"],
)
def test_call_speaks_every_service_over_every_transport(
    server: dict[tuple[str, str], str], service: str, transport: str, arguments: list[str | bytes], value: bytes
) -> None:
    reply = call(service, server[service, transport], arguments)
    assert (reply.value, reply.is_error) == (value, False)
    assert reply.seconds > 0


@pytest.mark.parametrize("transport", ["tcp", "unix"])
def test_chargen_reads_the_requested_lines(server: dict[tuple[str, str], str], transport: str) -> None:
    # 370 kB: more than a socket holds, so no single receive has it all.
    value = call("chargen", server["chargen", transport], ["5000"]).value
    assert isinstance(value, bytes)
    assert value.count(b"\r\n") == 5000
    assert call("chargen", server["chargen", transport]).value == value[: 3 * 74]  # the default


@pytest.mark.parametrize("count", ["0", "x", "1000001", "9" * 5000], ids=range(4))
def test_chargen_refuses_another_count(server: dict[tuple[str, str], str], count: str) -> None:
    with pytest.raises(LabError, match=r"^chargen takes one argument: how many lines to read, 1 to 1000000$"):
        call("chargen", server["chargen", "tcp"], [count])


@pytest.mark.parametrize(
    ("service", "arguments", "message"),
    [
        ("greet", ["x"], "greet takes no arguments"),
        ("command", [], "command takes a request, for example: PING"),
        ("chargen", ["1", "2"], "chargen takes one argument: how many lines to read, 1 to 1000000"),
        ("http", ["/ping", "/info"], "http takes one argument: a path, for example /ping"),
        ("http", ["ping"], "http takes one argument: a path, for example /ping"),
    ],
)
def test_other_arguments_are_refused(
    server: dict[tuple[str, str], str], service: str, arguments: list[str], message: str
) -> None:
    with pytest.raises(LabError, match=f"^{message}$"):
        call(service, server[service, "tcp"], arguments)


def test_argument_that_is_not_utf8_is_sent_as_its_bytes(server: dict[tuple[str, str], str]) -> None:
    """As Python takes it from a command line."""
    assert call("echo", server["echo", "tcp"], ["\udcff", "ä"]).value == b"\xff \xc3\xa4"


@pytest.mark.parametrize("transport", ["tcp", "tls", "unix"])
def test_http_gets_a_path(server: dict[tuple[str, str], str], transport: str) -> None:
    where = server["http", transport]
    assert call("http", where).value == b"PONG\n"
    assert len(call("http", where, ["/stream/100"]).value or b"") == 7400  # type: ignore[arg-type]  # it is bytes
    for size in (0, 100):  # each is promised by a Content-Length
        assert len(call("http", where, [f"/blob/{size}"]).value or b"") == size  # type: ignore[arg-type]  # it is bytes
    reply = call("http", where, ["/nothing"])
    assert (reply.value, reply.is_error) == (b"there is no '/nothing' here\n", True)


def test_echo_larger_than_the_kernels_buffers_comes_back(server: dict[tuple[str, str], str]) -> None:
    data = bytes(range(256)) * 4 * 8192
    assert call("echo", server["echo", "tcp"], [data], timeout=30).value == data


class Loopback:
    """Returns what was sent, and notes how much was on its way at the most."""

    is_datagram = False

    def __init__(self) -> None:
        self.most = 0
        self._held = b""

    def send(self, data: bytes) -> None:
        self._held += data
        self.most = max(self.most, len(self._held))

    def receive(self, size: int) -> bytes:
        data, self._held = self._held[:size], self._held[size:]
        return data


def test_echo_has_no_more_on_its_way_than_one_read_takes() -> None:
    link, data = Loopback(), bytes(range(256)) * (RECEIVE_SIZE // 256) * 3 + b"end"
    assert _echo(cast(BlockingConnection, link), [data]) == (data, False)
    assert link.most == RECEIVE_SIZE


def test_greeting_in_pieces_is_read_to_its_end() -> None:
    pieces = [GREETING[:5], GREETING[5:], b""]
    link = SimpleNamespace(is_datagram=False, receive=lambda: pieces.pop(0))
    assert _greet(cast(BlockingConnection, link), []) == (GREETING, False)


def test_resp_errors_and_types_are_shown(server: dict[tuple[str, str], str]) -> None:
    address = server["command", "tcp"]
    error = call("command", address, ["SLEEP", "soon"])
    assert error.is_error
    assert error.text().startswith("(error) ERR SLEEP takes")
    assert call("command", address, ["COMMAND", "COUNT"]).text().startswith("(integer) ")
    assert call("command", address, ["CLIENT", "GETNAME"]).text() == "(nil)"


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (b"one\r\ntwo\r\n", "one\ntwo"),
        (b"\xff", "\\xff"),
        ([], "(empty array)"),
        ([b"a", [1, None]], "1) a\n2) 1) (integer) 1\n   2) (nil)"),
        ([[[1, 2], 3], 4], "1) 1) 1) (integer) 1\n      2) (integer) 2\n   2) (integer) 3\n2) (integer) 4"),
        ([b"a"] * 10, "".join(f" {number}) a\n" for number in range(1, 10)) + "10) a"),
    ],
    ids=["lines", "not utf-8", "empty", "nested", "nested twice", "ten"],
)
def test_answer_is_shown_as_redis_cli_does(value: Value, text: str) -> None:
    assert Reply(value, False, 0.0).text() == text


def test_unix_datagram_client_leaves_no_reply_path(server: dict[tuple[str, str], str]) -> None:
    address = server["echo", "unixgram"]
    folder = Path(address.removeprefix("unixgram://")).parent
    before = sorted(folder.iterdir())
    call("echo", address, ["x"])
    assert sorted(folder.iterdir()) == before


Behaviour = Callable[[socket.socket], None]


@pytest.fixture
def stub() -> Iterator[Callable[[Behaviour], str]]:
    """Serve one connection with the given function; return the address."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        threads = []

        def start(behave: Behaviour) -> str:
            def serve() -> None:
                connection, _ = listener.accept()
                with connection:
                    behave(connection)

            thread = threading.Thread(target=serve)
            thread.start()
            threads.append(thread)
            return f"tcp://127.0.0.1:{listener.getsockname()[1]}"

        yield start
        for thread in threads:
            thread.join()


def read_to_end(connection: socket.socket) -> None:
    while connection.recv(65536):
        pass


WRONG = {
    "no greeting": ("greet", [], b"", "closed without a greeting"),
    "another echo": ("echo", ["abc"], b"abd", "sent b'abc', got b'abd' back"),
    "half an echo": ("echo", ["abc"], b"a", "ended after 1 of 3 bytes"),
    "an answering discard": ("discard", ["abc"], b"hey", "discard answered b'hey'"),
    "another line": ("chargen", ["1"], b"x" * 72 + b"\r\n", "line 1 is b'xxx"),
    "a line left out": (
        "chargen",
        ["2"],
        bytes(range(32, 104)) + b"\r\n" + bytes(range(34, 106)) + b"\r\n",
        "line 2 is b'\"#\\$%",
    ),
    "half a reply": ("command", ["PING"], b"$100\r\nabc", "ended before a complete reply"),
    "no HTTP": ("http", ["/"], b"+PONG\r\n\r\n", "is not the head of a reply"),
    "no HTTP, at length": (
        "http",
        ["/"],
        b"x" * 61,
        f": b'{'x' * 60}'\\.\\.\\. \\(61 bytes\\) is not the head of a reply$",
    ),
    "half a head": ("http", ["/"], b"HTTP/1.1 200 OK\r\n", "is not the head of a reply"),
    "half a page": ("http", ["/"], b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nabc", "9 bytes were promised, 3 came"),
    "a page of any size": (
        "http",
        ["/"],
        b"HTTP/1.1 200 OK\r\nContent-Length: 00%b\r\n\r\nabc" % (b"9" * 5000),
        ": 99999999999999999999 bytes were promised, 3 came",
    ),
    "half a page, in other letters": (
        "http",
        ["/"],
        b"HTTP/1.0 200 OK\r\nA: b\r\ncontent-length:9\r\nB: c\r\n\r\nabc",
        "9 bytes were promised, 3 came",
    ),
    "more than a page": (
        "http",
        ["/"],
        b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nabc",
        "2 bytes were promised, 3 came",
    ),
    "no RESP": ("command", ["PING"], b"HTTP/1.1 400 Bad Request\r\n\r\n", "not RESP"),
}


@pytest.mark.parametrize(("service", "arguments", "answer", "message"), WRONG.values(), ids=WRONG)
def test_wrong_answer_names_the_difference(
    stub: Callable[[Behaviour], str], service: str, arguments: list[str], answer: bytes, message: str
) -> None:
    def behave(connection: socket.socket) -> None:
        if service not in ("greet", "chargen", "discard"):
            connection.recv(65536)
        connection.sendall(answer)
        connection.shutdown(socket.SHUT_WR)
        read_to_end(connection)

    with pytest.raises(WrongAnswerError, match=message):
        call(service, stub(behave), arguments)


def test_replies_of_a_pipeline_in_one_segment_are_read_one_by_one(stub: Callable[[Behaviour], str]) -> None:
    where = stub(lambda connection: connection.sendall(b"+PONG\r\n:7\r\n-ERR no\r\n"))
    reader = ReplyReader()
    with BlockingConnection(Address.parse(where), timeout=10) as connection:
        assert [read_resp(connection, reader) for _ in range(3)] == [(b"PONG", False), (7, False), ("ERR no", True)]
        with pytest.raises(WrongAnswerError, match="ended before a complete reply"):
            read_resp(connection, reader)


@pytest.mark.parametrize(("status", "code"), [("200 OK", 0), ("399 Odd", 0), ("400 Bad Request", 1), ("500 Oops", 1)])
def test_status_of_a_page_is_that_of_the_call(stub: Callable[[Behaviour], str], status: str, code: int) -> None:
    def behave(connection: socket.socket) -> None:
        connection.recv(65536)
        connection.sendall(f"HTTP/1.1 {status}\r\nContent-Length: 2\r\n\r\nno".encode())

    assert main(["http", stub(behave), "/"]) == code


def test_answer_that_is_wrong_or_late_is_exit_code_1(
    stub: Callable[[Behaviour], str], capsys: pytest.CaptureFixture[str]
) -> None:
    """And not 2, which says that the server could not be asked."""

    def answer_wrong(connection: socket.socket) -> None:
        connection.recv(65536)
        connection.sendall(b"other")

    assert main(["echo", stub(answer_wrong), "abcde"]) == 1
    assert "sent b'abcde', got b'other' back" in capsys.readouterr().err
    assert main(["--timeout", "0.05", "echo", stub(read_to_end), "abc"]) == 1
    assert "waited 0.05 s for the server to answer" in capsys.readouterr().err


def test_discard_ends_its_half_so_that_the_server_can_end_too(stub: Callable[[Behaviour], str]) -> None:
    assert call("discard", stub(read_to_end), ["abc"], timeout=20.0).value == b""


# Around one argument of five digits' length, a request has `*1\r\n$65493\r\n` and `\r\n`.
@pytest.mark.parametrize(("service", "framing"), [("echo", 0), ("discard", 0), ("command", 14)])
def test_largest_datagram_is_sent_and_a_larger_one_refused(service: str, framing: int) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as server:
        server.bind(("127.0.0.1", 0))
        address = f"udp://127.0.0.1:{server.getsockname()[1]}"
        with pytest.raises(LabError, match=f"^{DATAGRAM_SIZE + 1} bytes do not fit into a datagram"):
            call(service, address, [b"x" * (DATAGRAM_SIZE - framing + 1)])
        with nullcontext() if service == "discard" else pytest.raises(NoAnswerError):
            call(service, address, [b"x" * (DATAGRAM_SIZE - framing)], timeout=0.01)
        assert len(server.recv(DATAGRAM_SIZE + 1)) == DATAGRAM_SIZE


def test_time_of_a_call_begins_before_the_connect(
    stub: Callable[[Behaviour], str], monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = [1000.0]

    class Slow(BlockingConnection):
        def __init__(self, *arguments: Any, **options: Any) -> None:
            super().__init__(*arguments, **options)
            clock[0] += 2

        def receive(self, *arguments: Any) -> bytes:
            clock[0] += 0.5
            return super().receive(*arguments)

    address = stub(lambda connection: connection.sendall(b"+OK\r\n"))
    monkeypatch.setattr("lab.clients.call.BlockingConnection", Slow)
    monkeypatch.setattr("lab.clients.call.time", SimpleNamespace(monotonic=lambda: clock[0]))
    # Two for the connect, and half a second for the one read that has the reply.
    assert call("command", address, ["PING"]).seconds == 2.5


def test_silent_server_times_out(stub: Callable[[Behaviour], str], unit: float) -> None:
    with pytest.raises(NoAnswerError, match=r"waited .* for the server to answer"):
        call("command", stub(read_to_end), ["PING"], timeout=unit)


@pytest.mark.parametrize(
    ("sent", "described"), [(b"", "; nothing received"), (b"$5000\r\n" + b"x" * 4089, "; 4096 bytes received")]
)
def test_incomplete_answer_reports_the_bytes_received(
    stub: Callable[[Behaviour], str], unit: float, sent: bytes, described: str
) -> None:
    """A server that stops in the middle of a reply: silently, by closing, or with a reset."""

    def wait(connection: socket.socket) -> None:
        connection.sendall(sent)
        read_to_end(connection)

    def close(connection: socket.socket) -> None:
        connection.recv(65536)
        connection.sendall(sent)

    def reset(connection: socket.socket) -> None:
        connection.recv(65536)
        connection.sendall(sent)
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\x01\0\0\0\0\0\0\0")
        connection.close()

    with pytest.raises(NoAnswerError) as silent:
        call("command", stub(wait), ["ECHO", "x"], timeout=5 * unit)
    assert str(silent.value).endswith(f"for the server to answer{described}")
    with pytest.raises(WrongAnswerError) as closed:
        call("command", stub(close), ["ECHO", "x"])
    assert str(closed.value).endswith(f"before a complete reply arrived{described}")
    with pytest.raises(WrongAnswerError) as broken:
        call("command", stub(reset), ["ECHO", "x"])
    assert str(broken.value).endswith(f"broke the connection off (Connection reset by peer){described}")


def test_missing_server_is_unreachable(tmp_path: Path) -> None:
    with closed_port() as port:
        address = f"tcp://127.0.0.1:{port}"
        with pytest.raises(UnreachableError, match=rf"{address}: Connection refused"):
            call("command", address, ["PING"])
        assert main(["command", address, "PING"]) == 2
    for transport in ("unix", "unixgram"):
        with pytest.raises(UnreachableError, match="No such file"):
            call("echo", f"{transport}://{tmp_path}/absent.sock", ["x"])
    assert list(tmp_path.iterdir()) == []


def test_local_failure_to_connect_is_an_error_of_the_lab(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The server is not the cause: readiness checks do not retry, and the exit code is not that of a wrong answer."""

    def fail(*_: object, **__: object) -> str:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(tempfile, "mkdtemp", fail)
    wanted = "no reply path can be made next to /x/echo.sock: No space left on device"
    with pytest.raises(LabError, match=f"^{wanted}$"):
        call("echo", "unixgram:///x/echo.sock", ["x"])
    assert main(["echo", "unixgram:///x/echo.sock", "x"]) == 2
    assert capsys.readouterr().err == f"error: {wanted}\n"


@pytest.mark.parametrize(
    ("service", "address", "arguments", "message"),
    [
        ("gopher", "tcp://127.0.0.1:70", [], "unknown service 'gopher'; known: greet"),
        ("echo", "http://127.0.0.1", ["x"], "does not start with tcp://"),
        ("chargen", "udp://127.0.0.1:19", [], "chargen is not served over udp; use tcp or unix"),
        ("http", "udp://127.0.0.1:8080", [], "http is not served over udp"),
    ],
)
def test_invalid_target_is_refused(service: str, address: str, arguments: list[str], message: str) -> None:
    with pytest.raises(LabError, match=message):
        call(service, address, arguments)


def test_command_prints_the_answer(server: dict[tuple[str, str], str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--timeout", "5", "command", server["command", "unix"], "PING"]) == 0
    assert main(["command", server["command", "tcp"], "NONSENSE"]) == 1
    assert main(["echo", server["echo", "tcp"], "one"]) == 0
    assert main(["discard", server["discard", "tcp"], "two"]) == 0
    assert capsys.readouterr().out == "PONG\n(error) ERR unknown command 'NONSENSE'\none\n"


@pytest.mark.parametrize("words", [[], ["echo"], ["--timeout"], ["--timeout", "soon", "echo", "tcp://127.0.0.1:1"]])
def test_command_without_its_words_says_how_it_is_used(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(words) == 2
    usage = "usage: python -m lab.clients.call [--timeout SECONDS] SERVICE URL [ARG...]\n"
    assert capsys.readouterr() == ("", usage)


def test_command_has_five_seconds_unless_it_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    given: list[tuple[object, ...]] = []

    def note(service: str, address: str, arguments: list[str], *, timeout: float) -> Reply:
        given.append((service, address, arguments, timeout))
        return Reply(b"", False, 0.0)

    monkeypatch.setattr("lab.clients.call.call", note)
    for words in (["echo", "url", "a", "b"], ["--timeout", "0.5", "greet", "url"]):
        assert main(words) == 0
    assert given == [("echo", "url", ["a", "b"], 5.0), ("greet", "url", [], 0.5)]


def test_listening_model_is_not_ready_until_it_answers(server: dict[tuple[str, str], str], unit: float) -> None:
    """A socket that listens but never accepts is not ready."""
    targets = choose_targets(("real", service, address) for (service, _), address in server.items())
    assert {(service, address.partition(":")[0]) for _, service, address in targets} == {
        ("command", "tcp"),
        ("command", "unix"),
    }
    with socket.create_server(("127.0.0.1", 0)) as deaf:
        targets += [("deaf", "command", f"tcp://127.0.0.1:{deaf.getsockname()[1]}")]
        # The ready model returns at once; the other one has a second.
        (real,) = wait_ready([target for target in targets if target[0] == "real"], 60)
        outcomes = wait_ready(targets, 10 * unit)
    assert (real.model, real.ready, real.error) == ("real", True, None)
    assert [outcome.model for outcome in outcomes] == ["real", "deaf"]
    assert not outcomes[1].ready


def test_unready_model_reports_the_last_error_that_is_not_the_deadline(monkeypatch: pytest.MonkeyPatch) -> None:
    """The last attempt is cut short by the deadline and says nothing about the cause."""

    def refuse_then_wait(service: str, address: str, arguments: object, *, timeout: float) -> Reply:
        if attempts:
            raise UnreachableError(attempts.pop())
        time.sleep(timeout)
        raise NoAnswerError("waited for the rest of the time")

    attempts = ["Connection refused"]
    monkeypatch.setattr("lab.servers.readiness.call", refuse_then_wait)
    # The second attempt may take twice as long as the first, 0.2 s, and has less.
    [outcome] = wait_ready([("a", "command", "tcp://nowhere:1")], 0.15)
    assert (outcome.ready, outcome.error) == (False, "Connection refused")
