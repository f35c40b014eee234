"""What stands for the programs that `lab.engine` runs: it notes each one, and answers as it is told."""

from collections.abc import Callable, Mapping, Sequence
from subprocess import CompletedProcess
from types import ModuleType

import pytest

from lab.engine.errors import EngineError

Answer = str | int | Callable[[], "str | int"]


class Programs:
    """Takes the place of `run` and `run_or_raise`.

    Args:
        answers: by the beginning of a command line, the first that fits: what the program prints, or the exit code with
            which it fails. All others print nothing.
    """

    def __init__(self, answers: Mapping[str, Answer]) -> None:
        self._answers = answers
        self.asked: list[str] = []
        self.timeouts: list[float | None] = []
        self.environs: list[Mapping[str, str] | None] = []
        self.folders: list[str | None] = []

    def run(
        self,
        argv: Sequence[str],
        *,
        timeout: float | None = None,
        env: Mapping[str, str] | None = None,
        cwd: str | None = None,
    ) -> CompletedProcess[str]:
        line = " ".join(argv)
        self.asked.append(line)
        self.timeouts.append(timeout)
        self.environs.append(env)
        self.folders.append(cwd)
        answer = next((answer for start, answer in self._answers.items() if line.startswith(start)), "")
        answer = answer() if callable(answer) else answer
        if isinstance(answer, int):
            return CompletedProcess(argv, answer, "", "first\nit failed\n")
        return CompletedProcess(argv, 0, answer, "")

    def run_or_raise(
        self, argv: Sequence[str], *, fix: str, env: Mapping[str, str] | None = None, cwd: str | None = None
    ) -> str:
        done = self.run(argv, env=env, cwd=cwd)
        if done.returncode:
            raise EngineError(f"{argv[0]} failed", fix)
        return done.stdout


def put_programs(monkeypatch: pytest.MonkeyPatch, answers: Mapping[str, Answer], *modules: ModuleType) -> Programs:
    """Give modules one set of programs."""
    programs = Programs(answers)
    for module in modules:
        for name in ("run", "run_or_raise"):
            if hasattr(module, name):
                monkeypatch.setattr(module, name, getattr(programs, name))
    return programs
