"""What ends a generator: its stdin is closed. The lab also writes to it."""

import os
import select

import pytest

from lab.load import generator
from loadtests import lifeline


def test_generator_ends_with_its_pipe_and_not_when_something_is_written_to_it(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[list[tuple[int, int]]] = []
    codes: list[int] = []

    class Poll:
        """The real one, which does not wait."""

        def __init__(self) -> None:
            self._poll = select.poll()
            self.register = self._poll.register

        def poll(self) -> None:
            seen.append(self._poll.poll(0))

    ours, labs = os.pipe()
    monkeypatch.setattr(lifeline, "_STDIN", ours)
    monkeypatch.setattr(lifeline, "_make_poll", Poll)
    monkeypatch.setattr(os, "_exit", codes.append)
    os.write(labs, b"telemetry\n")
    lifeline._wait()
    os.close(labs)
    lifeline._wait()
    os.close(ours)
    assert seen == [[], [(ours, select.POLLHUP)]]
    assert codes == [1, 1]


@pytest.mark.parametrize(("environ", "is_watched"), [({}, False), ({"LAB_LIFELINE": ""}, False), (None, True)])
def test_stdin_is_watched_if_the_lab_holds_it(
    monkeypatch: pytest.MonkeyPatch, environ: dict[str, str] | None, is_watched: bool
) -> None:
    started: list[object] = []
    monkeypatch.setattr(lifeline, "_start_thread", lambda function, arguments: started.append(function))
    lifeline.watch(generator._LIFELINE if environ is None else environ)
    assert started == [lifeline._wait] * is_watched
