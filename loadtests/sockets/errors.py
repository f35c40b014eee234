"""Errors of a connection that a caller drives itself. Those of the engine's exchanges are in failures.py."""


class SocketsError(Exception):
    """Base class. The message is one line for a person: what is wrong, and where."""


class SetupError(SocketsError):
    """This machine cannot prepare the connection: a file is missing, or a directory cannot be written to."""


class ClientError(SocketsError):
    """An exchange with a server failed.

    Args:
        message: one line, which begins with the address.
        cause: the system's error behind it, if there is one.
    """

    def __init__(self, message: str, cause: OSError | None = None) -> None:
        super().__init__(message)
        self.cause = cause


class UnreachableError(ClientError):
    """Nothing listens there: connection refused, no such host, no such socket file."""


class NoAnswerError(ClientError):
    """The timeout passed before the server connected, took the data or answered."""


class WrongAnswerError(ClientError):
    """The server broke the protocol, or ended the connection before its answer was complete."""
