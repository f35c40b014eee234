"""docs/gallery/: a page for each exhibit and an index, from the exhibits' files and from recorded runs.

    python -m tools.docs.gallery_page       # `make docs`: write the pages from what was recorded
    python -m tools.docs.record_gallery     # `make gallery`: record again, then write the pages

docs/data/gallery.json keeps the recordings, each with a digest of the code that it was made with. tests/repo fails when
that code has changed, or a page differs from what is made here. `lab.tour.normalise` replaces what differs from run to
run.
"""

import json
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict

from lab.base.errors import LabError
from lab.base.messages import build
from lab.base.paths import ROOT
from lab.report.tour import COLUMNS, SHOWN, list_facts, mark_lines
from lab.servers.catalogue import Catalogue
from lab.tour.accounts import ACCOUNTS, DOMAIN
from lab.tour.normalise import normalise
from lab.tour.registry import Exhibit, load
from lab.tour.runner import ExhibitRun
from tools.docs.markdown import make_fence, make_table

FOLDER = ROOT / "docs" / "gallery"
INDEX = "README"
RECORDS = ROOT / "docs" / "data" / "gallery.json"

# Lines of a dialogue that are shown; the rest repeats them.
LONGEST = 150

_INTRODUCTION = f"""\
# The gallery

A page for each network module that Python tutorials have listed since Python 2, with a program that uses it against a
real server in the lab's network. Python 3.13 lacks a third of these modules, and half have new names. All of them run
here, the removed ones from back-ports. If the code with the successor is short, the page shows it too.

`make docs` writes these pages from [the exhibits' files](../../lab/tour/exhibits) and from recorded runs (`make
gallery` records them). To run an exhibit, with its servers started and stopped for it:

    .venv/bin/lab tour                  the table below
    .venv/bin/lab tour ftplib           code, output and wire; by the module's name in Python 2 or 3
    .venv/bin/lab up --profile gallery  the servers, to try another client: make shell

`lab load-gallery` puts load on these servers.

## Accounts

Every server has the same test accounts. Mail and the news group use `{DOMAIN}`:

{{accounts}}

## Servers

{{servers}}

The servers are reachable only inside the lab's network. Their TLS certificates come from the lab's own CA, which its
containers have as `/run/secrets/tls_ca`. Other clients do not trust it, as the exhibits show.

## The modules

{{table}}

## How to read a page

`C:` marks data that the client sent, `S:` data that it received. Both are recorded at the sockets of the exhibit's
process; for TLS, the decrypted data. Passwords are replaced by `****`, values that differ from run to run by a
placeholder: `<date>`, `<port>`, `<message-id>`. A byte that is not text is `\\xNN`. At most {SHOWN} lines of a message
and {LONGEST} lines of a dialogue are shown. The last table of a page lists the exception for each typical error: the
server refuses, does not exist, closes early, or never replies.
"""


class RecordError(LabError):
    """docs/data/gallery.json lacks something that a page needs."""


def render(exhibits: Sequence[Exhibit], runs: Mapping[str, ExhibitRun], catalogue: Catalogue) -> dict[str, str]:
    """Return the text of each page, by its name without `.md`.

    Raises:
        RecordError: an exhibit has no recording.
    """
    if missing := [exhibit.module for exhibit in exhibits if exhibit.module not in runs]:
        raise RecordError(f"docs/data/gallery.json has no recording of {', '.join(missing)}: `make gallery` makes it")
    accounts = [[f"`{each.user}`", f"`{each.password}`", f"`{each.address}`"] for each in ACCOUNTS]
    servers = [
        [f"`{each.name}`", each.summary, ", ".join(f"`{listener.address}`" for listener in each.addresses)]
        for each in catalogue.gallery
    ]
    rows = []
    for exhibit in exhibits:
        module, *others = list_facts(exhibit)
        rows.append([f"[`{module}`]({module}.md)", *others])
    index = (
        _INTRODUCTION.replace("{accounts}", make_table(["user", "password", "mail"], accounts))
        .replace("{servers}", make_table(["host", "what it is", "where"], servers))
        .replace("{table}", make_table(COLUMNS, rows))
    )
    pages = {exhibit.module: _make_page(exhibit, runs[exhibit.module]) for exhibit in exhibits}
    return {INDEX: index} | pages


def read_records() -> tuple[dict[str, ExhibitRun], dict[str, str]]:
    """Return the recordings by module, and the digest of the code that each was made with, by module."""
    try:
        records = json.loads(RECORDS.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}, {}
    runs = {module: build(ExhibitRun, each["performance"]) for module, each in records.items()}
    return runs, {module: each["digest"] for module, each in records.items()}


def find_stale(exhibits: Iterable[Exhibit]) -> list[str]:
    """Return the modules whose recording is missing, or was made with other code."""
    _, digests = read_records()
    return [exhibit.module for exhibit in exhibits if digests.get(exhibit.module) != exhibit.digest]


def record(runs: Iterable[ExhibitRun]) -> None:
    """Store recordings. They replace earlier ones of the same modules."""
    exhibits = load()
    kept, digests = read_records()
    for run in runs:
        kept[run.module] = normalise(run)
        digests[run.module] = next(each.digest for each in exhibits if each.module == run.module)
    records = {
        exhibit.module: {"digest": digests[exhibit.module], "performance": asdict(kept[exhibit.module])}
        for exhibit in exhibits
        if exhibit.module in kept
    }
    RECORDS.write_text(json.dumps(records, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


def write() -> bool:
    """Write the pages from what was recorded, and remove those of exhibits that are gone.

    Returns:
        Whether a page has changed.

    Raises:
        RecordError: an exhibit has no recording, or the catalogue is not that of the project alone.
    """
    catalogue = Catalogue.load()
    if len(catalogue.files) > 1:
        raise RecordError("the pages describe compose.yaml alone: move compose.override.yaml away, then try again")
    runs, _ = read_records()
    before = read_pages()
    pages = render(load(), runs, catalogue)
    FOLDER.mkdir(exist_ok=True)
    for name, text in pages.items():
        if before.get(name) != text:
            (FOLDER / f"{name}.md").write_text(text, encoding="utf-8")
    for name in before.keys() - pages.keys():
        (FOLDER / f"{name}.md").unlink()
    return pages != before


def read_pages() -> dict[str, str]:
    """Return the text of each page, by its name without `.md`."""
    return {path.stem: path.read_text(encoding="utf-8") for path in FOLDER.glob("*.md")}


def _make_page(exhibit: Exhibit, run: ExhibitRun) -> str:
    facts = dict(zip(COLUMNS, list_facts(exhibit), strict=True))
    parts = [
        f"# `{exhibit.module}`",
        exhibit.purpose,
        "\n".join(f"* **{name}:** {facts[name]}" for name in COLUMNS[1:]),
        f"From [{exhibit.file}](../../{exhibit.file}):",
        make_fence("python", exhibit.code),
        f"## Output on Python {run.python}",
        make_fence("text", run.output),
        "## On the wire",
        make_fence("text", "\n".join(_shorten([line for _, line in mark_lines(run.messages)]))),
        "## Errors",
        make_table(
            ["when", "exception", "message"],
            [[each.what, f"`{each.raised}`", _code(each.message or "")] for each in run.failures],
        ),
        "[All exhibits](README.md)",
    ]
    return "\n\n".join(parts) + "\n"


def _shorten(lines: Sequence[str]) -> Iterator[str]:
    yield from lines[:LONGEST]
    if len(lines) > LONGEST:
        yield f"... {len(lines) - LONGEST} more lines"


def _code(text: str) -> str:
    """Return a text as code: many messages have something in them that looks like a tag."""
    words = " ".join(text.split()).replace("`", "'")
    return f"`{words}`" if words else ""


def main() -> int:
    """Write the pages."""
    try:
        has_changed = write()
    except LabError as error:
        print(f"docs: {error}", file=sys.stderr)
        return 2
    print(f"docs/gallery: {'written' if has_changed else 'nothing has changed'}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
