"""`lab new NAME`: write the start of a model to the files that name it. tests/repo names what is missing."""

import ast
import keyword
import re
import sys
from pathlib import Path

from lab.base.errors import LabError
from lab.base.paths import ROOT
from lab.servers.catalogue import Catalogue

# Text for a person to replace; tests in tests/repo find what is left of it.
BLANK = "FILL IN"

# The model that a new one starts from: the shortest one that passes the conformance suite.
_START = "plain_socket"
_OPENING = f'''"""{BLANK}: this way of serving sockets, in one line.

Unit of concurrency: {BLANK}
What blocks whom: {BLANK}
What runs out first: {BLANK}
"""

# {BLANK}: this is {_START}, which serves one client at a time. Replace it with another way of serving.'''

_STANZA = """\
  {name}:
    <<: *model
    image: socketlab/{name}
    build: {{<<: *build, args: {{MODEL: {name}{build_extra}}}}}
    pids_limit: 16
    mem_limit: 512m
    labels:
      lab.model: {name}
      lab.family: {blank}
      # How many clients are served at the same time: one, thread each, process each, threads, processes, loop or loops.
      lab.concurrency: one
      lab.summary: "{blank}: the consequence for a client, in one line"
{extra_label}      # Remove this when it serves several clients at a time; the suite then reports it.
      lab.limit.overlap: "serves one connection until it closes, then accepts the next"

"""

# The line of compose.yaml behind the last model.
_PEERS = "  # Reference peers:"


def create(name: str, extra: str | None, root: Path = ROOT) -> list[str]:
    """Write a model's file, its stanza of compose.yaml, and its extra in pyproject.toml.

    Args:
        name: of the model.
        extra: the distribution on the package index that it needs, if any.
        root: the clone.

    Returns:
        What is left to do, a line for each step.

    Raises:
        LabError: the name is invalid or taken; nothing was written.
    """
    model = root / "services" / "models" / f"{name}.py"
    compose, project = root / "compose.yaml", root / "pyproject.toml"
    if not re.fullmatch(r"[a-z][a-z0-9_]{0,39}", name) or keyword.iskeyword(name):
        raise LabError(
            f"{name!r} is not a valid model name: use at most 40 small letters, digits and _, no keyword of Python"
        )
    if name in sys.stdlib_module_names or name == extra:
        raise LabError(f"{name!r} is the name of a module that other code may import: choose another name")
    if model.exists() or name in Catalogue.load(compose).names:
        raise LabError(f"a model {name!r} exists already: choose another name")
    if extra is not None and not re.fullmatch(r"[a-z0-9][a-z0-9_.-]*", extra):
        raise LabError(f"--extra {extra!r} is not the name of a distribution, in small letters")
    stanza = _STANZA.format(
        name=name,
        blank=BLANK,
        build_extra=f", EXTRA: {extra}" if extra else "",
        extra_label=f"      lab.extra: {extra}\n" if extra else "",
    )
    texts = {
        model: _start_model((model.parent / f"{_START}.py").read_text(encoding="utf-8")),
        compose: _insert(compose, _PEERS, stanza),
    }
    if extra and f"\n{extra} = [" not in project.read_text(encoding="utf-8"):
        texts[project] = _insert(project, "# To test and change the lab itself.", f'{extra} = ["{extra}"]\n')
    for path, text in texts.items():
        path.write_text(text, encoding="utf-8")
    steps = [f"write {model.relative_to(root)}: it starts as {_START}, which serves one client at a time"]
    steps += [f"compose.yaml: replace {BLANK} in the stanza of {name}, and set its limits"]
    if extra:
        steps.append(f"make lock: it writes requirements/{extra}.txt, with hashes")
    steps.append(
        f"make docs: it writes docs/models/{name}.md; replace {BLANK} there; then: lab check {name}, and make test"
    )
    return steps


def _start_model(source: str) -> str:
    """Return the source of a model with blanks in place of its docstring."""
    docstring = ast.parse(source).body[0]
    return "\n".join([_OPENING, *source.splitlines()[docstring.end_lineno :], ""])


def _insert(path: Path, before: str, text: str) -> str:
    """Return the text of a file with more text inserted before the line that starts with `before`."""
    found = path.read_text(encoding="utf-8")
    if found.count(f"\n{before}") != 1:
        raise LabError(f"{path}: no single line starts with {before!r}, so there is no place for a new model")
    return found.replace(f"\n{before}", f"\n{text}{before}")
