"""Read and write the little Markdown that the generated pages need: sections, fences, tables, anchors, links."""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

_LINK = re.compile(r"!?\[[^\]]*\]\(([^)\s]+)\)")
_HTML_LINK = re.compile(r'<(?:a|img)\b[^>]*\b(?:href|src)="([^"]+)"')


@dataclass(frozen=True, slots=True)
class Section:
    """The part of a page under one heading.

    Args:
        title: the heading, without the marks of code around a name.
        text: everything below the heading.
    """

    title: str
    text: str


def split_sections(text: str, level: int) -> Iterator[Section]:
    """Yield the sections under headings of one level. A line in a code block is never a heading."""
    mark = "#" * level + " "
    title: str | None = None
    lines: list[str] = []
    is_code = False
    for line in text.splitlines(keepends=True):
        if line.startswith("```"):
            is_code = not is_code
        if not is_code and line.startswith(mark):
            if title is not None:
                yield Section(title, "".join(lines))
            title, lines = line.removeprefix(mark).strip().strip("`"), []
        else:
            lines.append(line)
    if title is not None:
        yield Section(title, "".join(lines))


def find_links(text: str) -> list[str]:
    """Return the targets of the links and images outside of code."""
    prose = re.sub(r"`[^`\n]*`", "`code`", _strip_code_blocks(text))
    return _LINK.findall(prose) + _HTML_LINK.findall(prose)


def find_anchors(text: str) -> set[str]:
    """Return the anchors of a page, made from its headings as GitHub makes them."""
    anchors: dict[str, int] = {}
    for heading in re.findall(r"^#{1,6} (.+)$", _strip_code_blocks(text), re.MULTILINE):
        slug = re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-")
        anchors[slug] = anchors.get(slug, -1) + 1
        if anchors[slug]:
            anchors[f"{slug}-{anchors[slug]}"] = 0
    return {*anchors} | set(re.findall(r'<a (?:id|name)="([^"]+)"', text))


def make_table(header: Sequence[str], rows: Sequence[Sequence[str]], *, figures_from: int | None = None) -> str:
    """Return a table. Columns from `figures_from` on are aligned to the right."""
    rule = ["---" if figures_from is None or number < figures_from else "---:" for number in range(len(header))]
    lines = (" | ".join(cell.replace("|", "\\|") for cell in row) for row in (header, rule, *rows))
    return "\n".join(f"| {line} |" for line in lines)


def make_fence(language: str, text: str) -> str:
    """Return a code block."""
    return f"```{language}\n{text.rstrip()}\n```"


def _strip_code_blocks(text: str) -> str:
    return re.sub(r"^```.*?^```$", "", text, flags=re.MULTILINE | re.DOTALL)
