"""A recorded dialogue: the messages of each connection in order, without secrets, and shortened."""

import base64
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

from lab.tour.accounts import ACCOUNTS, WRONG_PASSWORD

Side = Literal["client", "server"]

MASK = "****"
# Bytes that are kept of a message: more than a person reads of a file.
KEPT = 2000


@dataclass(frozen=True, slots=True)
class Message:
    """The data that one side sent on a connection until other data was recorded.

    Args:
        connection: number of the connection, from 1, in the order in which they were opened.
        peer: host:port of the server, by the name that the client used.
        side: the sender.
        text: without secrets; bytes that are not text as \\xNN.
        tls: whether it went through TLS; the text is decrypted.
        left_out: number of bytes after the text.
    """

    connection: int
    peer: str
    side: Side
    text: str
    tls: bool = False
    left_out: int = 0

    def lines(self) -> Iterator[str]:
        """Yield the lines of the text; the last one says how much was left out."""
        yield from self.text.removesuffix("\n").split("\n")
        if self.left_out:
            yield f"... {self.left_out} more bytes"


def show_text(data: bytes) -> str:
    """Decode bytes for display: UTF-8, CR LF as a newline, unprintable bytes as \\xNN."""
    text = data.decode("utf-8", "backslashreplace").replace("\r\n", "\n")
    return "".join(char if char in "\n\t" or char.isprintable() else _escape(char) for char in text)


def mask(text: str) -> str:
    """Mask passwords: the argument of each command that takes one, and the gallery's passwords anywhere."""
    text = _COMMANDS.sub(lambda found: f"{found[1]}{MASK}", text)
    return _KNOWN.sub(MASK, text)


def _escape(char: str) -> str:
    return f"\\x{ord(char):02x}" if ord(char) < 0x100 else f"\\u{ord(char):04x}"


# POP3 and FTP, NNTP, IMAP, SMTP, HTTP, in this order.
_COMMANDS = re.compile(
    r"^(PASS |AUTHINFO PASS |\S+ LOGIN \S+ |AUTH PLAIN |(?:Proxy-)?Authorization: Basic )[^\r\n]+",
    re.IGNORECASE | re.MULTILINE,
)


def _spellings() -> Iterator[str]:
    """Yield the gallery's passwords as they are sent: plain, and in the base64 of AUTH LOGIN, AUTH PLAIN and Basic."""
    passwords = [account.password for account in ACCOUNTS]
    for password in [*passwords, WRONG_PASSWORD]:
        yield password
        yield base64.b64encode(password.encode()).decode()
        for account in ACCOUNTS:
            for pair in (f"\0{account.user}\0{password}", f"{account.user}:{password}"):
                yield base64.b64encode(pair.encode()).decode()


# In this order a spelling comes before those that it begins with.
_KNOWN = re.compile("|".join(map(re.escape, sorted(_spellings(), reverse=True))))
