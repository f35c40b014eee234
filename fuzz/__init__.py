"""Fuzzing: of the core, guided by coverage (`fuzz.campaign`, `fuzz.http_campaign`), and of models, live (`fuzz.live`)."""
