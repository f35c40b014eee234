"""The workloads: what each sends, byte by byte, and what must come back; and where it can be used."""

from collections.abc import Callable
from dataclasses import replace
from hashlib import sha256
from typing import Any

import pytest

from lab.load import http_exchanges
from lab.load.http_exchanges import ask_page, echo_over_websocket
from lab.load.workloads import (
    CUSTOM_PROTOCOL,
    HIGHEST_RATE,
    IDLE_CONNECTIONS,
    LARGEST_PAYLOAD,
    SESSION,
    WORKLOADS,
    Workload,
    make_exchange,
)
from loadtests.sockets.exchange import Body, Exchange, Framing
from services.protocol import Transport

STREAMS, DATAGRAMS = {"tcp", "tls", "unix"}, {"udp", "unixgram"}
PING, PONG = b"*1\r\n$4\r\nPING\r\n", b"+PONG\r\n"
KIB = 1024
ALL_BYTES = bytes(range(256))


def digest(rounds: int) -> bytes:
    """Return the hexadecimal digest of a `BURN`."""
    found = bytes(32)
    for _ in range(rounds):
        found = sha256(found).digest()
    return found.hex().encode()


BURN = b"*2\r\n$4\r\nBURN\r\n$4\r\n1000\r\n", b"$64\r\n" + digest(1000) + b"\r\n"
SLEEP = b"*2\r\n$5\r\nSLEEP\r\n$2\r\n20\r\n", b"+OK\r\n"
NUMBERS = [b"%d%d" % divmod(number, 10) for number in range(16)]
# From space to tilde: 95 characters.
PRINTABLE = bytes(range(32, 127))
BLOB = (PRINTABLE * 690)[: 64 * KIB]
CHARGEN = b"".join((PRINTABLE * 2)[start : start + 72] + b"\r\n" for start in range(95))


@pytest.mark.parametrize(
    ("name", "turn"),
    [
        ("ping", (PING, PONG)),
        ("session", (PING, PONG)),
        # As many bytes as a PING.
        ("session_echo", (PING, PING)),
        ("pipeline_16", (PING * 16, PONG * 16)),
        (
            "throughput",
            (
                b"".join(b"*2\r\n$4\r\nPING\r\n$2\r\n%b\r\n" % number for number in NUMBERS),
                b"".join(b"$2\r\n%b\r\n" % number for number in NUMBERS),
            ),
        ),
        ("echo_1k", (ALL_BYTES * 4, ALL_BYTES * 4)),
        ("echo_64k", (ALL_BYTES * 256, ALL_BYTES * 256)),
        ("sleep_20ms", SLEEP),
        ("burn", BURN),
        ("churn", (PING, PONG)),
        ("upload", (ALL_BYTES * KIB, b"")),
        ("download", (b"", (CHARGEN * 40)[: 256 * KIB])),
        ("blob", (b"*2\r\n$4\r\nBLOB\r\n$5\r\n65536\r\n", b"$65536\r\n" + BLOB + b"\r\n")),
        ("datagrams", (ALL_BYTES[:64], ALL_BYTES[:64])),
        ("idle_connections", (PING, PONG)),
    ],
)
def test_exchange_sends_and_expects_these_bytes(name: str, turn: tuple[bytes, bytes]) -> None:
    exchange = WORKLOADS[name].exchange
    assert exchange is not None
    assert exchange.turns == (turn,)
    assert exchange.framing is Framing.BYTES


def test_mix_has_18_small_requests_a_sleep_and_a_computation() -> None:
    exchange = WORKLOADS["mixed"].exchange
    assert exchange is not None
    assert exchange.turns[:10] == ((PING, PONG),) * 10
    assert exchange.turns[10:16] == tuple(
        (b"*2\r\n$4\r\nECHO\r\n$100\r\n%b\r\n" % (number * 50), b"$100\r\n%b\r\n" % (number * 50))
        for number in NUMBERS[:6]
    )
    assert exchange.turns[16:18] == tuple(
        (
            b"*2\r\n$4\r\nBLOB\r\n$%d\r\n%d\r\n" % (len(str(size)), size),
            b"$%d\r\n%b\r\n" % (size, BLOB[:size]),
        )
        for size in (16_384, 4096)
    )
    assert exchange.turns[18:] == (
        (b"*2\r\n$5\r\nSLEEP\r\n$1\r\n5\r\n", b"+OK\r\n"),
        (b"*2\r\n$4\r\nBURN\r\n$3\r\n100\r\n", b"$64\r\n" + digest(100) + b"\r\n"),
    )
    over_http = WORKLOADS["http_mixed"].exchange
    assert over_http is not None
    bodies = (*[b"PONG\n"] * 10, *(number * 50 for number in NUMBERS[:6]), BLOB[:16_384], BLOB[:4096], b"OK\n")
    assert over_http.turns == http_exchanges.MIXED
    assert [body for _, body in http_exchanges.MIXED] == [*bodies, digest(100) + b"\n"]
    paths = (*["GET /ping"] * 10, *["POST /echo"] * 6, "GET /blob/16384", "GET /blob/4096", "GET /sleep/5")
    assert [read_request(request) for request, _ in http_exchanges.MIXED] == [
        *((path, body if path == "POST /echo" else b"") for path, body in zip(paths, bodies, strict=True)),
        ("GET /burn/100", b""),
    ]


def read_request(request: bytes) -> tuple[str, bytes]:
    """Return the method and the path of a request over HTTP, and its body."""
    head, _, body = request.partition(b"\r\n\r\n")
    return head.decode().partition(" HTTP/1.1\r\n")[0], body


@pytest.mark.parametrize(
    ("name", "find", "path", "body"),
    [
        ("http_ping", lambda: http_exchanges.http((http_exchanges.PING,)), "GET /ping", b"PONG\n"),
        ("http_churn", lambda: http_exchanges.http((http_exchanges.PING_AND_CLOSE,)), "GET /ping", b"PONG\n"),
        ("http_sleep", lambda: http_exchanges.http((http_exchanges.SLEEP,)), "GET /sleep/20", b"OK\n"),
        ("http_burn", lambda: http_exchanges.http((http_exchanges.BURN,)), "GET /burn/1000", digest(1000) + b"\n"),
        ("http_echo_1k", lambda: http_exchanges.echo_over_http(ALL_BYTES * 4), "POST /echo", ALL_BYTES * 4),
    ],
)
def test_exchange_over_http_asks_this_route(name: str, find: Callable[[], Exchange], path: str, body: bytes) -> None:
    exchange, used = find(), WORKLOADS[name].exchange
    assert used == replace(exchange, per_connection=1 if name == "http_churn" else None)
    ((request, reply),) = exchange.turns
    assert read_request(request) == (path, body if path.startswith("POST") else b"")
    assert reply == body
    assert (b"\r\nConnection: close\r\n" in request) == (name == "http_churn")
    assert (exchange.framing, exchange.body) == (Framing.HTTP, Body.GIVEN)


def test_exchange_of_a_page_keeps_its_connection_or_not() -> None:
    for name, ending in (("http_ping", b"socketlab\r\n\r\n"), ("http_churn", b"Connection: close\r\n\r\n")):
        exchange = WORKLOADS[name].exchange
        assert exchange is not None
        made = ask_page(exchange, "/a", any_body=name == "http_churn")
        ((request, body),) = made.turns
        assert request.startswith(b"GET /a HTTP/1.1\r\n")
        assert request.endswith(ending)
        assert body == b""
        # All else is as it was.
        assert made == replace(exchange, turns=made.turns, body=Body.ANY if name == "http_churn" else Body.FIRST)
    mixed = WORKLOADS["http_mixed"].exchange
    assert mixed is not None
    with pytest.raises(ValueError, match="it asks routes that only this lab's servers have"):
        ask_page(mixed, "/a", any_body=False)


# What differs from one request after the other on one connection, over streams, without a pause.
USUAL: dict[str, Any] = {"depth": 1, "per_connection": None, "pause": 0.0}
DIFFERENT: dict[str, dict[str, Any]] = {
    "ping": {"over": STREAMS | DATAGRAMS},
    "session": {"per_connection": 50},
    "session_echo": {"per_connection": 50},
    "pipeline_16": {"depth": 16},
    "throughput": {"depth": 16},
    "echo_1k": {"over": STREAMS | DATAGRAMS, "numbered": True, "payload": KIB},
    "echo_64k": {"numbered": True, "payload": 64 * KIB},
    "sleep_20ms": {"over": STREAMS | DATAGRAMS},
    "burn": {"over": STREAMS | DATAGRAMS},
    "churn": {"per_connection": 1},
    # `discard` and `chargen` have no port for TLS.
    "upload": {
        "over": {"tcp", "unix"},
        "per_connection": 1,
        "half_close": True,
        "until_close": True,
        "payload": 256 * KIB,
    },
    "download": {"over": {"tcp", "unix"}, "per_connection": 1, "endless": True, "payload": 256 * KIB},
    "blob": {"payload": 64 * KIB},
    "datagrams": {"over": DATAGRAMS, "depth": 16, "numbered": True, "payload": 64},
    "idle_connections": {"idle": 400},
    "http_echo_1k": {"payload": KIB, "capability": "work"},
    "http_echo_1m": {"payload": 1024 * KIB, "capability": "work"},
    "http_sleep": {"capability": "work"},
    "http_burn": {"capability": "work"},
    "http_churn": {"per_connection": 1},
    "http_mixed": {"capability": "work"},
    "ws_echo": {"payload": KIB, "capability": "websocket"},
    "ws_held": {"pause": 1.0, "rests": True, "capability": "websocket"},
    "think": {"rests": True},
}


@pytest.mark.parametrize("name", list(WORKLOADS))
def test_workload_is_used_as_it_says(name: str) -> None:
    found = WORKLOADS[name]
    wanted = DIFFERENT.get(name, {})
    assert {str(transport) for transport in Transport if found.is_offered(transport)} == wanted.get("over", STREAMS)
    assert (found.payload, found.rests, found.idle_connections, found.capability) == (
        wanted.get("payload"),
        wanted.get("rests", False),
        wanted.get("idle", 0),
        wanted.get("capability", ""),
    )
    assert found.depth == wanted.get("depth", 1)
    assert found.holds_connection is ("per_connection" not in wanted)
    exchange = found.exchange
    if exchange is None:
        assert name in ("slow_reader", "think")
        return
    flags = ("numbered", "half_close", "until_close", "endless")
    assert {name: getattr(exchange, name) for name in USUAL} == {name: wanted.get(name, USUAL[name]) for name in USUAL}
    assert {name: getattr(exchange, name) for name in flags} == {name: wanted.get(name, False) for name in flags}
    # A RESP error is a wrong reply of its own kind.
    assert exchange.error_prefix == (b"-" if found.service == "command" else b"")


def test_message_of_a_websocket_is_a_masked_frame_and_its_echo_an_unmasked_one() -> None:
    """RFC 6455, section 5.2: FIN and the opcode 2; the mask bit, and a length of 7 bits, or 126 and 16 bits."""
    sizes = {
        "ws_echo": (b"\xfe\x04\x00", b"\x7e\x04\x00", ALL_BYTES * 4),
        "ws_held": (b"\xc0", b"\x40", ALL_BYTES[:64]),
    }
    for name, (masked, plain, payload) in sizes.items():
        exchange = WORKLOADS[name].exchange
        assert exchange is not None
        ((request, reply),) = exchange.turns
        assert reply == b"\x82" + plain + payload
        begin = 1 + len(masked)
        mask = request[begin : begin + 4]
        assert request[:begin] == b"\x82" + masked
        assert bytes(byte ^ mask[at % 4] for at, byte in enumerate(request[begin + 4 :])) == payload
        made = echo_over_websocket(payload, pause=exchange.pause)
        assert (made.framing, made.pause, made.opening) == (Framing.WEBSOCKET, exchange.pause, exchange.opening)
        assert made.opening.startswith(b"GET /ws HTTP/1.1\r\n")
    assert echo_over_websocket(b"a").pause == 0.0


def test_limits_of_a_load() -> None:
    assert (HIGHEST_RATE, LARGEST_PAYLOAD) == (1_000_000.0, 16_777_216)
    assert (SESSION, IDLE_CONNECTIONS) == (50, 400)


def test_workload_of_a_codec_has_no_bytes_of_its_own_and_any_transport() -> None:
    assert CUSTOM_PROTOCOL.exchange == Exchange(((b"", b""),))
    assert all(CUSTOM_PROTOCOL.is_offered(transport) for transport in Transport)


def test_workload_is_possible_without_a_limit_on_what_it_needs() -> None:
    assert WORKLOADS["http_sleep"].is_possible({"websocket": "it has none"})
    assert not WORKLOADS["http_sleep"].is_possible({"work": "it only serves files"})
    # One that needs nothing is possible everywhere.
    assert WORKLOADS["ping"].is_possible({"work": "", "websocket": ""})


TCP, UDP = Transport.TCP, Transport.UDP


@pytest.mark.parametrize(
    ("name", "size", "request_size", "reply_size", "transport"),
    [
        ("echo_1k", 7, 7, 7, TCP),
        ("echo_64k", 300, 300, 300, TCP),
        ("echo_64k", 1, 1, 1, TCP),
        ("upload", 1000, 1000, 0, TCP),
        ("download", 9030, 0, 9030, TCP),
        ("blob", 100, 23, 108, TCP),
        ("datagrams", 4096, 4096, 4096, UDP),
        ("echo_1k", 65_507, 65_507, 65_507, UDP),
        ("echo_1k", 8, 8, 8, UDP),
        ("upload", 16 * 1024 * KIB, 16 * 1024 * KIB, 0, TCP),
    ],
)
def test_payload_can_be_chosen(name: str, size: int, request_size: int, reply_size: int, transport: Transport) -> None:
    exchange, usual = make_exchange(WORKLOADS[name], transport, size), WORKLOADS[name].exchange
    assert exchange is not None
    assert usual is not None
    ((request, reply),) = exchange.turns
    assert (len(request), len(reply)) == (request_size, reply_size)
    # A payload of less than 8 bytes has no room for a number. All else is as usual.
    assert exchange == replace(usual, turns=exchange.turns, numbered=usual.numbered and size >= 8)


def test_payload_of_http_can_be_chosen() -> None:
    for name, size in (("http_echo_1k", 5), ("http_echo_1m", 300)):
        exchange = make_exchange(WORKLOADS[name], TCP, size)
        assert exchange is not None
        ((request, body),) = exchange.turns
        assert (len(body), request.endswith(body), exchange.framing) == (size, True, Framing.HTTP)
    message = make_exchange(WORKLOADS["ws_echo"], TCP, 5)
    assert message is not None
    assert [len(part) for part in message.turns[0]] == [2 + 4 + 5, 2 + 5]


def test_usual_payload_needs_no_choice() -> None:
    assert make_exchange(WORKLOADS["echo_1k"], TCP) is WORKLOADS["echo_1k"].exchange
    assert make_exchange(WORKLOADS["ping"], TCP) is WORKLOADS["ping"].exchange
    assert make_exchange(WORKLOADS["think"], TCP) is None


@pytest.mark.parametrize(
    ("name", "transport", "size", "said"),
    [
        ("datagrams", TCP, None, "datagrams does not work over tcp"),
        ("churn", UDP, None, "churn does not work over udp"),
        ("ping", TCP, 9, "ping has no payload size to choose"),
        ("think", TCP, 9, "think has no payload size to choose"),
        ("echo_1k", TCP, -1, "the payload is -1 bytes, and must be 1 to 16777216"),
        ("echo_1k", TCP, 16_777_217, "the payload is 16777217 bytes, and must be 1 to 16777216"),
        ("echo_1k", UDP, 65_508, "a payload of 65508 bytes does not fit into a datagram: at most 65507"),
        ("echo_1k", UDP, 7, "a payload of 7 bytes has no room for its number: at least 8"),
        ("datagrams", UDP, 4097, "16 datagrams of 4097 bytes at once overflow a socket: at most 4096"),
    ],
)
def test_payload_or_transport_that_does_not_fit_is_refused(
    name: str, transport: Transport, size: int | None, said: str
) -> None:
    with pytest.raises(ValueError, match=f"^{said}$"):
        make_exchange(WORKLOADS[name], transport, size)


def test_burst_of_datagrams_is_limited_in_total() -> None:
    """Two datagrams at once: half of 64 KiB each."""
    exchange = WORKLOADS["datagrams"].exchange
    assert exchange is not None
    two = replace(WORKLOADS["datagrams"], exchange=replace(exchange, depth=2))
    assert make_exchange(two, UDP, 32_768)
    with pytest.raises(ValueError, match="2 datagrams of 32769 bytes at once overflow a socket: at most 32768"):
        make_exchange(two, UDP, 32_769)


def test_script_has_one_request_at_a_time_and_keeps_its_connection() -> None:
    script = Workload("mine", "", "command", None)
    assert (script.depth, script.holds_connection) == (1, True)
    assert not script.is_offered(UDP)
