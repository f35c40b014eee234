"""Errors of requests: their statuses, and the exception that refuses a request."""

# RFC 9110, 15; RFC 6585 for 431.
REASONS = {
    101: "Switching Protocols",
    200: "OK",
    204: "No Content",
    400: "Bad Request",
    403: "Forbidden",
    404: "Not Found",
    405: "Method Not Allowed",
    408: "Request Timeout",
    411: "Length Required",
    413: "Content Too Large",
    414: "URI Too Long",
    417: "Expectation Failed",
    426: "Upgrade Required",
    431: "Request Header Fields Too Large",
    501: "Not Implemented",
    503: "Service Unavailable",
    505: "HTTP Version Not Supported",
}


class HttpError(Exception):
    """A request is refused with a status, and then the connection is closed.

    Args:
        status: a key of `REASONS`.
        reason: the body of the reply, one line.

    Attributes:
        is_head: whether the request is a HEAD, whose reply has no body. False if the method is not known.
    """

    is_head = False

    def __init__(self, status: int, reason: str) -> None:
        super().__init__(reason)
        self.status = status


def quote(text: bytes) -> str:
    """Quote at most 64 bytes from the client for an error, without CR, LF, NUL and high bytes."""
    return repr(text[:64])[1:]
