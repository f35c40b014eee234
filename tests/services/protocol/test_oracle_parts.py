"""The parts of the fuzzers of `command`: what each takes for right and for wrong, at its limits."""

import os
from collections import Counter
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from click.testing import CliRunner

import fuzz.live as live
import fuzz.oracle as oracle
from fuzz.live import UnlikeTheReferenceError, bombard, make_inputs
from fuzz.oracle import check_cuts, check_datagram, check_requests, pull, serve
from lab.clients.call import pack
from loadtests.sockets.errors import NoAnswerError
from services.protocol import Address, Close, Compute, Connection, DatagramConnection, Limits, Transport, Wait

PING = b"*1\r\n$4\r\nPING\r\n"


def test_stream_is_cut_at_places_modulo_its_length_and_one(monkeypatch: pytest.MonkeyPatch) -> None:
    cut: list[list[bytes]] = []
    monkeypatch.setattr(oracle, "serve", lambda service, pieces: cut.append(pieces))
    check_cuts(b"hello", b"\x05\x06\x04\x04")
    check_cuts(b"", b"\x05\x06\x04\x04")
    # 5 is the end of five bytes, where no cut is, and 6 is their beginning.
    assert cut == [[b"hello"], [b"hell", b"o"], [], []]


def test_pieces_are_answered_one_by_one_within_the_limits(monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[object] = []

    class Noting(Connection):
        def receive_data(self, data: bytes) -> None:
            told.append(data)
            super().receive_data(data)

        def next_event(self) -> Any:
            event = super().next_event()
            told.append(event)
            return event

    monkeypatch.setattr(oracle, "Connection", Noting)
    assert serve("command", [b"BLOB 2", b"01\n"]).sent == b"-ERR BLOB takes 0 to 200 bytes, not '201'\r\n"
    assert told[:3] == [b"BLOB 2", None, b"01\n"]


class Reader:
    """Reads the request that a test says, once, and holds what it says."""

    said: Any = None
    held: tuple[int, int, int, list[bytes]] = (0, 0, 0, [])

    def __init__(self, limits: Limits) -> None:
        self._requests = [self.said] if self.said is not None else []
        buffer, self._position, self._waiting_size, words = self.held
        self._buffer = bytes(buffer)
        self._partial = (words, 1) if words else None

    def feed(self, data: bytes) -> None:
        """Nothing is read."""

    def next_request(self) -> Any:
        return self._requests.pop() if self._requests else None


@pytest.mark.parametrize(
    "held", [(10, 0, 0, []), (15, 5, 0, []), (6, 0, 4, []), (6, 0, 0, [b"ab", b"cd"]), (7, 2, 2, [b"abc"])]
)
def test_reader_holds_no_more_than_it_was_sent(
    held: tuple[int, int, int, list[bytes]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Ten bytes: in its buffer behind the position, in bulks that wait, and in words of a request that it has begun."""
    monkeypatch.setattr(oracle, "RequestReader", Reader)
    monkeypatch.setattr(Reader, "held", held)
    check_requests(b"*9\r\n$1\r\na\r")
    with pytest.raises(AssertionError):
        check_requests(b"*9\r\n$1\r\na")


@pytest.mark.parametrize(
    ("request_", "is_right"),
    [
        ([b"a"] * 6, True),
        ([b"a"] * 7, False),
        ([b"a" * 60, b"b" * 40], True),
        ([b"a" * 60, b"b" * 41], False),
        ([], False),
    ],
)
def test_request_is_within_the_limits(request_: list[bytes], is_right: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(oracle, "RequestReader", Reader)
    monkeypatch.setattr(Reader, "said", request_)
    if is_right:
        check_requests(pack(request_))
    else:
        with pytest.raises(AssertionError):
            check_requests(pack(request_))


@pytest.mark.parametrize(
    "stream",
    [b"$-1\r\n" + PING, b"_\r\n" + PING, b"~0\r\n" + PING, b">0\r\n" + PING, b"*0\r\n*-1\r\n" + PING, b":5\r\n" + PING],
    ids=["null", "another null", "set", "push", "empty arrays", "number"],
)
def test_lines_that_are_something_else_in_a_reply_are_no_difference(stream: bytes) -> None:
    check_requests(stream)


def test_other_word_alone_is_a_difference(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(oracle, "RequestReader", Reader)
    monkeypatch.setattr(Reader, "said", [b"PINK"])
    for before in (b"", b"*0\r\n", b"*-1\r\n"):  # is skipped
        with pytest.raises(AssertionError):
            check_requests(before + PING)
    # An array of a reply, which no request can be.
    check_requests(b"*2\r\n$4\r\nPING\r\n:5\r\n")


def test_word_of_another_type_is_compared_unless_it_is_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(oracle, "RequestReader", Reader)
    monkeypatch.setattr(Reader, "said", [b"$1", b"a"])
    with pytest.raises(AssertionError):
        check_requests(pack([b"$1", b"b"]))
    monkeypatch.setattr(Reader, "said", [b"$1"])
    check_requests(pack([b"$2"]))


@pytest.mark.parametrize("work", [Wait(0.051), Compute(21)])
def test_datagram_may_ask_for_work_up_to_the_limits(work: Wait | Compute, monkeypatch: pytest.MonkeyPatch) -> None:
    check_datagram("command", b"BURN 19\nBURN 1\nSLEEP 49\nSLEEP 1\n")
    check_datagram("command", b"INFO\n")
    # With a reply that is not known, nothing else sees this.
    events = iter([work, Close()])
    conversation = SimpleNamespace(next_event=lambda: next(events), receive_digest=lambda digest: None)
    monkeypatch.setattr(oracle, "DatagramConnection", lambda *arguments, **limits: conversation)
    with pytest.raises(AssertionError):
        check_datagram("command", b"INFO\n")


# The live fuzzing.


class Dice:
    """The numbers that a test has written down, in place of chance; notes of how many each was one."""

    def __init__(self, *numbers: int) -> None:
        self._numbers = iter(numbers)
        self.asked: list[int] = []

    def randrange(self, count: int) -> int:
        self.asked.append(count)
        return next(self._numbers)

    def choice(self, items: Any) -> Any:
        return items[self.randrange(len(items))]


def test_inputs_are_changed_in_four_ways(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "a").write_bytes(b"\0\1\2\3PING\n")
    (tmp_path / "b").write_bytes(b"\0\1\2\3ECHO x\n")
    dice = Dice(
        *(0, 3),  # `a` is changed three times:
        *(4, 4, 0, 0),  # its bytes from 4 to 8 are replaced by CR LF;
        *(7, 11, 1, 1),  # the stream of `b` is put in at the end, 7;
        *(7, 2, 2),  # the bytes from 7 to 9, EC, come three times.
        *(1, 1),  # `b` is changed once:
        *(4, 4, 3),  # ECHO is taken out.
        *(1, 0),  # And it comes as it is.
    )
    monkeypatch.setattr(live, "CORPUS", tmp_path)
    monkeypatch.setattr(live, "random", SimpleNamespace(Random=lambda seed: dice))
    inputs = make_inputs(7)
    assert next(inputs) == b"\0\1\2\3\r\n\nECECECHO x\n"
    assert next(inputs) == b"\0\1\2\3 x\n"
    assert next(inputs) == b"\0\1\2\3ECHO x\n"
    words = len(live._WORDS)
    assert dice.asked == [2, 4, 10, 12, 4, words, 8, 12, 4, 2, 15, 12, 4, 2, 4, 12, 12, 4, 2, 4]


class Link:
    """A connection to a server in this process; its kind notes what each does."""

    opened: list["Link"] = []  # noqa: RUF012  # emptied by the fixture
    spoiled: bytes = b""

    def __init__(self, address: Address, *, timeout: float) -> None:
        self.address, self.timeout = address, timeout
        self.sent: list[bytes] = []
        self.resets = 0
        self._outcome = oracle.Outcome()
        self._connection = Connection("command", limits=Limits(sleep_ms=5, burn=50))
        self._taken = 0
        self.opened.append(self)

    def __enter__(self) -> "Link":
        return self

    def __exit__(self, *exception: object) -> None:
        """Nothing is open."""

    def reset_deadline(self) -> None:
        self.resets += 1

    def send(self, data: bytes) -> None:
        self.sent.append(data)
        if self.address.transport.is_datagram:
            pull(DatagramConnection("command", data, limits=Limits(sleep_ms=5, burn=50)), self._outcome)
        else:
            self._connection.receive_data(data)
            pull(self._connection, self._outcome)

    def half_close(self) -> None:
        self._connection.receive_eof()
        pull(self._connection, self._outcome)

    def receive(self) -> bytes:
        sent = self._outcome.sent.replace(b"spoiled", self.spoiled)
        # A stream comes in pieces.
        end = len(sent) if self.address.transport.is_datagram else min(self._taken + 3, len(sent))
        data, self._taken = sent[self._taken : end], end
        return data


TCP = Address(Transport.TCP, host="127.0.0.1", port=1)
UNIX = Address(Transport.UNIX, path="/run/a.sock")
UDP = Address(Transport.UDP, host="127.0.0.1", port=1)


@pytest.fixture
def opened(monkeypatch: pytest.MonkeyPatch) -> list[Link]:
    monkeypatch.setattr(Link, "opened", [])
    monkeypatch.setattr(live, "BlockingConnection", Link)
    return Link.opened


@pytest.fixture
def give(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Bombard with streams that a test has written down, each with the bytes that say where it is cut."""

    def give(*inputs: bytes) -> None:
        monkeypatch.setattr(live, "make_inputs", lambda seed: iter(inputs))

    return give


def test_behaved_client_asks_after_each_tenth_input(opened: list[Link], give: Any) -> None:
    give(*[b"\0\0\0\0PING\n"] * 21)
    assert bombard([TCP, UNIX], 7, 21) == live.Found(inputs=21, compared=21)
    behaved, *others = opened
    wanted = [pack([b"ECHO", b"%d of 7" % number]) for number in (0, 10, 20)]
    assert (behaved.address, behaved.sent, behaved.resets) == (TCP, wanted, 3)
    assert Counter(link.address for link in others) == {TCP: 11, UNIX: 10}
    assert {link.timeout for link in opened} == {30.0}
    opened.clear()
    give(*[b"\0\0\0\0PING\n"] * 21)
    bombard([UNIX, TCP], 7, 21, overlaps=False)
    assert [link.address for link in opened if link.sent[0] in wanted] == [UNIX] * 3
    assert {link.timeout for link in opened} == {30.0}
    assert len(opened) == 24


def test_answers_that_only_a_server_knows_are_not_compared(opened: list[Link], give: Any) -> None:
    give(b"\0\0\0\0INFO\n", b"\0\0\0\0PING\n", b"\0\0\0\0INFO\n")
    assert bombard([TCP], 7, 3) == live.Found(inputs=3, compared=1)


def test_input_is_sent_in_pieces_or_as_a_datagram(opened: list[Link], give: Any) -> None:
    # The sixth byte of five is the first, and the fifth is the end, where nothing is cut.
    give(b"\5\6\4\4PING\n", b"\5\6\4\4ECHO a\n", b"\5\6\4\4QUIT\n", b"\5\6\4\4POST / HTTP/1.1\n")
    assert bombard([TCP, UDP], 7, 4) == live.Found(inputs=4, compared=4)
    _, *others = opened
    # Nothing is said to the last one, so the first answer is that to the next.
    assert [link.sent for link in others] == [
        [b"PING", b"\n"],
        [b"ECHO a\n"],
        [b"QUIT", b"\n"],
        [b"POST / HTTP/1.1\n", b"PING\r\n"],
    ]


@pytest.mark.parametrize("address", [TCP, UDP])
def test_other_answer_names_the_input(
    address: Address, opened: list[Link], give: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Link, "spoiled", b"rotten")
    give(b"\0\0\0\0PING\n", b"\0\0\0\0ECHO spoiled\n")
    with pytest.raises(UnlikeTheReferenceError) as raised:
        bombard([address], 7, 2, overlaps=False)
    said = "it answered b'$7\\r\\nrotten\\r\\n', the reference says b'$7\\r\\nspoiled\\r\\n'"
    stream = r"b'\x00\x00\x00\x00ECHO spoiled\n'"
    assert str(raised.value) == f"input 1 of seed 7, {stream}, to {address}: {said}"


def test_long_answers_are_cut() -> None:
    assert live._show(b"a" * 200) == repr(b"a" * 200)
    assert live._show(b"a" * 201) == repr(b"a" * 200) + "... (201 bytes)"


def test_servers_have_the_limits_of_the_reference() -> None:
    assert live.ENVIRON == {"LAB_MAX_SLEEP_MS": "5", "LAB_MAX_BURN": "50"}
    assert (live.BOUNDS.sleep_ms, live.BOUNDS.burn) == (5, 50)


def listen(model: str, service: str, transport: Transport, address: str) -> Any:
    return SimpleNamespace(model=model, service=service, transport=transport, address=address)


def test_addresses_of_command_are_chosen() -> None:
    listeners = [
        listen("one", "command", Transport.UDP, "udp://127.0.0.1:3"),
        listen("one", "echo", Transport.TCP, "tcp://127.0.0.1:4"),
        listen("two", "command", Transport.TCP, "tcp://127.0.0.1:5"),
        listen("one", "command", Transport.TCP, "tcp://127.0.0.1:1"),
        listen("one", "command", Transport.UNIX, "unix:///run/a.sock"),
    ]
    chosen = live.choose(listeners, "one")
    assert [str(address) for address in chosen] == ["tcp://127.0.0.1:1", "unix:///run/a.sock", "udp://127.0.0.1:3"]


@pytest.mark.parametrize("error", [None, UnlikeTheReferenceError("another answer"), NoAnswerError("it hangs")])
def test_command_starts_one_model_after_the_other(error: Exception | None, monkeypatch: pytest.MonkeyPatch) -> None:
    done: list[object] = []
    models = [SimpleNamespace(name="one", limits={}), SimpleNamespace(name="two", limits={"overlap": "one client"})]

    def bombard(addresses: Any, seed: int, inputs: int, *, overlaps: bool) -> live.Found:
        done.append((addresses, seed, inputs, overlaps))
        if error:
            raise error
        return live.Found(inputs, 1234)

    backend = SimpleNamespace(
        catalogue=SimpleNamespace(select=lambda names: [model for model in models if model.name in names]),
        up=lambda models: done.append([model.name for model in models]),
        down=lambda: done.append("down"),
        targets=lambda: "targets",
    )

    def open_backend(kind: str, project: str) -> Any:
        done.append((kind, project))
        return backend

    monkeypatch.setattr(live, "open_backend", open_backend)
    monkeypatch.setattr(live, "choose", lambda listeners, model: f"{listeners} of {model}")
    monkeypatch.setattr(live, "bombard", bombard)
    for name in live.ENVIRON:
        monkeypatch.setenv(name, "")
    ended = CliRunner().invoke(live.main, ["one", "two", "--inputs", "5000", "--seed", "3", "--project", "p"])
    assert {name: os.environ[name] for name in live.ENVIRON} == live.ENVIRON
    begun: list[object] = [("process", "p"), ["one"], ("targets of one", 3, 5000, True)]
    if error:
        assert (ended.exit_code, ended.stdout, ended.stderr) == (1, "", f"fuzz: {error}\n")
        assert done == [*begun, "down"]
        return
    assert ended.exit_code == 0
    assert done == [*begun, "down", ["two"], ("targets of two", 3, 5000, False), "down", "down"]
    line = "    5,000 inputs,     1,234 answers as the reference's\n"
    assert ended.stdout == f"{'one':<24} {line}{'two':<24} {line}"
