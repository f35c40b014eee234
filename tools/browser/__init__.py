"""Pages in a real browser, which sits in a container of its own: Locust's web UI, and reports; for `make test`.

The browser and what drives it are there only: drive.py runs inside, and imports nothing of ours.
"""

import base64
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from lab.base.errors import LabError
from lab.servers.backend import Helpers

# What drive.py may take: to start a browser on a busy machine, and to wait for numbers that move.
_SECONDS = 180.0


@dataclass(frozen=True, slots=True)
class Visit:
    """What a visitor has seen.

    Args:
        options: name of each drop-down of the form -> what can be chosen.
        readings: by tab, its table as it was read again and again while the load ran: a list of rows each time.
        state: what Locust said of the run at its end.
        live: of the live page: what it `said` after its buttons, `labels` of its charts, the `chosen` model, and the
            widths at which it has to be scrolled sideways (`wide`).
        files: by title of the link, the file that it downloaded.
        pictures: PNG files by name.
        complaints: what the browser's console said of errors.
    """

    options: dict[str, list[str]]
    readings: dict[str, list[list[dict[str, str]]]]
    state: str
    live: dict[str, Any]
    files: dict[str, str]
    pictures: dict[str, bytes]
    complaints: list[str]


@dataclass(frozen=True, slots=True)
class Page:
    """What a reader has seen of a page that is one file.

    Args:
        links: where it leads.
        requested: what it has loaded beside itself.
        sorted: by table and heading, the cells of that column after one click, and after another.
        marked: by table, after each of these clicks, the headings with an arrow, and which way it points.
        wide: the windows in which it has to be scrolled sideways.
        cut: texts of charts and tables that a window cuts off.
        charts: the number of charts.
        silent: pictures without a text alternative.
        tip: what shows when a mark is pointed at, and how many marks of its name stand out; None without a chart.
        complaints: what the browser's console said of errors.
    """

    links: list[str]
    requested: list[str]
    sorted: list[dict[str, list[list[str]]]]
    marked: list[list[dict[str, str]]]
    wide: list[str]
    cut: list[str]
    charts: int
    silent: list[str]
    tip: tuple[str, int] | None
    complaints: list[str]


def visit(helpers: Helpers, url: str, *, choices: Mapping[str, Sequence[str]], login: str | None = None) -> Visit:
    """Open the page, start a run, watch its numbers move, stop it, and download the files.

    Args:
        helpers: run the browser, in the network of the page.
        url: of the page, as that network knows it.
        choices: what to fill into the form, by the name of the field.
        login: USER:PASSWORD, where there is one.

    Raises:
        LabError: the visit went wrong; with the visitor's last words.
    """
    task = {"url": url, "choices": {name: list(values) for name, values in choices.items()}, "login": login}
    found = _ask(helpers, task)
    return Visit(pictures=_decode(found), **found)


def read_pages(helpers: Helpers, pages: Mapping[str, str]) -> dict[str, Page]:
    """Open pages that need nothing else, in windows of 400, 1280 and 1920 pixels, light and dark, and on paper.

    One browser opens all of them, and sorts their tables.

    Args:
        helpers: run the browser.
        pages: HTML by name.

    Raises:
        LabError: it went wrong; with the reader's last words.
    """
    found = _ask(helpers, None, stdin=json.dumps(dict(pages)))
    return {name: Page(**page | {"tip": page["tip"] and tuple(page["tip"])}) for name, page in found.items()}


def _ask(helpers: Helpers, task: Mapping[str, Any] | None, *, stdin: str | None = None) -> dict[str, Any]:
    environ = {"LAB_VISIT": json.dumps(task)}
    done = helpers.run_service("browser", environ=environ, capture=True, stdin=stdin, timeout=_SECONDS)
    if done.returncode:
        lines = [line for line in (done.stdout + done.stderr).splitlines() if line.strip()]
        raise LabError("\n  ".join([f"the browser's visit failed ({done.returncode}); it said:", *lines[-30:]]))
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


def _decode(found: dict[str, Any]) -> dict[str, bytes]:
    return {name: base64.b64decode(text) for name, text in found.pop("pictures").items()}
