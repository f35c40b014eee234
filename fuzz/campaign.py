#!/usr/bin/env python3
"""Fuzz the protocol's core, guided by what its code does: `make fuzz`.

    python -m fuzz.campaign -runs=1000000 NEW_INPUTS fuzz/corpus
    python -m fuzz.campaign -merge=1 fuzz/corpus NEW_INPUTS     those of NEW_INPUTS that reach what the corpus does not

Arguments are libFuzzer's: the first directory takes what is found, the others are only read. An input that breaks a
promise is written to a file whose name is printed; `python -m fuzz.campaign FILE` runs it again.
"""

import os
import sys
from collections.abc import Callable
from pathlib import Path

import atheris

with atheris.instrument_imports(include=["services.protocol"]):
    from fuzz.oracle import check


def run(check: Callable[[bytes], None]) -> None:
    """Never returns: libFuzzer ends the process, with a code other than 0 if it has found something."""
    # For a merge libFuzzer starts this file again, as a program: with this interpreter, and these modules.
    os.environ["PATH"] = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    os.environ["PYTHONPATH"] = str(Path(__file__).parents[1])
    atheris.Setup(sys.argv, check)
    atheris.Fuzz()


if __name__ == "__main__":
    run(check)
