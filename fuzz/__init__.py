"""Fuzzing: of the protocol's core, guided by coverage (`fuzz.campaign`), and of the models, live (`fuzz.live`)."""
