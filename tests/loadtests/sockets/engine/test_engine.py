"""The engine against faulty servers and correct ones: each failure has its own name.

All servers of a workload are loaded by one process at the same time, so that each test also shows that they do not
disturb each other.
"""

import contextlib
import itertools
import socket
import threading
from typing import Any

import pytest

from lab.load.presets import PRESETS
from lab.load.workloads import WORKLOADS, make_exchange
from lab.servers.process_helpers import find_port
from services.protocol import Transport

_EXCHANGE = WORKLOADS["ping"].exchange
assert _EXCHANGE is not None
PING, PONG = _EXCHANGE.turns[0]


def answer(reply, *, then=lambda connection: None):
    def behave(connection):
        while connection.recv(65536):
            connection.sendall(reply)
            then(connection)

    return behave


def answer_once(reply, *, then=lambda connection: None):
    def behave(connection):
        connection.recv(65536)
        connection.sendall(reply)
        then(connection)

    return behave


def wait_for_the_client(connection):
    while connection.recv(65536):
        pass


def reset(connection):
    # A linger time of 0 turns the close into a reset, socket(7).
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")


def echo(change):
    """Echoes each request; `change` gets its number and its bytes and says what goes back."""

    def behave(connection):
        for number in itertools.count():
            data = b""
            while len(data) < 1024:
                if not (more := connection.recv(1024 - len(data))):
                    return
                data += more
            connection.sendall(change(number, data))

    return behave


def remember(kept):
    def change(number, data):
        kept.append(data)
        return kept[-2] if number == 3 else data

    return change


def close_the_idle(connection):
    connection.recv(100)
    connection.sendall(PONG)


# (workload, how the server behaves, what must be counted, and nothing else)
LIARS = {
    "wrong-bytes": ("ping", answer(b"+PANG\r\n"), "wrong bytes"),
    "garbage": ("ping", answer(bytes(range(256)) * 16), "wrong bytes"),
    "twice": ("ping", answer(PONG * 2), "more than was asked for"),
    "error": ("ping", answer(b"-ERR no\r\n"), "error reply"),
    "short": ("ping", answer_once(b"+PO"), "short reply: closed in the middle (3 of 7 bytes received)"),
    "closed": ("ping", answer_once(b""), "closed without a reply"),
    "never": ("ping", answer_once(b"", then=wait_for_the_client), "time-out: no reply"),
    "never-ends": (
        "ping",
        answer_once(b"+PO", then=wait_for_the_client),
        "time-out: no reply (3 of 7 bytes received)",
    ),
    "reset": ("ping", answer_once(b"", then=reset), "connection reset"),
    "one-missing": (
        "throughput",
        answer_once(b"$2\r\n00\r\n"),
        "short reply: closed in the middle (8 of 128 bytes received)",
    ),
    "error-among-them": ("throughput", answer(b"$2\r\n00\r\n-ERR no\r\n"), "error reply"),
    "minus-inside": ("throughput", answer(b"$2\r\n0-ERR no\r\n"), "wrong bytes"),
    "last-byte": ("echo_1k", echo(lambda number, data: data[:-1] + b"!"), "wrong bytes"),
    "one-more": ("echo_1k", echo(lambda number, data: data + b"!"), "more than was asked for"),
    "stale": ("echo_1k", echo(remember([])), "wrong bytes"),
    "digest": ("burn", answer(b"$64\r\n" + b"0" * 64 + b"\r\n"), "wrong bytes"),
    "swapped": (
        "throughput",
        answer(b"".join(b"$2\r\n%02d\r\n" % (number ^ (number in (6, 7))) for number in range(16))),
        "wrong bytes",
    ),
    "pushed": ("upload", answer_once(b"+OK\r\n", then=wait_for_the_client), "more than was asked for"),
    "other-lines": ("download", lambda connection: connection.sendall(b"!" * 1000), "wrong bytes"),
}


def waits_for_ever(name):
    return LIARS[name][2].startswith("time-out")


# All servers are loaded once, for all tests of them.
IN_ONE_WORKER = pytest.mark.xdist_group("liars")


@pytest.fixture(scope="module")
def found(load, open_server):
    """The results of the faulty servers; `correct` is a correct server, loaded together with those of `ping`."""
    results: dict[str, Any] = {}
    # Only where a server does not answer is the time-out short: on a busy machine, others may be late.
    for workload, is_short in dict.fromkeys((LIARS[name][0], waits_for_ever(name)) for name in LIARS):
        with contextlib.ExitStack() as stack:
            urls = {}
            for name, (asked, behaviour, _) in LIARS.items():
                if (asked, waits_for_ever(name)) == (workload, is_short):
                    host, port = stack.enter_context(open_server(behaviour))
                    urls[name] = f"tcp://{host}:{port}"
            if workload == "ping" and not is_short:
                host, port = stack.enter_context(open_server(answer(PONG)))
                # .invalid never resolves, RFC 2606.
                urls |= {"correct": f"tcp://{host}:{port}", "refused": f"tcp://127.0.0.1:{find_port()}"}
                urls |= {"nowhere": "tcp://no-such-model.invalid:1"}
            timeout, seconds = ("0.3", 1.5) if is_short else ("10", 0.8)
            results |= load(urls, "--workload", workload, "--timeout", timeout, seconds=seconds)
    return results


@IN_ONE_WORKER
@pytest.mark.parametrize("name", LIARS)
def test_wrong_reply_is_noticed_and_named(name, found):
    assert set(found[name].failures) == {LIARS[name][2]}
    assert found[name].failures[LIARS[name][2]] >= 2  # it came back, and was lied to again


@IN_ONE_WORKER
def test_refusal_and_unknown_host_are_named(found):
    assert set(found["refused"].failures) == {"connection refused"}
    assert set(found["nowhere"].failures) == {"unknown host"}


@IN_ONE_WORKER
def test_correct_server_is_loaded_while_others_fail(found):
    assert found["correct"].failures == {}
    assert found["correct"].answered > 10


@IN_ONE_WORKER
def test_timeout_has_a_response_time_and_a_quick_failure_has_none(found):
    assert sum(count for _, count in found["never"].service.pairs()) == found["never"].failures["time-out: no reply"]
    assert all(value >= 300_000 for value, _ in found["never"].service.pairs())
    assert found["closed"].service.pairs() == []


def test_restarted_server_is_found_again(load):
    where = "127.0.0.1", find_port()
    done = threading.Event()
    served = []

    def serve():
        while not done.wait(0.4):  # gone, and back for one connection, again and again
            with socket.create_server(where) as listener:
                listener.settimeout(5)
                with contextlib.suppress(TimeoutError):
                    connection, _ = listener.accept()
                    with connection:
                        connection.settimeout(5)
                        for _ in range(5):
                            if connection.recv(100):
                                connection.sendall(PONG)
                        served.append(True)

    thread = threading.Thread(target=serve)
    thread.start()
    try:
        result = load({"comes": f"tcp://{where[0]}:{where[1]}"}, seconds=4.0)["comes"]
    finally:
        done.set()
        thread.join()
    assert len(served) >= 2
    assert result.answered >= 10
    assert "connection refused" in result.failures


def test_connection_closed_between_requests_is_a_failure_in_an_open_loop(load, open_server):
    with open_server(close_the_idle) as (host, port):
        urls = {"idle": f"tcp://{host}:{port}"}
        result = load(urls, "--loop", "open", "--rate", "5", users=2, seconds=2.0)["idle"]
    assert set(result.failures) == {"closed between two exchanges"}
    assert result.answered


def test_lost_duplicate_and_reordered_datagrams_are_counted(load):
    server = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    server.bind(("127.0.0.1", 0))
    server.settimeout(0.2)
    done = threading.Event()
    dropped, doubled, swapped = [], [], []

    def serve():
        held = None
        for number in itertools.count():
            try:
                data, peer = server.recvfrom(2048)
            except TimeoutError:
                if done.is_set():
                    return
                continue
            if number in (103, 203):
                dropped.append(data)
            elif number % 100 == 30:
                held = data
            elif number % 100 == 31 and held:
                swapped.append(data)
                server.sendto(data, peer)
                server.sendto(held, peer)
            else:
                server.sendto(data, peer)
                if number % 100 == 60:
                    doubled.append(data)
                    server.sendto(data, peer)

    thread = threading.Thread(target=serve)
    thread.start()
    try:
        where = "udp://{}:{}".format(*server.getsockname())
        result = load({"net": where}, "--workload", "datagrams", "--transport", "udp", "--timeout", "0.5", seconds=3.0)[
            "net"
        ]
    finally:
        done.set()
        thread.join()
        server.close()
    assert result.answered > 10
    assert set(result.failures) == {"datagram lost"}
    # All that had happened until the window was over; what was under way then may be missing.
    assert len(dropped) == 2 <= result.lost
    assert 0 <= len(doubled) - result.duplicates <= 2 < len(doubled)
    assert 0 <= len(swapped) - result.reordered <= 2 < len(swapped)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda data: data[:8] + b"!" + data[9:], "wrong bytes"),  # the right number, and other bytes
        (lambda data: data[:-1] + bytes([data[-1] ^ 1]), "wrong bytes"),
        (lambda data: data[:-1], "wrong bytes"),
        (lambda data: data + b"!", "wrong bytes"),
        (lambda data: b"\xff" * 8 + data[8:], "wrong bytes"),  # a number that was never sent
    ],
)
@pytest.mark.parametrize("workload", ["datagrams", "echo_1k"])
def test_datagram_with_the_right_number_and_other_bytes_is_wrong(workload, change, reason, load):
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as server:
        server.bind(("127.0.0.1", 0))

        def serve():
            while (found := server.recvfrom(2048))[0] != b"end":
                server.sendto(change(found[0]), found[1])

        thread = threading.Thread(target=serve)
        thread.start()
        where = server.getsockname()
        try:
            url = "udp://{}:{}".format(*where)
            found = load({"net": url}, "--workload", workload, "--transport", "udp", seconds=0.5)["net"]
        finally:
            server.sendto(b"end", where)
            thread.join()
    assert set(found.failures) == {reason}
    assert found.answered == 0


@pytest.mark.parametrize("transport", ["tcp", "tls", "udp", "unix", "unixgram"])
def test_engine_drives_every_transport(transport, server, load):
    urls = {"here": server.url("command", transport)}
    for arguments in (["--workload", "ping"], ["--workload", "ping", "--loop", "open", "--rate", "200"]):
        result = load(urls, *arguments, "--transport", transport, users=3, seconds=0.5)["here"]
        assert result.failures == {}
        assert result.answered > 3  # each of them more than once, on a busy machine too
        assert result.starved == 0


@pytest.mark.parametrize("name", WORKLOADS)
def test_every_workload_is_answered_correctly(name, server, load):
    workload = WORKLOADS[name]
    transport = "tcp" if workload.over_streams else "udp"
    arguments = ["--workload", name, "--transport", transport]
    # A script takes its time between two answers.
    seconds = 3.0 if workload.rests else 1.0 if workload.exchange is None else 0.5
    result = load({"here": server.url(workload.service, transport)}, *arguments, users=2, seconds=seconds)["here"]
    assert result.failures == {}
    assert result.answered > 1


def test_payload_has_the_requested_size(server, load):
    result = load({"here": server.url("echo", "tcp")}, "--workload", "echo_1k", "--payload", "100000", seconds=0.5)
    assert result["here"].failures == {}
    assert result["here"].answered > 3


@pytest.mark.parametrize(
    ("workload", "transport", "payload", "said"),
    [
        ("upload", "udp", None, "upload does not work over udp"),
        ("upload", "tls", None, "upload does not work over tls"),
        ("datagrams", "tcp", None, "datagrams does not work over tcp"),
        ("ping", "tcp", 100, "no payload"),
        ("echo_1k", "udp", 70_000, "at most 65507"),
    ],
)
def test_impossible_exchange_is_refused(workload, transport, payload, said):
    with pytest.raises(ValueError, match=said):
        make_exchange(WORKLOADS[workload], Transport(transport), payload)


def test_presets_declare_their_loop():
    assert all(name.startswith(f"{preset.spec.loop}_") for name, preset in PRESETS.items())
    assert all(preset.spec.rate > 0 for preset in PRESETS.values() if preset.spec.loop == "open")
