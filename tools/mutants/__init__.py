"""Mutation testing: plant one fault at a time in the code that carries figures, and ask which test notices.

`operators.py` finds the faults of a module, `session.py` runs the covering tests for each, `modules.py` says which
modules take part and which tests cover them, `accepted.toml` lists the survivors that are accepted, with reasons.
docs/testing.md says how to use it.
"""
