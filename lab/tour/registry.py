"""Which exhibits there are, and what is known of each: read from the files, never by importing them.

An exhibit imports what newer Pythons have dropped, so the machine that lists it may be unable to run it. Its facts
stand in its docstring, under the sentence that says what the module is for:

    Python 2: its names in the classic table
    Python 3: its names today, also of a back-port
    Gone since: the first Python without it; or "-"
    Use instead: what a new program would take
    Servers: Compose services that must run: of the gallery, or models; or "-"
"""

import ast
import hashlib
import re
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from lab.base.errors import LabError

DIRECTORY = Path(__file__).resolve().parent / "exhibits"
_ENDING = "_exhibit"

# What every tutorial begins with, then the modules for Internet services in the order of the classic table.
MODULES = (
    "socket",
    "socketserver",
    "twisted",
    "urllib",
    "urllib2",
    "asynchat",
    "asyncore",
    "cgi",
    "cookie",
    "cookielib",
    "email",
    "ftplib",
    "gopherlib",
    "httplib",
    "imaplib",
    "mailbox",
    "mailcap",
    "mhlib",
    "nntplib",
    "poplib",
    "robotparser",
    "simplexmlrpcserver",
    "smtpd",
    "smtplib",
    "telnetlib",
    "urlparse",
    "xmlrpclib",
)

_FACTS = ("Python 2", "Python 3", "Gone since", "Use instead", "Servers")
_NONE = "-"


class CollectionError(LabError):
    """There is no such exhibit, or its file does not say what it must."""


@dataclass(frozen=True)
class Exhibit:
    """One module of the table.

    Args:
        module: its name here: that in the classic table, in small letters.
        source: its file's text.
        purpose: what the module is for, in a sentence.
        python2: its names in Python 2.
        python3: its names today.
        gone_since: the first version of Python without it; None while there is none.
        instead: what a new program would take.
        servers: the Compose services that it talks to.
    """

    module: str
    source: str
    purpose: str
    python2: tuple[str, ...]
    python3: tuple[str, ...]
    gone_since: str | None
    instead: str
    servers: tuple[str, ...]

    @property
    def import_name(self) -> str:
        """The exhibit's own module."""
        return f"lab.tour.exhibits.{self.module}{_ENDING}"

    @property
    def file(self) -> str:
        """Its path in the project."""
        return f"lab/tour/exhibits/{self.module}{_ENDING}.py"

    @cached_property
    def code(self) -> str:
        """The source below its docstring, which says what `purpose` and the facts say."""
        return self._below_docstring.strip("\n") + "\n"

    @cached_property
    def digest(self) -> str:
        """Changes when the code does; a recording carries that of what it was made with."""
        return hashlib.sha256(self.code.encode()).hexdigest()[:16]

    @property
    def names(self) -> tuple[str, ...]:
        """What it can be asked for by, first come first served."""
        return (self.module, *self.python2, *self.python3)

    def as_json(self) -> dict[str, object]:
        """As `lab tour --json` lists it."""
        return {
            "module": self.module,
            "purpose": self.purpose,
            "python2": list(self.python2),
            "python3": list(self.python3),
            "gone_since": self.gone_since,
            "instead": self.instead,
            "servers": list(self.servers),
            "file": self.file,
        }

    @property
    def _below_docstring(self) -> str:
        docstring = ast.parse(self.source).body[0]
        return "\n".join(self.source.splitlines()[docstring.end_lineno or 0 :])


def load() -> tuple[Exhibit, ...]:
    """All exhibits, in the order of the tour.

    Raises:
        CollectionError: a file is missing, or a fact in it.
    """
    return tuple(_read(module) for module in MODULES)


def find(names: Iterable[str]) -> tuple[Exhibit, ...]:
    """The exhibits of these modules, by any of their names, in small or capital letters; in the order of the tour.

    Raises:
        CollectionError: there is none of that name; with those that there are.
    """
    exhibits = load()
    known: dict[str, Exhibit] = {}
    # A module's own name counts before one that it shares: urllib.request is first of all what urllib became.
    for names_of in (lambda exhibit: [exhibit.module], lambda exhibit: exhibit.names):
        for exhibit in exhibits:
            for name in names_of(exhibit):
                known.setdefault(name.lower(), exhibit)
    wanted = set()
    for name in names:
        if name.lower() not in known:
            raise CollectionError(f"unknown module {name!r}; known: {', '.join(MODULES)}")
        wanted.add(known[name.lower()].module)
    return tuple(exhibit for exhibit in exhibits if exhibit.module in wanted)


def read_exhibit(module: str, source: str) -> Exhibit:
    """What a file says of its module.

    Raises:
        CollectionError: what it does not say.
    """
    text = ast.get_docstring(ast.parse(source)) or ""
    purpose, _, rest = text.partition("\n\n")
    facts = dict(re.findall(rf"^({'|'.join(_FACTS)}): (.+?)(?=\n\S[^\n:]*: |\n\n|\Z)", rest, re.MULTILINE | re.DOTALL))
    if missing := [fact for fact in _FACTS if fact not in facts]:
        raise CollectionError(f"{module}{_ENDING}.py: its docstring does not say: {', '.join(missing)}")
    clean = {fact: " ".join(value.split()) for fact, value in facts.items()}
    return Exhibit(
        module=module,
        source=source,
        purpose=" ".join(purpose.split()),
        python2=_split(clean["Python 2"]),
        python3=_split(clean["Python 3"]),
        gone_since=None if clean["Gone since"] == _NONE else clean["Gone since"],
        instead=clean["Use instead"],
        servers=_split(clean["Servers"]),
    )


def _read(module: str) -> Exhibit:
    path = DIRECTORY / f"{module}{_ENDING}.py"
    try:
        return read_exhibit(module, path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise CollectionError(f"{path}: no such file, but the tour lists it") from None


def _split(text: str) -> tuple[str, ...]:
    return () if text == _NONE else tuple(word.strip() for word in text.split(","))
