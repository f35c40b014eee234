"""Imported by a Python that starts with this folder in PYTHONPATH: of a model, one PONG in a thousand is wrong."""

import sys
from itertools import count

if "services.run" in sys.orig_argv:
    from services.protocol import Connection, Send

    right, calls = Connection.next_event, count(1)

    def next_event(self):
        event = right(self)
        if event == Send(b"+PONG\r\n") and next(calls) % 1000 == 0:
            return Send(b"+PUNG\r\n")
        return event

    Connection.next_event = next_event
