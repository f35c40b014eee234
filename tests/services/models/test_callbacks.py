"""What the models over callbacks share, by itself: with timers that fire when the test says so."""

import logging
from collections.abc import Callable
from dataclasses import dataclass, field

import pytest

from services.protocol import Connection, Limits, StreamConversation
from services.serving.callbacks import Conversations, resume
from services.serving.idle import LOOKS, IdleWatch
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
    held: int = 0
    did: list[str] = field(default_factory=list)

    def untaken(self) -> tuple[int, int]:
        return -1, self.held

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


def test_conversations_are_cut_off_when_the_grace_period_is_over(
    timers: Timers, conversations: Conversations, stream: FakeStream, caplog: pytest.LogCaptureFixture
) -> None:
    assert not conversations.drain_by(lambda: timers.pass_time(1.0))
    assert timers.now == LIMITS.grace
    assert stream.did == ["close"]
    assert "the grace period of 5 s is over: 1 conversations are cut off" in caplog.text


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
