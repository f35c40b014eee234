"""Tables of the catalogue (compose.yaml) for the pages of the models: names, transports, limits."""

import ast
import re
from collections.abc import Iterator

from lab.base.units import UNKNOWN
from lab.servers.catalogue import Catalogue, Model
from services.protocol import SERVICES, Transport, is_offered
from tools.docs.excerpt import PageError
from tools.docs.markdown import make_table

_CONSEQUENCES = ("Unit of concurrency", "What blocks whom", "What runs out first")


def make_offered() -> str:
    """Return which service is spoken over which transport."""
    rows = [
        [f"`{service}`", *("yes" if is_offered(service, each) else "" for each in Transport)] for service in SERVICES
    ]
    return make_table(["service", *(f"`{each}`" for each in Transport)], rows)


def make_index(catalogue: Catalogue, explained: set[str]) -> str:
    """Return one row for each model: its page, its family and its summary."""
    rows = [[_link(model.name, explained), model.family, model.summary] for model in catalogue.models]
    return make_table(["model", "family", "consequence for a client"], rows)


def make_support(catalogue: Catalogue, explained: set[str]) -> str:
    """Return what each model speaks over each transport, with its limits as numbered notes."""
    notes: dict[str, int] = {}
    rows = []
    for model in catalogue.models:
        marks = [notes.setdefault(note, len(notes) + 1) for note in _list_notes(model)]
        name = _link(model.name, explained)
        if marks:
            name += f" <sup>{', '.join(map(str, sorted(marks)))}</sup>"
        rows.append([name, *(_list_spoken(catalogue, model, each) for each in Transport)])
    table = make_table(["model", *(f"`{each}`" for each in Transport)], rows)
    # A numbered list would be renumbered by Markdown.
    return "\n\n".join([table, *(f"<sup>{number}</sup> {note}" for note, number in notes.items())])


def make_facts(catalogue: Catalogue, model: Model, source: str, file: str) -> str:
    """Return a model's summary, the consequences in its docstring, and the limits of its container."""
    lines = [f"*{model.summary}*", ""]
    lines += [f"* **{title}:** {text}" for title, text in _read_consequences(source, file).items()]
    definition = catalogue.definitions[model.name]
    sizes = []
    if "mem_limit" in definition:
        sizes.append(f"{definition['mem_limit']} of memory")
    if "pids_limit" in definition:
        sizes.append(f"{definition['pids_limit']} processes and threads")
    if connections := catalogue.environ(model.name).get("LAB_MAX_CONNECTIONS"):
        sizes.append(f"{connections} connections")
    lines += [
        "",
        f"Family: {model.family}. Cores that one server can use: {'all' if model.uses_all_cores else 'one'}. "
        f"Library: {model.extra or 'none'}. Limits of its container: {', '.join(sizes) or 'none'}.",
    ]
    return "\n".join(lines)


def _link(name: str, explained: set[str]) -> str:
    return f"[`{name}`]({name}.md)" if name in explained else f"`{name}`"


def _list_spoken(catalogue: Catalogue, model: Model, transport: Transport) -> str:
    offered = [service for service in SERVICES if is_offered(service, transport)]
    spoken = {each.service for each in catalogue.listeners_of(model) if each.transport == transport}
    if not spoken:
        return UNKNOWN
    return "all" if spoken >= set(offered) else ", ".join(service for service in offered if service in spoken)


def _list_notes(model: Model) -> Iterator[str]:
    for capability, reason in model.limits.items():
        yield f"No `{capability}`: {reason}."
    if model.profile:
        yield f"Included only if it is named, or by `lab up --profile {model.profile}`."
    if model.only_in_container:
        yield "Runs only in a container, not as a process of this machine."


def _read_consequences(source: str, file: str) -> dict[str, str]:
    """Return the three consequences that a model's docstring opens with."""
    docstring = ast.get_docstring(ast.parse(source)) or ""
    pattern = "|".join(map(re.escape, _CONSEQUENCES))
    found = {
        title: " ".join(text.split())
        for title, text in re.findall(rf"^({pattern}): (.*?)(?=\n(?:{pattern}):|\n\n|\Z)", docstring, re.M | re.S)
    }
    if list(found) != list(_CONSEQUENCES):
        raise PageError(f"{file}: its docstring does not have the lines {', '.join(_CONSEQUENCES)}")
    return found
