"""The exhibits and their facts, read from the files without importing them.

An exhibit may import a module that newer versions of Python have removed, so the machine that lists it may be unable to
run it. The facts follow the first sentence of its docstring, which says what the module is for:

    Python 2: its names in the classic table
    Python 3: its names today, or that of a back-port
    Gone since: the first version of Python without it; or "-"
    Use instead: the choice for a new program
    Servers: the Compose services that must run: of the gallery, or models; or "-"
"""

import ast
import hashlib
import re
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path

from lab.base.errors import LabError

DIRECTORY = Path(__file__).resolve().parent / "exhibits"
_ENDING = "_exhibit"

# The first topics of every tutorial, then the modules for Internet services in the order of the classic table.
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


class RegistryError(LabError):
    """There is no such exhibit, or a fact is missing in its file."""


@dataclass(frozen=True)
class Exhibit:
    """One module of the table.

    Args:
        module: its name in the classic table, in lower case.
        purpose: what the module is for, in a sentence.
        python2: its names in Python 2.
        python3: its names today.
        gone_since: the first version of Python without it; None if it still exists.
        instead: the choice for a new program.
        servers: the Compose services that it connects to.
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
        return f"lab.tour.exhibits.{self.module}{_ENDING}"

    @property
    def file(self) -> str:
        return f"lab/tour/exhibits/{self.module}{_ENDING}.py"

    @cached_property
    def code(self) -> str:
        """Return the source without the docstring."""
        return self._below_docstring.strip("\n") + "\n"

    @cached_property
    def digest(self) -> str:
        """Return a digest of the code; a recording stores that of the code that it was made with."""
        return hashlib.sha256(self.code.encode()).hexdigest()[:16]

    @property
    def names(self) -> tuple[str, ...]:
        """Return all names of the module; the own name comes first."""
        return (self.module, *self.python2, *self.python3)

    def as_json(self) -> dict[str, object]:
        """Return the facts for `lab tour --json`."""
        facts = asdict(self) | {"file": self.file}
        del facts["source"]
        return facts

    @property
    def _below_docstring(self) -> str:
        docstring = ast.parse(self.source).body[0]
        return "\n".join(self.source.splitlines()[docstring.end_lineno or 0 :])


def load() -> tuple[Exhibit, ...]:
    """Return all exhibits in the order of the tour.

    Raises:
        RegistryError: a file, or a fact in it, is missing.
    """
    return tuple(_read(module) for module in MODULES)


def find(names: Iterable[str]) -> tuple[Exhibit, ...]:
    """Return the exhibits with these names, in the order of the tour; the case of a name does not matter.

    Raises:
        RegistryError: a name is unknown; the message lists the known ones.
    """
    exhibits = load()
    known: dict[str, Exhibit] = {}
    # A module's own name takes precedence over a shared one. A shared name is that of the first module, as
    # `urllib.request` is that of `urllib`.
    for names_of in (lambda exhibit: [exhibit.module], lambda exhibit: exhibit.names):
        for exhibit in exhibits:
            for name in names_of(exhibit):
                known.setdefault(name.lower(), exhibit)
    wanted = set()
    for name in names:
        if name.lower() not in known:
            raise RegistryError(f"unknown module {name!r}; known: {', '.join(MODULES)}")
        wanted.add(known[name.lower()].module)
    return tuple(exhibit for exhibit in exhibits if exhibit.module in wanted)


def read_exhibit(module: str, source: str) -> Exhibit:
    """Parse the facts of a module from its file.

    Raises:
        RegistryError: a fact is missing.
    """
    text = ast.get_docstring(ast.parse(source)) or ""
    purpose, _, rest = text.partition("\n\n")
    facts = dict(re.findall(rf"^({'|'.join(_FACTS)}): (.+?)(?=\n\S[^\n:]*: |\n\n|\Z)", rest, re.MULTILINE | re.DOTALL))
    if missing := [fact for fact in _FACTS if fact not in facts]:
        raise RegistryError(f"{module}{_ENDING}.py: its docstring lacks: {', '.join(missing)}")
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
        raise RegistryError(f"{path}: no such file, but the tour lists it") from None


def _split(text: str) -> tuple[str, ...]:
    return () if text == _NONE else tuple(word.strip() for word in text.split(","))
