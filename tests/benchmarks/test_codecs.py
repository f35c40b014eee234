"""What parser.py, http_parser.py and websocket.py of benchmarks/ compare, and the rows that they print."""

import importlib.util
import time

import pytest

from benchmarks import http_parser, parser, websocket
from benchmarks.figures import Contestant
from services.protocol import Connection


def test_row_of_the_parser_has_medians_and_half_the_interquartile_range() -> None:
    # Quartiles of `core`: 100, 200 and 300.
    found = {"reader": [30.0, 10.0, 20.0], "core": [300.0, 200.0, 100.0]}
    row = parser.make_row("PING array, depth 1", found, ["reader", "hiredis", "core"])
    assert row.split() == ["PING", "array,", "depth", "1", "20", "-", "200", "50%"]


def test_time_of_a_pipeline_is_for_each_request_in_nanoseconds(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[tuple[int, object]] = []

    def time_calls(contestants: dict[str, Contestant], repeats: int, clock: object) -> dict[str, list[float]]:
        seen.append((repeats, clock))
        assert all(each.calls >= 1 for each in contestants.values())
        return {name: [32.0] * repeats for name in contestants}

    monkeypatch.setattr(parser, "time_calls", time_calls)
    # 32 µs for a pipeline of 16.
    assert parser.measure({"core": lambda: 7}, 16, 2, 0.0) == {"core": [2_000.0, 2_000.0]}
    assert seen == [(2, time.perf_counter)]


@pytest.mark.parametrize("answers", [[7, 8], [0, 0]])
def test_contestant_that_does_nothing_or_another_thing_is_an_error(answers: list[int]) -> None:
    said = iter(answers)
    with pytest.raises(SystemExit, match="core does not give the same answer twice"):
        parser.measure({"core": lambda: next(said)}, 1, 1, 0.0)


def test_every_case_is_answered_by_each_contestant() -> None:
    cases = parser.cases()
    assert [case.requests for case in cases] == [1, 16, 1000] * 3 + [1, 1, 1]
    assert [len(case.chunks) for case in cases] == [1] * 9 + [1, 1000, 7944]  # of 132 bytes, the last one shorter
    for case in cases[:6]:
        assert parser.run_reader(case)() == case.requests
        size = parser.run_core(case, Connection("command"))()
        assert size == case.requests * len(b"+PONG\r\n")
        if not case.inline:
            assert parser.run_hiredis(case)() == case.requests
            assert parser.run_core(case, parser.with_hiredis(Connection("command")))() == size
    assert [case.inline for case in cases] == [False] * 3 + [True] * 3 + [False] * 6


def test_requests_are_given_in_turn() -> None:
    got: list[bytes] = []
    step = http_parser.feed(got.append, [b"a", b"b"])
    for _ in range(3):
        step()
    assert got == [b"a", b"b", b"a"]


def test_own_parsers_of_http_read_each_request() -> None:
    head, core = http_parser.own_head(), http_parser.own_core()
    for _ in range(2):
        assert head(http_parser._HEAD % 1) is not None
        assert core(http_parser._HEAD % 1).data.endswith(b"PONG\n")  # type: ignore[attr-defined]  # a Send


def test_medians_of_http_are_by_contestant(monkeypatch: pytest.MonkeyPatch) -> None:
    found = {"own": [3.0, 9.0, 1.0], "h11": [50.0, 40.0, 90.0]}
    monkeypatch.setattr(http_parser, "time_calls", lambda contestants, _: {name: found[name] for name in contestants})
    assert http_parser.measure(dict.fromkeys(found, len), [b""], 3) == {"own": 3.0, "h11": 50.0}


@pytest.mark.parametrize("size", [16, 125, 126, 65_535, 65_536])
def test_frame_of_any_size_is_echoed(size: int) -> None:
    head = {16: 2, 125: 2, 126: 4, 65_535: 4, 65_536: 10}[size]
    assert websocket.own()(websocket.frame(b"x" * size))[head:] == b"x" * size


def test_contestants_that_answer_differently_are_not_compared(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(websocket, "time_calls", lambda contestants, _: {name: [5.0, 1.0, 2.0] for name in contestants})
    assert websocket.measure({"own": bytes.upper, "other": bytes.upper}, 16, 3) == {"own": 2.0, "other": 2.0}
    with pytest.raises(SystemExit, match="do not do the same"):
        websocket.measure({"own": bytes.upper, "other": lambda data: b""}, 16, 3)


def test_memory_is_for_each_connection_in_kib() -> None:
    held: list[bytearray] = []

    def make() -> websocket.Echo:
        piece = bytearray(10 * 1024)
        held.append(piece)
        return bytes

    assert websocket.memory(make) == pytest.approx(10, abs=0.5)


def test_other_contestants_are_named_like_their_modules() -> None:
    """`make.__name__` is what is looked for, and the name of the row."""
    assert [make.__name__ for make in (websocket.websockets, websocket.wsproto)] == ["websockets", "wsproto"]
    assert importlib.util.find_spec("h11") is not None
