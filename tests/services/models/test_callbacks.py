"""What the models over callbacks share, by itself: with timers that fire when the test says so."""

import logging
import socket
from collections.abc import Callable
from dataclasses import dataclass, field

import pytest

from services.protocol import Close, Connection, Limits, StreamConversation
from services.serving.accepting import Shortage
from services.serving.callbacks import Conversations, resume, retry_accept
from services.serving.idle import LOOKS, IdleWatch
from services.serving.listeners import open_listeners, parse_listens
from services.serving.states import CLOSED, LINGERING, READING, SENDING, WAITING, State

LIMITS = Limits(connections=2, idle=8.0, linger=2.0, grace=5.0)


class Timers:
    """Notes what is to be called, and calls it in its order."""

    def __init__(self) -> None:
        self.now = 0.0
        self.due: list[tuple[float, Callable[[], object]]] = []

    def call_later(self, seconds: float, callback: Callable[[], object]) -> None:
        self.due.append((self.now + seconds, callback))

    def pass_time(self, seconds: float) -> None:
        end = self.now + seconds
        while timers := [timer for timer in self.due if timer[0] <= end]:
            timer = min(timers, key=lambda each: each[0])
            self.due.remove(timer)
            self.now = timer[0]
            timer[1]()
        self.now = end


@dataclass(eq=False)
class FakeStream:
    """A stream without a socket: what its client has not taken is what the test says."""

    conversations: Conversations
    connection: StreamConversation = field(default_factory=lambda: Connection("command"))
    idle: IdleWatch = field(default_factory=IdleWatch)
    state: State = READING
    descriptor: int = -1
    held: int = 0
    did: list[str] = field(default_factory=list)

    def untaken(self) -> tuple[int, int]:
        return self.descriptor, self.held

    def advance(self) -> None:
        self.did.append("advance")
        if self.connection is None:
            raise ValueError("a fault in the model")

    def close(self) -> None:
        self.did.append("close")
        if self.state is not CLOSED:
            self.state = CLOSED
            self.conversations.end(self)

    def break_off(self) -> None:
        self.close()


@pytest.fixture
def timers() -> Timers:
    return Timers()


@pytest.fixture
def conversations(timers: Timers) -> Conversations:
    return Conversations(LIMITS, timers.call_later)


@pytest.fixture
def stream(conversations: Conversations) -> FakeStream:
    stream = FakeStream(conversations)
    assert conversations.begin(stream)
    return stream


def test_conversations_above_the_limit_do_not_begin(conversations: Conversations, stream: FakeStream) -> None:
    assert conversations.begin()
    assert not conversations.has_room
    assert not conversations.begin(FakeStream(conversations))
    assert conversations.streams == {stream}
    conversations.end()
    assert conversations.has_room
    assert conversations.count == 1


@pytest.mark.parametrize("state", [READING, SENDING, LINGERING])
def test_idle_stream_is_closed(
    timers: Timers, stream: FakeStream, state: State, caplog: pytest.LogCaptureFixture
) -> None:
    stream.state = state
    with caplog.at_level(logging.INFO, logger="services"):
        timers.pass_time(LIMITS.idle)
        assert stream.did == []
        timers.pass_time(LIMITS.idle / LOOKS)
    assert stream.did == ["close"]
    assert [record.getMessage() for record in caplog.records] == (
        [] if state is LINGERING else ["closed a connection that was idle for 8 s"]
    )


def test_stream_that_waits_for_the_server_is_not_idle(timers: Timers, stream: FakeStream) -> None:
    stream.state = WAITING
    timers.pass_time(5 * LIMITS.idle)
    assert stream.did == []


def test_linger_time_begins_again_for_a_client_that_is_taking(
    timers: Timers, conversations: Conversations, stream: FakeStream
) -> None:
    stream.held = 3
    conversations.linger(stream)
    assert stream.state is LINGERING
    for _ in range(2):
        stream.held -= 1
        timers.pass_time(LIMITS.linger)
        assert stream.did == []
    timers.pass_time(LIMITS.linger)
    assert stream.did == ["close"]


def test_linger_time_does_not_begin_again_in_a_drain(
    timers: Timers, conversations: Conversations, stream: FakeStream
) -> None:
    stream.held = 3
    conversations.linger(stream)
    conversations.drain()
    stream.held -= 1
    timers.pass_time(LIMITS.linger)
    assert stream.did == ["close"]


def test_loop_is_turned_until_the_last_conversation_has_ended(conversations: Conversations, stream: FakeStream) -> None:
    turns = []

    def turn() -> None:
        turns.append(conversations.count)
        if len(turns) == 3:
            stream.close()

    assert conversations.drain_by(turn)
    assert turns == [1, 1, 1]
    assert conversations.is_draining


def test_conversations_are_cut_off_when_the_grace_period_is_over(
    timers: Timers, conversations: Conversations, stream: FakeStream, caplog: pytest.LogCaptureFixture
) -> None:
    assert not conversations.drain_by(lambda: timers.pass_time(1.0))
    assert timers.now == LIMITS.grace
    assert stream.did == ["close"]
    assert "the grace period of 5 s is over: 1 conversations are cut off" in caplog.text


def test_end_of_a_conversation_is_counted_and_told(timers: Timers) -> None:
    told: list[int] = []
    ours = Conversations(LIMITS, timers.call_later, lambda: told.append(ours.count))
    stream = FakeStream(ours)
    assert ours.begin(stream)
    assert ours.begin()
    ours.end()
    assert ours.streams == {stream}
    ours.end(stream)
    assert ours.streams == set()
    assert told == [1, 0]


def test_datagram_is_a_conversation_until_it_is_answered(timers: Timers, conversations: Conversations) -> None:
    wanted = parse_listens(["command=udp://127.0.0.1:0"], "m")
    with (
        open_listeners(wanted, LIMITS, str) as (listener,),
        socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client,
    ):
        client.settimeout(20.0)
        client.connect(listener.socket.getsockname())
        conversations.receive(listener)  # none has arrived
        assert conversations.count == 0
        conversations.begin()
        client.send(b"SLEEP 250\r\n")
        client.send(b"ECHO dropped\r\n")
        conversations.receive(listener)
        conversations.receive(listener)
        timers.pass_time(0.2)
        assert conversations.count == 2
        timers.pass_time(0.1)
        assert conversations.count == 1
        client.send(b"PING\r\n")
        conversations.receive(listener)
        assert conversations.count == 1
        assert [client.recv(100), client.recv(100)] == [b"+OK\r\n", b"+PONG\r\n"]
        client.send(b"INFO\r\n")
        conversations.receive(listener)
        assert "\r\npeer:{}:{}\r\n".format(*client.getsockname()).encode() in client.recv(1000)


@pytest.mark.parametrize("state", [READING, SENDING, WAITING, LINGERING])
def test_drain_ends_the_reading_of_what_goes_to_a_connection(
    conversations: Conversations, stream: FakeStream, state: State
) -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        ours.setblocking(False)
        stream.descriptor, stream.state = ours.fileno(), state
        conversations.drain()
        if state is LINGERING:
            with pytest.raises(BlockingIOError):
                ours.recv(1)
        else:
            assert ours.recv(1) == b""
            stream.connection.receive_eof()
            assert stream.connection.next_event() == Close()


@pytest.mark.parametrize("at_eof", [False, True])
def test_only_the_close_of_a_client_that_has_not_closed_has_stages(
    conversations: Conversations, stream: FakeStream, at_eof: bool
) -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        theirs.setblocking(False)
        conversations.close_in_stages(stream, ours, at_eof)
        if at_eof:
            assert stream.did == ["close"]
            with pytest.raises(BlockingIOError):
                theirs.recv(1)
        else:
            assert stream.did == []
            assert stream.state is LINGERING
            assert theirs.recv(1) == b""


def test_connection_that_is_lost_in_its_close_is_closed(
    conversations: Conversations, stream: FakeStream, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.DEBUG, logger="services"), socket.socket() as unconnected:
        conversations.close_in_stages(stream, unconnected, False)
    assert stream.did == ["close"]
    assert caplog.messages == ["the peer is gone: Transport endpoint is not connected"]


def test_accept_is_tried_again_after_the_pause_of_a_shortage(timers: Timers) -> None:
    shortage = Shortage(lambda: timers.now)
    tried: list[float] = []
    assert not retry_accept(shortage, timers.call_later, lambda: tried.append(timers.now))
    assert timers.due == []
    shortage.failed("x")
    assert retry_accept(shortage, timers.call_later, lambda: tried.append(timers.now))
    timers.pass_time(1.05)
    assert (tried, bool(shortage)) == ([0.1], True)
    # Timers may fire a little early: it ends a tenth of a second after the second without a failure.
    timers.pass_time(0.1)
    assert (tried, bool(shortage)) == ([0.1], False)


def test_resumed_stream_is_not_idle_for_what_it_waited(stream: FakeStream) -> None:
    for _ in range(LOOKS):
        assert not stream.idle.is_idle(-1)
    resume(stream)
    assert not stream.idle.is_idle(-1)


@pytest.mark.parametrize("state", list(State))
def test_only_a_stream_that_waits_is_resumed(stream: FakeStream, state: State) -> None:
    stream.state = state
    resume(stream)
    assert stream.did == (["advance"] if state is WAITING else [])
    assert stream.state is (READING if state is WAITING else state)


def test_error_in_a_timer_ends_its_own_conversation(stream: FakeStream, caplog: pytest.LogCaptureFixture) -> None:
    stream.state = WAITING
    stream.connection = None  # type: ignore[assignment]  # so that `advance` raises
    resume(stream)
    assert stream.did == ["advance", "close"]
    assert "a fault in the model" in caplog.text
