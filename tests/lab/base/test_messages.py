"""Messages: each survives its line, malformed ones are refused, and other output is no message."""

import json
import os
from dataclasses import asdict, dataclass, field
from enum import StrEnum
from types import SimpleNamespace
from typing import Literal

import pytest

from lab.base.messages import Inbox, Message, build, decode, encode, is_message, say
from lab.clients import latency_probe, request_log, slow_clients, soak_traffic
from lab.clients.soak_traffic import TrafficCounts
from lab.load import messages
from lab.load.messages import FaultEvent, FaultRequest, Usage
from lab.servers import readiness, throttle

ACCOUNT = request_log.Account(8, 7, 100, 99, 1, {"duplicate": 2}, {"end": 8}, 0.25)


@pytest.mark.parametrize(
    "message",
    [
        request_log.Begun(),
        request_log.Mark(),
        request_log.Marked(),
        request_log.End(),
        ACCOUNT,
        latency_probe.Mark("quiet"),
        latency_probe.Marked("quiet", 1.5),
        latency_probe.Ping(1.5, None),
        latency_probe.Ping(2.0, 0.125),
        slow_clients.Connected(),
        soak_traffic.Rest(),
        soak_traffic.Resting(),
        soak_traffic.Go(warm_up=True),
        soak_traffic.ModelCounts("prefork", TrafficCounts(3, 48, {"broken": 2})),
        messages.Telemetry((Usage("a", 0.5, 1, 2, 3, 4), Usage("b")), (FaultEvent("a", "kill", "then", "", "why"),)),
        FaultRequest("kill", ("a", "b"), 2.5),
        messages.LoadFailure("GET /: status 500 (3 times)"),
        messages.Joined(),
        messages.RunLoad(("--users", "3"), {"LAB_X": "é\n"}),
        messages.LoadEnded(-9),
        readiness.Outcome("prefork", False, 30.0, "refused"),
        throttle.Throttling(),
    ],
    ids=lambda message: type(message).__name__,
)
def test_message_survives_its_line(message: Message) -> None:
    line = encode(message)
    assert "\n" not in line
    assert is_message(line)
    assert decode(line, type(message)) == message


def test_other_kinds_and_other_output_are_no_message() -> None:
    line = encode(FaultRequest("kill", ("a",), 1.0))
    assert decode(line, messages.Joined, messages.LoadEnded) is None
    assert decode(line, messages.Joined, FaultRequest) == FaultRequest("kill", ("a",), 1.0)
    # A server can make the generator log what the server sent: a message has a line of its own.
    assert decode(f"[2026-11-28] locust: {line}", FaultRequest) is None
    assert not is_message(f" {line}")
    assert decode("", FaultRequest) is None


@pytest.mark.parametrize(
    ("rest", "why"),
    [
        ("", "Expecting"),
        ("}", "missing 3 required"),
        (', "fault": "kill", "models": ["a"]}', "'seconds'"),
        (', "fault": 7, "models": ["a"], "seconds": 1.0}', "7 is not"),
        (', "fault": "kill", "models": "a", "seconds": 1.0}', "'a' is not"),
        (', "fault": "kill", "models": [["a"]], "seconds": 1.0}', "is not"),
        (', "fault": "kill", "models": ["a"], "seconds": true}', "True is not"),
        (', "fault": "kill", "models": ["a"], "seconds": null}', "None is not"),
    ],
)
def test_malformed_message_is_refused(rest: str, why: str) -> None:
    with pytest.raises(ValueError, match=f"^a malformed FaultRequest: .*{why}"):
        decode(f'{{"kind": "FaultRequest"{rest}', FaultRequest)


def test_whole_number_is_a_float_where_one_is_expected() -> None:
    found = decode('{"kind": "Ping", "at": 2, "took": 1}', latency_probe.Ping)
    assert found == latency_probe.Ping(2.0, 1.0)
    assert found is not None
    assert isinstance(found.at, float)


def test_nested_object_is_checked_as_well() -> None:
    line = '{"kind": "Telemetry", "usages": [%s], "faults": []}'
    assert decode(line % '{"model": "a"}', messages.Telemetry) == messages.Telemetry((Usage("a"),))
    wrong = {"7": "7 is no object", "{}": "missing 1", '{"model": "a", "threads": 1.5}': "1.5 is not"}
    for usage, why in wrong.items():
        with pytest.raises(ValueError, match=f"malformed Telemetry: .*{why}"):
            decode(line % usage, messages.Telemetry)


def test_message_is_said_in_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    say(messages.LoadEnded(3))
    assert capsys.readouterr().out == '{"kind": "LoadEnded", "exit_code": 3}\n'


@dataclass(frozen=True, slots=True)
class Numbered(Message):
    number: int = 0
    more: dict[str, int] = field(default_factory=dict)
    row: tuple[int, str, float] = (0, "", 0.0)


def test_message_is_sent_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """A pipe would keep it until the program ends, and its parent waits for it."""
    steps: list[str] = []
    out = SimpleNamespace(write=lambda text: steps.append("write"), flush=lambda: steps.append("flush"))
    monkeypatch.setattr("sys.stdout", out)
    say(Message())
    assert steps == ["write", "flush"]


def test_tuple_has_the_types_of_its_places() -> None:
    message = Numbered(1, {"a": 2}, (3, "b", 4.0))
    assert decode(encode(message), Numbered) == message
    for row in ('[3, "b"]', "[3, 4, 4.0]", '["3", "b", 4.0]'):
        with pytest.raises(ValueError, match="malformed Numbered"):
            decode(f'{{"kind": "Numbered", "row": {row}}}', Numbered)
    with pytest.raises(ValueError, match="malformed Numbered: 7 is not"):
        decode('{"kind": "Numbered", "more": 7}', Numbered)


def test_inbox_collects_parts_of_a_line_until_the_end() -> None:
    reader, writer = os.pipe()
    inbox = Inbox(reader, Numbered)
    assert inbox.fileno() == reader
    line = f"{encode(Numbered(1))}\n".encode().replace(b', "row": [0, "", 0.0]', b"")
    try:
        os.write(writer, line[:9])
        assert inbox.receive() == []
        os.write(writer, line[9:] + b"noise\xff\n" + line.replace(b"1", b"2") + line[:3])
        assert inbox.receive() == [Numbered(1), Numbered(2)]
        os.write(writer, b"\n")
        assert inbox.receive() == []
    finally:
        os.close(writer)
    assert inbox.receive() is None
    os.close(reader)


class Colour(StrEnum):
    RED = "red"


@dataclass(frozen=True, slots=True)
class Shape:
    colour: Colour
    corners: tuple[tuple[int, float | None, str], ...]
    line: Literal["solid", "dotted"] = "solid"


def test_dataclass_is_built_of_what_json_makes_of_it() -> None:
    shape = Shape(Colour.RED, ((1, 2.5, "a"), (2, None, "b")), "dotted")
    found = build(Shape, json.loads(json.dumps(asdict(shape))) | {"of a later version": 1})
    assert found == shape
    assert found.colour is Colour.RED
    assert build(Shape, asdict(shape)) == shape


@pytest.mark.parametrize(
    "values",
    [
        {"colour": "blue", "corners": []},
        {"colour": "red", "corners": [[1, 2.5]]},
        {"colour": "red", "corners": [["1", 2.5, "a"]]},
        {"colour": "red"},
        {"colour": "red", "corners": [], "line": "dashed"},
        {"colour": "red", "corners": {}},
        [],
    ],
)
def test_other_values_are_refused(values: object) -> None:
    with pytest.raises(ValueError, match=r".+"):
        build(Shape, values)
