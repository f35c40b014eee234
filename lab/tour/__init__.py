"""The gallery's tour: each network module of the classic table at work, and its traffic.

An exhibit (`exhibits/`) is a short client program. `registry` finds it, `session` starts its servers, and `runner` runs
it inside the lab's network while `recorder` records the `dialogue`. `lab.report.tour` shows code, output and traffic.
"""
