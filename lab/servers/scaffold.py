"""`lab new NAME`: the beginnings of a model, in all places that one has. `tests/repo` names what is still missing."""

import keyword
import re
import sys
from pathlib import Path

from lab.base.errors import LabError
from lab.base.paths import ROOT
from lab.servers.catalogue import Catalogue

# What a person has to replace, wherever it stands; tests/repo finds what is left of it.
BLANK = "FILL IN"

_MODEL = '''"""{blank}: this way of serving sockets, in one line.

Unit of concurrency: {blank}
What blocks whom: {blank}
What runs out first: {blank}
"""

from services.serving.blocking import Drain, selector_of, serve_datagram
from services.serving.listeners import Listener


def serve(listeners: list[Listener]) -> None:
    """Serve until SIGTERM or SIGINT.

    Raises:
        SystemExit: with code 1, if conversations were still going when the grace period ended.
    """
    # {blank}: a beginning that holds the contract, with one client at a time. Put your own way of serving in its place.
    stop = Drain(listeners[0].limits.grace)
    with selector_of(listeners, stop) as selector:
        while not stop.is_set:
            for key, _ in selector.select():
                if key.data is None:
                    stop.clear()
                elif not stop.is_set:
                    _serve_one(key.data, stop)
    stop.close()


def _serve_one(listener: Listener, stop: Drain) -> None:
    if listener.is_datagram:
        if received := listener.receive():
            serve_datagram(listener, *received)
    elif accepted := listener.accept():
        stream, peer = accepted
        with stream:
            stop.serve_stream(listener, stream, peer)
'''

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
      # What theory reasons from: one, thread each, process each, threads, processes, loop or loops.
      lab.concurrency: one
      lab.summary: "{blank}: the consequence for a client, in one line"
{extra_label}      # To be taken out once it serves several clients at a time; the suite will say so.
      lab.limit.overlap: "serves one connection from accept to close before it accepts the next"

"""

# In compose.yaml the models end here.
_PEERS = "  # Reference peers:"


def create(name: str, extra: str | None, root: Path = ROOT) -> list[str]:
    """Write what can be written.

    Args:
        name: of the model.
        extra: a distribution on the package index that it needs, if any.

    Returns:
        What is left to do, a line each.

    Raises:
        LabError: the name cannot be one, or is taken; nothing was written.
    """
    model = root / "services" / "models" / f"{name}.py"
    compose, project = root / "compose.yaml", root / "pyproject.toml"
    if not re.fullmatch(r"[a-z][a-z0-9_]{0,39}", name) or keyword.iskeyword(name):
        raise LabError(f"{name!r} cannot name a model: small letters, digits and _, at most 40, and no word of Python")
    if name in sys.stdlib_module_names or name == extra:
        raise LabError(f"{name!r} is the name of a module that something may import: take another")
    if model.exists() or name in Catalogue.load(compose).names:
        raise LabError(f"there is a model {name!r} already")
    if extra is not None and not re.fullmatch(r"[a-z0-9][a-z0-9_.-]*", extra):
        raise LabError(f"--extra {extra!r} is not the name of a distribution in small letters")
    stanza = _STANZA.format(
        name=name,
        blank=BLANK,
        build_extra=f", EXTRA: {extra}" if extra else "",
        extra_label=f"      lab.extra: {extra}\n" if extra else "",
    )
    texts = {
        model: _MODEL.format(blank=BLANK),
        compose: _insert(compose, _PEERS, stanza),
    }
    if extra and f"\n{extra} = [" not in project.read_text(encoding="utf-8"):
        texts[project] = _insert(project, "# To test and change the lab itself.", f'{extra} = ["{extra}"]\n')
    for path, text in texts.items():
        path.write_text(text, encoding="utf-8")
    steps = [f"write {model.relative_to(root)}: it begins as a server for one client at a time"]
    steps += [f"compose.yaml: replace what says {BLANK} in the stanza of {name}, and set its limits"]
    if extra:
        steps.append(f"make lock: it writes requirements/{extra}.txt, with hashes")
    steps.append(
        "README.md: a row for it, behind the last model's; make docs: its section of docs/models.md, to fill in; "
        f"then: lab check {name}, and make test"
    )
    return steps


def _insert(path: Path, before: str, text: str) -> str:
    """A file's text with more of it, before the line that begins so."""
    found = path.read_text(encoding="utf-8")
    if found.count(f"\n{before}") != 1:
        raise LabError(f"{path}: no line begins with {before!r}, so there is no place for a new model")
    return found.replace(f"\n{before}", f"\n{text}{before}")
