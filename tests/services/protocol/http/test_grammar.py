"""The requests that the parsers of HTTP are compared on: all that parsers differ on is among them."""

import re
from collections import Counter

import pytest

from fuzz import http_grammar
from fuzz.http_grammar import Maker
from fuzz.http_parsers import REFUSED, parse_own

STREAMS = 2000


def make(seed: int, mistakes: float, streams: int = STREAMS) -> list[bytes]:
    maker = Maker(seed, mistakes)
    return [maker.stream() for _ in range(streams)]


@pytest.fixture(scope="module")
def right() -> list[bytes]:
    """Streams without a mistake in a part; one in ten has a wrong byte, or no end."""
    return make(1, 0.0)


@pytest.fixture(scope="module")
def wrong() -> bytes:
    """Streams in which half of the parts are a mistake, as one."""
    return b"\0\0".join(make(1, 0.5, 4 * STREAMS))


def test_seed_decides_the_streams() -> None:
    assert make(7, 0.03, 20) == make(7, 0.03, 20)
    assert make(7, 0.03, 20) != make(8, 0.03, 20)


def test_one_to_three_requests_follow_each_other(right: list[bytes]) -> None:
    """Only behind another one does it show that a request ends in the wrong place."""
    numbers = Counter(len(re.findall(rb"(?m)^[A-Z]+ \S+ HTTP/1\.[01]\r$", stream)) for stream in right)
    assert numbers[2] > 800
    assert min(numbers[1], numbers[3]) > 200
    assert max(numbers) == 3


def test_right_parts_make_right_requests(right: list[bytes]) -> None:
    """But for one wrong byte, both lengths in one request, and chunks in HTTP/1.0: each refused in places."""
    reasons = Counter(parsed.reason for stream in right if (parsed := parse_own(stream)).ending == REFUSED)
    named = ("Content-Length with Transfer-Encoding", "Transfer-Encoding in HTTP/1.0")
    assert min(reasons[reason] for reason in named) > 20
    assert 20 < reasons.total() - sum(reasons[reason] for reason in named) < 0.1 * STREAMS


def test_few_parts_are_a_mistake_by_default() -> None:
    """Most streams must get as far as their second request, and most must have a mistake."""
    maker = Maker(1)
    refused = sum(parse_own(maker.stream()).ending == REFUSED for _ in range(STREAMS))
    assert 0.4 * STREAMS < refused < 0.8 * STREAMS


def test_upgrades_and_trailers_are_made(right: list[bytes]) -> None:
    assert sum(b"\nUpgrade: websocket\r\n" in stream for stream in right) > 50
    trailers = re.compile(rb"\r\n0+[^\r\n]*\r\n(?:A|X-Long-Name|Accept|Cookie): ?[^\r\n]*\r\n\r\n")
    assert sum(bool(trailers.search(stream)) for stream in right) > 50


def test_fields_are_in_any_order(right: list[bytes]) -> None:
    """Host comes last in some requests, and the length of a body before it."""
    for name in (b"A", b"Connection", b"Content-Length", b"Transfer-Encoding"):
        before = re.compile(rb"\n%b: ?[^\r\n]*\r\n(?:[^\r\n]+\r\n)*[Hh]ost:" % name)
        assert sum(bool(before.search(stream)) for stream in right) > 20, name


def test_second_length_equals_the_first_or_does_not(wrong: bytes) -> None:
    lengths = re.findall(rb"\nContent-Length: ?([0-9]+)\r\nContent-Length: ?([0-9]+)\r\n", wrong)
    assert {0, 1} <= {int(second) - int(first) for first, second in lengths}


def test_body_has_a_length_and_chunks_in_both_orders(wrong: bytes) -> None:
    """What is smuggled past a server that believes one of them stands behind the other's end, so neither may be 0."""
    length, coding = rb"Content-Length: ?(?:1|3|11)\r\n", rb"Transfer-Encoding: ?[Cc]hunked\r\n"
    for first, second in ((length, coding), (coding, length)):
        assert re.search(rb"\n%b(?:[^\r\n]+\r\n)*?%b" % (first, second), wrong), first


def test_bodies_of_each_size_are_made_and_some_look_like_a_request(right: list[bytes]) -> None:
    """A request that begins within a body shows which parser has taken a part of the body for it."""
    streams = b"\0\0".join(right)
    assert set(re.findall(rb"\nContent-Length: ?([0-9]+)\r", streams)) == {b"0", b"1", b"3", b"11"}
    for data in (b"x" * 11, b"GET / HTTP/"):
        assert re.search(rb"\r\n\r\n%b(?!1\.)" % data, streams), data
        assert re.search(rb"\n[0-9a-bA-B]+\r\n%b\r\n" % data, streams), data


def test_chunks_follow_each_other(right: list[bytes]) -> None:
    """Only behind another one does it show that a chunk ends in the wrong place."""
    assert sum(bool(re.search(rb"\nxxx\r\n[^\r\n]+\r\nxxx\r\n", stream)) for stream in right) > 20


# Written down again: a choice that is missing in the grammar is missing in a test that reads it there, too.
SPACES = (b" ", b"  ", b"\t", b"", b"\x0b", b" \r")
ENDS = (b"\r\n", b"\n", b"\r", b"\r\r\n", b"\n\r", b"", b" \r\n")
COLONS = (b": ", b":", b" : ", b":\t", b"", b":  ", b"\x00:", b": \x0b")


@pytest.mark.parametrize(
    ("before", "separators", "behind"),
    [
        (rb"\0\0", (b"", b"\r\n", b"\n", b"\r\n\r\n", b" "), rb"POST[ \t]"),
        (rb"POST", SPACES, rb"/ping"),
        (rb"/ping", SPACES, rb"HTTP/1\.1"),
        (rb"\nUpgrade: websocket", ENDS, rb"[A-Z]"),
        (rb"\n(?:Host|host|Upgrade|Cookie): ?[^\r\n]*\r\n", ENDS, rb"(?:GET|POST|HEAD|PUT|OPTIONS)[ \t]"),
        (rb"\n(?:3|b)", ENDS, rb"(?:xxx|GET)"),
        (rb"\nxxx", ENDS, rb"[0-9a-fA-F]"),
        (rb"\n0+", ENDS, rb"(?:Accept|Cookie|X-Long-Name)"),
        (rb"\nX-Long-Name", COLONS, rb"\*/\*"),
        (rb"\nConnection", COLONS, rb"close"),
        (rb"\nExpect", COLONS, rb"100-continue"),
        (rb"\nContent-Length", COLONS, rb"[0-9]"),
        (rb"\nTransfer-Encoding", COLONS, rb"chunked"),
    ],
    ids=[
        *("before a request", "method", "target", "line", "head", "size", "chunk", "last chunk"),
        *("field", "Connection", "Expect", "Content-Length", "Transfer-Encoding"),
    ],
)
def test_everything_stands_between_two_parts(
    before: bytes, separators: tuple[bytes, ...], behind: bytes, wrong: bytes
) -> None:
    for separator in separators:
        assert re.search(before + re.escape(separator) + behind, wrong), separator


def test_byte_is_replaced_or_missing_or_added_or_the_end_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    request = bytes(range(0x80, 0xFF))  # no byte of it is one that is put in
    monkeypatch.setattr(Maker, "_request", lambda self: request)
    monkeypatch.setattr(Maker, "_happens", lambda self, probability: probability == 0.1)
    done: set[tuple[bool, int]] = set()
    added: set[bytes] = set()
    replacing: set[bytes] = set()
    for stream in make(1, 0.0, 400):
        whole = request * -(-len(stream) // len(request))
        done.add((whole.startswith(stream), len(stream) % len(request)))
        foreign = bytes(byte for byte in stream if byte not in request)
        (added if len(stream) % len(request) in (1, 2) else replacing).add(foreign)
    assert added - {b""} == {b"\r\n", b"\n", b"\r", b" ", b"0", b"\0"}
    assert replacing - {b""} == {bytes((byte,)) for byte in b"\0\r\n \t:;,0a\xff"}
    cut = {rest for is_begin, rest in done if is_begin}
    assert len(cut) > 20
    # Another byte, one or two more, or one less than a whole number of requests.
    assert {rest for is_begin, rest in done if not is_begin} == {0, 1, 2, len(request) - 1}


@pytest.mark.parametrize(
    ("name", "table"),
    [
        ("Connection", http_grammar._CONNECTIONS),
        ("Expect", http_grammar._EXPECTATIONS),
        ("Transfer-Encoding", http_grammar._CODINGS),
        ("A", http_grammar._VALUES),
    ],
)
def test_every_value_of_a_field_is_made(name: str, table: tuple[tuple[bytes, ...], ...], wrong: bytes) -> None:
    for value in (value for values in table for value in values):
        assert re.search(rb"%b: ?%b[\r\n]" % (name.encode(), re.escape(value)), wrong), value


@pytest.mark.parametrize(
    ("before", "table", "behind"),
    [
        (b"(?:^|[\0\r\n])", http_grammar._METHODS, b" "),
        (b" ", http_grammar._TARGETS, b" "),
        (b" ", http_grammar._VERSIONS, b"[\r\n]"),
        (b"[\r\n]", http_grammar._HOSTS, b"[ \r\n]"),
        (b"[\r\n]", http_grammar._NAMES, b"[: \t]"),
    ],
    ids=["method", "target", "version", "host", "name"],
)
def test_every_choice_of_a_part_is_made(
    before: bytes, table: tuple[tuple[bytes, ...], ...], behind: bytes, wrong: bytes
) -> None:
    for choice in (choice for choices in table for choice in choices):
        assert re.search(before + re.escape(choice) + behind, wrong), choice


@pytest.mark.parametrize(
    ("before", "table", "behind"),
    [
        (rb"\nContent-Length: ?", http_grammar._LENGTHS, rb"[\r\n]"),
        (rb"[\r\n]", http_grammar._SIZES, rb"[\r\n]"),
    ],
    ids=["length", "size"],
)
def test_every_form_of_a_number_is_made(
    before: bytes, table: tuple[tuple[bytes, ...], ...], behind: bytes, wrong: bytes
) -> None:
    for form in (form for forms in table for form in forms):
        digits = re.sub(rb"%[dxX]", rb"[0-9a-fA-F]+", re.escape(form))
        assert re.search(before + digits + behind, wrong), form
