"""How requests are cut out of the stream, and what the peer hears when they cannot be."""

from collections.abc import Callable

import pytest

from fuzz.oracle import Outcome
from services.protocol import Close, Connection, Limits, PeerError, Send
from services.protocol.resp import RequestReader
from tests.support.events import sends

Exchange = Callable[..., Outcome]


def array(*arguments: bytes) -> bytes:
    return b"*%d\r\n" % len(arguments) + b"".join(b"$%d\r\n%b\r\n" % (len(text), text) for text in arguments)


def echoed(text: bytes) -> bytes:
    return b"$%d\r\n%b\r\n" % (len(text), text)


FOLLOWED = {
    "array": (array(b"PING"), b"+PONG\r\n"),
    "array-lower-case": (array(b"ping"), b"+PONG\r\n"),
    "array-mixed-case": (array(b"PiNg"), b"+PONG\r\n"),
    "array-leading-zeros": (b"*0000000001\r\n$0004\r\nPING\r\n", b"+PONG\r\n"),
    "array-empty-bulk": (array(b"ECHO", b""), b"$0\r\n\r\n"),
    "array-crlf-inside": (array(b"ECHO", b"\r\n$1\r\n"), echoed(b"\r\n$1\r\n")),
    "array-every-byte": (array(b"ECHO", bytes(range(256))), echoed(bytes(range(256)))),
    "array-two-digit-header": (array(b"ECHO", b"0123456789"), echoed(b"0123456789")),
    "array-four-digit-header": (array(b"ECHO", b"x" * 1024), echoed(b"x" * 1024)),
    "array-large": (array(b"ECHO", b"\r" * 70_000), echoed(b"\r" * 70_000)),
    "array-of-none-is-skipped": (b"*0\r\n" + array(b"PING"), b"+PONG\r\n"),
    "array-null-is-skipped": (b"*-1\r\n" + array(b"PING"), b"+PONG\r\n"),
    "array-two-digit-count": (array(*[b"PING"] * 10), b"-ERR wrong number of arguments for 'ping' command\r\n"),
    "array-name-is-empty": (array(b""), b"-ERR unknown command ''\r\n"),
    "inline": (b"PING\r\n", b"+PONG\r\n"),
    "inline-bare-lf": (b"PING\n", b"+PONG\r\n"),
    "inline-blanks": (b" \t PING \t \r\n", b"+PONG\r\n"),
    "inline-empty-lines-are-skipped": (b"\r\n\n  \r\nPING\r\n", b"+PONG\r\n"),
    "inline-high-bytes": (b"ECHO \x00\xff\x80\r\n", echoed(b"\x00\xff\x80")),
    "inline-between-arrays": (array(b"PING") + b"ECHO a\n" + array(b"PING"), b"+PONG\r\n$1\r\na\r\n+PONG\r\n"),
    "pipeline": (array(b"PING") * 50 + array(b"ECHO", b"x"), b"+PONG\r\n" * 50 + b"$1\r\nx\r\n"),
}


@pytest.mark.parametrize(("stream", "expected"), FOLLOWED.values(), ids=FOLLOWED)
def test_request_is_answered(exchange: Exchange, stream: bytes, expected: bytes) -> None:
    outcome = exchange(stream)
    assert outcome.sent == expected
    assert not outcome.closed


# Each pair was recorded from redis-server 7.0.15.
QUOTING = {
    "double": (rb'"a b"', b"a b"),
    "single": (rb"'a b'", b"a b"),
    "double-empty": (rb'""', b""),
    "single-empty": (rb"''", b""),
    "double-escapes": (rb'"\x41\n\r\t\b\a\q\"\\"', b'A\n\r\t\x08\x07q"\\'),
    "double-not-hexadecimal": (rb'"\xzz"', b"xzz"),
    "double-with-single-inside": (rb'''"it's"''', b"it's"),
    "single-escape": (rb"'it\'s'", b"it's"),
    "single-keeps-other-escapes": (rb"'a\nb\\c'", rb"a\nb\\c"),
    "single-with-double-inside": (rb"""'say "a"'""", b'say "a"'),
    "bare-keeps-backslash": (rb"a\nb", rb"a\nb"),
    "bare-then-quoted": (rb'a"b c"', b"ab c"),
}
UNBALANCED = {
    "double-open": rb'"a',
    "single-open": rb"'a",
    "double-then-bare": rb'"a"b',
    "single-then-bare": rb"'a'b",
    "double-then-double": rb'"a""b"',
    "double-ends-in-escape": rb'"a\"',
    "single-ends-in-escape": rb"'a\'",
    "single-ends-in-two-backslashes": rb"'a\\'",
    "bare-then-open": rb'a"b',
    "lone-quote": rb'"',
    "blank-before-open": rb'x   "',
}


@pytest.mark.parametrize(("typed", "meant"), QUOTING.values(), ids=QUOTING)
def test_inline_quoting_is_that_of_redis(exchange: Exchange, typed: bytes, meant: bytes) -> None:
    assert exchange(b"ECHO " + typed + b"\r\n").sent == echoed(meant)
    assert exchange(b"ECHO    " + typed + b"  \n").sent == echoed(meant)


@pytest.mark.parametrize("typed", UNBALANCED.values(), ids=UNBALANCED)
def test_unbalanced_quotes_close(exchange: Exchange, typed: bytes) -> None:
    outcome = exchange(b"ECHO " + typed + b"\r\n")
    assert outcome.sent == b"-ERR Protocol error: unbalanced quotes in request\r\n"
    assert outcome.closed


SMALL = Limits(line=64, bulk=100, array=5, request=150)

# (what breaks the stream, what the error must name)
BROKEN = {
    "array-length-negative": (b"*-2\r\n", "array length '-2' is not a number"),
    "array-length-not-numeric": (b"*one\r\n", "array length 'one' is not a number"),
    "array-length-empty": (b"*\r\n", "array length '' is not a number"),
    "array-length-signed": (b"*+1\r\n", "array length '+1' is not a number"),
    "array-length-minus-zero": (b"*-0\r\n", "array length '-0' is not a number"),
    "array-length-minus-one-and-more": (b"*-10\r\n", "array length '-10' is not a number"),
    "array-length-blank": (b"* 1\r\n", "array length ' 1' is not a number"),
    "array-length-blank-behind": (b"*1 \r\n", "array length '1 ' is not a number"),
    "array-length-underscore": (b"*1_0\r\n", "array length '1_0' is not a number"),
    "array-length-other-digits": ("*\u0661\r\n".encode(), r"array length '\xd9\xa1' is not a number"),
    "array-length-superscript": (b"*\xb9\r\n", r"array length '\xb9' is not a number"),
    "bulk-length-minus-zero": (b"*1\r\n$-0\r\n", "bulk length '-0' is not a number"),
    "bulk-length-empty": (b"*1\r\n$\r\n", "bulk length '' is not a number"),
    "bulk-length-signed": (b"*1\r\n$+1\r\na\r\n", "bulk length '+1' is not a number"),
    "bulk-length-blank": (b"*1\r\n$ 1\r\na\r\n", "bulk length ' 1' is not a number"),
    "bulk-length-blank-behind": (b"*1\r\n$1 \r\na\r\n", "bulk length '1 ' is not a number"),
    "bulk-length-underscore": (b"*1\r\n$1_0\r\n0123456789\r\n", "bulk length '1_0' is not a number"),
    "bulk-length-hexadecimal": (b"*1\r\n$0x1\r\na\r\n", "bulk length '0x1' is not a number"),
    "bulk-length-other-digits": ("*1\r\n$\u0661\r\na\r\n".encode(), r"bulk length '\xd9\xa1' is not a number"),
    "array-length-nul": (b"*\x00\r\n", r"array length '\x00' is not a number"),
    "array-length-high": (b"*\xb2\r\n", r"array length '\xb2' is not a number"),
    "array-header-endless": (b"*" + b"1" * 15, "array header is longer than 16 bytes"),
    "array-over-limit": (b"*6\r\n", "array of 6 arguments is over the limit of 5"),
    "array-far-over-limit": (b"*4294967296\r\n", "array of 4294967296 arguments is over the limit of 5"),
    "array-of-integers": (b"*1\r\n:5\r\n", "expected '$', got ':'"),
    "array-of-arrays": (b"*1\r\n*1\r\n", "expected '$', got '*'"),
    "array-of-nul": (b"*1\r\n\x00", r"expected '$', got '\x00'"),
    "array-of-quotes": (b"*1\r\n'", "expected '$', got \"'\""),
    "bulk-length-negative": (b"*1\r\n$-1\r\n", "bulk length '-1' is not a number"),
    "bulk-length-not-numeric": (b"*1\r\n$4x\r\n", "bulk length '4x' is not a number"),
    "bulk-length-high": (b"*1\r\n$\xff\r\n", r"bulk length '\xff' is not a number"),
    "bulk-length-line-feed": (b"*1\r\n$4\nPING\r\n", r"bulk length '4\nPING' is not a number"),
    "bulk-header-endless": (b"*1\r\n$" + b"1" * 15, "bulk header is longer than 16 bytes"),
    "bulk-over-limit": (b"*1\r\n$101\r\n", "bulk of 101 bytes is over the limit of 100"),
    "bulk-longer-than-it-says": (b"*1\r\n$4\r\nPINGPONG", "a bulk of 4 bytes is not followed by CR LF"),
    "bulk-lf-for-crlf": (b"*1\r\n$4\r\nPING\n\n", "a bulk of 4 bytes is not followed by CR LF"),
    "bulk-cr-without-lf": (b"*1\r\n$4\r\nPING\r\r", "a bulk of 4 bytes is not followed by CR LF"),
    "request-over-limit": (
        b"*2\r\n" + b"$100\r\n%b\r\n" % bytes(100) + b"$51\r\n",
        "request of 151 bytes is over the limit of 150",
    ),
    "request-over-limit-by-three": (
        b"*4\r\n$4\r\nPING\r\n" + b"$60\r\n%b\r\n" % bytes(60) * 2 + b"$60\r\n",
        "request of 184 bytes is over the limit of 150",
    ),
    "request-over-limit-by-many": (
        b"*5\r\n" + b"$37\r\n%b\r\n" % bytes(37) * 4 + b"$3\r\n",
        "request of 151 bytes is over the limit of 150",
    ),
    "line-over-limit": (b"x" * 64, "line is longer than 64 bytes"),
    "line-of-nul-over-limit": (b"\x00" * 64, "line is longer than 64 bytes"),
    "line-of-many-arguments": (b"a b c d e f\n", "6 arguments are over the limit of 5"),
}


@pytest.mark.parametrize(("stream", "named"), BROKEN.values(), ids=BROKEN)
def test_broken_stream_is_told_why_and_closed(exchange: Exchange, stream: bytes, named: str) -> None:
    outcome = exchange(stream, limits=SMALL)
    assert outcome.sent.startswith(b"-ERR Protocol error: ")
    assert named in outcome.sent.decode("ascii")
    assert is_one_clean_line(outcome.sent)
    assert outcome.closed


@pytest.mark.parametrize(("stream", "named"), BROKEN.values(), ids=BROKEN)
def test_what_came_before_the_break_is_answered_first(exchange: Exchange, stream: bytes, named: str) -> None:
    outcome = exchange(b"PING\r\n" + array(b"ECHO", b"x") + stream, limits=SMALL)
    assert outcome.sent.startswith(b"+PONG\r\n$1\r\nx\r\n-ERR Protocol error: ")
    assert outcome.closed


AT_LIMIT = {
    "line": (b"PING" + b" " * 58 + b"\r\n", b"+PONG\r\n"),
    "line-without-end-so-far": (b"PING" + b" " * 59 + b"\n", b"+PONG\r\n"),
    "bulk": (array(b"ECHO", b"x" * 100), echoed(b"x" * 100)),
    "array": (array(*[b"PING"] * 5), b"-ERR wrong number of arguments for 'ping' command\r\n"),
    "line-of-many-arguments": (b"PING b c d e\n", b"-ERR wrong number of arguments for 'ping' command\r\n"),
    "request": (array(b"PING", bytes(100), bytes(46)), b"-ERR wrong number of arguments for 'ping' command\r\n"),
    "request-counts-anew": (array(b"ECHO", bytes(100)) * 3, echoed(bytes(100)) * 3),
}


@pytest.mark.parametrize(("stream", "expected"), AT_LIMIT.values(), ids=AT_LIMIT)
def test_request_at_its_limit_is_answered(exchange: Exchange, stream: bytes, expected: bytes) -> None:
    outcome = exchange(stream, limits=SMALL)
    assert outcome.sent == expected
    assert not outcome.closed


def is_one_clean_line(reply: bytes) -> bool:
    """Whether an error reply is one line of printable ASCII, whatever the peer had sent."""
    line = reply.removesuffix(b"\r\n")
    return len(line) == len(reply) - 2 and all(0x20 <= byte < 0x7F for byte in line)


NASTY = [b"\r\n+OK", b"\n", b"\r", b"\x00", b"\xff" * 200, b"'\"", b"\x1b[2J", b"\x7f", "ä".encode()]


@pytest.mark.parametrize("text", NASTY)
def test_error_line_cannot_be_broken_out_of(exchange: Exchange, text: bytes) -> None:
    for request in (
        array(text),
        array(b"SLEEP", text),
        array(b"BURN", text),
        array(b"BLOB", text),
        array(b"CONFIG", text, text),
        array(b"CLIENT", text),
        array(b"HELLO", text),
    ):
        outcome = exchange(request)
        assert outcome.sent.startswith(b"-")
        assert is_one_clean_line(outcome.sent)
        assert len(outcome.sent) < 400
        assert not outcome.closed


def test_bulk_that_never_ends_gets_no_answer_and_no_close() -> None:
    connection = Connection("command")
    connection.receive_data(b"*2\r\n$4\r\nECHO\r\n$1048576\r\n")
    for _ in range(1000):
        assert connection.next_event() is None
        connection.receive_data(b"x" * 1000)
    connection.receive_eof()
    assert connection.next_event() == Close()


def test_deep_pipeline_is_answered_in_turns() -> None:
    connection = Connection("command", limits=Limits(pipeline=10))
    connection.receive_data(b"PING\n" * 25)
    assert [connection.next_event() for _ in range(4)] == [
        Send(b"+PONG\r\n" * 10),
        Send(b"+PONG\r\n" * 10),
        Send(b"+PONG\r\n" * 5),
        None,
    ]


def test_replies_are_sent_when_enough_of_them_are_gathered() -> None:
    connection = Connection("command")
    connection.receive_data(array(b"ECHO", b"x" * 60_000) * 4)
    assert [len(data) for data in sends(connection)] == [2 * 60_010, 2 * 60_010]


# "$32758\r\n", 32758 bytes and CR LF are 32768, the half of what is gathered; of one byte less, 32767.
HALF, LESS = array(b"ECHO", b"x" * 32_758), array(b"ECHO", b"x" * 32_757)


@pytest.mark.parametrize(("pair", "counts"), [(HALF + HALF, [2, 1]), (HALF + LESS, [3])], ids=["full", "one-less"])
def test_replies_are_gathered_until_they_fill_a_send(pair: bytes, counts: list[int]) -> None:
    connection = Connection("command")
    connection.receive_data(pair + array(b"PING"))
    assert [data.count(b"$") + data.count(b"+") for data in sends(connection)] == counts


# A reader by itself, as no model drives it but an adapter may.


def test_reader_between_requests_says_so() -> None:
    reader = RequestReader(Limits())
    assert reader.is_between_requests
    for blank in (b"\n", b"\r\n", b"*0\r\n"):
        reader.feed(blank)
        assert reader.next_request() is None
        assert reader.is_between_requests
    reader.feed(b"*")
    assert not reader.is_between_requests
    assert reader.next_request() is None
    assert not reader.is_between_requests


def test_reader_is_fed_while_it_holds_requests() -> None:
    """The second piece has exactly the bytes that the second request still lacks."""
    reader = RequestReader(Limits())
    reader.feed(array(b"PING") + array(b"ECHO", b"abc")[:-4])
    assert reader.next_request() == [b"PING"]
    reader.feed(array(b"ECHO", b"abc")[-4:])
    assert reader.next_request() == [b"ECHO", b"abc"]
    reader.feed(array(b"PING") + b"EC")
    reader.feed(b"HO x\n")
    assert [reader.next_request() for _ in range(2)] == [[b"PING"], [b"ECHO", b"x"]]
    reader.feed(b"\n")  # one byte is enough to go on
    assert reader.next_request() is None
    assert reader.is_between_requests


def test_one_byte_behind_a_header_that_came_in_pieces_is_looked_at() -> None:
    reader = RequestReader(Limits())
    reader.feed(array(b"PING") + b"*")
    assert reader.next_request() == [b"PING"]
    reader.feed(b"1\r\nX")
    with pytest.raises(PeerError, match=r"^expected '\$', got 'X'$"):
        reader.next_request()


@pytest.mark.parametrize("cut_off", [b"*1", b"*1\r", b"*1\r\n$4", b"*1\r\n$4\r", b"PING"])
def test_header_that_is_cut_off_behind_a_long_request_is_waited_for(exchange: Exchange, cut_off: bytes) -> None:
    rest = array(b"PING").removeprefix(cut_off) if cut_off.startswith(b"*") else b"\r\n"
    connection = Connection("command", limits=Limits(line=64))
    connection.receive_data(array(b"ECHO", b"x" * 100) + cut_off)
    assert connection.next_event() == Send(echoed(b"x" * 100))
    assert connection.next_event() is None
    connection.receive_data(rest)
    assert connection.next_event() == Send(b"+PONG\r\n")


# (size of a fragment, the most that wait, how many wait after a thousand)
FRAGMENTS = {
    # The 256th makes one of all, the 512th a second, the 768th a third: 2 + 256 waited then, 3 + 232 at the end.
    "small": (2, 258, 235),
    "largest-that-is-joined": (127, 258, 235),
    # 256 of them are 32 KiB: large enough to stay as they are.
    "smallest-that-is-not": (128, 1000, 1000),
}


@pytest.mark.parametrize(("size", "most", "left"), FRAGMENTS.values(), ids=FRAGMENTS)
def test_small_fragments_of_a_bulk_are_put_together(size: int, most: int, left: int) -> None:
    reader = RequestReader(Limits())
    # And so are those of a second one: the count begins again.
    for _ in range(2):
        reader.feed(b"*1\r\n$200000\r\n")
        assert reader.next_request() is None
        found = 0
        for _ in range(1000):
            reader.feed(bytes(size))
            found = max(found, len(reader._waiting))
            assert reader.next_request() is None
        assert (found, len(reader._waiting)) == (most, left)
        reader.feed(bytes(200_000 - 1000 * size) + b"\r\n")
        assert reader.next_request() == [bytes(200_000)]


def test_array_of_many_arguments_arrives_in_fragments() -> None:
    stream = array(*[b"argument"] * 1024)
    connection = Connection("command")
    for start in range(0, len(stream), 7):
        assert connection.next_event() is None
        connection.receive_data(stream[start : start + 7])
    assert connection.next_event() == Send(b"-ERR unknown command 'argument'\r\n")
