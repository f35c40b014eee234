"""The browser's errand: what it is asked, and how its answer is read. The real one runs in tests of the web UI."""

import json
from types import SimpleNamespace
from typing import Any

import pytest

from lab.base.errors import LabError
from tools.browser import read_pages, visit

SEEN = {
    "options": {"models": ["prefork"]},
    "readings": {},
    "state": "stopped",
    "live": {},
    "files": {},
    "pictures": {"light": "UE5H"},
    "complaints": [],
}


class Helpers:
    """Helpers whose browser prints this."""

    def __init__(self, stdout: str, code: int = 0, stderr: str = "") -> None:
        self.done = SimpleNamespace(returncode=code, stdout=stdout, stderr=stderr)
        self.asked: list[tuple[str, Any, str | None]] = []

    def run_service(
        self, service: str, *, environ: dict[str, str], capture: bool, stdin: str | None, timeout: float
    ) -> Any:
        assert capture
        assert timeout == 180
        self.asked.append((service, json.loads(environ["LAB_VISIT"]), stdin))
        return self.done


def test_visitor_is_told_all_and_its_last_line_is_read() -> None:
    helpers: Any = Helpers(f"a warning\n{json.dumps(SEEN)}\n")
    seen = visit(helpers, "http://x", choices={"models": ("prefork",)}, login="ann:secret")
    assert helpers.asked == [
        ("browser", {"url": "http://x", "choices": {"models": ["prefork"]}, "login": "ann:secret"}, None)
    ]
    assert seen.pictures == {"light": b"PNG"}
    assert (seen.state, seen.options) == ("stopped", {"models": ["prefork"]})


def test_failed_visit_is_an_error_with_the_last_words() -> None:
    lines = [f"line {number}" for number in range(40)]
    helpers: Any = Helpers("\n".join([*lines, "", json.dumps(SEEN)]), code=1, stderr="\nTraceback\n")
    with pytest.raises(LabError) as caught:
        visit(helpers, "http://x", choices={})
    head, *said = str(caught.value).splitlines()
    assert head == "the browser's visit failed (1); it said:"
    assert [line.strip() for line in said] == [*lines[12:], json.dumps(SEEN), "Traceback"]


def test_pages_are_handed_over_by_name() -> None:
    page = {
        "links": [], "requested": [], "sorted": [], "marked": [], "wide": [], "cut": [], "charts": 1,
        "silent": [], "complaints": [],
    }  # fmt: skip
    helpers: Any = Helpers(json.dumps({"a": page | {"tip": ["m", 1]}, "b": page | {"tip": None}}))
    seen = read_pages(helpers, {"a": "<p>", "b": "<q>"})
    assert helpers.asked == [("browser", None, '{"a": "<p>", "b": "<q>"}')]
    assert (seen["a"].tip, seen["b"].tip) == (("m", 1), None)
