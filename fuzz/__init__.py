"""Fuzzing: the core, guided by coverage (`campaign`, `http_campaign`), and models, live (`live`).

`http_differential` compares the parser of HTTP with others.
"""
