"""Completion for a shell: names of commands, options of a command that is imported when it is called, and models."""

import os
import subprocess
import sys

import pytest


@pytest.mark.parametrize(
    ("words", "wanted"),
    [
        ("lab lo", ["logs", "load", "load-gallery", "load-file"]),
        ("lab load --pre", ["--preset"]),
        ("lab load pre", ["prefork"]),
        ("lab up trio", ["trio_nursery"]),
    ],
)
def test_word_is_completed(words: str, wanted: list[str]) -> None:
    environ = {"COMP_WORDS": words, "COMP_CWORD": str(words.count(" ")), "_LAB_COMPLETE": "bash_complete"}
    command = [sys.executable, "-c", "from lab.__main__ import main; main()"]
    done = subprocess.run(command, env={**os.environ, **environ}, capture_output=True, text=True)
    assert done.stdout.split() == [f"plain,{word}" for word in wanted]
