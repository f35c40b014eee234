#!/usr/bin/env python3
"""Fuzz the core of HTTP and WebSocket, guided by what its code does: `make fuzz`.

    python -m fuzz.http_campaign -runs=1000000 NEW_INPUTS fuzz/http_corpus

As `fuzz.campaign`, with its own oracle (`fuzz.http_oracle`) and its own corpus.
"""

import atheris

from fuzz.campaign import run

with atheris.instrument_imports(include=["services.protocol"]):
    from fuzz.http_oracle import check

if __name__ == "__main__":
    run(check)
