"""Two families of error: the peer's, which it is told about, and ours, which is a bug in an adapter."""


class PeerError(Exception):
    """The peer broke the protocol, and the stream cannot be followed any more.

    Attributes:
        reply: the bytes to send before closing.
    """

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reply = f"-ERR Protocol error: {reason}\r\n".encode("ascii")


class AdapterError(Exception):
    """The code around the core called it out of turn, for example `receive_data` after `receive_eof`."""
