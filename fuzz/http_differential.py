"""Compare our parser of HTTP with two others: `python -m fuzz.http_differential`.

Two servers that see the end of a request in different places can be made to answer the wrong client. So a disagreement
is a find, unless `fuzz.http_explained` has the reason for it, by section.
"""

import sys
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from urllib.parse import unquote_to_bytes, urlsplit

import click

from fuzz.http_explained import EXPLAINED, Kind
from fuzz.http_grammar import Maker
from fuzz.http_parsers import MORE, OTHERS, REFUSED, Parse, Parsed, Request, parse_own


@dataclass(frozen=True, slots=True)
class Difference:
    """The first difference between what two parsers make of a stream.

    Args:
        stream: from the beginning of the request on that they differ about.
    """

    other: str
    kind: Kind
    stream: bytes
    detail: str

    def explain(self) -> str | None:
        """Return the section that explains it; None if it is a find."""
        for each in EXPLAINED:
            if self.other in each.parsers and self.kind is each.kind and each.evidence.search(self.stream):
                return each.section
        return None


def compare(stream: bytes, own: Parsed, other: str, theirs: Parsed) -> Difference | None:
    """Return the first difference; when a request is refused is none."""
    start = 0
    for number in range(max(len(own.requests), len(theirs.requests))):
        ours = own.requests[number] if number < len(own.requests) else None
        another = theirs.requests[number] if number < len(theirs.requests) else None
        if ours and another:
            kind, detail = _compare_requests(ours, another)
        elif ours:
            kind, detail = Kind.END if theirs.ending == MORE else Kind.ONLY_OURS, theirs.reason
        else:
            kind, detail = Kind.ONLY_THEIRS if own.ending == REFUSED else Kind.END, own.reason
        if kind:
            return Difference(other, kind, stream[start:], detail)
        assert ours
        start = ours.end
    return None


def _compare_requests(ours: Request, other: Request) -> tuple[Kind | None, str]:
    pairs: dict[Kind, tuple[object, object]] = {
        Kind.END: (ours.end, other.end),
        Kind.METHOD: (ours.method, other.method),
        Kind.TARGET: (ours.target, _path_of(other.target)),
        Kind.FIELDS: (ours.fields, other.fields),
        Kind.BODY: (ours.body, other.body),
        Kind.KEPT: (ours.is_kept, other.is_kept),
    }
    return next(((kind, f"{mine} / {theirs}") for kind, (mine, theirs) in pairs.items() if mine != theirs), (None, ""))


def _path_of(target: bytes) -> bytes:
    """Return the path of a target, decoded, as the standard library reads it."""
    if not target.startswith((b"http://", b"https://")):
        return unquote_to_bytes(target.partition(b"?")[0])
    return unquote_to_bytes(urlsplit(target).path) or b"/"


def find_differences(stream: bytes, others: dict[str, Parse] = OTHERS) -> Iterator[Difference]:
    own = parse_own(stream)
    for name, parse in others.items():
        if difference := compare(stream, own, name, parse(stream)):
            yield difference


@dataclass(slots=True)
class Found:
    """What a run has found.

    Args:
        requests: how many requests ours has read.
        counts: differences by parser, kind and section.
        unexplained: those without a section.
    """

    requests: int
    counts: Counter[tuple[str, Kind, str]]
    unexplained: list[Difference]


def run(cases: int, seed: int) -> Found:
    """Compare the parsers on that many streams; the same seed makes the same ones."""
    maker = Maker(seed)
    found = Found(0, Counter(), [])
    for _ in range(cases):
        stream = maker.stream()
        own = parse_own(stream)
        found.requests += len(own.requests)
        for name, parse in OTHERS.items():
            difference = compare(stream, own, name, parse(stream))
            if difference is None:
                continue
            section = difference.explain()
            found.counts[name, difference.kind, section or "?"] += 1
            if section is None:
                found.unexplained.append(difference)
    return found


@click.command(help=__doc__)
@click.option("--cases", default=100_000, show_default=True, help="streams of one to three requests")
@click.option("--seed", default=1, show_default=True)
def main(cases: int, seed: int) -> None:
    """Exit with code 1 if a difference has no explanation."""
    found = run(cases, seed)
    click.echo(f"{cases:,} streams, {found.requests:,} requests read by ours")
    for (name, kind, section), count in sorted(found.counts.items()):
        click.echo(f"{name:<10} {kind.value:<12} {section:<12} {count:>9,}")
    for each in found.unexplained[:20]:
        click.echo(f"\nno explanation: {each.other}, {each.kind.value}, {each.detail}\n    {each.stream!r}")
    sys.exit(bool(found.unexplained))


if __name__ == "__main__":
    main()
