"""Imported by a Python that starts with this folder in PYTHONPATH: of a model, one PONG in a thousand is wrong.

Only on connections that have had 30, as those of a load have and those of conformance tests have not: a measurement is
to find it. Of the 50 of a session 20 are left, so one of these in 400 is one in a thousand.
"""

import sys
from itertools import count

if "services.run" in sys.orig_argv:
    from services.protocol import Connection, Send

    right, calls = Connection.next_event, count(1)
    # By id: a new connection in the place of an old one begins again.
    pongs: dict[int, int] = {}
    begin = Connection.__init__

    def begin_counted(self, *arguments, **options):
        pongs[id(self)] = 0
        begin(self, *arguments, **options)

    def next_event(self):
        event = right(self)
        if event == Send(b"+PONG\r\n"):
            pongs[id(self)] += 1
            if pongs[id(self)] > 30 and next(calls) % 400 == 0:
                return Send(b"+PUNG\r\n")
        return event

    Connection.__init__ = begin_counted  # type: ignore[method-assign]  # it breaks the class on purpose
    Connection.next_event = next_event  # type: ignore[method-assign]
