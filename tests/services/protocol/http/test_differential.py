"""Our parser of HTTP beside two others: a slice of `python -m fuzz.http_differential`, and what it would notice."""

from collections import Counter

import pytest
from click.testing import CliRunner

import fuzz.http_differential
from fuzz.http_differential import Difference, Found, compare, find_differences, main, run
from fuzz.http_explained import EXPLAINED, Explanation, Kind, get
from fuzz.http_parsers import LAST, MORE, OTHERS, REFUSED, Parsed, Request, parse_h11, parse_httptools, parse_own
from services.protocol.http import head

SIZED = get(b"Content-Length: 3\r\n", b"POST /a?b HTTP/1.1") + b"abc"
CHUNKED = get(b"Transfer-Encoding: Chunked\r\n", b"PUT /%41 HTTP/1.1") + b"2\r\nab\r\n1;x\r\nc\r\n0\r\nHost: b\r\n\r\n"
UPGRADE = [b"Upgrade: websocket\r\n", b"Connection: upgrade\r\n"]
CLOSING = get(b"Connection: close\r\n")


def test_slice_finds_nothing() -> None:
    found = run(2000, seed=16)
    assert found.unexplained == []
    assert found.requests > 1000
    assert sum(found.counts.values()) > 100


@pytest.mark.parametrize("each", EXPLAINED, ids=[f"{each.section} {each.why[:40]}" for each in EXPLAINED])
def test_explanation_has_an_example(each: Explanation) -> None:
    """It is of the parsers that are named and of no other, and it shows its cause, which a right request does not."""
    differences = {found.other: found for found in find_differences(each.example)}
    assert {name for name, found in differences.items() if found.kind is each.kind} == set(each.parsers)
    assert {differences[name].explain() for name in each.parsers} == {each.section}
    assert each.evidence.search(each.example)
    assert not each.evidence.search(get(b"A: b\r\nContent-Length: 0\r\n"))


# The kind and section of a cause that the example of another one shows too.
ALSO_SHOWN = {
    "an empty line may precede": {(Kind.ONLY_THEIRS, "9112-3.2"), (Kind.ONLY_OURS, "9112-2.2")},
    "a line with another number of spaces": {(Kind.ONLY_THEIRS, "9112-3.2"), (Kind.ONLY_THEIRS, "9112-3.2.2")},
    "a line without a version": {(Kind.ONLY_THEIRS, "9112-2.3")},
    "so must any later version": {(Kind.ONLY_OURS, "9110-2.5")},
    "blanks may stand around": {(Kind.ONLY_THEIRS, "9112-7.1.1")},
    "an Upgrade of HTTP/1.0": {(Kind.END, "9110-7.8")},
}


@pytest.mark.parametrize("each", EXPLAINED, ids=[f"{each.section} {each.why[:40]}" for each in EXPLAINED])
def test_example_shows_no_other_cause(each: Explanation) -> None:
    """A pattern that matches more than its cause would explain a bug of ours."""
    shown = {(other.kind, other.section) for other in EXPLAINED if other.evidence.search(each.example)}
    also = next((causes for why, causes in ALSO_SHOWN.items() if each.why.startswith(why)), set())
    assert shown == {(each.kind, each.section)} | also


# Causes that a body or a trailer can show too, which have no border that the evidence could stay within.
ANYWHERE = ("LF alone", "a folded", "a control", "a size", "an extension", "blanks may", "a trailer")


@pytest.mark.parametrize("first", [get(), get(line=b"GET / HTTP/1.0", host=b""), get(b"A: b\r\n")])
@pytest.mark.parametrize("each", EXPLAINED, ids=[f"{each.section} {each.why[:40]}" for each in EXPLAINED])
def test_cause_of_the_next_request_explains_nothing_of_this_one(each: Explanation, first: bytes) -> None:
    assert bool(each.evidence.search(first + each.example)) == each.why.startswith(ANYWHERE)


@pytest.mark.parametrize(
    "request_",
    [
        *(get(line=b"%b / HTTP/1.1" % method) for method in (b"GET", b"HEAD", b"POST", b"PUT", b"OPTIONS")),
        *(
            get(line=b"GET %b HTTP/1.1" % target)
            for target in (b"/a/b?c=d,e", b"/%41", b"http://a:80/b", b"http://a", b"https://a/b")
        ),
        *(get(host=b"Host: %b\r\n" % host) for host in (b"", b"a.b:8080", b"[::1]:80", b"%41")),
        *(get(b"Connection: %b\r\n" % option) for option in (b"close", b"keep-alive", b"close, x")),
        *(get(b"A: %b\r\n" % value) for value in (b"", b"b, c", b"\tb\xff ", b'"b;c"')),
        get(line=b"GET / HTTP/1.0"),
        get(line=b"GET / HTTP/1.0", host=b""),
        get(line=b"OPTIONS * HTTP/1.1"),
        SIZED,
        CHUNKED.replace(b";x", b"").replace(b"Host: b", b"A: b"),
        get(b"Transfer-Encoding: chunked\r\n") + b"%b0a\r\n0123456789\r\n0\r\nA: b\r\n\r\n" % (b"0" * 14),
        get(b"Upgrade: websocket\r\n"),
    ],
)
def test_right_request_shows_no_cause(request_: bytes) -> None:
    assert parse_own(request_).ending != REFUSED
    assert [each.why for each in EXPLAINED if each.evidence.search(request_)] == []


@pytest.mark.parametrize(
    ("request_", "shown"),
    [
        (get(b"Transfer-Encoding: gzip, chunked\r\n"), ["9112-6.1"]),
        (get(b"Transfer-Encoding: chunked, gzip\r\n"), []),
        (get(b"Transfer-Encoding: chunked,\r\n"), []),
        (get(b"Transfer-Encoding: xchunked\r\n"), []),
        (get(b"Content-Length: 0x1\r\n"), []),
        (get(b"Content-Length: -1\r\n"), []),
        (CHUNKED.replace(b"1;x", b"0x1"), []),
        (CHUNKED.replace(b"1;x", b"-1"), []),
        (get(b"A\0: b\r\n"), []),
    ],
)
def test_mistake_that_all_must_refuse_is_not_explained(request_: bytes, shown: list[str]) -> None:
    """If another parser took it, that would be a find; but for a coding, which another may know."""
    assert parse_own(request_).ending == REFUSED
    assert [each.section for each in EXPLAINED if each.evidence.search(request_)] == shown


@pytest.mark.parametrize("fields", [UPGRADE, UPGRADE[::-1]], ids=["first", "last"])
def test_upgrade_of_version_1_0_is_explained_wherever_its_fields_are(fields: list[bytes]) -> None:
    stream = b"GET / HTTP/1.0\r\n" + b"".join(fields) + b"Host: a\r\n\r\n"
    assert [found.explain() for found in find_differences(stream)] == ["9110-7.8"]


@pytest.mark.parametrize("parse", [parse_own, parse_h11, parse_httptools])
def test_parsers_agree_on_what_is_right(parse: fuzz.http_parsers.Parse) -> None:
    parsed = parse(SIZED + CHUNKED + CLOSING + get())
    first, second, third = parsed.requests
    assert [each.method for each in parsed.requests] == [b"POST", b"PUT", b"GET"]
    assert (first.body, second.body, third.body) == (b"abc", b"abc", b"")
    ends = len(SIZED), len(SIZED + CHUNKED), len(SIZED + CHUNKED + CLOSING)
    assert (first.end, second.end, third.end) == ends
    assert first.fields == {b"host": [b"a"], b"content-length": [b"3"]}
    assert second.fields == {b"host": [b"a"], b"transfer-encoding": [b"chunked"]}
    assert [each.is_kept for each in parsed.requests] == [True, True, False]
    assert parsed.ending == LAST
    assert parse(SIZED + b"GET /").ending == parse(SIZED[:-1]).ending == parse(b"").ending == MORE
    assert parse(b"\0\r\n\r\n").ending == REFUSED


@pytest.mark.parametrize("parse", [parse_own, parse_h11, parse_httptools])
def test_fields_that_decide_something_are_compared_as_they_are(parse: fuzz.http_parsers.Parse) -> None:
    """But for codings, which h11 writes in lower case; a field that decides nothing is left out."""
    (request,) = parse(
        get(
            b"Content-Type: A\r\nAccept: Text/*\r\nConnection: Keep-Alive\r\nExpect: 100-Continue\r\n"
            b"Upgrade: WebSocket\r\nTransfer-Encoding: CHUNKED\r\n",
            host=b"Host: A\r\n",
        )
        + b"0\r\n\r\n"
    ).requests
    assert request.fields == {
        b"host": [b"A"],
        b"accept": [b"Text/*"],
        b"connection": [b"Keep-Alive"],
        b"expect": [b"100-Continue"],
        b"upgrade": [b"WebSocket"],
        b"transfer-encoding": [b"chunked"],
    }


REQUEST = Request(b"GET", b"/a", {b"host": [b"a"]}, b"b", 9)


@pytest.mark.parametrize(
    ("theirs", "kind"),
    [
        (Parsed([Request(b"GET", b"/%61?c", {b"host": [b"a"]}, b"b", 9)]), None),
        (Parsed([Request(b"GET", b"http://a:1/a", {b"host": [b"a"]}, b"b", 9)]), None),
        (Parsed([Request(b"GET", b"https://a:1/a", {b"host": [b"a"]}, b"b", 9)]), None),
        (Parsed([Request(b"GET", b"/a", {b"host": [b"a"]}, b"b", 8)]), Kind.END),
        (Parsed([Request(b"POST", b"/a", {b"host": [b"a"]}, b"b", 9)]), Kind.METHOD),
        (Parsed([Request(b"GET", b"/b", {b"host": [b"a"]}, b"b", 9)]), Kind.TARGET),
        (Parsed([Request(b"GET", b"/a", {}, b"b", 9)]), Kind.FIELDS),
        (Parsed([Request(b"GET", b"/a", {b"host": [b"a"]}, b"", 9)]), Kind.BODY),
        (Parsed([Request(b"GET", b"/a", {b"host": [b"a"]}, b"b", 9, is_kept=False)]), Kind.KEPT),
        (Parsed([], MORE), Kind.END),
        (Parsed([], REFUSED), Kind.ONLY_OURS),
        (Parsed([REQUEST, REQUEST]), Kind.ONLY_THEIRS),
        (Parsed([REQUEST], MORE), None),  # it refuses the next one, but later
    ],
)
def test_difference_is_seen(theirs: Parsed, kind: Kind | None) -> None:
    found = compare(b"x" * 20, Parsed([REQUEST], REFUSED), "h11", theirs)
    assert (found and found.kind) is kind
    assert found is None or found.explain() is None


def test_cause_of_another_kind_explains_nothing() -> None:
    """httptools refuses methods that it does not know; it may not read others from such a request, as h11 may not."""
    example = get(line=b"X / HTTP/1.1")
    explained = [(name, kind) for name in OTHERS for kind in Kind if Difference(name, kind, example, "").explain()]
    assert explained == [("httptools", Kind.ONLY_OURS)]


def test_body_of_many_chunks_is_read_to_its_end() -> None:
    """More than a server reads in one turn: the size of each, its byte, its end."""
    stream = get(b"Transfer-Encoding: chunked\r\n") + b"1\r\na\r\n" * 1000 + b"0\r\n\r\n"
    (request,) = parse_own(stream).requests
    assert (request.body, request.end) == (b"a" * 1000, len(stream))


def test_request_that_ours_waits_for_is_seen() -> None:
    found = compare(b"x" * 20, Parsed([REQUEST]), "h11", Parsed([REQUEST, REQUEST]))
    assert found is not None
    assert (found.kind, found.stream) == (Kind.END, b"x" * 11)


def test_wrong_length_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    right = head._read_length
    monkeypatch.setattr(head, "_read_length", lambda values: max(right(values) - 1, 0))
    found = run(300, seed=1)
    assert {each.kind for each in found.unexplained} >= {Kind.END}
    assert sum(number for (_, _, section), number in found.counts.items() if section == "?") == len(found.unexplained)


def test_both_others_are_asked() -> None:
    assert list(OTHERS) == ["h11", "httptools"]
    assert {name for name, _, _ in run(300, seed=1).counts} == set(OTHERS)


def test_request_is_kept_and_ends_nowhere_until_it_is_read() -> None:
    assert (Request().end, Request().is_kept) == (0, True)


def test_h11_reads_a_head_of_up_to_one_mib() -> None:
    """Its own limit is 16 KiB, where ours refuses later."""
    long = get(b"A: " + b"a" * 20_000 + b"\r\n")
    assert parse_h11(long).requests[0].end == len(long)
    assert parse_h11(long[:-2]).ending == MORE
    assert parse_h11(b"GET / HTTP/1.1\r\nA: " + b"a" * (1 << 20)).ending == REFUSED


class Maker:
    """Makes the streams that a test has written down."""

    streams: tuple[bytes, ...] = ()
    seed = 0

    def __init__(self, seed: int) -> None:
        Maker.seed = seed
        self._streams = iter(self.streams)

    def stream(self) -> bytes:
        return next(self._streams)


def test_run_counts_requests_and_differences(monkeypatch: pytest.MonkeyPatch) -> None:
    """Also those of a parser behind one that agrees."""
    both = next(each for each in EXPLAINED if each.parsers == ("h11", "httptools"))
    second = next(each for each in EXPLAINED if each.parsers == ("httptools",))
    monkeypatch.setattr(Maker, "streams", (get() * 2, both.example, second.example, second.example))
    monkeypatch.setattr(fuzz.http_differential, "Maker", Maker)
    found = run(4, seed=5)
    assert Maker.seed == 5
    assert found.requests == 2 + sum(len(parse_own(stream).requests) for stream in Maker.streams[1:])
    assert found.counts == {
        ("h11", both.kind, both.section): 1,
        ("httptools", both.kind, both.section): 1,
        ("httptools", second.kind, second.section): 2,
    }
    assert found.unexplained == []


@pytest.mark.parametrize("unexplained", [0, 21])
def test_command_prints_counts_and_at_most_twenty_finds(unexplained: int, monkeypatch: pytest.MonkeyPatch) -> None:
    finds = [Difference("h11", Kind.END, b"GET", f"9 / {number}") for number in range(unexplained)]
    found = Found(1234, Counter({("httptools", Kind.KEPT, "9112-9.3"): 5678}), finds)
    asked: list[tuple[int, int]] = []

    def note(cases: int, seed: int) -> Found:
        asked.append((cases, seed))
        return found

    monkeypatch.setattr(fuzz.http_differential, "run", note)
    assert CliRunner().invoke(main, []).exit_code == bool(unexplained)
    ended = CliRunner().invoke(main, ["--cases", "2000", "--seed", "7"])
    assert asked == [(100_000, 1), (2000, 7)]
    assert ended.exit_code == bool(unexplained)
    lines = [
        "2,000 streams, 1,234 requests read by ours",
        f"httptools  {Kind.KEPT.value:<12} 9112-9.3         5,678",
        *(
            line
            for number in range(min(unexplained, 20))
            for line in ("", f"no explanation: h11, {Kind.END.value}, 9 / {number}", "    b'GET'")
        ),
    ]
    assert ended.stdout.splitlines() == lines
