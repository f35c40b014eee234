"""An error ends its own conversation; a lost client is no error; the process can always end."""

import logging
from typing import Any

import pytest

from services.serving.isolation import ErrorsLogged, isolated


def make_conversation(error: BaseException | None) -> Any:
    """Make a conversation whose step fails if it is told to."""

    # Not outside: a step is isolated when its class is made.
    class Conversation:
        def __init__(self) -> None:
            self.steps: list[object] = []

        @isolated
        def step(self, /, *given: int, **more: int) -> None:
            self.steps.append((given, more))
            if error:
                raise error

        def break_off(self) -> None:
            self.steps.append("broken off")

    return Conversation()


@pytest.mark.parametrize("error", [None, ValueError("a bug"), OSError("gone")])
def test_step_that_fails_ends_its_conversation(error: Exception | None, caplog: pytest.LogCaptureFixture) -> None:
    conversation = make_conversation(error)
    conversation.step(1, a=2)
    assert conversation.steps == [((1,), {"a": 2}), *(["broken off"] if error else [])]
    assert [record.levelno for record in caplog.records] == ([logging.ERROR] if error else [])


def test_step_does_not_hold_up_the_end_of_the_process() -> None:
    conversation = make_conversation(SystemExit(1))
    with pytest.raises(SystemExit):
        conversation.step()
    assert conversation.steps == [((), {})]


@pytest.mark.parametrize(
    ("error", "level"), [(ValueError("a bug"), logging.ERROR), (ConnectionResetError(104, "reset"), logging.DEBUG)]
)
def test_error_is_logged_and_the_block_left(error: Exception, level: int, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    with ErrorsLogged():
        raise error
    (record,) = caplog.records
    assert record.levelno == level
    # A bug is found by its traceback.
    assert bool(record.exc_info) == (level == logging.ERROR)


def test_block_does_not_hold_up_the_end_of_the_process() -> None:
    with pytest.raises(KeyboardInterrupt), ErrorsLogged():
        raise KeyboardInterrupt
