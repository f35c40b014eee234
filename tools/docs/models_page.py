"""docs/models/: the generated blocks of the models' pages and of their index.

    python -m tools.docs.models_page        # `make docs`

Kinds of blocks:

    index                 every model with its page, its family and its summary
    offered               which service is spoken over which transport
    support               what each model speaks over which transport, with its limits as notes
    environment           what the figures were measured on
    rows                  the figures of all models
    websockets            the memory of idle WebSockets of each model that has a page
    facts MODEL           its consequences, from the docstring of its file, and its limits, from the catalogue
    code FILE NAME ...    functions, methods (`Class.method`) and assignments of a file, word for word
    row MODEL             its figures
    xray MODEL            the recorded scenes of the model, from docs/data/xray.json
    xray-legend           the meaning of the characters in these scenes

A model of the catalogue without a page gets one with blanks to fill in. `find_faults` lists what is missing.
"""

import re
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from lab.base.errors import LabError
from lab.base.paths import ROOT
from lab.experiments.published import Measured
from lab.experiments.xray.recording import Recording, read_recordings
from lab.servers.catalogue import Catalogue, Model
from lab.servers.scaffold import BLANK
from tools.docs.catalogue_tables import make_facts, make_index, make_offered, make_support
from tools.docs.excerpt import PageError, extract
from tools.docs.figures import make_environment, make_row, make_rows, make_websockets
from tools.docs.markdown import make_fence, split_sections
from tools.docs.scenes import DATA, make_legend_block, make_scenes

FOLDER = ROOT / "docs" / "models"
INDEX = "README"

DIAGRAM, CODE, BREAKS, CHOICE, ROW = (
    "Who waits for what",
    "The code",
    "What breaks first",
    "When to choose it",
    "Measured",
)
PARTS = (DIAGRAM, CODE, BREAKS, CHOICE, ROW)

# Five minutes of reading code with understanding, at 200 words a minute.
WORDS = 1000

BLOCK = re.compile(r"^<!-- generated: (?P<name>.+?) -->\n(?P<body>.*?)^<!-- end -->$", re.MULTILINE | re.DOTALL)


@dataclass(frozen=True)
class Sources:
    """Everything that the pages are made from.

    Args:
        catalogue: the models.
        measured: the published figures.
        recordings: the recorded scenes.
        root: the folder of the files that the pages quote.
    """

    catalogue: Catalogue
    measured: Measured
    recordings: Sequence[Recording]
    root: Path = ROOT

    @property
    def explained(self) -> tuple[str, ...]:
        """The models that have a page: those with a file here. A reference peer has no code to show."""
        return tuple(name for name in self.catalogue.names if (self.root / _file_of(name)).exists())

    def read(self, file: str) -> str:
        """Return the text of a file of the project.

        Raises:
            PageError: the project has no such file.
        """
        path = (self.root / file).resolve()
        if not path.is_relative_to(self.root.resolve()):
            raise PageError(f"{file} is not a file of this project")
        try:
            return path.read_text(encoding="utf-8")
        except OSError as error:
            raise PageError(f"{file}: {error.strerror}") from None


def render(text: str, sources: Sources) -> str:
    """Return a page with all its blocks rewritten.

    Raises:
        PageError: a block names something that does not exist.
    """

    def make(found: re.Match[str]) -> str:
        return f"<!-- generated: {found['name']} -->\n\n{make_block(found['name'], sources)}\n\n<!-- end -->"

    return BLOCK.sub(make, text)


def make_block(name: str, sources: Sources) -> str:
    """Return the text of a block.

    Raises:
        PageError: there is no such kind, model, file or function.
    """
    catalogue, measured = sources.catalogue, sources.measured
    match name.split():
        case ["index"]:
            return make_index(catalogue, {*sources.explained})
        case ["offered"]:
            return make_offered()
        case ["support"]:
            return make_support(catalogue, {*sources.explained})
        case ["environment"]:
            return make_environment(measured)
        case ["rows"]:
            return make_rows(measured, catalogue.names)
        case ["websockets"]:
            return make_websockets(measured, [catalogue[model] for model in sources.explained])
        case ["facts", model]:
            file = _file_of(model)
            return make_facts(catalogue, _find_model(catalogue, model, name), sources.read(file), file)
        case ["row", model]:
            return make_row(measured, _find_model(catalogue, model, name))
        case ["xray", model]:
            return make_scenes(sources.recordings, _find_model(catalogue, model, name).name)
        case ["xray-legend"]:
            return make_legend_block(sources.recordings)
        case ["code", file, *wanted]:
            code = make_fence("python", extract(sources.read(file), wanted, file))
            return f"From [{file}](../../{file}):\n\n{code}"
    raise PageError(f"docs/models: unknown block {name!r}; tools/docs/models_page.py lists the kinds")


def make_page(name: str) -> str:
    """Return a page for a new model, with blanks to fill in."""

    def block(what: str) -> str:
        return f"<!-- generated: {what} -->\n<!-- end -->"

    content = {
        DIAGRAM: f"{block(f'xray {name}')}\n\n{BLANK}: why, in two sentences",
        CODE: block(f"code {_file_of(name)} serve"),
        BREAKS: BLANK,
        CHOICE: f"**For:** {BLANK}\n\n**Not for:** {BLANK}",
        ROW: block(f"row {name}"),
    }
    parts = [f"# `{name}`", block(f"facts {name}")]
    for title in PARTS:
        parts += [f"## {title}", content[title]]
    return "\n\n".join(parts) + "\n"


def find_faults(pages: Mapping[str, str], sources: Sources) -> list[str]:
    """Return what a person has to fix in the pages of the models, one line each.

    Args:
        pages: the text of each page of docs/models, by its name without `.md`.
        sources: what the pages are made from.
    """
    faults = [f"{name} has no page" for name in sources.explained if name not in pages]
    faults += [f"{name} has a page and no model" for name in pages if name not in {*sources.explained, INDEX}]
    for name in sources.explained:
        if name not in pages:
            continue
        faults += [f"{name}: {fault}" for fault in _find_faults_of_page(name, pages[name])]
    return faults


def read_pages(folder: Path = FOLDER) -> dict[str, str]:
    """Return the text of each page, by its name without `.md`."""
    return {path.stem: path.read_text(encoding="utf-8") for path in sorted(folder.glob("*.md"))}


def main() -> int:
    """Write the pages; return 1 if a person has to fix something."""
    try:
        sources = Sources(Catalogue.load(), Measured.load(), read_recordings(DATA))
        if len(sources.catalogue.files) > 1:
            raise PageError("the pages describe compose.yaml alone: move compose.override.yaml away, then try again")
        pages = read_pages()
        made = {
            name: render(pages[name] if name in pages else make_page(name), sources)
            for name in (INDEX, *sources.explained)
        }
    except LabError as error:
        print(f"docs: {error}", file=sys.stderr)
        return 2
    changed = [name for name, text in made.items() if pages.get(name) != text]
    for name in changed:
        (FOLDER / f"{name}.md").write_text(made[name], encoding="utf-8")
    print(f"docs/models: {', '.join(changed) or 'nothing has changed'}")
    faults = find_faults(pages | made, sources)
    for fault in faults:
        print(f"docs/models: to fix by hand: {fault}", file=sys.stderr)
    return 1 if faults else 0


def _find_faults_of_page(name: str, text: str) -> Iterator[str]:
    titles = [part.title for part in split_sections(text, 2)]
    for title in PARTS:
        if title not in titles:
            yield f"the part {title!r} is missing"
    if titles != [title for title in PARTS if title in titles]:
        yield "parts are unknown or out of order: " + ", ".join(titles)
    if not text.startswith(f"# `{name}`\n"):
        yield "its title is not its name"
    blocks = [found["name"] for found in BLOCK.finditer(text)]
    if f"facts {name}" not in blocks:
        yield f"the block 'facts {name}' is missing"
    if f"<!-- generated: xray {name} -->" not in _find_part(text, DIAGRAM):
        yield f"the block 'xray {name}' is missing"
    if not re.search(rf"^<!-- generated: code {re.escape(_file_of(name))} \w", _find_part(text, CODE), re.MULTILINE):
        yield f"no code of {_file_of(name)}"
    if not BLOCK.sub("", _find_part(text, BREAKS)).strip():
        yield f"{BREAKS!r} is empty"
    for words in ("**For:** ", "**Not for:** "):
        if not re.search(rf"^{re.escape(words)}\w", _find_part(text, CHOICE), re.MULTILINE):
            yield f"{CHOICE!r} has no paragraph that starts with {words.strip()}"
    if f"<!-- generated: row {name} -->" not in _find_part(text, ROW):
        yield f"the block 'row {name}' is missing"
    if BLANK in text:
        yield f"still has {BLANK} in it"
    if (count := len(text.split())) > WORDS:
        yield f"{count} words, which is more than five minutes of reading ({WORDS})"


def _find_part(text: str, title: str) -> str:
    return next((part.text for part in split_sections(text, 2) if part.title == title), "")


def _file_of(model: str) -> str:
    return f"services/models/{model}.py"


def _find_model(catalogue: Catalogue, model: str, block: str) -> Model:
    if model not in catalogue.names:
        raise PageError(f"docs/models: the block {block!r} names a model that is not in the catalogue")
    return catalogue[model]


if __name__ == "__main__":
    sys.exit(main())
