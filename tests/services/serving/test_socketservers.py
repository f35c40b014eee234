"""What becomes of a client that was accepted: it is served, kept for later, or closed."""

import socket
from contextlib import ExitStack
from types import SimpleNamespace
from typing import Any, cast

import pytest

from services.protocol import Limits, Transport
from services.serving.accepting import Shortage
from services.serving.blocking import StopSignal
from services.serving.listeners import RECEIVE_SIZE, open_listeners, parse_listens
from services.serving.socketservers import Request, make_server, serve_until


class FakeServer:
    """A server of the library whose steps fail if told to."""

    def __init__(self, *, error: Exception | None = None, verified: bool = True) -> None:
        self.error, self.verified = error, verified
        self.steps: list[str] = []

    def verify_request(self, request: object, address: object) -> bool:
        return self.verified

    def process_request(self, request: object, address: object) -> None:
        self.steps.append("process")
        if self.error:
            raise self.error

    def handle_error(self, request: object, address: object) -> None:
        self.steps.append("error")

    def shutdown_request(self, request: object) -> None:
        self.steps.append("close")


@pytest.mark.parametrize(
    ("server", "done", "steps", "is_short"),
    [
        (FakeServer(), True, ["process"], False),
        (FakeServer(verified=False), True, ["close"], False),
        (FakeServer(error=ValueError("a bug")), True, ["process", "error", "close"], False),
        # No process, or no thread: the client is kept, and tried again.
        (FakeServer(error=BlockingIOError("no process")), False, ["process"], True),
        (FakeServer(error=RuntimeError("can't start new thread")), False, ["process"], True),
    ],
)
def test_client_that_is_neither_served_nor_kept_is_closed(
    server: FakeServer, done: bool, steps: list[str], is_short: bool
) -> None:
    shortage = Shortage()
    listener = SimpleNamespace(shortage=shortage, address="tcp://h:1")
    assert Request(cast(Any, listener), cast(Any, server), "request", "address").process() is done
    assert (server.steps, bool(shortage)) == (steps, is_short)


@pytest.mark.usefixtures("kept_signals")
def test_client_that_still_waits_for_a_process_at_the_stop_is_closed() -> None:
    stop = StopSignal()
    with open_listeners(parse_listens(["echo=tcp://127.0.0.1:0"], "m"), Limits(), lambda: "") as (listener,):
        server: Any = FakeServer()
        server.fileno = listener.socket.fileno

        def fail(request: object, address: object) -> None:
            stop.is_set = True
            raise RuntimeError("can't start new thread")

        server.process_request = fail
        server.service_actions = lambda: None
        server.shutdown_request = lambda request: (server.steps.append("close"), request.close())
        with socket.create_connection(listener.socket.getsockname()) as client:
            serve_until(stop, [(listener, server)])
            assert client.recv(1) == b""
    stop.close()
    assert server.steps == ["close"]


@pytest.mark.usefixtures("kept_signals")
def test_limit_holds_though_clients_wait_at_several_sockets() -> None:
    stop = StopSignal()
    served: list[object] = []
    asked: list[int] = []

    def has_room() -> bool:
        asked.append(len(served))
        stop.is_set = len(asked) > 3
        return not served

    wanted = parse_listens(["echo=tcp://127.0.0.1:0", "discard=tcp://127.0.0.1:0"], "m")
    with open_listeners(wanted, Limits(), lambda: "") as listeners, ExitStack() as stack:
        pairs: list[Any] = []
        for listener in listeners:
            server: Any = FakeServer()
            server.fileno = listener.socket.fileno
            server.process_request = lambda request, address: served.append(stack.enter_context(request))
            server.service_actions = lambda: None
            pairs.append((listener, server))
            stack.enter_context(socket.create_connection(listener.socket.getsockname()))
        serve_until(stop, pairs, has_room)
        assert len(served) == 1
    stop.close()


@pytest.mark.parametrize("url", ["tcp://127.0.0.1:0", "udp://127.0.0.1:0"])
def test_server_of_the_library_has_the_socket_of_the_listener(url: str) -> None:
    from socketserver import TCPServer, UDPServer

    classes: dict[Transport, type[TCPServer]] = {Transport.TCP: TCPServer, Transport.UDP: UDPServer}
    with open_listeners(parse_listens([f"echo={url}"], "m"), Limits(), lambda: "") as (listener,):
        server: Any = make_server(listener, classes, lambda *_: None)
        assert server.socket is listener.socket
        # The library's default would cut longer datagrams short, without a word.
        assert server.max_packet_size == RECEIVE_SIZE
