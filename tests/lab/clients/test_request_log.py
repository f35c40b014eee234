"""The ledger's arithmetic: each reply is the one owed, one too many, out of order or of another connection."""

import json
import os
import socket
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from typing import cast

import pytest

from lab.clients import request_log
from lab.clients.request_log import DEPTH, Account, Ledger, Page, keep
from loadtests.sockets.connection import BlockingConnection
from services.protocol import Address
from tests.support.made_up_server import read_requests, served


def test_every_sixteenth_request_sleeps_and_the_others_are_numbered() -> None:
    page = Page(3, 7)
    requests = read_requests(b"".join(page.next_request() for _ in range(33)))
    # Of the requests 1 to 33, the 16th and the 32nd sleep.
    assert [number for number, words in enumerate(requests, 1) if words[0] == b"SLEEP"] == [16, 32]
    assert requests[15] == [b"SLEEP", b"2"]
    texts = [words[1] for words in requests if words[0] == b"ECHO"]
    assert [text.split()[0] for text in texts[:2]] == [b"7-3-1", b"7-3-2"]
    assert texts[-1].split()[0] == b"7-3-33"
    fillings = [text.partition(b" ")[2] for text in texts]
    assert {byte for filling in fillings for byte in filling} == {ord("x")}
    assert max(map(len, fillings)) < 200
    assert len({len(filling) for filling in fillings}) > 10
    assert (page.sent, page.answered, page.under_way, page.lost) == (33, 0, 33, 0)


def take_all(page: Page, requests: int) -> list[bytes]:
    """Send so many requests; returns the right replies."""
    return [read_requests(page.next_request())[0][1] for _ in range(requests)]


def test_each_reply_is_entered_once() -> None:
    page = Page(0, 1)
    first, second, third = take_all(page, 3)
    for reply in (first, third, first, b"OK", b"1-1-1 x", None, 4, second, third):
        page.take(reply)
    # In turn: right; not yet owed; again; an OK of no request; another connection's; no bulk, twice; right, right.
    assert page.wrong == {"out of order": 1, "one too many": 2, "somebody else's": 1, "no reply to any of them": 2}
    assert (page.sent, page.answered, page.under_way) == (3, 3, 0)
    page.take(third)
    assert page.wrong["one too many"] == 3


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
def test_lost_is_what_was_sent_before_the_mark_on_a_served_connection(
    sent: int, answered_before: int, answered_after: int, lost: int
) -> None:
    page = Page(0, 1)
    replies = take_all(page, sent)
    for reply in replies[:answered_before]:
        page.take(reply)
    page.mark(page.sent)
    take_all(page, 4)  # what comes behind the mark may be answered or not
    for reply in replies[answered_before : answered_before + answered_after]:
        page.take(reply)
    assert (page.was_served, page.lost) == (answered_before > 0, lost)


def test_more_answers_than_were_marked_are_no_negative_loss() -> None:
    page = Page(0, 1)
    replies = take_all(page, 3)
    page.take(replies[0])
    page.mark(1)
    page.take(replies[1])
    page.take(replies[2])
    assert page.lost == 0


@dataclass
class Peers:
    """A ledger over socket pairs, and the servers' ends."""

    ledger: Ledger
    ends: list[socket.socket]
    clock: list[float] = field(default_factory=lambda: [0.0])

    def asked(self, number: int) -> list[bytes]:
        """Return the replies that a connection is owed for what has come since the last time."""
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
    """Notes which sockets are no longer looked at."""

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
        Ledger([cast(BlockingConnection, OnlySocket(ours)) for ours, _ in pairs], 1), [theirs for _, theirs in pairs]
    )
    monkeypatch.setattr(request_log.time, "monotonic", lambda: peers.clock[0])
    for end in peers.ends:
        end.setblocking(False)
    try:
        yield peers
    finally:
        for pair in pairs:
            for each in pair:
                each.close()


def turn(peers: Peers, selector: Selector | None = None) -> bool:
    return peers.ledger.turn(cast("request_log.selectors.BaseSelector", selector or Selector()))


def test_eight_requests_are_under_way_and_no_more(monkeypatch: pytest.MonkeyPatch) -> None:
    with open_peers(1, monkeypatch) as peers:
        assert turn(peers)
        replies = peers.asked(0)
        assert len(replies) == DEPTH == 8
        peers.ends[0].sendall(b"".join(replies[:3]))
        assert turn(peers)
        assert len(peers.asked(0)) == 3


def test_the_account_adds_up_the_connections(monkeypatch: pytest.MonkeyPatch) -> None:
    with open_peers(3, monkeypatch) as peers:
        selector = Selector()
        turn(peers)
        first, second, third = (peers.asked(number) for number in range(3))
        peers.ends[0].sendall(b"".join(first))  # 8 right
        peers.ends[1].sendall(second[0] + second[2] + third[0])  # 1 right, 1 out of order, 1 of another connection
        turn(peers, selector)
        peers.ledger.mark()  # the third has not been served
        peers.ledger.end()
        peers.ends[1].sendall(second[1])
        peers.ends[0].close()
        peers.ends[1].shutdown(socket.SHUT_WR)
        assert turn(peers, selector)  # the third is still open
        # Sent: 8 + 8 answered of the first; 8 + 1; 8. Of the first 16 - 8, of the second 9 - 2 were lost.
        found = peers.ledger.account()
        assert (found.connections, found.served, found.sent, found.answered, found.unanswered) == (3, 2, 33, 10, 23)
        assert found.lost == 8 + 7
        assert found.wrong == {"out of order": 1, "somebody else's": 1}
        assert len(selector.gone) == 2
        assert found.ends["open"] == 1
        assert sum(found.ends.values()) == 3


def test_nothing_is_sent_behind_the_end(monkeypatch: pytest.MonkeyPatch) -> None:
    with open_peers(1, monkeypatch) as peers:
        turn(peers)
        replies = peers.asked(0)
        peers.ledger.end()
        peers.ledger.end()  # also a second time
        peers.ends[0].sendall(b"".join(replies))
        assert turn(peers)
        assert peers.ends[0].recv(100) == b""
        peers.ends[0].shutdown(socket.SHUT_WR)
        assert not turn(peers)
        found = peers.ledger.account()
        assert (found.sent, found.answered, found.ends) == (8, 8, {"end": 1})


def test_a_reset_is_a_broken_connection(monkeypatch: pytest.MonkeyPatch) -> None:
    with open_peers(1, monkeypatch) as peers:
        turn(peers)
        peers.ends[0].close()  # with unread data
        while turn(peers):
            pass
        assert peers.ledger.account().ends == {"broken": 1}


def test_the_longest_silence_is_between_two_replies_and_ends_behind_the_mark(monkeypatch: pytest.MonkeyPatch) -> None:
    with open_peers(2, monkeypatch) as peers:
        turn(peers)
        replies = [iter(peers.asked(number)) for number in range(2)]

        def answer(when: float, number: int) -> float:
            peers.clock[0] = when
            peers.ends[number].sendall(next(replies[number]))
            turn(peers)
            return peers.ledger.account().silence

        assert answer(10.0, 0) == 0.0
        assert answer(19.0, 0) == 0.0  # 9 s, before the mark
        peers.ledger.mark()
        assert answer(19.5, 1) == 0.5  # 19.5 - 19: another connection's reply ends it too
        peers.clock[0] = 21.0
        turn(peers)  # nothing has come: this is no end of a silence
        assert answer(22.0, 0) == 2.5  # 22 - 19.5
        assert answer(23.0, 1) == 2.5


def test_a_request_that_was_not_handed_over_in_full_is_not_marked() -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        theirs.setblocking(False)
        ours.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1)

        @dataclass
        class Full:
            """Takes three requests and two bytes of the fourth."""

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

        client = request_log._Client(cast(BlockingConnection, Linked(Full())), Page(0, 1))
        client.advance(more=True)
        client.mark()
        assert (client.page.sent, client.page.sent_before_mark, client.end) == (4, 3, "open")


class Commands:
    """Lines that are written to a ledger as it says something."""

    def __init__(self) -> None:
        reader, self.writer = os.pipe()
        self.file = os.fdopen(reader)
        self.said: list[str] = []

    def __enter__(self) -> "Commands":
        return self

    def __exit__(self, *exception: object) -> None:
        self.file.close()
        os.close(self.writer)


def test_keeping_says_begun_when_all_are_answered_and_marked_when_it_has(monkeypatch: pytest.MonkeyPatch) -> None:
    with open_peers(2, monkeypatch) as peers, Commands() as commands:
        answered: list[int] = []
        turns = peers.ledger.turn
        script: list[Callable[[], object]] = []

        def step(selector: "request_log.selectors.BaseSelector") -> bool:
            answered.append(sum(page.answered for page in peers.ledger.pages))
            if script:
                script.pop(0)()
            return turns(selector)

        def say(word: str) -> None:
            commands.said.append(f"{word} after {sum(page.answered for page in peers.ledger.pages)}")
            if word == "begun":
                os.write(commands.writer, b"mark\n")
            else:
                os.write(commands.writer, b"end\n")

        def serve(number: int) -> None:
            peers.ends[number].sendall(b"".join(peers.asked(number)))

        def close() -> None:
            for end in peers.ends:
                end.shutdown(socket.SHUT_WR)

        script += [lambda: None, lambda: serve(0), lambda: None, lambda: serve(1), lambda: None, lambda: None, close]
        monkeypatch.setattr(peers.ledger, "turn", step)
        found = keep(peers.ledger, commands.file, say, 60.0)
    # One connection alone is not enough; 8 of each are.
    assert commands.said == ["begun after 16", "marked after 16"]
    assert (found.served, found.answered, found.lost) == (2, 16, 16)
    assert found.ends == {"end": 2}


@pytest.mark.parametrize(("wanted", "began"), [(8, ["begun"]), (9, [])])
def test_begun_waits_for_as_many_answers_as_are_asked_for(
    monkeypatch: pytest.MonkeyPatch, wanted: int, began: list[str]
) -> None:
    with open_peers(1, monkeypatch) as peers, Commands() as commands:
        turn(peers)
        peers.ends[0].sendall(b"".join(peers.asked(0)))
        peers.ends[0].shutdown(socket.SHUT_WR)
        results, take_turn = iter([True, False]), peers.ledger.turn

        def step(selector: "request_log.selectors.BaseSelector") -> bool:
            take_turn(selector)
            return next(results)

        monkeypatch.setattr(peers.ledger, "turn", step)
        keep(peers.ledger, commands.file, commands.said.append, 60.0, requests=wanted)
    assert commands.said == began


def test_a_connection_in_the_backlog_is_waited_for_one_second(monkeypatch: pytest.MonkeyPatch) -> None:
    with open_peers(2, monkeypatch) as peers, Commands() as commands:
        turn(peers)
        peers.ends[0].sendall(b"".join(peers.asked(0)))
        seen: list[tuple[float, int]] = []
        times, take_turn = iter([0.5, 1.0, 1.01, 60.1]), peers.ledger.turn

        def step(selector: "request_log.selectors.BaseSelector") -> bool:
            seen.append((peers.clock[0], len(commands.said)))
            peers.clock[0] = next(times)
            return take_turn(selector)

        monkeypatch.setattr(peers.ledger, "turn", step)
        keep(peers.ledger, commands.file, commands.said.append, 60.0)
    # Said after 1.01 s and not after 1.0 s; given up when 60 s have passed, with both connections open.
    assert seen == [(0.0, 0), (0.5, 0), (1.0, 0), (1.01, 1)]
    assert peers.ledger.account().ends == {"open": 2}


def test_who_is_owed_something_behind_the_end_is_given_five_seconds(monkeypatch: pytest.MonkeyPatch) -> None:
    with open_peers(1, monkeypatch) as peers, Commands() as commands:
        os.write(commands.writer, b"end\n")
        seen = []
        times = iter([10.0, 14.9, 15.0])

        def step(selector: object) -> bool:
            peers.clock[0] = next(times)
            seen.append(peers.clock[0])
            return True

        ended: list[float] = []
        monkeypatch.setattr(peers.ledger, "end", lambda: ended.append(peers.clock[0]))
        monkeypatch.setattr(peers.ledger, "turn", step)
        keep(peers.ledger, commands.file, commands.said.append, 60.0)
    # Told to end at 10 s: given up at 15 s, and not at 60 s.
    assert seen == [10.0, 14.9, 15.0]
    # Once: stdin, which has ended and would wake it up for ever, is not looked at any more.
    assert ended == [10.0]


def test_an_account_comes_back_as_it_was_printed() -> None:
    line = json.dumps({"connections": 4, "served": 3, "sent": 9, "answered": 7, "lost": 1, "silence": 0.5})
    assert Account.from_json(line) == Account(4, 3, 9, 7, 1, {}, {}, 0.5)
    with pytest.raises(TypeError):
        Account.from_json('{"connections": 4, "nonsense": 1}')


def test_an_account_of_nothing_is_all_zeros() -> None:
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
    assert Page(0, 1).was_served is False


def echo(link: socket.socket) -> None:
    """Answer each request, the requests of a connection in one go; a request that is cut off waits for its rest."""
    data, answered = b"", 0
    while chunk := link.recv(65536):
        data += chunk
        requests = read_requests(data)
        replies = [b"+OK\r\n" if words[0] == b"SLEEP" else bulk(words[1:]) for words in requests[answered:]]
        answered = len(requests)
        link.sendall(b"".join(replies))


def keep_main(address: str, monkeypatch: pytest.MonkeyPatch, **options: object) -> int:
    """Run the instrument in this process, with a stdin that says `mark` and ends."""
    reader, writer = os.pipe()
    os.write(writer, b"mark\n")
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


def test_the_instrument_prints_its_account_last(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    opened: list[BlockingConnection] = []
    link = request_log.BlockingConnection
    timeouts = []

    def connect(address: Address, timeout: float) -> BlockingConnection:
        timeouts.append(timeout)
        opened.append(link(address, timeout=timeout))
        return opened[-1]

    monkeypatch.setattr(request_log, "BlockingConnection", connect)
    with served(echo) as address:
        assert keep_main(address, monkeypatch, requests=10**6) == 0
    marked, line = capsys.readouterr().out.splitlines()
    # `begun` is not said: a million answers are waited for.
    assert marked == "marked"
    found = Account.from_json(line)
    assert (found.connections, found.ends, found.wrong) == (2, {"end": 2}, {})
    assert found.sent == found.answered > 0
    assert timeouts == [10, 10]
    assert [each.socket.fileno() for each in opened] == [-1, -1]


def test_a_ledger_that_cannot_be_kept_ends_with_2_and_says_why(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with socket.socket() as nobody:
        nobody.bind(("127.0.0.1", 0))
        assert keep_main(f"tcp://127.0.0.1:{nobody.getsockname()[1]}", monkeypatch) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("ledger: ")


def test_a_socket_that_takes_no_more_is_still_read(monkeypatch: pytest.MonkeyPatch) -> None:
    with open_peers(1, monkeypatch) as peers:
        turn(peers)
        replies = peers.asked(0)
        peers.ends[0].shutdown(socket.SHUT_RD)  # a Unix socket: the client's `send` fails at once
        for reply in replies:
            peers.ends[0].sendall(reply)
            assert turn(peers)
        found = peers.ledger.account()
        # The ninth was asked for and never handed over; none is asked for behind it.
        assert (found.sent, found.answered, found.ends) == (9, 8, {"open": 1})
        peers.ends[0].close()
        assert not turn(peers)


def test_what_is_left_of_a_request_is_sent_before_the_next() -> None:
    @dataclass
    class Slow:
        """Takes two bytes at a time, and nothing behind the 150th call."""

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
    client = request_log._Client(cast(BlockingConnection, Linked(slow)), Page(0, 1))
    for _ in range(200):
        client.advance(more=True)
    same = Page(0, 1)
    wanted = b"".join(same.next_request() for _ in range(client.page.sent))
    assert len(slow.data) > len(Page(0, 1).next_request())
    assert wanted.startswith(slow.data)
