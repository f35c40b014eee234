"""Combinations of options: each works, or is refused with a reason before anything starts."""

import itertools
import json
from argparse import Namespace

import gevent
import pytest

from lab.load.presets import PRESETS
from lab.load.workloads import CUSTOM_PROTOCOL, WORKLOADS, make_exchange
from loadtests import idle_connections
from loadtests.idle_connections import IdleConnections, divide
from loadtests.objections import find_objection
from loadtests.shapes import SHAPES
from loadtests.sockets.codec import Codec
from loadtests.sockets.errors import SetupError, UnreachableError
from loadtests.targets import Targets
from services.protocol import Address, Transport
from tests.support.waiting import wait_until

TRANSPORTS = ("tcp", "tls", "udp", "unix", "unixgram")
URLS = {
    "tcp": "tcp://127.0.0.1:1",
    "tls": "tls://127.0.0.1:2",
    "udp": "udp://127.0.0.1:3",
    "unix": "unix:///s",
    "unixgram": "unixgram:///d",
}
# Written out, and not taken from the code that is tested.
OVER_DATAGRAMS = {"ping", "echo_1k", "sleep_20ms", "burn", "datagrams"}
NOT_OVER_TLS = {"upload", "download"}
SCRIPTS = {"slow_reader", "think"}
SIZED = {"echo_1k", "echo_64k", "datagrams", "upload", "download", "blob", "http_echo_1k", "http_echo_1m", "ws_echo"}
PAYLOADS = (-1, 0, 1, 7, 8, 4096, 4097, 65_507, 65_508, 2**24, 2**24 + 1)


def make_options(**changes):
    plain = {
        "models": ["it"],
        "workload": "ping",
        "transport": "tcp",
        "loop": "closed",
        "arrivals": "even",
        "shape": "steady",
        "payload": 0,
        "rate": 100.0,
        "shape_time": 60.0,
        "timeout": 5.0,
        "num_users": 4,
        "spawn_rate": 1.0,
        "window": None,
        "warm_up": 0.5,
        "run_time": None,
    }
    return Namespace(**plain | changes)


def make_targets(transports=TRANSPORTS):
    listeners = [
        {"service": service, "address": URLS[transport]}
        for service in ("command", "echo", "discard", "chargen", "http", "custom")
        for transport in transports
    ]
    return Targets.from_json(json.dumps([{"model": "it", "listeners": listeners}]))


def can_work(workload, transport, loop, payload):
    is_datagram = transport in ("udp", "unixgram")
    if is_datagram and workload not in OVER_DATAGRAMS:
        return False
    if not is_datagram and workload == "datagrams":
        return False
    if transport == "tls" and workload in NOT_OVER_TLS:
        return False
    if loop == "open" and workload in SCRIPTS:
        return False
    if payload == 0:
        return True
    # A datagram has its number in 8 bytes, and 65,507 of them at most; sixteen at once share 64 KiB.
    most = 4096 if workload == "datagrams" else 65_507 if is_datagram else 2**24
    return workload in SIZED and (8 if is_datagram else 1) <= payload <= most


@pytest.mark.parametrize("workload", WORKLOADS)
def test_combination_works_or_has_an_objection(workload):
    targets = make_targets()
    # The shape and the arrivals change no exchange: they vary where the payload does not.
    ways = [("steady", "even", payload) for payload in PAYLOADS]
    ways += [(shape, arrivals, 0) for shape, arrivals in itertools.product(SHAPES, ("even", "random"))]
    for transport, loop, (shape, arrivals, payload) in itertools.product(TRANSPORTS, ("closed", "open"), ways):
        options = make_options(
            workload=workload, transport=transport, loop=loop, shape=shape, arrivals=arrivals, payload=payload
        )
        why = find_objection(options, targets, WORKLOADS)
        assert (why is None) is can_work(workload, transport, loop, payload), (transport, loop, payload, why)
        assert why is None or ("\n" not in why and len(why) > 10)


def test_preset_works_over_its_transports_and_refuses_others():
    for preset in PRESETS.values():
        for transport in Transport:
            works = can_work(preset.workload.name, transport.value, preset.spec.loop, 0)
            assert works or transport is not preset.spec.transport
            options = make_options(workload=preset.workload.name, transport=transport.value, loop=preset.spec.loop)
            assert (find_objection(options, make_targets(), WORKLOADS) is None) is works


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"workload": "pong"}, "unknown workload 'pong': one of ping, "),
        ({"transport": "sctp"}, "unknown transport 'sctp': one of tcp, "),
        ({"loop": "ajar"}, "unknown loop"),
        ({"arrivals": "never"}, "unknown arrivals"),
        ({"shape": "round"}, "unknown shape"),
        ({"models": []}, "no model is chosen"),
        ({"models": ["it", "she"]}, "no address for command of she over tcp"),
        ({"payload": 2**40, "workload": "blob"}, "1 to 16777216"),
        ({"rate": 0.0}, "above 0"),
        ({"rate": float("inf")}, "above 0"),
        ({"rate": float("nan")}, "above 0"),
        ({"rate": 1_000_001.0}, "the rate is at most 1,000,000"),
        ({"shape_time": -1.0}, "above 0"),
        ({"timeout": float("inf")}, "above 0"),
        ({"num_users": 0}, "the number of users has to be at least 1"),
        ({"num_users": -3}, "the number of users has to be at least 1"),
        ({"spawn_rate": 0.0}, "the spawn rate"),
        ({"spawn_rate": float("nan")}, "the spawn rate"),
        ({"window": 0.0}, "the window"),
        ({"window": 1.0, "warm_up": -0.1}, "the window"),
        ({"window": 1.0, "warm_up": float("inf")}, "the window"),
        ({"window": 1.0, "run_time": 5}, "omit --run-time"),
        ({"fault": "pause", "fault_after": -1.0, "fault_for": 1.0}, "a fault starts after 0 seconds"),
    ],
)
def test_objection_names_the_wrong_option(changes, said):
    objection = find_objection(make_options(**changes), make_targets(), WORKLOADS)
    assert objection is not None
    assert said in objection


@pytest.mark.parametrize(
    "changes",
    [
        {"rate": 1_000_000.0},
        {"rate": 0.5, "shape_time": 0.5, "timeout": 0.5, "spawn_rate": 0.5},
        {"num_users": None, "spawn_rate": None},
        {"num_users": 1},
        {"window": 0.1, "warm_up": 0.0},
        {"run_time": 5},
    ],
)
def test_limits_themselves_are_allowed(changes):
    assert find_objection(make_options(**changes), make_targets(), WORKLOADS) is None


def test_model_without_an_address_is_an_objection():
    objection = find_objection(make_options(transport="tls"), make_targets(["tcp"]), WORKLOADS)
    assert objection is not None
    assert "no address for command of it over tls" in objection


@pytest.mark.parametrize("transport", TRANSPORTS)
@pytest.mark.parametrize(
    ("declared", "needs_a_stream"),
    [({}, False), ({"per_connection": 1}, False), ({"until_close": True}, True), ({"greeting_size": len}, True)],
)
def test_codec_that_needs_a_stream_is_refused_over_datagrams(declared, needs_a_stream, transport):
    codec = Codec(encode=lambda number: b"x", reply_size=lambda data, request: 1, **declared)
    options = make_options(workload=CUSTOM_PROTOCOL.name, transport=transport)
    why = find_objection(options, make_targets(), {CUSTOM_PROTOCOL.name: CUSTOM_PROTOCOL}, codec)
    assert (why is not None) is (needs_a_stream and transport in ("udp", "unixgram"))


def test_idle_connections_are_divided_among_workers_without_remainder():
    assert [divide(400, worker, 3) for worker in range(3)] == [133, 133, 134]
    assert [divide(2, worker, 4) for worker in range(4)] == [0, 1, 0, 1]
    assert divide(400, 0, 1) == 400


def test_idle_connections_that_were_refused_do_not_count(monkeypatch):
    """At most 64 are opened at a time: a backlog has room for them."""
    asked, opening, most, closed = [], set(), [], []

    class Link:
        def __init__(self, address, *, timeout):
            asked.append((address, timeout))
            number = len(asked)
            opening.add(self)
            most.append(len(opening))
            gevent.sleep(0)
            opening.discard(self)
            if number in (3, 5):
                raise (UnreachableError if number == 3 else SetupError)("made up")

        def close(self):
            closed.append(self)

    monkeypatch.setattr(idle_connections, "BlockingConnection", Link)
    address = Address.parse("tcp://127.0.0.1:1")
    idle = IdleConnections(address)
    assert idle.open(101) == 99
    assert (len(asked), set(asked), max(most)) == (101, {(address, 5.0)}, 64)
    for _ in range(2):
        idle.close()
    assert len(closed) == len(set(closed)) == 99


def test_payload_keeps_the_depth():
    exchange = make_exchange(WORKLOADS["datagrams"], Transport.UDP, 100)
    assert exchange is not None
    assert exchange.depth == 16
    assert make_exchange(WORKLOADS["datagrams"], Transport.UDP, None) is WORKLOADS["datagrams"].exchange


# Of each kind one that is in no other test.
@pytest.mark.parametrize(
    ("workload", "transport", "more"),
    [
        ("idle_connections", "tls", ()),
        ("idle_connections", "unix", ()),
        ("slow_reader", "tls", ()),
        ("think", "unix", ()),
        ("datagrams", "unixgram", ()),
        ("datagrams", "udp", ("--payload", "4096")),
        ("echo_1k", "unixgram", ("--payload", "65507", "--loop", "open", "--rate", "50")),
        ("upload", "tcp", ("--payload", "1", "--loop", "open", "--rate", "50")),
        ("mixed", "tls", ("--loop", "open", "--rate", "500", "--arrivals", "random", "--shape", "steps")),
    ],
)
def test_accepted_combination_is_answered(workload, transport, more, server, load):
    url = server.url(WORKLOADS[workload].service, transport)
    found = load({"it": url}, "--workload", workload, "--transport", transport, *more, seconds=0.7)["it"]
    assert found.failures == {}
    assert found.answered > 0


def test_invalid_form_is_refused_with_the_reason_and_starts_nothing(url, open_ui):
    plain: dict[str, object] = {"user_count": 1, "spawn_rate": 10, "models": "it", "workload": "ping", "rate": 100}
    refused: list[tuple[dict[str, object], str]] = [
        ({"workload": "upload", "transport": "udp"}, "upload does not work over udp"),
        ({"workload": "think", "loop": "open"}, "has no open loop"),
        ({"payload": 5}, "no payload"),
        ({"rate": "inf"}, "have to be above 0"),
        ({"rate": "fast"}, "rate: 'fast' is not a valid value"),
        ({"user_count": 0}, "the number of users has to be at least 1"),
        ({"user_count": "many"}, "user_count: 'many' is not a valid value"),
        ({"models": "she"}, "no address for command of she"),
        ({"run_time": "soon"}, "run_time: 'soon' is not a valid value"),
    ]
    with open_ui(url) as page:
        for changes, said in refused:
            answer = page.swarm(**plain | changes)
            assert answer["success"] is False
            assert said in answer["message"]
        assert page.statistics()["state"] == "ready"
        assert page.swarm(**plain)["success"] is True
        wait_until(lambda: page.statistics()["state"] == "running")
        answer = page.swarm(**plain | {"rate": 200, "workload": "session"})
        assert answer == {"success": False, "message": answer["message"]}
        assert "stop the run first: workload, rate cannot change during a run" in answer["message"]
        assert page.swarm(**plain | {"user_count": 2})["success"] is True
        wait_until(lambda: page.statistics()["user_count"] == 2)
