"""Helpers: what each side hears of the other, and what an error says."""

from dataclasses import dataclass

import pytest

from lab.base.errors import LabError
from lab.base.messages import Message
from lab.servers import helper as module
from lab.servers.catalogue import Catalogue
from lab.servers.processes import Processes
from lab.servers.throttle import Throttling
from tests.support.fakes import Clock, FakeHelper


@dataclass(frozen=True, slots=True)
class Ask(Message):
    number: int


@dataclass(frozen=True, slots=True)
class Answer(Message):
    number: int


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(module, "time", clock)
    return clock


def test_messages_of_other_kinds_and_other_lines_are_kept(clock: Clock) -> None:
    helper = FakeHelper("the helper")
    helper.say("begin", Ask(1), Answer(1), Answer(2), "end", Answer(3))
    assert helper.wait_for(Answer, 1.0) == Answer(1)
    assert helper.wait_for(Ask, 1.0) == Ask(1)
    assert helper.take_lines() == ["begin", "end"]
    assert helper.take_lines() == []
    assert helper.take(Answer) == [Answer(2), Answer(3)]
    assert helper.poll_for(Answer, 0.0) is None
    assert clock.slept == []
    assert helper.output().startswith('begin\n{"kind": "Ask", "number": 1}\n')


def test_incomplete_line_is_read_when_it_is_complete(clock: Clock) -> None:
    helper = FakeHelper("the helper")
    helper.program._log.write(b'{"kind": "Answer", ')
    assert helper.take(Answer) == []
    assert helper.take_lines() == []
    helper.program._log.write(b'"number": 7}\n')
    assert helper.take(Answer) == [Answer(7)]


def test_answer_is_awaited_until_the_timeout(clock: Clock) -> None:
    helper = FakeHelper("the helper")
    helper.say("", "one", "two")
    with pytest.raises(LabError, match=r"^the helper sent no Answer within 2 s; its output ends with:\n  one\n  two$"):
        helper.wait_for(Answer, 2.0)
    assert sum(clock.slept) == pytest.approx(2.0, abs=0.02)
    assert set(clock.slept) == {0.005}


def test_output_is_read_less_often_before_an_answer_is_expected(clock: Clock) -> None:
    helper = FakeHelper("the helper")
    assert helper.poll_for(Answer, 1.2, expected=1.0) is None
    long = clock.slept.count(0.1)
    # Ten tenths, or eleven: 0.1 is not exact.
    assert long in (10, 11)
    assert clock.slept == [0.1] * long + [0.005] * (len(clock.slept) - long)
    assert len(clock.slept) > long


def test_expected_time_is_that_of_both_waits(clock: Clock) -> None:
    helper = FakeHelper("the helper")
    with pytest.raises(LabError, match="sent no Answer"):
        helper.wait_for(Answer, 0.2, expected=1.0)
    assert set(clock.slept) == {0.1}
    clock.slept.clear()
    assert helper.poll_for(Answer, 0.02) is None
    assert set(clock.slept) == {0.005}


def test_lines_are_read_that_are_no_text(clock: Clock) -> None:
    helper = FakeHelper("the helper")
    helper.program._log.write(b"\xff\n")
    assert helper.take_lines() == ["\N{REPLACEMENT CHARACTER}"]
    assert helper.output() == "\N{REPLACEMENT CHARACTER}\n"


def test_last_message_of_an_ended_program_is_received(clock: Clock) -> None:
    helper = FakeHelper("the helper")
    helper.say(*(f"line {number}" for number in range(12)), Answer(1))
    helper.program.code = 3
    assert helper.wait_for(Answer, 1.0) == Answer(1)
    lines = "".join(f"\n  line {number}" for number in range(2, 12))
    with pytest.raises(LabError, match=f"^the helper ended with exit code 3; its output ends with:{lines}$"):
        helper.wait_for(Answer, 1.0)
    assert clock.slept == []
    helper.tell(Ask(1))  # nobody hears it, which is no error


def test_malformed_message_is_an_error_once(clock: Clock) -> None:
    helper = FakeHelper("the helper")
    helper.say(Answer(1), '{"kind": "Answer", "number": "x"}', Answer(2), Answer(3))
    assert helper.take(Answer) == [Answer(1)]
    # The error is not repeated, and what came after it is kept.
    with pytest.raises(LabError, match=r"^the helper sent a malformed Answer: 'x' is not"):
        helper.take(Answer)
    assert helper.take(Answer) == [Answer(2), Answer(3)]


def test_program_and_its_parent_hear_each_other() -> None:
    """With a real process, which ends when its stdin does."""
    helpers = Processes("t-helper", Catalogue.load()).helpers
    script = "import sys; [print(line.replace('Ask', 'Answer'), end='', flush=True) for line in sys.stdin]; sys.exit(4)"
    with helpers.start("the echo", ["python", "-c", script]) as helper:
        helper.tell(Ask(1))
        helper.tell(Ask(2))
        assert [helper.wait_for(Answer, 30.0), helper.wait_for(Answer, 30.0)] == [Answer(1), Answer(2)]
        assert helper.finish(30.0) == 4
        assert helper.describe_end() == "exit code 4; it said nothing"


def test_message_arrives_before_the_program_ends() -> None:
    helpers = Processes("t-helper", Catalogue.load()).helpers
    script = (
        "import sys; from lab.base.messages import say; from lab.servers.throttle import Throttling; "
        "say(Throttling()); sys.stdin.read()"
    )
    command = ["env", "-u", "PYTHONUNBUFFERED", "python", "-c", script]
    with helpers.start("the program", command) as helper:
        assert helper.wait_for(Throttling, 30.0) == Throttling()
        assert helper.process.poll() is None


def test_program_that_does_not_end_is_given_up() -> None:
    helpers = Processes("t-helper", Catalogue.load()).helpers
    with helpers.start("the sleeper", ["sleep", "60"]) as helper:
        assert helper.finish(0.1) is None
    assert helper.process.poll() == -15


def test_program_that_has_ended_with_a_message_unread_gives_its_exit_code() -> None:
    """The message stays in the buffer of its stdin, and the close would write it once more."""
    helpers = Processes("t-helper", Catalogue.load()).helpers
    with helpers.start("the quitter", ["sh", "-c", "exit 3"]) as helper:
        assert helper.process.wait(30.0) == 3
        helper.tell(Ask(1))
        assert helper.finish(30.0) == 3
        helper.tell(Ask(2))  # to a stdin that is closed
        assert helper.describe_end() == "exit code 3; it said nothing"
