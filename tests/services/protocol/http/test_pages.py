"""docs/protocol/http.md and websocket.md say what is so."""

import re
from collections.abc import Callable
from pathlib import Path

import pytest

from fuzz.oracle import Outcome
from services.protocol.http.errors import REASONS
from services.protocol.http.service import _ROUTES
from services.protocol.http.websocket import _WORDS
from tests.services.protocol.http.conftest import read_replies
from tests.support.http_cases import CASES

DOCS = Path(__file__).resolve().parents[4] / "docs" / "protocol"
HTTP = (DOCS / "http.md").read_text(encoding="utf-8")
WEBSOCKET = (DOCS / "websocket.md").read_text(encoding="utf-8")


def test_table_of_routes(deliver: Callable[..., Outcome]) -> None:
    rows = dict(re.findall(r"^\| `(/\S*)` \| ([A-Z, ]+) \|", HTTP, re.MULTILINE))
    assert [re.sub("[A-Z]+$", "", route) for route in rows] == [path.decode() for path in _ROUTES]
    for route, methods in rows.items():
        path = re.sub("[A-Z]+$", "1", route)
        (reply,) = read_replies(deliver(f"OPTIONS {path} HTTP/1.1\r\nHost: a\r\n\r\n".encode()).sent)
        assert (reply.status, reply.fields["allow"]) == (204, methods)


def test_table_of_statuses() -> None:
    rows = [int(status) for status in re.findall(r"^\| (\d{3}) \|", HTTP, re.MULTILINE)]
    assert rows == sorted(status for status in REASONS if status >= 400)


@pytest.mark.parametrize("word", _WORDS)
def test_table_of_words(word: bytes) -> None:
    assert re.search(rf"^\| `{word.decode()}\b", WEBSOCKET, re.MULTILINE)


def test_number_of_cases() -> None:
    assert f"has {len(CASES)} cases" in HTTP
