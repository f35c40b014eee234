"""Errors of the lab itself. Those of a connection to a server are in loadtests/sockets/errors.py."""


class LabError(Exception):
    """The lab could not do what was asked. The message says what is wrong, where, and what to do.

    The command line prints it, and exits with code 2.
    """


class EngineAwayError(LabError):
    """No Docker engine answers."""


class NotReadyError(LabError):
    """A model did not answer in time, or has exited."""
