"""How a loop's acceptor ends: no socket is left, and no client that was accepted is forgotten."""

import asyncio
import os
import signal
import socket
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any, cast

import pytest

from services.protocol import Limits
from services.serving import asyncio_transports
from services.serving.asyncio_transports import Acceptor, accept_until_stopped, run_on
from services.serving.listeners import Listener, open_listeners, parse_listens


@pytest.mark.parametrize("error", [ConnectionResetError(), asyncio.CancelledError()])
def test_client_that_is_gone_before_it_has_its_protocol_is_closed(error: BaseException) -> None:
    async def connect() -> None:
        raise error

    stream = socket.socket()
    assert Acceptor._go_on(connect(), stream) is None
    assert stream.fileno() == -1


def test_client_that_has_its_protocol_stays_open() -> None:
    async def connect() -> None:
        pass

    with socket.socket() as stream:
        assert Acceptor._go_on(connect(), stream) is None
        assert stream.fileno() >= 0


def test_stop_waits_for_each_client_that_was_accepted(monkeypatch: pytest.MonkeyPatch) -> None:
    """Such a client is not counted before it has its protocol, so a drain would overlook it."""
    steps: list[str] = []
    monkeypatch.setattr(asyncio_transports, "stop_signals", lambda: [signal.SIGUSR1])

    class FakeAcceptor:
        def __init__(self, name: str) -> None:
            self.name = name

        def close(self) -> None:
            steps.append(f"close {self.name}")

        async def wait_arrived(self) -> None:
            await asyncio.sleep(0)
            steps.append(f"all of {self.name}")

    async def run() -> None:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as datagrams:
            datagrams.bind(("127.0.0.1", 0))
            listeners = [SimpleNamespace(socket=name, is_datagram=False) for name in ("a", "b")] + [
                SimpleNamespace(socket=datagrams, is_datagram=True)
            ]
            loop = asyncio.get_running_loop()
            loop.call_soon(os.kill, os.getpid(), signal.SIGUSR1)
            await accept_until_stopped(
                cast(Any, listeners), lambda listener: cast(Any, FakeAcceptor(str(listener.socket))), lambda _: None
            )
            # Replies may still leave, but nothing is received.
            assert not loop.remove_reader(datagrams)
            loop.remove_signal_handler(signal.SIGUSR1)

    asyncio.run(run())
    assert steps == ["close a", "close b", "all of a", "all of b"]


def test_acceptor_waits_until_each_connection_has_its_protocol() -> None:
    async def run() -> list[bool]:
        arriving = asyncio.get_running_loop().create_future()
        acceptor = cast(Any, SimpleNamespace(_arriving={arriving}))
        waiting = asyncio.ensure_future(Acceptor.wait_arrived(acceptor))
        await asyncio.sleep(0)
        seen = [waiting.done()]
        arriving.set_result(None)
        await waiting
        return seen

    assert asyncio.run(run()) == [False]


def test_turn_of_the_loop_accepts_no_more_than_it_may() -> None:
    """The other conversations get their turn."""
    connected: list[str] = []
    listener = SimpleNamespace(accept=lambda: ("a client", "its address"), shortage=SimpleNamespace(pause=0.0))
    acceptor = SimpleNamespace(
        _at_once=3, _listener=listener, _connect=connected.append, _loop=SimpleNamespace(call_later=None)
    )
    acceptor._accept_again = None
    Acceptor._accept(cast(Any, acceptor))
    assert connected == ["a client"] * 3


@pytest.fixture
def listener() -> Iterator[Listener]:
    with open_listeners(parse_listens(["echo=tcp://127.0.0.1:0"], "m"), Limits(), lambda: "") as listeners:
        yield listeners[0]


def is_watched(listener: Listener) -> bool:
    """Return whether the running loop accepts; it no longer does so afterwards."""
    return asyncio.get_running_loop().remove_reader(listener.socket)


def test_acceptor_pauses_in_a_shortage_and_then_accepts_again(listener: Listener) -> None:
    """The socket stays readable, so a loop that watched it would do nothing else."""
    calls: list[tuple[float, object]] = []

    async def run() -> None:
        acceptor = Acceptor(listener, asyncio.Protocol, at_once=1)
        loop = acceptor._loop
        shortage = SimpleNamespace(pause=0.25, look=None)
        failing = SimpleNamespace(accept=lambda: None, shortage=shortage, socket=listener.socket)
        timers = SimpleNamespace(call_later=lambda *call: calls.append(call), remove_reader=loop.remove_reader)
        acceptor._listener, acceptor._loop = cast(Any, failing), cast(Any, timers)
        acceptor._accept()
        assert calls[0] == (0.25, acceptor._accept_again)
        assert not is_watched(listener)
        acceptor._listener, acceptor._loop = listener, loop
        acceptor._accept_again()
        assert is_watched(listener)

    asyncio.run(run())


def test_acceptor_that_is_closed_in_a_shortage_forgets_it(listener: Listener) -> None:
    """Nothing is accepted any more: no line says that the shortage is over, and no timer watches a closed socket."""

    async def run() -> None:
        acceptor = Acceptor(listener, asyncio.Protocol, at_once=1)
        listener.shortage.failed("no descriptor")
        acceptor.close()
        assert not listener.shortage
        assert listener.socket.fileno() == -1
        acceptor._accept_again()

    asyncio.run(run())


def test_acceptor_keeps_nothing_of_a_client_that_has_its_protocol(listener: Listener) -> None:
    async def run() -> None:
        made = asyncio.Event()

        class Client(asyncio.Protocol):
            def connection_made(self, transport: asyncio.BaseTransport) -> None:
                transport.close()
                made.set()

        acceptor = Acceptor(listener, Client, at_once=1)
        with socket.create_connection(listener.socket.getsockname()):
            await made.wait()
            await acceptor.wait_arrived()
            await asyncio.sleep(0)
            assert not acceptor._arriving
        acceptor.close()

    asyncio.run(run())


@pytest.mark.parametrize("is_clean", [True, False])
def test_stop_signals_are_held_before_the_loop_gives_up_its_handlers(
    monkeypatch: pytest.MonkeyPatch, is_clean: bool
) -> None:
    """A second signal would otherwise end the process before the files of its sockets are removed."""
    steps: list[object] = []

    class Server:
        async def run(self) -> bool:
            steps.append("served")
            return is_clean

    monkeypatch.setattr(
        asyncio_transports, "hold_stop_signals", lambda: steps.append(asyncio.get_running_loop().is_running())
    )
    assert run_on(asyncio.SelectorEventLoop, Server) is is_clean
    assert steps == ["served", True]


def test_transport_without_a_socket_has_no_descriptor() -> None:
    with socket.socket() as owner:
        for found, number in ((owner, owner.fileno()), (None, -1)):
            transport = SimpleNamespace(get_extra_info={"socket": found}.__getitem__)
            assert asyncio_transports.descriptor_of(cast(Any, transport)) == number
