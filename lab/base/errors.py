"""What the lab could not do, in one line for the person who asked."""


class LabError(Exception):
    """The lab could not do what was asked: its message names what was wrong, where, and what to do.

    The command line prints it without a stack trace and exits with code 2.
    """


class EngineAwayError(LabError):
    """No Docker engine answers."""


class ClientError(LabError):
    """An exchange with a server did not come about. One of the three below."""


class UnreachableError(ClientError):
    """Nothing listens there: refused, no such host, no such socket file."""


class NoAnswerError(ClientError):
    """It listens, but the answer did not come in time."""


class WrongAnswerError(ClientError):
    """An answer came that the service does not give, or the connection ended before it was whole."""


class NotReadyError(LabError):
    """A model did not answer a protocol exchange in time, or has exited."""
