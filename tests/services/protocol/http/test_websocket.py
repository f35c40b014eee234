"""WebSocket, without a model: the cases of RFC 6455 in three deliveries, limits, compression, work and the drain."""

import random
import zlib
from collections.abc import Callable
from typing import cast

import pytest

from fuzz.oracle import Outcome
from loadtests.sockets.connection import BlockingConnection
from services.protocol import SEND_SIZE, AdapterError, Close, Compute, Connection, Limits, Send, Wait
from services.protocol.http.deflate import Deflate, InflateError, negotiate
from tests.services.protocol.http.conftest import Recorded
from tests.support.events import next_event
from tests.support.ws_cases import ANSWERED, CLOSED, FAILED, FAILED_OURS, Answered, Closed, Failed
from tests.support.ws_link import (
    BINARY,
    CLOSE,
    CONTINUATION,
    FIN,
    PING,
    PONG,
    RSV1,
    TEXT,
    Frame,
    WsLink,
    deflate,
    frame,
    handshake,
    inflate,
)

DEFLATE = handshake(more=["Sec-WebSocket-Extensions: permessage-deflate"])
# In three deliveries a stream of this size would take a second.
LARGE = 70_000


def read_messages(sent: bytes) -> list[Frame]:
    """Take apart what a server sent after its handshake."""
    link = WsLink(cast(BlockingConnection, Recorded(sent)))  # all that reading needs
    reply = link.http.read()
    assert reply is not None
    assert reply.status == 101
    messages = []
    while not link.http.is_at_end():
        messages.append(link.read_message())
    return messages


def code_of(message: Frame) -> int:
    assert message[0] == CLOSE
    return int.from_bytes(message[1][:2], "big")


@pytest.fixture
def opened(pull: Callable[..., Outcome]) -> Connection:
    connection = Connection("http")
    connection.receive_data(handshake())
    assert pull(connection).sent.startswith(b"HTTP/1.1 101 Switching Protocols\r\n")
    return connection


@pytest.mark.parametrize("case", [case for case in ANSWERED if len(case.sent) < LARGE], ids=lambda case: case.name)
def test_messages(deliver: Callable[..., Outcome], case: Answered) -> None:
    outcome = deliver(handshake() + case.sent)
    assert tuple(read_messages(outcome.sent)) == case.messages
    assert not outcome.closed


@pytest.mark.parametrize(
    "case", [case for case in [*FAILED, *FAILED_OURS] if len(case.sent) < LARGE], ids=lambda case: case.name
)
def test_frames_that_fail_the_connection(deliver: Callable[..., Outcome], case: Failed) -> None:
    outcome = deliver(handshake() + case.sent + frame(TEXT, b"behind"))
    assert code_of(read_messages(outcome.sent)[-1]) in case.codes
    assert outcome.closed


@pytest.mark.parametrize("case", CLOSED, ids=lambda case: case.name)
def test_closes(deliver: Callable[..., Outcome], case: Closed) -> None:
    outcome = deliver(handshake() + frame(TEXT, b"before") + frame(CLOSE, case.data) + frame(TEXT, b"behind"))
    before, close = read_messages(outcome.sent)
    assert before == (TEXT, b"before")
    assert (code_of(close), len(close[1])) == (case.code, 2 if case.code else 0)
    assert outcome.closed


@pytest.mark.parametrize("code", [1012, 1013, 1014])
def test_registered_codes_come_back(deliver: Callable[..., Outcome], code: int) -> None:
    """Those that IANA has added since, which other servers may not know."""
    (close,) = read_messages(deliver(handshake() + frame(CLOSE, code.to_bytes(2, "big"))).sent)
    assert code_of(close) == code


@pytest.mark.parametrize(
    "sent",
    [
        frame(BINARY, bytes(125), size=2),
        frame(BINARY, bytes(65_535), size=8)[:100],
        b"\x82\xff\x80" + bytes(7) + b"abcd",  # 2 ** 63: the first bit of eight bytes must be 0
    ],
)
def test_length_has_its_shortest_form(opened: Connection, pull: Callable[..., Outcome], sent: bytes) -> None:
    opened.receive_data(sent)
    assert pull(opened).sent == b"\x88\x28\x03\xeathe length is not in its shortest form"


@pytest.mark.parametrize(
    ("limits", "sent"),
    [
        ({"ws_frame": 200}, frame(BINARY, bytes(201))[:4]),
        ({"ws_message": 200}, frame(BINARY, bytes(201))[:4]),
        ({"ws_frame": 200}, frame(BINARY, bytes(65536))[:10]),
        ({"ws_message": 200}, frame(TEXT, bytes(120), bits=0) + frame(CONTINUATION, bytes(100))[:2]),
        ({"ws_message": 200}, frame(TEXT, bytes(120), bits=0) + frame(CONTINUATION, bytes(1), bits=0) * 81),
    ],
)
def test_limit_is_enforced_before_the_data_comes(
    deliver: Callable[..., Outcome], limits: dict[str, int], sent: bytes
) -> None:
    outcome = deliver(handshake() + sent, limits=Limits(**limits))
    ((opcode, data),) = read_messages(outcome.sent)
    what = "frame" if "ws_frame" in limits else "message"
    assert (opcode, data) == (CLOSE, b"\x03\xf1a %b is over the limit of 200 bytes" % what.encode())
    assert outcome.closed


def test_message_at_its_limit_does_not_count_what_comes_between(deliver: Callable[..., Outcome]) -> None:
    """A Ping and a Close, in front of the message's last fragment."""
    sent = frame(BINARY, bytes(200), bits=0) + frame(PING, b"p" * 125) + frame(CLOSE, b"\x03\xe8")
    outcome = deliver(handshake() + sent, limits=Limits(ws_message=200))
    assert read_messages(outcome.sent) == [(PONG, b"p" * 125), (CLOSE, b"\x03\xe8")]


def test_messages_at_the_limit(deliver: Callable[..., Outcome]) -> None:
    limits = Limits(ws_frame=200, ws_message=200)
    fragments = frame(BINARY, bytes(100), bits=0) + frame(CONTINUATION, bytes(100))
    outcome = deliver(handshake() + (frame(BINARY, bytes(200)) + fragments) * 2, limits=limits)
    assert read_messages(outcome.sent) == [(BINARY, bytes(200))] * 4


def test_frame_in_small_pieces_is_not_copied_for_each(opened: Connection, pull: Callable[..., Outcome]) -> None:
    """One megabyte in pieces of a hundred bytes: with a copy for each it would be five gigabytes."""
    sent = frame(BINARY, b"x" * 1_000_000)
    outcome = Outcome()
    for start in range(0, len(sent), 100):
        opened.receive_data(sent[start : start + 100])
        pull(opened, outcome)
    assert outcome.sent[-1_000_000:] == b"x" * 1_000_000


def test_masks(opened: Connection, pull: Callable[..., Outcome]) -> None:
    """Both ways to unmask, for lengths that are no multiple of four."""
    numbers = random.Random(7)
    for size in [*range(9), 125, 126, 766, 767, 768, 769, 770, 771, 5000]:
        data, key = numbers.randbytes(size), numbers.randbytes(4)
        opened.receive_data(frame(BINARY, data, key=key))
        assert pull(opened).sent.endswith(data)


def test_work(opened: Connection, pull: Callable[..., Outcome]) -> None:
    words = (b"hello", b"PING you", b"SLEEP 250", b"BURN 3", b"PING")
    opened.receive_data(b"".join(frame(TEXT, word) for word in words))
    assert next_event(opened) == Send(b"\x81\x05hello\x81\x03you")
    assert next_event(opened) == Wait(0.25)
    assert next_event(opened) == Send(b"\x81\x02OK")
    work = next_event(opened)
    assert work == Compute(3)
    with pytest.raises(AdapterError, match="before the digest"):
        next_event(opened)
    opened.receive_digest(b"digest")
    assert next_event(opened) == Send(b"\x81\x06digest")
    assert next_event(opened) == Send(b"\x81\x04PONG")
    assert next_event(opened) is None
    with pytest.raises(AdapterError, match="without a Compute"):
        opened.receive_digest(b"digest")


def test_work_that_is_asked_for_in_fragments_comes_before_what_is_behind_it(opened: Connection) -> None:
    word = frame(TEXT, b"SLEEP", bits=0) + frame(CONTINUATION, b" 250")
    opened.receive_data(word + frame(TEXT, b"PING"))
    assert next_event(opened) == Wait(0.25)
    assert next_event(opened) == Send(b"\x81\x02OK")
    assert next_event(opened) == Send(b"\x81\x04PONG")


@pytest.mark.parametrize(
    ("word", "most"),
    [
        (b"SLEEP", b"60000 ms"),
        (b"SLEEP ", b"60000 ms"),
        (b"SLEEP x", b"60000 ms"),
        (b"SLEEP -1", b"60000 ms"),
        (b"SLEEP 60001", b"60000 ms"),
        (b"BURN 1e3", b"10000000 rounds"),
        (b"BURN 10000001", b"10000000 rounds"),
        (b"BLOB 67108865", b"67108864 bytes"),
        # More digits than int() takes.
        (b"BLOB " + b"9" * 5000, b"67108864 bytes"),
    ],
    ids=range(9),
)
def test_word_with_a_number_that_is_none(
    opened: Connection, pull: Callable[..., Outcome], word: bytes, most: bytes
) -> None:
    opened.receive_data(frame(TEXT, word) + frame(TEXT, b"PING"))
    error = b"ERR %b takes 0 to %b" % (word.split()[0], most)
    assert pull(opened).sent == b"\x81%c%b\x81\x04PONG" % (len(error), error)


def test_numbers_at_their_limits(opened: Connection) -> None:
    """Sixty seconds, ten million rounds, and 64 MiB."""
    opened.receive_data(frame(TEXT, b"SLEEP 60000") + frame(TEXT, b"BURN 10000000") + frame(TEXT, b"BLOB 67108864"))
    assert next_event(opened) == Wait(60.0)
    assert next_event(opened) == Send(b"\x81\x02OK")
    assert next_event(opened) == Compute(10_000_000)
    opened.receive_digest(b"digest")
    assert next_event(opened) == Send(b"\x81\x06digest")
    # The head of a fragment that is not the last, with a length of two bytes.
    event = next_event(opened)
    assert isinstance(event, Send)
    assert event.data[:2] == b"\x01\x7e"


def test_replies_are_joined_up_to_a_send(opened: Connection) -> None:
    """Each reply has four bytes more than its message, and together with them just the size of a Send."""
    opened.receive_data(frame(BINARY, bytes(SEND_SIZE - 4)) * 2)
    for _ in range(2):
        event = next_event(opened)
        assert isinstance(event, Send)
        assert len(event.data) == SEND_SIZE


def test_words_are_only_text_and_only_words(opened: Connection, pull: Callable[..., Outcome]) -> None:
    for opcode, data in ((BINARY, b"PING"), (TEXT, b"ping"), (TEXT, b"PINGS"), (TEXT, b" PING"), (TEXT, b"QUITE")):
        opened.receive_data(frame(opcode, data))
        assert pull(opened).sent[2:] == data


def test_blob_is_made_as_it_is_sent(opened: Connection) -> None:
    opened.receive_data(frame(TEXT, b"BLOB 50000000"))
    for _ in range(20):
        event = next_event(opened)
        assert isinstance(event, Send)
        assert len(event.data) <= SEND_SIZE


@pytest.mark.parametrize("size", [0, 1, 65_454, 65_455, 65_456, 200_000])
def test_blob_is_one_message(deliver: Callable[..., Outcome], size: int) -> None:
    (message,) = read_messages(deliver(handshake() + frame(TEXT, b"BLOB %d" % size)).sent)
    assert message == (TEXT, bytes(32 + index % 95 for index in range(size)))


def test_pipeline_gives_others_a_turn(pull: Callable[..., Outcome]) -> None:
    connection = Connection("http", limits=Limits(pipeline=10))
    connection.receive_data(handshake() + frame(TEXT, b"a") * 95)
    outcome = pull(connection)
    assert len(read_messages(outcome.sent)) == 95
    assert outcome.sends == 11


def test_replies_of_64_kib_are_sent_before_the_next_one_is_made(pull: Callable[..., Outcome]) -> None:
    """Otherwise a pipeline of large messages would be held twice. Each reply has 30,004 bytes, so three go together."""
    connection = Connection("http")
    connection.receive_data(handshake() + frame(TEXT, bytes(30_000)) * 7)
    assert pull(connection).sends == 1 + 3


# The end.


def test_drain_answers_what_has_come_and_goes_away(opened: Connection, pull: Callable[..., Outcome]) -> None:
    opened.receive_data(frame(TEXT, b"SLEEP 1"))
    assert opened.next_event() == Wait(0.001)
    opened.drain(arrived=1000)
    opened.receive_data(frame(TEXT, b"more") + frame(TEXT, b"part")[:5])
    outcome = pull(opened)
    assert not outcome.closed
    opened.receive_eof()
    pull(opened, outcome)
    assert outcome.sent == b"\x81\x02OK\x81\x04more\x88\x12\x03\xe9the server stops"
    assert outcome.closed


def test_drain_without_a_word_behind_the_client_s_close(opened: Connection, pull: Callable[..., Outcome]) -> None:
    opened.receive_data(frame(CLOSE, b"\x03\xe8"))
    opened.drain()
    assert pull(opened).sent == b"\x88\x02\x03\xe8"


def test_handshake_that_comes_in_a_drain(pull: Callable[..., Outcome]) -> None:
    connection = Connection("http")
    connection.drain(arrived=1000)
    connection.receive_data(handshake() + frame(TEXT, b"a"))
    outcome = pull(connection)
    connection.receive_eof()
    pull(connection, outcome)
    text, close = read_messages(outcome.sent)
    assert text == (TEXT, b"a")
    assert code_of(close) == 1001


def test_stream_that_ends_without_a_close(opened: Connection) -> None:
    """7.1.5: nothing is left to say to a client that has gone."""
    opened.receive_eof()
    assert opened.next_event() == Close()


def test_nothing_of_a_message_is_held_after_the_end(opened: Connection, pull: Callable[..., Outcome]) -> None:
    opened.receive_data(frame(TEXT, b"QUIT") + frame(TEXT, b"behind"))
    assert pull(opened).sent == b"\x81\x02OK\x88\x02\x03\xe8"
    opened.receive_data(frame(TEXT, b"later"))
    assert opened.next_event() == Close()


# Compression.


@pytest.mark.parametrize("opcode", [TEXT, BINARY])
def test_message_goes_back_as_it_came(deliver: Callable[..., Outcome], opcode: int) -> None:
    text = b"hello " * 50
    sent = frame(opcode, deflate(text), bits=FIN | RSV1) + frame(PING, b"p") + frame(opcode, text)
    first, ping, second = read_messages(deliver(DEFLATE + sent).sent)
    assert (first[0], inflate(first[1])) == (opcode | RSV1, text)
    assert (ping, second) == ((PONG, b"p"), (opcode, text))


def test_word_in_a_compressed_message(deliver: Callable[..., Outcome]) -> None:
    sent = b"".join(frame(TEXT, deflate(word), bits=FIN | RSV1) for word in (b"PING", b"BLOB x" + b" " * 99))
    first, second = read_messages(deliver(DEFLATE + sent).sent)
    assert first == (TEXT, b"PONG")  # too short to become shorter
    assert second[1].startswith(b"ERR")


@pytest.mark.parametrize(("size", "first"), [(63, FIN | TEXT), (64, FIN | RSV1 | TEXT)])
def test_only_messages_of_64_bytes_are_compressed(pull: Callable[..., Outcome], size: int, first: int) -> None:
    connection = Connection("http")
    connection.receive_data(DEFLATE)
    pull(connection)
    connection.receive_data(frame(TEXT, deflate(b"a" * size), bits=FIN | RSV1))
    assert pull(connection).sent[0] == first


@pytest.mark.parametrize(
    ("data", "code"), [(deflate(bytes(1_048_577)), 1009), (b"\xff" * 20, 1007)], ids=["too-big", "not-deflated"]
)
def test_message_that_cannot_be_inflated_closes_with_its_code(
    deliver: Callable[..., Outcome], data: bytes, code: int
) -> None:
    (close,) = read_messages(deliver(DEFLATE + frame(BINARY, data, bits=FIN | RSV1)).sent)
    assert code_of(close) == code


def test_message_is_inflated_up_to_its_limit(deliver: Callable[..., Outcome]) -> None:
    sent = b"".join(frame(BINARY, deflate(bytes(size)), bits=FIN | RSV1) for size in (200, 201))
    message, close = read_messages(deliver(DEFLATE + sent, limits=Limits(ws_inflated=200)).sent)
    assert (inflate(message[1]), code_of(close)) == (bytes(200), 1009)


def test_only_the_first_fragment_says_that_a_message_is_compressed(deliver: Callable[..., Outcome]) -> None:
    """RFC 7692, 6."""
    data = deflate(b"hello")
    sent = frame(TEXT, data[:3], bits=RSV1) + frame(CONTINUATION, data[3:], bits=FIN | RSV1)
    (close,) = read_messages(deliver(DEFLATE + sent).sent)
    assert code_of(close) == 1002


def test_reply_to_a_word_is_compressed_as_its_message_was(deliver: Callable[..., Outcome]) -> None:
    word = b"ECHO " + b"a" * 64
    sent = frame(TEXT, deflate(word), bits=FIN | RSV1) + frame(TEXT, word)
    compressed, plain = read_messages(deliver(DEFLATE + sent).sent)
    assert (compressed[0], inflate(compressed[1])) == (TEXT | RSV1, b"a" * 64)
    assert plain == (TEXT, b"a" * 64)


def test_messages_of_a_client_with_blocks_that_are_final() -> None:
    """RFC 7692, 7.2.3.5."""
    machine = zlib.compressobj(wbits=-15)
    data = machine.compress(b"hello") + machine.flush(zlib.Z_FINISH) + b"\0"
    assert Deflate(15).inflate(data, 100) == b"hello"
    assert Deflate(15).inflate(data[:-1] + deflate(b" world"), 100) == b"hello world"


def test_tail_belongs_to_the_message() -> None:
    """RFC 7692, 7.2.2, has 00 00 ff ff appended: here they are the bytes that a stored block of four announces."""
    assert Deflate(15).inflate(b"\x00\x04\x00\xfb\xff", 100) == b"\x00\x00\xff\xff"


def test_message_of_many_final_blocks_is_not_copied_for_each(monkeypatch: pytest.MonkeyPatch) -> None:
    """A megabyte of such blocks, each of two bytes, would occupy a server for seconds."""
    handed: list[int] = []

    real = zlib.decompressobj

    class Machine:
        def __init__(self, wbits: int) -> None:
            self._real = real(wbits)

        def decompress(self, data: bytes, most: int) -> bytes:
            handed.append(len(data))
            return self._real.decompress(data, most)

        def __getattr__(self, name: str) -> object:
            return getattr(self._real, name)

    monkeypatch.setattr(zlib, "decompressobj", Machine)
    assert Deflate(15).inflate(b"\x03\x00" * 10_000, 100) == b""
    assert len(handed) >= 10_000
    assert max(handed) <= 1024


@pytest.mark.parametrize("size", [0, 1, 99, 100])
def test_inflated_size_at_its_limit(size: int) -> None:
    assert Deflate(15).inflate(deflate(bytes(size)) if size else b"\0", 100) == bytes(size)


@pytest.mark.parametrize("data", [b"\xff" * 20, deflate(b"hello" * 9)[:-3] + b"\xff\xff\xff"])
def test_data_that_cannot_be_inflated(data: bytes) -> None:
    with pytest.raises(InflateError, match="not deflated data") as raised:
        Deflate(15).inflate(data, 100)
    assert not raised.value.is_too_big


@pytest.mark.parametrize("size", [101, 102, 1000, 5_000_000])
def test_inflated_size_over_its_limit(size: int) -> None:
    with pytest.raises(InflateError) as raised:
        Deflate(15).inflate(deflate(bytes(size)), 100)
    assert raised.value.is_too_big


@pytest.mark.parametrize("bits", range(9, 16))
def test_window(bits: int) -> None:
    data = random.Random(7).randbytes(50_000) * 2
    with_window = zlib.decompressobj(-bits)
    assert with_window.decompress(Deflate(bits).deflate(data) + b"\0\0\xff\xff") == data


@pytest.mark.parametrize(
    ("offer", "bits"),
    [
        (b"permessage-deflate", 15),
        (b"Permessage-Deflate ; server_max_window_bits = 9", None),
        (b"permessage-deflate; server_max_window_bits=9", 9),
        (b'permessage-deflate;client_max_window_bits="8";server_max_window_bits="12"', 12),
        (b"permessage-deflate; client_max_window_bits", 15),
        (b"permessage-deflate; server_max_window_bits", None),
        (b"permessage-deflate; client_max_window_bits=7", None),
        (b"permessage-deflate; client_max_window_bits=16", None),
        (b"permessage-deflate; client_max_window_bits=100", None),
        (b"permessage-deflate; client_max_window_bits=" + b"9" * 5000, None),
        (b'permessage-deflate; server_max_window_bits="%b"' % (b"9" * 5000), None),
        (b"permessage-deflate; client_no_context_takeover=1", None),
        (b"permessage-deflate; server_max_window_bits=8, permessage-deflate", 15),
        (b"permessage-deflate; client_max_window_bits=8; server_max_window_bits=15", 15),
        (b"permessage-deflate; server_max_window_bits=9; server_max_window_bits=9", None),
        (b"permessage-deflate; server_no_context_takeover; server_no_context_takeover", None),
        (b"permessage-deflate; server_max_window_bits=09", None),
        (b"permessage-deflate; mux", None),
        (b"permessage-deflate; ", None),
        (b"x-webkit-deflate-frame", None),
        (b"", None),
    ],
)
def test_offer(offer: bytes, bits: int | None) -> None:
    agreed = negotiate([offer])
    assert (agreed.bits if agreed else None) == bits


def test_info_is_that_of_the_server_and_the_connection(deliver: Callable[..., Outcome]) -> None:
    outcome = deliver(handshake() + frame(TEXT, b"INFO"), info=lambda: "# Server\r\nmodel:m\r\n")
    assert read_messages(outcome.sent) == [(TEXT, b"# Server\r\nmodel:m\r\n# Connection\r\npeer:peer\r\n")]
