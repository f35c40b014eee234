"""docs/gallery.md: made from the exhibits' files and from recorded performances, which are kept in
docs/data/gallery.json.

    python -m tools.docs.gallery_page       # `make docs`: the page from what was recorded
    lab tour --record                       # `make gallery`: record anew, then the page

A recording carries a digest of the code that it was made with; tests/repo fails when the code has changed since, and
when the page is not what is made here. What differs from run to run was replaced by what it is (`lab.tour.normalise`).
"""

import json
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence

from lab.base.errors import LabError
from lab.base.paths import ROOT
from lab.report.tour import COLUMNS, SHOWN, list_facts, mark_lines
from lab.servers.catalogue import Catalogue
from lab.tour.accounts import ACCOUNTS, DOMAIN
from lab.tour.normalise import normalise
from lab.tour.registry import Exhibit, load
from lab.tour.runner import Performance

PAGE = ROOT / "docs" / "gallery.md"
RECORDS = ROOT / "docs" / "data" / "gallery.json"

# Of a dialogue, in lines: what follows says the same again.
LONGEST = 150

_INTRODUCTION = f"""\
# The gallery

Every network module of the classic table that Python tutorials have shown since the nineties, at work: each against a
real server, in the lab's network. A third of them is gone from Python 3.13, half have another name than they had. Here
all of them run, the dropped ones by their back-ports, with the successor named, and where it is short, beside it.

This page is made by `make docs` from [the exhibits' files](../lab/tour/exhibits) and from what was recorded when they
ran (`make gallery`). To see one live, with its servers brought up and taken down again:

    .venv/bin/lab tour                  the table below
    .venv/bin/lab tour ftplib           its code, its output and the wire, side by side; Python 2's or 3's name
    .venv/bin/lab up --profile gallery  the servers, to try one's own client: make shell

## Accounts

Test accounts, the same on every server, good for nothing else; mail and the news group are `{DOMAIN}`:

{{accounts}}

## Servers

{{servers}}

None of them can be reached from outside of the lab's network. TLS is by the lab's own CA, which its containers have as
`/run/secrets/tls_ca`; nobody else trusts it, which the exhibits show.

## The modules

{{table}}

## How to read the dialogues

`C:` is what the client said, `S:` what it heard, noted at the sockets of the exhibit's own process; of TLS it is what
was inside. Passwords are `****`. What differs from run to run stands as what it is: `<date>`, `<port>`, `<message-id>`,
and the like; bytes that are no text as `\\xNN`. Of long messages {SHOWN} lines are shown, of long dialogues {LONGEST}.
What each module raises when something goes wrong was tried as well: with a server that refuses, that is not there,
that breaks off in the middle, that never answers.
"""


class RecordError(LabError):
    """docs/data/gallery.json does not hold what the page needs."""


def render(exhibits: Sequence[Exhibit], performances: Mapping[str, Performance], catalogue: Catalogue) -> str:
    """The page.

    Raises:
        RecordError: an exhibit was never recorded.
    """
    if missing := [exhibit.module for exhibit in exhibits if exhibit.module not in performances]:
        raise RecordError(f"docs/data/gallery.json has no recording of {', '.join(missing)}: `make gallery` makes it")
    accounts = [[f"`{each.user}`", f"`{each.password}`", f"`{each.address}`"] for each in ACCOUNTS]
    servers = [
        [f"`{each.name}`", each.summary, ", ".join(f"`{listener.address}`" for listener in each.addresses)]
        for each in catalogue.gallery
    ]
    rows = []
    for exhibit in exhibits:
        module, *others = list_facts(exhibit)
        rows.append([f"[`{module}`](#{module})", *others])
    head = (
        _INTRODUCTION.replace("{accounts}", _table(["user", "password", "mail"], accounts))
        .replace("{servers}", _table(["host", "what it is", "where"], servers))
        .replace("{table}", _table(COLUMNS, rows))
    )
    return "\n".join([head, *(_section(exhibit, performances[exhibit.module]) for exhibit in exhibits)])


def read_records() -> tuple[dict[str, Performance], dict[str, str]]:
    """What was recorded.

    Returns:
        Module -> its performance, and module -> the digest of the code that it was made with.
    """
    try:
        records = json.loads(RECORDS.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}, {}
    performances = {module: Performance.from_json(each["performance"]) for module, each in records.items()}
    return performances, {module: each["digest"] for module, each in records.items()}


def find_stale(exhibits: Iterable[Exhibit]) -> list[str]:
    """The modules whose recording is missing, or was made with other code."""
    _, digests = read_records()
    return [exhibit.module for exhibit in exhibits if digests.get(exhibit.module) != exhibit.digest]


def record(performances: Iterable[Performance]) -> None:
    """Keep performances, in place of older ones of the same modules."""
    exhibits = load()
    kept, digests = read_records()
    for performance in performances:
        kept[performance.module] = normalise(performance)
        digests[performance.module] = next(each.digest for each in exhibits if each.module == performance.module)
    records = {
        exhibit.module: {"digest": digests[exhibit.module], "performance": kept[exhibit.module].as_json()}
        for exhibit in exhibits
        if exhibit.module in kept
    }
    RECORDS.write_text(json.dumps(records, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


def write() -> bool:
    """Make the page anew from what was recorded.

    Returns:
        Whether it has changed.

    Raises:
        RecordError: an exhibit was never recorded, or the catalogue is not that of the project alone.
    """
    catalogue = Catalogue.load()
    if len(catalogue.files) > 1:
        raise RecordError("the page tells of compose.yaml alone; move compose.override.yaml away, then try again")
    performances, _ = read_records()
    text = render(load(), performances, catalogue)
    if PAGE.exists() and text == PAGE.read_text(encoding="utf-8"):
        return False
    PAGE.write_text(text, encoding="utf-8")
    return True


def _section(exhibit: Exhibit, performance: Performance) -> str:
    facts = dict(zip(COLUMNS, list_facts(exhibit), strict=True))
    parts = [
        f"## `{exhibit.module}`",
        exhibit.purpose,
        "\n".join(f"* **{name}:** {facts[name]}" for name in COLUMNS[1:]),
        f"From [{exhibit.file}](../{exhibit.file}):",
        _fence("python", exhibit.code),
        f"What it prints, on Python {performance.python}:",
        _fence("text", performance.output),
        "<details><summary>What goes over the wire</summary>",
        _fence("text", "\n".join(_shorten([line for _, line in mark_lines(performance.messages)]))),
        "</details>",
        "What it raises:",
        _table(
            ["when", "exception", "message"],
            [[each.what, f"`{each.raised}`", _code(each.message or "")] for each in performance.failures],
        ),
    ]
    return "\n\n".join(parts) + "\n"


def _shorten(lines: Sequence[str]) -> Iterator[str]:
    yield from lines[:LONGEST]
    if len(lines) > LONGEST:
        yield f"... {len(lines) - LONGEST} more lines"


def _code(text: str) -> str:
    """A text as it is: half of them hold what would be taken for a tag."""
    words = " ".join(text.split()).replace("`", "'")
    return f"`{words}`" if words else ""


def _fence(language: str, text: str) -> str:
    return f"```{language}\n{text.rstrip()}\n```"


def _table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join(f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in line)} |" for line in lines)


def main() -> int:
    """Write the page."""
    try:
        has_changed = write()
    except LabError as error:
        print(f"docs: {error}", file=sys.stderr)
        return 2
    print(f"docs/gallery.md: {'written' if has_changed else 'nothing has changed'}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
