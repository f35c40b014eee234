"""The gallery's test accounts: the same on every server, and public."""

from dataclasses import dataclass

DOMAIN = "gallery.test"  # reserved for tests, RFC 6761; it is the news group's name as well


@dataclass(frozen=True, slots=True)
class Account:
    """A user of every server of the gallery."""

    user: str
    password: str

    @property
    def address(self) -> str:
        return f"{self.user}@{DOMAIN}"


ANN = Account("ann", "anns-secret")
BOB = Account("bob", "bobs-secret")
ACCOUNTS = (ANN, BOB)
WRONG_PASSWORD = "a-guess"  # noqa: S105 - of no account
