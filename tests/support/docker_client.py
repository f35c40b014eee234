"""A program in the place of Docker's client: it answers as it is told, and notes what it was asked."""

from collections.abc import Callable, Mapping
from pathlib import Path

import pytest

Asked = Callable[[], list[str]]


def put_docker(
    monkeypatch: pytest.MonkeyPatch, folder: Path, answers: Mapping[str, str | int], *, before: str = ""
) -> Asked:
    """Put the client first in PATH, and alone.

    Args:
        folder: an empty one, for its files.
        answers: by the beginning of the arguments, the first that fits: what it prints, or the exit code with which it
            fails. For all others it prints nothing.
        before: a command of the shell that comes first.

    Returns:
        A function that returns the arguments of each run so far.
    """
    client, asked = folder / "docker", folder / "asked"
    cases = []
    for number, (start, answer) in enumerate(answers.items()):
        if isinstance(answer, int):
            said = "Error response from daemon: it failed"
            cases.append(f'"{start}"*) echo "{said}" >&2; exit {answer} ;;')
        else:
            (folder / f"answer-{number}").write_text(answer)
            cases.append(f'"{start}"*) exec /bin/cat "{folder}/answer-{number}" ;;')
    lines = ["#!/bin/sh", f'echo "$*" >> "{asked}"', before, 'case "$*" in', *cases, "esac", ""]
    client.write_text("\n".join(lines))
    client.chmod(0o755)
    asked.touch()
    monkeypatch.setenv("PATH", str(folder))
    return lambda: asked.read_text().splitlines()
