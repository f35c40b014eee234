"""Who said what on which connection, as recorded: in order, without secrets, and no longer than a person reads."""

import base64
import re
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from typing import Any, Literal

from lab.tour.accounts import ACCOUNTS, WRONG_PASSWORD

Side = Literal["client", "server"]

MASK = "****"
# What is kept of one side's words before the other side speaks, in bytes: more than a person reads of a file.
KEPT = 2000


@dataclass(frozen=True, slots=True)
class Message:
    """What one side said on a connection until something else was said.

    Args:
        connection: its number, from 1 in the order in which connections were opened.
        peer: whom the client is connected to, host:port, by the name that it asked for.
        side: who speaks.
        text: what, with what is no text as \\xNN, without secrets.
        tls: whether it went through TLS; the text is what was inside.
        left_out: bytes that followed, and are not in the text.
    """

    connection: int
    peer: str
    side: Side
    text: str
    tls: bool = False
    left_out: int = 0

    def lines(self) -> Iterator[str]:
        """The text by lines; what was left out as the last of them."""
        yield from self.text.removesuffix("\n").split("\n")
        if self.left_out:
            yield f"... {self.left_out} more bytes"

    def as_json(self) -> dict[str, Any]:
        """For `from_json`."""
        return asdict(self)

    @classmethod
    def from_json(cls, fields: Mapping[str, Any]) -> "Message":
        """The reverse of `as_json`."""
        return cls(**fields)


def show_text(data: bytes) -> str:
    """Bytes for a person: UTF-8 where it is, line ends of either kind as one, all that cannot be seen as \\xNN."""
    text = data.decode("utf-8", "backslashreplace").replace("\r\n", "\n")
    return "".join(char if char in "\n\t" or char.isprintable() else _escape(char) for char in text)


def mask(text: str) -> str:
    """The text without passwords: what stands in a command's place for one, and those of the gallery anywhere."""
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
    """The gallery's passwords as they go over a wire: plain, and in the base64 of AUTH LOGIN, AUTH PLAIN and Basic."""
    passwords = [account.password for account in ACCOUNTS]
    for password in [*passwords, WRONG_PASSWORD]:
        yield password
        yield base64.b64encode(password.encode()).decode()
        for account in ACCOUNTS:
            for pair in (f"\0{account.user}\0{password}", f"{account.user}:{password}"):
                yield base64.b64encode(pair.encode()).decode()


_KNOWN = re.compile("|".join(map(re.escape, sorted(_spellings(), key=len, reverse=True))))
