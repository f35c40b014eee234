"""The connection as a machine: any order of calls, right ones and wrong ones, against a model of a few lines."""

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from services.protocol import AdapterError, Close, Compute, Connection, GiveWay, Limits, Send, Wait

LIMITS = Limits(sleep_ms=50, burn=5, blob=200_000, pipeline=3)
DIGEST = b"%064d" % 7

# By name: a request, what it is answered with, and the work that comes before.
REQUESTS: dict[str, tuple[bytes, bytes, Wait | Compute | None]] = {
    "line": (b"PING\r\n", b"+PONG\r\n", None),
    "array": (b"*2\r\n$4\r\nECHO\r\n$6\r\na\r\n$1\r\r\n", b"$6\r\na\r\n$1\r\r\n", None),
    "unknown": (b"\r\n*0\r\nNOPE\n", b"-ERR unknown command 'NOPE'\r\n", None),
    "sleep": (b"SLEEP 20\r\n", b"+OK\r\n", Wait(0.02)),
    "burn": (b"*2\r\n$4\r\nburn\r\n$1\r\n3\r\n", b"$64\r\n%b\r\n" % DIGEST, Compute(3)),
    "blob": (b"BLOB 200000\r\n", b"$200000\r\n%b\r\n" % (bytes(range(32, 127)) * 2106)[:200_000], None),
    "refused": (b"SLEEP 51\r\n", b"-ERR SLEEP takes 0 to 50 ms, not '51'\r\n", None),
}
# These end the stream: what follows is not answered.
LAST: dict[str, tuple[bytes, bytes]] = {
    "quit": (b"QUIT\r\n", b"+OK\r\n"),
    "broken": (b"*x\r\n", b"-ERR Protocol error: array length 'x' is not a number of arguments\r\n"),
}


class ConnectionMachine(RuleBasedStateMachine):
    """Sends requests in pieces, and pulls events one at a time, as adapters do or must not do."""

    def __init__(self) -> None:
        super().__init__()
        self.connection = Connection("command", limits=LIMITS)
        self.undelivered = b""
        self.expected = b""  # all replies to what was written, delivered or not
        self.work: list[Wait | Compute] = []  # that will be asked for
        self.sent = b""
        self.awaits_digest = False
        self.writes_no_more = False
        self.stream_has_ended = False
        self.is_closed = False

    @precondition(lambda self: not self.writes_no_more)
    @rule(names=st.lists(st.sampled_from(sorted(REQUESTS)), min_size=1, max_size=6))
    def write(self, names: list[str]) -> None:
        for request, reply, work in map(REQUESTS.__getitem__, names):
            self.undelivered += request
            self.expected += reply
            self.work += [work] if work else []

    @precondition(lambda self: not self.writes_no_more)
    @rule(name=st.sampled_from(sorted(LAST)), more=st.binary(max_size=20))
    def write_the_last(self, name: str, more: bytes) -> None:
        request, reply = LAST[name]
        self.undelivered += request + more
        self.expected += reply
        self.writes_no_more = True

    @precondition(lambda self: self.undelivered)
    @rule(share=st.floats(0, 1))
    def deliver(self, share: float) -> None:
        size = max(1, round(len(self.undelivered) * share))
        self.connection.receive_data(self.undelivered[:size])
        self.undelivered = self.undelivered[size:]

    @precondition(lambda self: not self.undelivered and not self.stream_has_ended)
    @rule()
    def end(self) -> None:
        self.connection.receive_eof()
        self.stream_has_ended = self.writes_no_more = True

    @precondition(lambda self: not self.undelivered)
    @rule()
    def drain(self) -> None:
        self.connection.drain()
        self.writes_no_more = True

    @precondition(lambda self: not self.awaits_digest)
    @rule()
    def pull(self) -> None:
        match event := self.connection.next_event():
            case Send(data):
                assert data, "a Send of nothing"
                self.sent += data
            case Wait():
                assert event == self.work.pop(0)
            case Compute():
                assert event == self.work.pop(0)
                self.awaits_digest = True
            case GiveWay():
                assert not self.is_closed
            case Close():
                self.is_closed = True

    @precondition(lambda self: self.awaits_digest)
    @rule()
    def give_digest(self) -> None:
        self.connection.receive_digest(DIGEST)
        self.awaits_digest = False

    @precondition(lambda self: self.awaits_digest)
    @rule()
    def pull_before_the_digest(self) -> None:
        with pytest.raises(AdapterError, match="before the digest"):
            self.connection.next_event()

    @precondition(lambda self: not self.awaits_digest)
    @rule()
    def give_a_digest_that_nobody_asked_for(self) -> None:
        with pytest.raises(AdapterError, match="without a Compute"):
            self.connection.receive_digest(DIGEST)

    @precondition(lambda self: self.stream_has_ended)
    @rule()
    def deliver_after_the_end(self) -> None:
        with pytest.raises(AdapterError, match="after receive_eof"):
            self.connection.receive_data(b"PING\r\n")

    @invariant()
    def what_is_sent_is_what_was_asked_for_in_its_order(self) -> None:
        # And not by `startswith` alone: of replies of 200 kB, a failure would be printed in full.
        is_prefix = self.expected.startswith(self.sent)
        assert is_prefix, f"after {len(self.sent)} bytes: ...{self.sent[-80:]!r}"

    @invariant()
    def nothing_is_missing_at_the_close(self) -> None:
        if self.is_closed:
            assert len(self.sent) == len(self.expected)
            assert not self.work
            assert self.connection.next_event() == Close()

    def teardown(self) -> None:
        if self.undelivered:
            self.deliver(1.0)
        if not self.stream_has_ended:
            self.end()
        while not self.is_closed:
            if self.awaits_digest:
                self.give_digest()
            self.pull()
            self.what_is_sent_is_what_was_asked_for_in_its_order()
        self.nothing_is_missing_at_the_close()


TestConnectionMachine = ConnectionMachine.TestCase
TestConnectionMachine.settings = settings(deadline=None, max_examples=60, stateful_step_count=30)
