"""What a request is refused with."""

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
    """A request that is refused with a status, after which the connection is closed.

    Attributes:
        status: a key of `REASONS`.
        is_head: whether the request is known to be a HEAD, whose reply has no body.
    """

    is_head = False

    def __init__(self, status: int, reason: str) -> None:
        super().__init__(reason)
        self.status = status


def quote(text: bytes) -> str:
    """Quote bytes of the peer: no CR, LF, NUL or high byte survives."""
    return repr(text[:64])[1:]
