"""What becomes of a client that was accepted: it is served, kept for later, or closed."""

import os
import signal
import socket
import threading
from collections.abc import Iterator
from contextlib import ExitStack, closing
from dataclasses import replace
from types import SimpleNamespace
from typing import Any, cast

import pytest

from services.models import socketserver_forking, socketserver_sequential, socketserver_threading
from services.models.socketserver_forking import ForkingTCPServer
from services.protocol import Limits, Transport
from services.serving.accepting import Shortage
from services.serving.blocking import StopSignal
from services.serving.listeners import RECEIVE_SIZE, Listener, open_listeners, parse_listens
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


@pytest.fixture
def stop(kept_signals: None) -> Iterator[StopSignal]:
    with closing(StopSignal()) as stop:
        yield stop


class Turns:
    """A server of the library that counts the turns of the loop, and stops it after some.

    Args:
        failures: how many clients get no thread.
    """

    def __init__(self, stop: StopSignal, listener: Listener, *, most: int, failures: int = 0) -> None:
        self.stop, self.listener = stop, listener
        self.most, self.failures = most, failures
        self.turns = 0
        self.served: list[tuple[int, float]] = []

    def fileno(self) -> int:
        return self.listener.socket.fileno()

    def verify_request(self, request: object, address: object) -> bool:
        return True

    def process_request(self, request: socket.socket, address: object) -> None:
        if self.failures:
            self.failures -= 1
            raise RuntimeError("can't start new thread")
        self.served.append((self.turns, self.listener.shortage.pause))
        request.close()

    def service_actions(self) -> None:
        self.turns += 1
        self.stop.is_set |= self.turns == self.most


def test_client_that_gets_no_thread_is_served_after_a_pause(stop: StopSignal) -> None:
    wanted = parse_listens(["echo=tcp://127.0.0.1:0"], "m")
    with open_listeners(wanted, Limits(), str) as (listener,):
        server: Any = Turns(stop, listener, most=3, failures=2)
        with socket.create_connection(listener.socket.getsockname()):
            serve_until(stop, [(listener, server)])
        # It is accepted in the first turn, fails then and at the begin of the second, and is served in the third, when
        # there is nothing to wait for any more.
        assert server.served == [(2, 0.0)]


@pytest.mark.parametrize("why", ["the stop", "a shortage"])
def test_nothing_more_is_accepted_in_the_turn_of(stop: StopSignal, monkeypatch: pytest.MonkeyPatch, why: str) -> None:
    """Clients wait at two sockets, and the first of them finds that."""
    tried: list[Listener] = []

    def accept(listener: Listener) -> None:
        tried.append(listener)
        if why == "the stop":
            stop.is_set = True
        else:
            listener.shortage.pause = 0.001

    monkeypatch.setattr(Listener, "accept", accept)
    wanted = parse_listens(["echo=tcp://127.0.0.1:0", "discard=tcp://127.0.0.1:0"], "m")
    with open_listeners(wanted, Limits(), str) as listeners, ExitStack() as stack:
        pairs: list[Any] = [(each, Turns(stop, each, most=1)) for each in listeners]
        for each in listeners:
            stack.enter_context(socket.create_connection(each.socket.getsockname()))
        serve_until(stop, pairs)
    assert len(tried) == 1


def test_client_that_goes_away_before_it_is_accepted_is_none(stop: StopSignal, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Listener, "accept", lambda self: None)
    wanted = parse_listens(["echo=tcp://127.0.0.1:0"], "m")
    with open_listeners(wanted, Limits(), str) as (listener,):
        server: Any = Turns(stop, listener, most=2)
        with socket.create_connection(listener.socket.getsockname()):
            serve_until(stop, [(listener, server)])
    assert (server.turns, server.served) == (2, [])


@pytest.mark.timeout(60)
@pytest.mark.parametrize("has_room", [True, False])
def test_loop_waits_for_the_stop_signal_and_takes_a_turn_for_another_one(stop: StopSignal, has_room: bool) -> None:
    """As SIGCHLD, which says that a child is to be collected."""
    before = signal.signal(signal.SIGUSR1, lambda *_: None)
    wanted = parse_listens(["echo=tcp://127.0.0.1:0"], "m")
    try:
        with open_listeners(wanted, Limits(), str) as (listener,):
            server: Any = Turns(stop, listener, most=-1)
            signal.raise_signal(signal.SIGUSR1)
            threading.Timer(0.05, os.kill, [os.getpid(), signal.SIGTERM]).start()
            serve_until(stop, [(listener, server)], lambda: has_room)
    finally:
        signal.signal(signal.SIGUSR1, before)
    # One for each signal; at the limit, the loop also looks for room from time to time.
    assert server.turns == 2 or not has_room


@pytest.mark.parametrize("transport", [Transport.TCP, Transport.TLS, Transport.UDP])
def test_server_of_the_library_has_the_socket_of_the_listener(transport: Transport) -> None:
    from socketserver import TCPServer, UDPServer

    classes: dict[Transport, type[TCPServer]] = {Transport.TCP: TCPServer, Transport.UDP: UDPServer}
    url = f"{transport.carrier}://127.0.0.1:0"
    with open_listeners(parse_listens([f"echo={url}"], "m"), Limits(), lambda: "") as (opened,):
        listener = replace(opened, address=replace(opened.address, transport=transport))
        served: list[object] = []
        server: Any = make_server(
            listener,
            classes,
            lambda *arguments: served.append(("stream", *arguments)),
            lambda *arguments: served.append(("datagram", *arguments)),
        )
        assert server.socket is listener.socket
        # The library's default would cut longer datagrams short, without a word.
        assert server.max_packet_size == RECEIVE_SIZE
        request: Any = (b"x", listener.socket) if listener.is_datagram else listener.socket
        server.finish_request(request, "address")
        kind, given = ("datagram", b"x") if listener.is_datagram else ("stream", listener.socket)
        assert served == [(kind, listener, given, "address")]


@pytest.mark.usefixtures("kept_signals")
@pytest.mark.parametrize("has_parent", [True, False])
def test_forked_child_keeps_no_port_and_takes_no_signal_of_its_parents(
    monkeypatch: pytest.MonkeyPatch, has_parent: bool
) -> None:
    """Its alarm would end it, with a line in the log, when its parent decides the same; then nobody knows who did."""
    served: list[object] = []
    monkeypatch.setattr(socketserver_forking, "die_with", lambda parent: has_parent and parent == 7)
    server = ForkingTCPServer.__new__(ForkingTCPServer)
    server.parent = 7
    server.RequestHandlerClass = cast(Any, lambda *request: served.append(request[:2]))
    signal.signal(signal.SIGALRM, signal.SIG_DFL)
    with socket.socket() as listening, socket.socket() as wakeup:
        server.listening = [listening]
        wakeup.setblocking(False)
        descriptor = wakeup.fileno()
        signal.set_wakeup_fd(descriptor)
        server.finish_request("a client", "its address")
        assert signal.set_wakeup_fd(-1) == (-1 if has_parent else descriptor)
        assert (listening.fileno() == -1, served) == (has_parent, [("a client", "its address")] * has_parent)
    assert (signal.getsignal(signal.SIGALRM) is signal.SIG_IGN) is has_parent


@pytest.mark.usefixtures("kept_signals")
@pytest.mark.parametrize("model", [socketserver_forking, socketserver_threading, socketserver_sequential])
def test_model_accepts_up_to_the_limit_of_all_its_sockets_together(model: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """A forking server of the library would block with its fortieth child, and hear no signal meanwhile."""
    wanted = parse_listens(["echo=tcp://127.0.0.1:0", "echo=tcp://127.0.0.1:0", "echo=udp://127.0.0.1:0"], "m")
    rooms: list[bool] = []
    before = signal.getsignal(signal.SIGCHLD)

    def serve_until(stop: StopSignal, servers: Any, has_room: Any = lambda: True) -> None:
        assert [listener for listener, _ in servers] == listeners
        streams = [each.socket for each in listeners[:2]]
        for count in (2, 3):
            for number, (_, server) in enumerate(servers):
                if model is socketserver_forking:
                    assert (server.max_children, server.parent, server.listening) == (4, os.getpid(), streams)
                    server.active_children = {100 + number} if number < count else None
                elif model is socketserver_threading and number < count:
                    server.conversations.begin()
            rooms.append(has_room())
            for number, (_, server) in enumerate(servers):
                server.active_children = None
                if model is socketserver_threading and number < count:
                    server.conversations.end()

    monkeypatch.setattr(model, "serve_until", serve_until)
    try:
        with open_listeners(wanted, Limits(connections=3), lambda: "") as listeners:
            model.serve(listeners)
            assert [each.socket.fileno() for each in listeners] == [-1] * 3
    finally:
        signal.signal(signal.SIGCHLD, before)
    assert rooms == [True, model is socketserver_sequential]
