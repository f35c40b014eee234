"""The request log: each reply is the one that is due, a duplicate, out of order or another connection's."""

import os
import select
import socket
import struct
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from selectors import BaseSelector
from typing import cast

import pytest

from lab.base.messages import Message, decode, encode
from lab.clients import request_log
from lab.clients.request_log import DEPTH, Account, Begun, ConnectionLog, End, Mark, Marked, RequestLog, run
from loadtests.sockets.connection import BlockingConnection
from services.protocol import Address
from tests.support.made_up_server import read_requests, served
from tests.support.ports import closed_port


def test_every_sixteenth_request_is_a_sleep_and_the_others_are_numbered_echoes() -> None:
    log = ConnectionLog(3, 7)
    requests = read_requests(b"".join(log.next_request() for _ in range(33)))
    # Of the requests 1 to 33, the 16th and the 32nd are a SLEEP.
    assert [number for number, words in enumerate(requests, 1) if words[0] == b"SLEEP"] == [16, 32]
    assert requests[15] == [b"SLEEP", b"2"]
    texts = [words[1] for words in requests if words[0] == b"ECHO"]
    assert [text.split()[0] for text in texts[:2]] == [b"7-3-1", b"7-3-2"]
    assert texts[-1].split()[0] == b"7-3-33"
    fillings = [text.partition(b" ")[2] for text in texts]
    assert {byte for filling in fillings for byte in filling} == {ord("x")}
    assert max(map(len, fillings)) < 200
    assert len({len(filling) for filling in fillings}) > 10
    assert (log.sent, log.answered, log.in_flight, log.lost) == (33, 0, 33, 0)


def send_all(log: ConnectionLog, requests: int) -> list[bytes]:
    """Send requests; return the expected replies."""
    return [read_requests(log.next_request())[0][1] for _ in range(requests)]


def test_reply_is_counted_once() -> None:
    log = ConnectionLog(0, 1)
    first, second, third = send_all(log, 3)
    for reply in (first, third, first, b"OK", b"1-1-1 x", None, 4, second, third):
        log.record_reply(reply)
    # Right; not yet due; a duplicate; an OK to no request; another connection's; no bulk, twice; right, twice.
    assert log.wrong == {"out of order": 1, "duplicate": 2, "another connection's": 1, "not a reply to any request": 2}
    assert (log.sent, log.answered, log.in_flight) == (3, 3, 0)
    log.record_reply(third)
    assert log.wrong["duplicate"] == 3


@pytest.mark.parametrize(
    ("sent", "answered_before", "answered_after", "lost"),
    [
        (5, 2, 0, 3),  # 5 - 2
        (5, 2, 2, 1),  # 5 - (2 + 2)
        (5, 2, 3, 0),
        (5, 0, 0, 0),  # the connection was not being served
        (5, 0, 2, 0),
    ],
)
def test_lost_counts_requests_before_the_mark_on_a_served_connection(
    sent: int, answered_before: int, answered_after: int, lost: int
) -> None:
    log = ConnectionLog(0, 1)
    replies = send_all(log, sent)
    for reply in replies[:answered_before]:
        log.record_reply(reply)
    log.mark(log.sent)
    send_all(log, 4)  # requests after the mark may be answered or not
    for reply in replies[answered_before : answered_before + answered_after]:
        log.record_reply(reply)
    assert (log.was_served, log.lost) == (answered_before > 0, lost)


def test_lost_is_not_negative_when_requests_after_the_mark_are_answered() -> None:
    log = ConnectionLog(0, 1)
    replies = send_all(log, 3)
    log.record_reply(replies[0])
    log.mark(1)
    log.record_reply(replies[1])
    log.record_reply(replies[2])
    assert log.lost == 0


@dataclass
class Peers:
    """A request log over socket pairs, and the servers' ends."""

    log: RequestLog
    ends: list[socket.socket]
    clock: list[float] = field(default_factory=lambda: [0.0])

    def read_requests_of(self, number: int) -> list[bytes]:
        """Return the replies due for the requests that have arrived since the last call."""
        data = b""
        while True:
            try:
                data += self.ends[number].recv(65536)
            except BlockingIOError:
                return [
                    reply
                    for words in read_requests(data)
                    for reply in [bulk(words[1:]) if words[0] == b"ECHO" else b"+OK\r\n"]
                ]


def bulk(words: list[bytes]) -> bytes:
    return b"$%d\r\n%b\r\n" % (len(words[0]), words[0])


class Selector:
    """Record which sockets are unregistered."""

    def __init__(self) -> None:
        self.gone: list[object] = []

    def unregister(self, which: object) -> None:
        self.gone.append(which)


@contextmanager
def open_peers(count: int, monkeypatch: pytest.MonkeyPatch) -> Iterator[Peers]:
    pairs = [socket.socketpair() for _ in range(count)]

    @dataclass
    class OnlySocket:
        socket: socket.socket

    peers = Peers(
        RequestLog([cast(BlockingConnection, OnlySocket(ours)) for ours, _ in pairs], 1),
        [theirs for _, theirs in pairs],
    )
    monkeypatch.setattr(time, "monotonic", lambda: peers.clock[0])
    for end in peers.ends:
        end.setblocking(False)
    try:
        yield peers
    finally:
        for pair in pairs:
            for each in pair:
                each.close()


def advance(peers: Peers, selector: Selector | None = None) -> bool:
    return peers.log.advance(cast(BaseSelector, selector or Selector()))


def test_at_most_eight_requests_are_in_flight(monkeypatch: pytest.MonkeyPatch) -> None:
    with open_peers(1, monkeypatch) as peers:
        assert advance(peers)
        replies = peers.read_requests_of(0)
        assert len(replies) == DEPTH == 8
        peers.ends[0].sendall(b"".join(replies[:3]))
        assert advance(peers)
        assert len(peers.read_requests_of(0)) == 3


def test_account_is_the_sum_over_connections(monkeypatch: pytest.MonkeyPatch) -> None:
    with open_peers(3, monkeypatch) as peers:
        selector = Selector()
        advance(peers)
        first, second, third = (peers.read_requests_of(number) for number in range(3))
        peers.ends[0].sendall(b"".join(first))  # 8 right
        peers.ends[1].sendall(second[0] + second[2] + third[0])  # 1 right, 1 out of order, 1 of another connection
        advance(peers, selector)
        peers.log.mark()  # the third has not been served
        peers.log.end()
        peers.ends[1].sendall(second[1])
        peers.ends[2].sendall(third[0])  # served, but after the mark
        peers.ends[0].close()
        peers.ends[1].shutdown(socket.SHUT_WR)
        assert advance(peers, selector)  # the third is still open
        # Sent: 8 + 8 answered of the first; 8 + 1; 8. Of the first 16 - 8, of the second 9 - 2 were lost.
        found = peers.log.account()
        assert (found.connections, found.served, found.sent, found.answered, found.unanswered) == (3, 2, 33, 11, 22)
        assert found.lost == 8 + 7
        assert found.wrong == {"out of order": 1, "another connection's": 1}
        assert len(selector.gone) == 2
        assert found.ends["open"] == 1
        assert sum(found.ends.values()) == 3


def test_end_stops_sending(monkeypatch: pytest.MonkeyPatch) -> None:
    with open_peers(1, monkeypatch) as peers:
        advance(peers)
        replies = peers.read_requests_of(0)
        peers.log.end()
        peers.log.end()  # a second call changes nothing
        peers.ends[0].sendall(b"".join(replies))
        assert advance(peers)
        assert peers.ends[0].recv(100) == b""
        peers.ends[0].shutdown(socket.SHUT_WR)
        assert not advance(peers)
        found = peers.log.account()
        assert (found.sent, found.answered, found.ends) == (8, 8, {"end": 1})


def test_nothing_is_sent_behind_the_end_of_the_stream(monkeypatch: pytest.MonkeyPatch) -> None:
    """It would count as sent, and lost if the mark came next."""
    with open_peers(1, monkeypatch) as peers:
        advance(peers)
        peers.ends[0].sendall(b"".join(peers.read_requests_of(0)))
        peers.ends[0].shutdown(socket.SHUT_WR)
        assert not advance(peers)
        peers.log.mark()
        found = peers.log.account()
        assert (found.sent, found.answered, found.lost, found.ends) == (8, 8, 0, {"end": 1})
        assert peers.read_requests_of(0) == []


def test_reset_connection_can_be_finished() -> None:
    @dataclass
    class Linked:
        socket: socket.socket

    with (
        socket.create_server(("127.0.0.1", 0)) as listener,
        socket.create_connection(listener.getsockname()) as ours,
    ):
        theirs = listener.accept()[0]
        theirs.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        theirs.close()
        select.select([ours], [], [])  # the reset has arrived
        log = RequestLog([cast(BlockingConnection, Linked(ours))], 1)
        log.end()
        assert not log.advance(cast(BaseSelector, Selector()))
        assert log.account().ends == {"broken": 1}


def test_reset_connection_is_counted_as_broken(monkeypatch: pytest.MonkeyPatch) -> None:
    with open_peers(1, monkeypatch) as peers:
        advance(peers)
        peers.ends[0].close()  # with unread data
        while advance(peers):
            pass
        assert peers.log.account().ends == {"broken": 1}


def test_silence_is_the_longest_gap_between_replies_that_ends_after_the_mark(monkeypatch: pytest.MonkeyPatch) -> None:
    with open_peers(2, monkeypatch) as peers:
        advance(peers)
        replies = [iter(peers.read_requests_of(number)) for number in range(2)]

        def answer(when: float, number: int) -> float:
            peers.clock[0] = when
            peers.ends[number].sendall(next(replies[number]))
            advance(peers)
            return peers.log.account().silence

        assert answer(10.0, 0) == 0.0
        assert answer(19.0, 0) == 0.0  # 9 s, before the mark
        peers.log.mark()
        assert answer(19.5, 1) == 0.5  # 19.5 - 19: another connection's reply ends it too
        peers.clock[0] = 21.0
        advance(peers)  # without a reply, the gap goes on
        assert answer(22.0, 0) == 2.5  # 22 - 19.5
        assert answer(23.0, 1) == 2.5
        peers.log.mark()
        assert answer(24.0, 0) == 1.0  # 24 - 23: it is that behind the last mark


def test_request_sent_in_part_is_not_before_the_mark() -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        theirs.setblocking(False)
        ours.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1)

        @dataclass
        class Full:
            """Accept three requests and two bytes of the fourth."""

            taken: int = 0

            def setblocking(self, blocking: bool) -> None:
                ours.setblocking(blocking)

            def recv(self, size: int) -> bytes:
                return ours.recv(size)

            def send(self, data: bytes) -> int:
                self.taken += 1
                if self.taken > 4:
                    raise BlockingIOError
                return len(data) if self.taken < 4 else 2

        @dataclass
        class Linked:
            socket: Full

        client = request_log._Client(cast(BlockingConnection, Linked(Full())), ConnectionLog(0, 1))
        client.advance(more=True)
        client.mark()
        assert (client.log.sent, client.log.sent_before_mark, client.end) == (4, 3, "open")


class Commands:
    """The pipe that commands are written to, and the messages that were said."""

    def __init__(self) -> None:
        self.reader, self.writer = os.pipe()
        self.said: list[Message] = []
        self.answered: list[int] = []

    def write(self, message: Message) -> None:
        os.write(self.writer, f"{encode(message)}\n".encode())

    def __enter__(self) -> "Commands":
        return self

    def __exit__(self, *exception: object) -> None:
        os.close(self.reader)
        os.close(self.writer)


def test_run_says_begun_once_all_are_answered_and_confirms_the_mark(monkeypatch: pytest.MonkeyPatch) -> None:
    with open_peers(2, monkeypatch) as peers, Commands() as commands:
        answered: list[int] = []
        step_log = peers.log.advance
        script: list[Callable[[], object]] = []

        def step(selector: BaseSelector) -> bool:
            answered.append(sum(log.answered for log in peers.log.connection_logs))
            if script:
                script.pop(0)()
            return step_log(selector)

        def say(message: Message) -> None:
            commands.said.append(message)
            commands.answered.append(sum(log.answered for log in peers.log.connection_logs))
            commands.write(Mark() if message == Begun() else End())

        def serve(number: int) -> None:
            peers.ends[number].sendall(b"".join(peers.read_requests_of(number)))

        def close() -> None:
            for end in peers.ends:
                end.shutdown(socket.SHUT_WR)

        script += [lambda: None, lambda: serve(0), lambda: None, lambda: serve(1), lambda: None, lambda: None, close]
        monkeypatch.setattr(peers.log, "advance", step)
        found = run(peers.log, commands.reader, say, 60.0)
    # Replies on one connection are not enough; 8 on each are.
    assert (commands.said, commands.answered) == ([Begun(), Marked()], [16, 16])
    assert (found.served, found.answered, found.lost) == (2, 16, 16)
    assert found.ends == {"end": 2}


@pytest.mark.parametrize(("wanted", "began"), [(8, [Begun()]), (9, [])])
def test_begun_waits_for_the_requested_number_of_replies(
    monkeypatch: pytest.MonkeyPatch, wanted: int, began: list[Message]
) -> None:
    with open_peers(1, monkeypatch) as peers, Commands() as commands:
        advance(peers)
        peers.ends[0].sendall(b"".join(peers.read_requests_of(0)))
        peers.ends[0].shutdown(socket.SHUT_WR)
        results, step_log = iter([True, False]), peers.log.advance

        def step(selector: BaseSelector) -> bool:
            step_log(selector)
            return next(results)

        monkeypatch.setattr(peers.log, "advance", step)
        run(peers.log, commands.reader, commands.said.append, 60.0, requests=wanted)
    assert commands.said == began


@pytest.mark.parametrize(("served", "begun"), [(1, 1), (0, 0)])
def test_connection_in_the_backlog_delays_begun_by_one_second(
    monkeypatch: pytest.MonkeyPatch, served: int, begun: int
) -> None:
    with open_peers(2, monkeypatch) as peers, Commands() as commands:
        advance(peers)
        for number in range(served):
            peers.ends[number].sendall(b"".join(peers.read_requests_of(number)))
        seen: list[tuple[float, int]] = []
        times, step_log = iter([0.5, 1.0, 1.01, 60.1]), peers.log.advance

        def step(selector: BaseSelector) -> bool:
            seen.append((peers.clock[0], len(commands.said)))
            peers.clock[0] = next(times)
            return step_log(selector)

        monkeypatch.setattr(peers.log, "advance", step)
        run(peers.log, commands.reader, commands.said.append, 60.0)
    # Said after 1.01 s and not after 1.0 s, if any is served. The run ends after 60 s with both connections open.
    assert seen == [(0.0, 0), (0.5, 0), (1.0, 0), (1.01, begun)]
    assert peers.log.account().ends == {"open": 2}


def test_due_replies_are_awaited_for_five_seconds_after_the_end(monkeypatch: pytest.MonkeyPatch) -> None:
    with open_peers(1, monkeypatch) as peers, Commands() as commands:
        commands.write(End())
        seen = []
        times = iter([10.0, 14.9, 15.0])

        def step(selector: object) -> bool:
            peers.clock[0] = next(times)
            seen.append(peers.clock[0])
            if peers.clock[0] == 14.9:
                commands.write(End())
            return True

        ended: list[float] = []
        monkeypatch.setattr(peers.log, "end", lambda: ended.append(peers.clock[0]))
        monkeypatch.setattr(peers.log, "advance", step)
        run(peers.log, commands.reader, commands.said.append, 60.0)
    # The end comes at 10 s: the run stops at 15 s, and not at 60 s, nor 5 s after the second end.
    assert seen == [10.0, 14.9, 15.0]
    assert ended == [10.0, 14.9]


def test_account_defaults_to_zeros() -> None:
    assert asdict(Account(0)) == {
        "connections": 0,
        "served": 0,
        "sent": 0,
        "answered": 0,
        "lost": 0,
        "wrong": {},
        "ends": {},
        "silence": 0.0,
    }
    assert ConnectionLog(0, 1).was_served is False


def echo(link: socket.socket) -> None:
    """Answer all complete requests that have arrived; keep an incomplete one until the rest arrives."""
    data, answered = b"", 0
    while chunk := link.recv(65536):
        data += chunk
        requests = read_requests(data)
        replies = [b"+OK\r\n" if words[0] == b"SLEEP" else bulk(words[1:]) for words in requests[answered:]]
        answered = len(requests)
        link.sendall(b"".join(replies))


def run_main(address: str, monkeypatch: pytest.MonkeyPatch, **options: object) -> int:
    """Run the command in this process; its stdin holds a `Mark` and ends."""
    reader, writer = os.pipe()
    os.write(writer, f"{encode(Mark())}\n".encode())
    os.close(writer)
    with os.fdopen(reader) as stdin:
        monkeypatch.setattr(sys, "stdin", stdin)
        assert request_log.main.callback is not None
        try:
            request_log.main.callback(
                **{"address": address, "connections": 2, "seed": 1, "seconds": 60.0, "requests": 0, **options}
            )
        except SystemExit as error:
            return cast(int, error.code)
    return 0


def test_command_prints_its_account_last(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    opened: list[BlockingConnection] = []
    link = BlockingConnection
    timeouts = []

    def connect(address: Address, timeout: float) -> BlockingConnection:
        timeouts.append(timeout)
        opened.append(link(address, timeout=timeout))
        return opened[-1]

    monkeypatch.setattr(request_log, "BlockingConnection", connect)
    with served(echo) as address:
        assert run_main(address, monkeypatch, requests=10**6) == 0
    marked, line = capsys.readouterr().out.splitlines()
    # No `Begun`: the command waits for a million replies.
    assert decode(marked, Marked) == Marked()
    found = decode(line, Account)
    assert found is not None
    assert (found.connections, found.ends, found.wrong) == (2, {"end": 2}, {})
    assert found.sent == found.answered > 0
    assert timeouts == [10, 10]
    assert [each.socket.fileno() for each in opened] == [-1, -1]


def test_command_hands_its_options_on(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    called: list[tuple[list[bytes], float, int]] = []

    def keep(log: RequestLog, commands: int, say: object, seconds: float, *, requests: int) -> Account:
        assert commands == sys.stdin.fileno()
        first = [read_requests(each.next_request())[0][1].split()[0] for each in log.connection_logs]
        called.append((first, seconds, requests))
        return Account(3)

    monkeypatch.setattr(request_log, "run", keep)
    with served(echo) as address:
        assert run_main(address, monkeypatch, connections=3, seed=7, seconds=12.5, requests=9) == 0
    # The first request of each connection has the seed and its number.
    assert called == [([b"7-0-1", b"7-1-1", b"7-2-1"], 12.5, 9)]
    assert decode(capsys.readouterr().out, Account) == Account(3)


def test_command_has_these_defaults() -> None:
    defaults = {parameter.name: parameter.default for parameter in request_log.main.params}
    del defaults["address"]
    assert defaults == {"connections": 8, "seed": 1, "seconds": 60.0, "requests": 0}


def test_command_without_a_server_exits_with_code_2_and_the_reason(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with closed_port() as port:
        assert run_main(f"tcp://127.0.0.1:{port}", monkeypatch) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("request log: ")


def test_socket_that_cannot_send_is_still_read(monkeypatch: pytest.MonkeyPatch) -> None:
    with open_peers(1, monkeypatch) as peers:
        advance(peers)
        replies = peers.read_requests_of(0)
        peers.ends[0].shutdown(socket.SHUT_RD)  # a Unix socket: the client's `send` fails at once
        for reply in replies:
            peers.ends[0].sendall(reply)
            assert advance(peers)
        found = peers.log.account()
        # The ninth request was made and never sent; no tenth is made.
        assert (found.sent, found.answered, found.ends) == (9, 8, {"open": 1})
        peers.ends[0].close()
        assert not advance(peers)


def test_rest_of_a_request_is_sent_before_the_next() -> None:
    @dataclass
    class Slow:
        """Accept two bytes per call, and nothing after the 150th."""

        data: bytes = b""
        calls: int = 0

        def setblocking(self, blocking: bool) -> None:
            assert not blocking

        def recv(self, size: int) -> bytes:
            raise BlockingIOError

        def send(self, data: bytes) -> int:
            self.calls += 1
            if self.calls > 150:
                raise BlockingIOError
            self.data += data[:2]
            return min(2, len(data))

    @dataclass
    class Linked:
        socket: Slow

    slow = Slow()
    client = request_log._Client(cast(BlockingConnection, Linked(slow)), ConnectionLog(0, 1))
    for _ in range(200):
        client.advance(more=True)
    same = ConnectionLog(0, 1)
    wanted = b"".join(same.next_request() for _ in range(client.log.sent))
    assert len(slow.data) > len(ConnectionLog(0, 1).next_request())
    assert wanted.startswith(slow.data)


@pytest.mark.parametrize("error", [BrokenPipeError, ConnectionResetError, TimeoutError])
def test_error_of_a_send_leaves_it_to_the_read_to_end_a_connection(error: type[OSError]) -> None:
    class Broken:
        sends = 0

        def setblocking(self, blocking: bool) -> None:
            assert not blocking

        def recv(self, size: int) -> bytes:
            raise BlockingIOError

        def send(self, data: bytes) -> int:
            self.sends += 1
            raise error

    @dataclass
    class Linked:
        socket: Broken

    broken = Broken()
    client = request_log._Client(cast(BlockingConnection, Linked(broken)), ConnectionLog(0, 1))
    for _ in range(3):
        client.advance(more=True)
    assert (client.end, broken.sends) == ("open", 1)
