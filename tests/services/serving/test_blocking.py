"""How conversations over blocking sockets end: at once in a drain, and by force after the grace period."""

import _thread
import os
import select
import selectors
import signal
import socket
import sys
import threading
from collections.abc import Iterator
from contextlib import closing, suppress
from dataclasses import replace
from types import SimpleNamespace
from typing import Any, cast

import pytest

from services.protocol import Close, Event, GiveWay, Limits, Send, Wait
from services.serving import blocking
from services.serving.blocking import Conversations, Drain, StopSignal, selector_of
from services.serving.listeners import open_listeners, parse_listens


def open_drain(grace: float) -> Drain:
    """Return the stop signal of a process whose listening sockets are the test's own affair."""
    wanted = parse_listens(["command=tcp://127.0.0.1:0"], "m")
    with open_listeners(wanted, Limits(grace=grace), str) as listeners:
        return Drain(listeners)


@pytest.mark.usefixtures("kept_signals")
def test_alarm_is_set_to_the_grace_period_once(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    alarms: list[tuple[int, float]] = []
    monkeypatch.setattr(signal, "setitimer", lambda which, seconds: alarms.append((which, seconds)))
    for grace in (2.5, 0.0):
        drain = open_drain(grace)
        signal.raise_signal(signal.SIGTERM)
        signal.raise_signal(signal.SIGTERM)
        assert drain.is_set
        drain.close()
    # Zero switches it off: at the close, but not for a grace period of zero.
    assert alarms == [(signal.ITIMER_REAL, seconds) for seconds in (2.5, 0, 0.000_001, 0)]
    monkeypatch.undo()
    with pytest.raises(SystemExit, match=r"^1$"):
        signal.raise_signal(signal.SIGALRM)
    assert caplog.messages == ["the grace period of 0 s is over: the conversation is cut off"]


@pytest.mark.parametrize("ends", [True, False])
def test_conversations_have_the_grace_period_and_are_then_cut_off(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, ends: bool
) -> None:
    conversations = Conversations()
    waited: list[float] = []

    def wait_for(predicate: Any, seconds: float) -> bool:
        assert not predicate()
        waited.append(seconds)
        return ends

    monkeypatch.setattr(conversations._none_left, "wait_for", wait_for)
    ours, theirs = socket.socketpair()
    with ours, theirs:
        conversations.begin()
        connection = Noted()
        # One whose thread is about to forget it is passed over.
        gone = socket.socket()
        gone.close()
        conversations._streams = {gone: cast(Any, Noted()), ours: cast(Any, connection)}
        assert conversations.drain(2.5) is ends
        assert (waited, connection.arrived is not None, conversations._draining) == ([2.5], True, True)
        # One that sleeps is woken, and one that sends is broken off.
        assert conversations._cut.is_set() is not ends
        theirs.settimeout(20.0)
        if not ends:
            assert theirs.recv(1) == b""
    assert ("the grace period of 2.5 s is over: 1 conversations are cut off" in caplog.text) is not ends


@pytest.mark.usefixtures("kept_signals")
@pytest.mark.timeout(60)
def test_stop_signal_just_before_a_blocking_call_ends_the_conversation_soon(monkeypatch: pytest.MonkeyPatch) -> None:
    """Such a signal interrupts nothing: Python's handler waits until the call returns."""
    assert blocking._LONGEST_CALL + Limits().grace < 10  # seconds until `docker stop` kills
    monkeypatch.setattr(blocking, "_LONGEST_CALL", 0.1)
    wanted = parse_listens(["command=tcp://127.0.0.1:0"], "m")
    # Once the signal has come, the alarm of the grace period stands in the place of pytest's.
    limits = Limits(idle=86_400.0, grace=30.0)
    with open_listeners(wanted, limits, str) as (listener,), closing(Drain([listener])) as drain:
        ours, theirs = socket.socketpair()
        with ours, theirs:
            # As the C part of the handler, without a signal that would interrupt the call.
            threading.Timer(0.05, _thread.interrupt_main, [signal.SIGTERM]).start()
            drain.serve_stream(listener, ours, "")
    assert drain.is_set


@pytest.mark.usefixtures("kept_signals")
@pytest.mark.parametrize("before", [True, False])
def test_stop_signal_ends_the_conversation_that_is_held_or_begins_after_it(
    caplog: pytest.LogCaptureFixture, before: bool
) -> None:
    caplog.set_level("INFO")
    wanted = parse_listens(["command=tcp://127.0.0.1:0"], "m")
    with open_listeners(wanted, Limits(idle=5.0, grace=300.0), str) as (listener,), closing(Drain([listener])) as drain:
        ours, theirs = socket.socketpair()
        with ours, theirs:
            theirs.sendall(b"PING\r\n")
            if before:
                signal.raise_signal(signal.SIGTERM)
            else:
                threading.Timer(0.05, os.kill, [os.getpid(), signal.SIGTERM]).start()
            drain.serve_stream(listener, ours, "")
            assert drain.is_set
            assert theirs.recv(100) == b"+PONG\r\n"
            assert listener.socket.fileno() == -1
    # And not only because its client is silent.
    assert caplog.text == ""


@pytest.mark.usefixtures("kept_signals")
@pytest.mark.parametrize("before", [True, False])
def test_nothing_listens_after_a_stop_signal_while_a_datagram_is_answered(
    monkeypatch: pytest.MonkeyPatch, before: bool
) -> None:
    """And what the signal comes before a conversation leaves open, its model still waits for or closes itself."""
    wanted = parse_listens(["command=tcp://127.0.0.1:0", "command=udp://127.0.0.1:0"], "m")
    with open_listeners(wanted, Limits(), str) as listeners, closing(Drain(listeners)) as drain:
        seen: list[object] = []

        def answer(*given: object) -> None:
            if not before:
                signal.raise_signal(signal.SIGTERM)
            seen.extend((given, *(each.socket.fileno() == -1 for each in listeners)))

        if before:
            # Nor do those that are over count.
            ours, theirs = socket.socketpair()
            with ours:
                theirs.close()
                drain.serve_stream(listeners[0], ours, "")
            drain.serve_datagram(listeners[1], b"", "")
            signal.raise_signal(signal.SIGTERM)
            assert listeners[0].socket.fileno() != -1
        monkeypatch.setattr(blocking, "serve_datagram", answer)
        drain.serve_datagram(listeners[1], b"PING", "peer")
        assert seen == [(listeners[1], b"PING", "peer"), True, False]


class Noted:
    """A connection that notes its drain."""

    arrived: int | None = None

    def drain(self, arrived: int = 0) -> None:
        self.arrived = arrived


def test_conversation_that_begins_in_a_drain_answers_what_has_arrived_and_ends() -> None:
    """Its client was accepted before the stop, and its thread starts after it."""
    conversations = Conversations()
    with open_listeners(parse_listens(["command=tcp://127.0.0.1:0"], "m"), Limits(), lambda: "") as (listener,):
        ours, theirs = socket.socketpair()
        with ours, theirs:
            theirs.settimeout(20.0)
            theirs.sendall(b"PING\r\n")
            conversations.begin()
            conversations._draining = True
            thread = threading.Thread(target=conversations.serve_stream, args=[listener, ours, ""], daemon=True)
            thread.start()
            assert theirs.recv(100) == b"+PONG\r\n"
            thread.join(20.0)  # though its client stays
            assert not thread.is_alive()
    assert not conversations._streams


def test_conversation_gives_way_as_its_model_does_and_sleeps_until_it_is_cut_off(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    events: list[Event] = [Wait(0.05), GiveWay(), Send(b"x"), Close(at_eof=True)]
    gave: list[int] = []
    slept: list[float] = []
    timed: list[socket.socket] = []
    conversations = Conversations(
        set_timeouts=lambda stream, seconds: timed.append(stream), give_way=lambda: gave.append(len(events))
    )
    monkeypatch.setattr(conversations._cut, "wait", slept.append)
    script: Any = SimpleNamespace(next_event=lambda: events.pop(0))
    wanted = parse_listens(["command=tcp://127.0.0.1:0", "command=udp://127.0.0.1:0"], "m")
    with open_listeners(wanted, Limits(), str) as (stream, datagrams):
        ours, theirs = socket.socketpair()
        with ours, theirs:
            theirs.settimeout(20.0)
            conversations.serve_stream(replace(stream, recorder=lambda connection, port: script), ours, "")
            assert theirs.recv(100) == b"x"
            assert (slept, gave, events, timed) == ([0.05], [2], [], [ours])
            # A close that waits for the client's own waits at this socket, too.
            events.append(Close())
            theirs.close()
            conversations.serve_stream(replace(stream, recorder=lambda connection, port: script), ours, "")
            assert timed == [ours] * 3
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client:
            client.settimeout(20.0)
            client.bind(("127.0.0.1", 0))
            conversations.serve_datagram(datagrams, b"SLEEP 250\r\n", client.getsockname())
            assert client.recv(100) == b"+OK\r\n"
        assert slept == [0.05, 0.25]


@pytest.mark.timeout(60)
def test_drain_waits_for_the_last_conversation() -> None:
    conversations = Conversations()
    wanted = parse_listens(["command=tcp://127.0.0.1:0", "command=udp://127.0.0.1:0"], "m")
    ours, theirs = socket.socketpair()
    with (
        open_listeners(wanted, Limits(), str) as (listener, datagrams),
        socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client,
        ours,
        theirs,
    ):
        theirs.settimeout(20.0)
        client.settimeout(20.0)
        client.bind(("127.0.0.1", 0))

        def serve() -> None:
            conversations.serve_stream(listener, ours, "")
            conversations.end()

        conversations.begin()
        conversations.begin()
        assert len(conversations) == 2
        thread = threading.Thread(target=serve)
        thread.start()
        # It goes on until the drain.
        for _ in range(2):
            theirs.sendall(b"PING\r\n")
            assert theirs.recv(100) == b"+PONG\r\n"
        conversations.serve_datagram(datagrams, b"SLEEP 1\r\n", client.getsockname())
        assert client.recv(100) == b"+OK\r\n"
        conversations.end()
        assert len(conversations) == 1
        assert conversations.drain(300.0)
        thread.join()
    assert not conversations._cut.is_set()


class Locked(dict[Any, Any]):
    """A table that changes only while a lock is held."""

    def __init__(self, lock: Any) -> None:
        self._lock = lock

    def __setitem__(self, key: object, value: object) -> None:
        assert self._lock.locked()
        super().__setitem__(key, value)

    def __delitem__(self, key: object) -> None:
        assert self._lock.locked()
        super().__delitem__(key)


class Counted(int):
    """A number that changes only while a lock is held."""

    lock: Any

    def __add__(self, other: int) -> "Counted":
        assert self.lock.locked()
        return Counted(int(self) + other)

    def __sub__(self, other: int) -> "Counted":
        return self + -other


def test_drain_sees_no_half_of_a_change(stop: StopSignal, monkeypatch: pytest.MonkeyPatch) -> None:
    """It goes through the table of streams, and waits for the count to be zero, while threads come and go."""
    conversations = Conversations()
    monkeypatch.setattr(Counted, "lock", conversations._lock, raising=False)
    conversations._streams, conversations._count = Locked(conversations._lock), Counted(0)
    with (
        open_listeners(parse_listens(["echo=tcp://127.0.0.1:0"], "m"), Limits(), str) as (listener,),
        socket.create_connection(listener.socket.getsockname(), 20) as client,
    ):
        client.shutdown(socket.SHUT_WR)
        hold = conversations.take(listener, stop)
        assert hold is not None
        assert len(conversations) == 1
        hold()
        assert client.recv(1) == b""
    assert len(conversations) == 0


def test_conversation_that_fails_is_not_counted_any_more(stop: StopSignal) -> None:
    """The server would wait for it in a drain, and be full for ever after some."""

    def fail(*_: object) -> None:
        assert conversations._streams
        raise OSError("no buffer space")

    conversations = Conversations(fail)
    with (
        open_listeners(parse_listens(["echo=tcp://127.0.0.1:0"], "m"), Limits(), str) as (listener,),
        socket.create_connection(listener.socket.getsockname(), 20) as client,
    ):
        hold = conversations.take(listener, stop)
        assert hold is not None
        with pytest.raises(OSError, match="no buffer space"):
            hold()
        assert client.recv(1) == b""
    assert (len(conversations), conversations._streams) == (0, {})


@pytest.fixture
def stop(kept_signals: None) -> Iterator[StopSignal]:
    with closing(StopSignal()) as stop:
        yield stop


def is_readable(stop: StopSignal) -> bool:
    return bool(select.select([stop], [], [], 0)[0])


def test_stop_signal_is_readable_until_it_is_cleared_and_stays_set(stop: StopSignal) -> None:
    assert not stop.is_set
    assert not is_readable(stop)
    assert not os.get_blocking(stop.fileno())
    signal.raise_signal(signal.SIGTERM)
    assert stop.is_set
    assert is_readable(stop)
    stop.clear()
    stop.clear()
    assert not is_readable(stop)
    assert stop.is_set


def test_more_signals_than_fit_are_no_error(stop: StopSignal, monkeypatch: pytest.MonkeyPatch) -> None:
    errors: list[object] = []
    monkeypatch.setattr(sys, "unraisablehook", errors.append)
    with suppress(BlockingIOError):
        while True:
            stop._sender.send(bytes(65536))
    with suppress(BlockingIOError):
        while True:
            stop._sender.send(b"x")
    signal.raise_signal(signal.SIGTERM)
    assert (stop.is_set, errors) == (True, [])


def test_waiting_ends_at_its_deadline_and_with_a_signal(stop: StopSignal, monkeypatch: pytest.MonkeyPatch) -> None:
    waited: list[tuple[object, float | None]] = []
    pauses = iter([0.25, 0.0])
    listener: Any = SimpleNamespace(shortage=SimpleNamespace(pause=0.0))

    def accept() -> None:
        listener.shortage.pause = next(pauses)

    listener.accept = accept
    noted = SimpleNamespace(select=lambda reads, _, __, timeout: waited.append((reads, timeout)))
    monkeypatch.setattr(blocking, "select", noted)
    monkeypatch.setattr(blocking, "time", SimpleNamespace(monotonic=lambda: 100.0))
    signal.raise_signal(signal.SIGTERM)
    for deadline in (None, 101.5, 99.0):
        stop.wait(deadline)
    assert not is_readable(stop)
    stop.accept(listener)
    stop.accept(listener)
    assert waited == [([stop._receiver], timeout) for timeout in (None, 1.5, 0, 0.25)]


def test_selector_has_all_listeners_and_the_stop_signal(stop: StopSignal) -> None:
    wanted = parse_listens(["command=tcp://127.0.0.1:0", "command=udp://127.0.0.1:0"], "m")
    with open_listeners(wanted, Limits(), str) as listeners, selector_of(listeners, stop) as selector:
        found = {key.fd: (key.data, key.events) for key in selector.get_map().values()}
        assert found == {
            **{each.socket.fileno(): (each, selectors.EVENT_READ) for each in listeners},
            stop.fileno(): (None, selectors.EVENT_READ),
        }


def test_client_is_counted_from_its_accept_to_the_end_of_its_conversation(stop: StopSignal) -> None:
    conversations = Conversations()
    wanted = parse_listens(["echo=tcp://127.0.0.1:0", "echo=udp://127.0.0.1:0"], "m")
    with open_listeners(wanted, Limits(), str) as listeners:
        for listener in listeners:
            assert conversations.take(listener, stop) is None  # nobody is there
            assert len(conversations) == 0
            kind = socket.SOCK_DGRAM if listener.is_datagram else socket.SOCK_STREAM
            with socket.socket(socket.AF_INET, kind) as client:
                client.settimeout(20)
                client.connect(listener.socket.getsockname())
                client.sendall(b"hello")
                if kind == socket.SOCK_STREAM:
                    client.shutdown(socket.SHUT_WR)
                select.select([listener.socket], [], [], 20)
                hold = conversations.take(listener, stop)
                assert hold is not None
                assert len(conversations) == 1
                hold()
                assert len(conversations) == 0
                assert client.recv(100) == b"hello"
                if kind == socket.SOCK_STREAM:
                    assert client.recv(100) == b""  # it is closed
