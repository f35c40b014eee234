"""Traffic of a soak: its requests, its check of the replies, and its hostile clients."""

import contextlib
import io
import json
import os
import socket
import sys
import threading
from collections.abc import Callable, Mapping
from dataclasses import replace
from itertools import count
from typing import cast

import pytest

from fuzz.oracle import Outcome, pull
from lab.base.errors import LabError
from lab.base.messages import decode, encode
from lab.clients import soak_http, soak_traffic
from lab.clients.call import pack
from lab.clients.reference import answer
from lab.clients.soak_http import (
    HTTP_ANSWER,
    HTTP_MIX,
    HTTP_REQUESTS,
    UNFINISHED_MESSAGE,
    WEBSOCKET_ANSWER,
    WEBSOCKET_MIX,
    WEBSOCKET_REQUESTS,
    mask_dates,
)
from lab.clients.soak_traffic import (
    ANSWER,
    HOSTILE,
    MIX,
    REQUESTS,
    SCRIPTS,
    Go,
    ModelCounts,
    ModelTraffic,
    Rest,
    Resting,
    TrafficCounts,
    find_workers,
)
from loadtests.sockets.connection import BlockingConnection
from services.protocol import Address, Connection, Transport
from services.serving.clock import SystemClock
from tests.support.made_up_server import receive, served
from tests.support.waiting import wait_until

Talk = Callable[[socket.socket], object]


def test_expected_answer_is_that_of_the_protocol() -> None:
    assert REQUESTS == MIX.count(b"*") == 16
    assert answer("command", MIX).sent == ANSWER
    # By hand: 10 x 7, then 5 + 2 + 1024 + 2, 5, 5 + 64 + 2, 6 + 2 + 70,000 + 2, 33 + 2, 4 + 3 + 2.
    assert len(ANSWER) == 70 + 1033 + 5 + 71 + 70_010 + 33 + 9 == 71_231
    assert ANSWER.endswith(b"-ERR unknown command 'NONSENSE'\r\n$3\r\nend\r\n")


@pytest.mark.parametrize("service", ["http", "websocket"])
def test_expected_answers_of_http_are_those_of_the_core(service: str) -> None:
    """The core's own tests hold it to the RFCs."""
    mix, answer, size = {
        "http": (HTTP_MIX, HTTP_ANSWER, 73_583),
        "websocket": (WEBSOCKET_MIX, WEBSOCKET_ANSWER, 71_490),
    }[service]
    connection = Connection("http")
    connection.receive_data(mix)
    assert mask_dates(pull(connection).sent) == answer
    assert len(answer) == size
    assert HTTP_MIX.count(b"HTTP/1.1") == HTTP_ANSWER.count(b"HTTP/1.1") == HTTP_REQUESTS == 18
    assert WEBSOCKET_REQUESTS == 18


def test_frames_are_those_of_the_rfc() -> None:
    """RFC 6455, 5.7, with the mask 01 02 03 04; and RFC 7692, 7.2.3.1."""
    assert soak_http._got(0x81, b"Hello") == bytes.fromhex("8105 48656c6c6f")
    assert soak_http._sent(0x81, b"Hello") == bytes.fromhex("8185 01020304 49676f686e")
    heads = {125: "827d", 126: "827e007e", 256: "827e0100", 65535: "827effff", 65536: "827f0000000000010000"}
    for size, head in heads.items():
        assert soak_http._got(0x82, bytes(size)) == bytes.fromhex(head) + bytes(size)
    assert soak_http._sent(0x82, bytes(256))[:8] == bytes.fromhex("82fe0100 01020304")
    assert soak_http._deflate(b"Hello") == bytes.fromhex("f248cdc9c90700")
    # The key and the head of a message that never ends: its first frame is not the last, and has 900 bytes.
    assert UNFINISHED_MESSAGE.partition(b"\r\n\r\n")[2][:8] == bytes.fromhex("01fe0384 01020304")
    assert len(UNFINISHED_MESSAGE.partition(b"\r\n\r\n")[2]) == 8 + 900


def test_head_comes_before_the_body() -> None:
    assert soak_http._text(b"PONG\n").endswith(b"\r\nContent-Length: 5\r\n\r\nPONG\n")


@pytest.mark.parametrize("date", [b"Sun, 06 Nov 1994 08:49:37 GMT", b"Thu, 01 Jan 1970 00:00:00 GMT"])
def test_only_a_date_is_replaced(date: bytes) -> None:
    reply = b"HTTP/1.1 200 OK\r\nDate: %b\r\nA: b\r\n\r\n"
    assert mask_dates(reply % date) == reply % (b"-" * 29)
    for wrong in (date[1:], date.lower(), date.replace(b"GMT", b"UTC")):
        assert mask_dates(reply % wrong) == reply % wrong


def test_services_and_transports_alternate() -> None:
    """Those of HTTP are visited as well, and their replies compared."""
    assert {(script.listener, script.requests) for script in SCRIPTS} == {
        *((f"command-{transport}", REQUESTS) for transport in ("tcp", "tls", "unix")),
        *((f"http-{transport}", HTTP_REQUESTS) for transport in ("tcp", "tls", "unix")),
    }
    assert len({(script.listener, script.mix) for script in SCRIPTS}) == len(SCRIPTS) == 9
    # The date of a reply is that of its own second.
    assert {script.normalize is mask_dates for script in SCRIPTS if script.listener.startswith("http")} == {True}

    with served(speak_http) as address:
        where = Address.parse(address)
        traffic = ModelTraffic("made", {"http-tcp": where, "http-tls": where}, 1)
        for _ in range(4):
            traffic.visit()
    assert traffic.counts == TrafficCounts(4, 72, {})


def speak_http(link: socket.socket, said: bytes = b"") -> None:
    """Answer as the core does, with another PONG if one is given."""
    connection = Connection("http", clock=SystemClock())
    outcome = Outcome()
    while not outcome.closed and (data := link.recv(65536)):
        connection.receive_data(data)
        pull(connection, outcome)
        link.sendall(outcome.sent.replace(b"PONG", said or b"PONG"))
        outcome.sent = b""


def test_wrong_reply_of_http_is_a_failure() -> None:
    with served(lambda link: speak_http(link, b"PANG")) as address:
        traffic = ModelTraffic("made", {"http-tcp": Address.parse(address)}, 1)
        traffic.visit()
        traffic.visit()
    (why,) = traffic.counts.failures
    assert why.startswith("http-tcp: a wrong answer of 73583 bytes: at byte 117 b'ANG\\n")
    assert traffic.counts.requests == WEBSOCKET_REQUESTS


def say(said: bytes) -> Talk:
    """Answer the mixed requests, then wait for the client to close; do not answer a silent client."""

    def talk(link: socket.socket) -> None:
        if receive(link, len(MIX)) == MIX:
            link.sendall(said)
        while link.recv(65536):
            pass

    return talk


def visit(talk: Talk, *, workers: int | None = 3, warm_up: bool = False) -> TrafficCounts:
    with served(talk) as address:
        traffic = ModelTraffic("made", {"command-tcp": Address.parse(address)}, workers)
        traffic.visit(warm_up=warm_up)
        return traffic.counts


@pytest.mark.parametrize(
    ("workers", "warm_up", "behaved"),
    [
        (1, False, 1),  # the hostile client has disconnected before
        (2, False, 1),
        (3, False, 2),
        (13, False, 12),
        (14, False, 12),  # one in seven is hostile
        (14, True, 12),
        (None, False, 6),
        (None, True, 24),  # four times 7, minus one in seven
    ],
)
def test_correct_server_has_no_failure(workers: int | None, warm_up: bool, behaved: int) -> None:
    assert visit(say(ANSWER), workers=workers, warm_up=warm_up) == TrafficCounts(1, 16 * behaved, {})


@pytest.mark.parametrize(
    ("place", "said"),
    [
        (0, "at byte 0 b'-PONG"),
        (50_000, "at byte 50000 b'"),
        (len(ANSWER) - 1, "at byte 71230 b'\\x0b' instead of b'\\n'"),
    ],
)
def test_answer_with_one_wrong_byte_is_a_failure(place: int, said: str) -> None:
    changed = bytearray(ANSWER)
    changed[place] ^= 6 if place == 0 else 1
    found = visit(say(bytes(changed)))
    ((why, times),) = found.failures.items()
    assert why.startswith("command-tcp: a wrong answer of 71231 bytes: ")
    assert said in why
    assert (times, found.requests, found.visits) == (1, 0, 1)


@pytest.mark.parametrize(
    ("said", "why"),
    [
        (ANSWER[:-1], None),
        (ANSWER + b"+PONG\r\n", "a wrong answer of 71238 bytes: at byte 71231 b'+PONG\\r\\n' instead of b''"),
        (b"", None),
    ],
    ids=["too short", "too long", "none"],
)
def test_answer_that_is_too_short_or_too_long_is_a_failure(
    said: bytes, why: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(soak_traffic, "_TIMEOUT", 0.5)
    (found,) = visit(say(said)).failures
    assert (why or "waited 0.5 s for the server to answer") in found


def test_extra_reply_is_noticed_by_a_half_closed_client() -> None:
    """The first client stops reading after its replies; the second one reads to the end of the stream."""

    def talk(link: socket.socket) -> None:
        if receive(link, len(MIX)) == MIX:
            link.sendall(ANSWER)
            if link.recv(1) == b"":
                link.sendall(b"+LATE\r\n")

    found = visit(talk)
    assert found.requests == 16
    assert [why.partition(": ")[2] for why in found.failures] == [
        "a wrong answer of 71238 bytes: at byte 71231 b'+LATE\\r\\n' instead of b''"
    ]


def test_wrong_datagram_is_a_failure() -> None:
    with served(say(ANSWER)) as address, socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as server:
        server.bind(("127.0.0.1", 0))
        replies = iter([b"+PONG\r\n", b"+PANG\r\n"])

        def reply() -> None:
            for text in replies:
                data, sender = server.recvfrom(100)
                server.sendto(text if data == b"PING\r\n" else b"?", sender)

        thread = threading.Thread(target=reply)
        thread.start()
        where = f"udp://127.0.0.1:{server.getsockname()[1]}"
        traffic = ModelTraffic("made", {"command-tcp": Address.parse(address), "command-udp": Address.parse(where)}, 2)
        traffic.visit()
        assert traffic.counts == TrafficCounts(1, 17, {})
        traffic.visit()
        thread.join()
    assert traffic.counts == TrafficCounts(2, 33, {"command-udp: PING was answered by b'+PANG\\r\\n'": 1})


def test_one_client_in_seven_is_hostile_and_every_other_one_half_closes(monkeypatch: pytest.MonkeyPatch) -> None:
    got: list[int] = []
    closed: list[BlockingConnection] = []
    half_close = BlockingConnection.half_close

    def count_half_close(link: BlockingConnection) -> None:
        closed.append(link)
        half_close(link)

    monkeypatch.setattr(BlockingConnection, "half_close", count_half_close)
    received: list[bytes] = []
    receive_some = BlockingConnection.receive

    def keep_received(link: BlockingConnection) -> bytes:
        received.append(receive_some(link))
        return received[-1]

    monkeypatch.setattr(BlockingConnection, "receive", keep_received)

    def talk(link: socket.socket) -> None:
        data = receive(link, len(MIX))
        got.append(len(data))
        if data == MIX:
            link.sendall(ANSWER)
        while link.recv(65536):
            pass

    visit(talk, workers=14)
    # Two hostile clients, a silent one and one that sends the beginning of a request; and twelve others.
    wait_until(lambda: len(got) == 14)
    assert sorted(got) == [0, len(b"*2\r\n$4\r\nEC"), *[len(MIX)] * 12]
    assert len(closed) == 6
    # Each of these has waited for the end of the stream.
    assert received.count(b"") == 6


def test_soak_ends_after_five_failures_from_the_start(monkeypatch: pytest.MonkeyPatch) -> None:
    assert (soak_traffic._MAX_FAILURES, soak_traffic._TIMEOUT) == (5, 20.0)
    with served(say(b"-")) as address:
        monkeypatch.setattr(soak_traffic, "_TIMEOUT", 0.05)
        traffic = ModelTraffic("made", {"command-tcp": Address.parse(address)}, 1)
        for _ in range(4):
            traffic.visit()
        with pytest.raises(LabError, match="did not serve 5 consecutive visits"):
            traffic.visit()


def test_run_without_commands_is_no_warm_up(monkeypatch: pytest.MonkeyPatch) -> None:
    reader, writer = os.pipe()
    seen: list[bool] = []

    class Visited:
        def visit(self, *, warm_up: bool) -> None:
            seen.append(warm_up)
            if len(seen) == 2:
                os.close(writer)

    with os.fdopen(reader) as stdin:
        monkeypatch.setattr(sys, "stdin", stdin)
        soak_traffic.run([cast(ModelTraffic, Visited())], 0.001)
    assert seen == [False, False]


def test_soak_ends_after_five_consecutive_failures() -> None:
    answers = iter([b"-", ANSWER, *[b"-"] * 5])

    def talk(link: socket.socket) -> None:
        if receive(link, len(MIX)) == MIX:
            link.sendall(next(answers))

    with served(talk) as address:
        # A model that serves one client at a time: the hostile client disconnects before.
        traffic = ModelTraffic("made", {"command-tcp": Address.parse(address)}, 1)
        for _ in range(6):
            traffic.visit()
        with pytest.raises(LabError, match=r"^made did not serve 5 consecutive visits: command-tcp: a wrong answer"):
            traffic.visit()
    assert (traffic.counts.visits, sum(traffic.counts.failures.values())) == (7, 5)


def test_transports_alternate() -> None:
    asked: list[int] = []

    def count_as(number: int) -> Talk:
        def talk(link: socket.socket) -> None:
            if receive(link, len(MIX)) == MIX:
                asked.append(number)
                link.sendall(ANSWER)
            while link.recv(65536):
                pass

        return talk

    with contextlib.ExitStack() as stack:
        first, second = (Address.parse(stack.enter_context(served(count_as(number)))) for number in range(2))
        traffic = ModelTraffic("made", {"command-unix": second, "chargen-tcp": first, "command-tcp": first}, 1)
        for _ in range(4):
            traffic.visit()
    assert asked == [0, 1, 0, 1]


def test_hostile_clients_send_their_bytes_and_end_as_designed() -> None:
    """Each of them, against a server that records the bytes and the end."""
    assert [listener for listener, _ in HOSTILE] == [
        *["command-tcp"] * 5,
        *("command-tls", "chargen-tcp", "command-udp"),
        *["http-tcp"] * 4,
    ]
    got: list[tuple[bytes, str]] = []
    done = threading.Semaphore(0)

    def note(link: socket.socket) -> None:
        data, end = b"", "end"
        try:
            while chunk := link.recv(65536):
                data += chunk
                if chunk.endswith((b"\xff", b"\xff\r\n\r\n")):
                    break
        except ConnectionResetError:
            end = "reset"
        got.append((data, end))
        done.release()

    def begin(link: socket.socket) -> None:
        link.sendall(b"a line")
        note(link)

    with (
        served(note) as address,
        served(begin) as talkative,
        socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as datagrams,
    ):
        datagrams.bind(("127.0.0.1", 0))
        datagrams.settimeout(10)
        where = {name: Address.parse(address) for name in ("command-tcp", "http-tcp")}
        where["command-tls"] = replace(where["command-tcp"], transport=Transport.TLS)
        where["chargen-tcp"] = Address.parse(talkative)
        where["command-udp"] = Address.parse(f"udp://127.0.0.1:{datagrams.getsockname()[1]}")
        for listener, hostile in HOSTILE:
            with hostile(where[listener]):
                pass
            if listener != "command-udp":
                assert done.acquire(timeout=10)
        flood = [datagrams.recv(2000) for _ in range(4)]
    assert got[0] == (b"", "end")
    assert got[1] == (b"*2\r\n$4\r\nEC", "end")
    # An incomplete frame, and forty large replies that are never read: both end with a reset.
    assert got[2] == (b"*2\r\n$4\r\nECHO\r\n$900\r\nx", "reset")
    assert got[3][1] == "reset"
    assert (pack([b"BLOB", b"70000"]) * 40).startswith(got[3][0])
    assert got[4] == (b"*1000000000\r\n" + b"\xff" * 2000, "end")
    assert got[5][0] == b"\x16\x03\x01\x02\x00\x01\x00"
    assert got[6][0] == b""
    assert got[7] == (HTTP_MIX[:30], "end")
    assert got[8] == (UNFINISHED_MESSAGE, "end")
    assert got[9][1] == "reset"
    assert (b"GET /blob/70000 HTTP/1.1\r\nHost: lab.test\r\n\r\n" * 40).startswith(got[9][0])
    assert got[10] == (b"GET / HTTP/1.1\r\nHost: lab.test\r\n" + b"\xff" * 2000 + b"\r\n\r\n", "end")
    assert flood == [b"", b"\xff" * 900, b"*3\r\n", b"PING\r\nPING\r\n"]


def test_hostile_clients_use_only_existing_listeners() -> None:
    """A model without TLS, chargen and datagrams gets only the hostile clients of `command-tcp`."""

    def talk(link: socket.socket) -> None:
        data = receive(link, len(MIX))
        if data == MIX:
            link.sendall(ANSWER)
        elif data.startswith(b"*1000000000"):
            link.sendall(b"-ERR\r\n")
            return
        while link.recv(65536):
            pass

    with served(talk) as address:
        traffic = ModelTraffic("made", {"command-tcp": Address.parse(address)}, 1)
        for _ in range(16):
            traffic.visit()
    assert traffic.counts == TrafficCounts(16, 256, {})


@pytest.mark.parametrize(
    ("declared", "info", "workers"),
    [
        (None, b"workers:3", None),
        (1, b"workers:3", 1),
        (64, b"workers:8", 8),
        (64, b"workers:0", 64),
        (64, b"other:1", 64),
        (2, b"limit:1\r\nworkers:16\r\nmore:9", 16),
    ],
)
def test_workers_are_those_of_the_servers_info(declared: int | None, info: bytes, workers: int | None) -> None:
    def talk(link: socket.socket) -> None:
        assert receive(link, len(pack([b"INFO"]))) == pack([b"INFO"])
        link.sendall(b"$%d\r\n%b\r\n" % (len(info), info))

    with served(talk) as address:
        assert find_workers({"command-tcp": Address.parse(address)}, declared) == workers


def test_workers_are_the_declared_ones_if_info_fails() -> None:
    def talk(link: socket.socket) -> None:
        receive(link, 10)
        link.sendall(b":3\r\n")

    with served(talk) as address:
        assert find_workers({"command-tcp": Address.parse(address)}, 5) == 5


def run_main(monkeypatch: pytest.MonkeyPatch, address: str, workers: int) -> tuple[list[str], int]:
    """Run the command in this process for three visits, or until the model has failed too often."""
    reader, writer = os.pipe()
    visits = count(1)
    visit = ModelTraffic.visit

    def visit_and_end(self: ModelTraffic, *, warm_up: bool = False) -> None:
        if next(visits) == 3:
            os.write(writer, f"{encode(Rest())}\n".encode())
            os.close(writer)
        visit(self, warm_up=warm_up)

    monkeypatch.setattr(ModelTraffic, "visit", visit_and_end)
    row = {"model": "made", "listeners": [{"service": "command", "transport": "tcp", "address": address}]}
    monkeypatch.setenv("LAB_TARGETS", json.dumps([row]))
    code = 0
    with os.fdopen(reader) as stdin, contextlib.redirect_stdout(io.StringIO()) as out:
        monkeypatch.setattr(sys, "stdin", stdin)
        assert soak_traffic.main.callback is not None
        try:
            soak_traffic.main.callback((("made", workers), ("other", 9)), 0.0)
        except SystemExit as error:
            code = int(str(error.code))
    return out.getvalue().splitlines(), code


def test_command_prints_its_counts_at_the_end(monkeypatch: pytest.MonkeyPatch) -> None:
    with served(say(ANSWER)) as address:
        (resting, line), code = run_main(monkeypatch, address, 1)
    assert (decode(resting, Resting), code) == (Resting(), 0)
    assert decode(line, ModelCounts) == ModelCounts("made", TrafficCounts(3, 48, {}))


def test_command_hands_on_what_each_model_has(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Its own addresses, the workers that its server tells, and the pause."""
    asked: list[tuple[list[str], int | None]] = []
    made: list[tuple[str, list[str], int | None]] = []
    ran: list[tuple[int, float]] = []

    def find(addresses: Mapping[str, Address], declared: int | None) -> int | None:
        asked.append(([f"{key} {address}" for key, address in addresses.items()], declared))
        return declared and 3

    class Noted(ModelTraffic):
        def __init__(self, model: str, addresses: Mapping[str, Address], workers: int | None = None) -> None:
            super().__init__(model, addresses, workers)
            made.append((model, list(addresses), workers))

    one = [
        {"service": "command", "transport": "tcp", "address": "tcp://one:1"},
        {"service": "http", "transport": "unix", "address": "unix:///one.sock"},
    ]
    two = [{"service": "command", "transport": "tcp", "address": "tcp://two:2"}]
    rows = [{"model": "one", "listeners": one}, {"model": "two", "listeners": two}]
    monkeypatch.setenv("LAB_TARGETS", json.dumps(rows))
    monkeypatch.setattr(soak_traffic, "find_workers", find)
    monkeypatch.setattr(soak_traffic, "ModelTraffic", Noted)
    monkeypatch.setattr(soak_traffic, "run", lambda traffic, pause: ran.append((len(traffic), pause)))
    assert soak_traffic.main.callback is not None
    soak_traffic.main.callback((("two", 64),), 0.25)
    assert asked == [
        (["command-tcp tcp://one:1", "http-unix unix:///one.sock"], None),
        (["command-tcp tcp://two:2"], 64),
    ]
    assert made == [("one", ["command-tcp", "http-unix"], None), ("two", ["command-tcp"], 3)]
    assert ran == [(2, 0.25)]
    counts = [decode(line, ModelCounts) for line in capsys.readouterr().out.splitlines()]
    assert counts == [ModelCounts("one", TrafficCounts()), ModelCounts("two", TrafficCounts())]


def test_models_are_visited_in_turn(monkeypatch: pytest.MonkeyPatch) -> None:
    reader, writer = os.pipe()
    seen: list[str] = []

    class Visited:
        def __init__(self, name: str) -> None:
            self.name = name

        def visit(self, *, warm_up: bool) -> None:
            seen.append(self.name)
            if len(seen) == 5:
                os.close(writer)

    with os.fdopen(reader) as stdin:
        monkeypatch.setattr(sys, "stdin", stdin)
        soak_traffic.run([cast(ModelTraffic, Visited(name)) for name in "abc"], 0.001)
    assert "".join(seen) == "abcab"


def test_command_exits_with_code_2_when_a_model_stops_serving(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(soak_traffic, "_MAX_FAILURES", 2)
    with served(say(b"-")) as address:
        monkeypatch.setattr(soak_traffic, "_TIMEOUT", 0.2)
        lines, code = run_main(monkeypatch, address, 1)
    assert code == 2
    (line,) = lines
    assert line.startswith(
        "soak: made did not serve 2 consecutive visits: "
        f"{Address.parse(address)}: waited 0.2 s for the server to answer"
    )


def test_warm_up_lasts_from_its_command_to_the_next_one(monkeypatch: pytest.MonkeyPatch) -> None:
    reader, writer = os.pipe()
    seen: list[bool] = []

    class Told:
        def visit(self, *, warm_up: bool) -> None:
            seen.append(warm_up)
            if len(seen) == 2:
                os.write(writer, f"{encode(Go())}\n".encode())
            if len(seen) == 4:
                os.close(writer)

    os.write(writer, f"{encode(Go(warm_up=True))}\n".encode())
    with os.fdopen(reader) as stdin:
        monkeypatch.setattr(sys, "stdin", stdin)
        soak_traffic.run([cast(ModelTraffic, Told())], 0.001)
    assert seen == [True, True, False, False]
