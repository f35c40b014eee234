"""Each way in which a server can be wrong has a name of its own, and none passes for an answer."""

import socket

import pytest

from lab.workloads import WORKLOADS
from loadtests.wire import (
    ClosedError,
    ErrorReplyError,
    ExchangeError,
    RefusedError,
    ResetError,
    ShortReplyError,
    TimeOutError,
    UnknownHostError,
    Wire,
    WrongBytesError,
)

PING = WORKLOADS["closed_ping"]
PIPELINE = WORKLOADS["closed_pipeline_16"]
ECHO = WORKLOADS["closed_echo_1k"]
BURN = WORKLOADS["closed_burn"]


def _answer(reply, *, then=lambda connection: None):
    def behave(connection):
        connection.recv(65536)
        connection.sendall(reply)
        then(connection)

    return behave


def _wait_for_the_client(connection):
    while connection.recv(65536):
        pass


def _reset(connection):
    # A linger time of 0 turns the close into a reset, socket(7).
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")


@pytest.mark.parametrize(
    ("workload", "behaviour", "failure"),
    [
        pytest.param(PING, _answer(b"+PANG\r\n"), WrongBytesError, id="ping-wrong-bytes"),
        pytest.param(PING, _answer(b"+PONG\r\n+PONG\r\n"), WrongBytesError, id="ping-one-too-many"),
        pytest.param(PING, _answer(b"-ERR no\r\n"), ErrorReplyError, id="ping-error"),
        pytest.param(PING, _answer(b"+PO"), ShortReplyError, id="ping-short"),
        pytest.param(PING, _answer(b""), ClosedError, id="ping-closed"),
        pytest.param(PING, _answer(b"", then=_wait_for_the_client), TimeOutError, id="ping-never"),
        pytest.param(PING, _answer(b"+PO", then=_wait_for_the_client), TimeOutError, id="ping-never-ends"),
        pytest.param(PING, _answer(b"", then=_reset), ResetError, id="ping-reset"),
        pytest.param(PIPELINE, _answer(b"+PONG\r\n" * 15), ShortReplyError, id="pipeline-one-missing"),
        pytest.param(PIPELINE, _answer(b"+PONG\r\n" * 17), WrongBytesError, id="pipeline-one-too-many"),
        pytest.param(BURN, _answer(b"$64\r\n" + b"0" * 64 + b"\r\n"), WrongBytesError, id="burn-wrong-digest"),
        pytest.param(ECHO, _answer(ECHO.request[:-1] + b"!"), WrongBytesError, id="echo-last-byte-wrong"),
        pytest.param(ECHO, _answer(ECHO.request + b"!"), WrongBytesError, id="echo-one-too-many"),
        pytest.param(ECHO, _answer(ECHO.request[:-1]), ShortReplyError, id="echo-short"),
        pytest.param(ECHO, _answer(b""), ClosedError, id="echo-closed"),
    ],
)
def test_failure_has_its_own_name(workload, behaviour, failure, open_server):
    with open_server(behaviour) as address:
        wire = Wire(address, workload, timeout=0.3 if failure is TimeOutError else 10)
        try:
            with pytest.raises(failure):
                wire.exchange()
        finally:
            wire.close()


def test_no_listener_is_refused():
    with socket.create_server(("127.0.0.1", 0)) as listener:
        address = listener.getsockname()
    with pytest.raises(RefusedError):
        Wire(address, PING, timeout=10)


def test_unknown_host_is_named_so():
    # .invalid never resolves, RFC 2606.
    with pytest.raises(UnknownHostError):
        Wire(("no-such-model.invalid", 1), PING, timeout=10)


def test_reasons_differ():
    kinds = ExchangeError.__subclasses__()
    assert len({kind.reason for kind in kinds}) == len(kinds)


@pytest.mark.parametrize("name", WORKLOADS)
def test_every_workload_is_answered_right(name, open_model):
    workload = WORKLOADS[name]
    server = open_model("asyncio_streams")
    wire = Wire(server.address(workload.service), workload, timeout=10)
    try:
        for _ in range(3):
            wire.exchange()
    finally:
        wire.close()


def test_no_delay_is_set(open_model):
    server = open_model("plain_socket")
    wire = Wire(server.address("command"), PING, timeout=10)
    try:
        assert wire._socket.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
    finally:
        wire.close()
