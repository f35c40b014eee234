"""The page at `/`, as a browser gets it: what it may load, where its buttons lead, and where its WebSocket is."""

import re
from collections.abc import Callable

import pytest

from fuzz.oracle import Outcome
from services.protocol.http.page import page
from services.protocol.http.service import _ROUTES
from tests.services.protocol.http.conftest import read_replies

GET = b"GET / HTTP/1.1\r\nHost: a\r\nAccept: text/html, */*\r\n\r\n"
PAGE = page("plain_socket").decode()
PATHS = re.findall(r'data-path="([^"]*)"', PAGE)


def test_page_names_the_model_and_no_other_page_can_show_it(deliver: Callable[..., Outcome]) -> None:
    (reply,) = read_replies(deliver(GET, info=lambda: "# Server\r\nmodel:plain_socket\r\n").sent)
    assert (reply.status, reply.fields["content-type"]) == (200, "text/html; charset=utf-8")
    assert reply.body.decode() == PAGE
    assert reply.fields["vary"] == "Accept"
    policy = dict(each.split(" ", 1) for each in reply.fields["content-security-policy"].split("; "))
    assert policy == {
        "default-src": "'none'",
        "script-src": "'unsafe-inline'",
        "style-src": "'unsafe-inline'",
        "connect-src": "'self'",
        "frame-ancestors": "'none'",
        "base-uri": "'none'",
        "form-action": "'none'",
    }


@pytest.mark.parametrize(("model", "title"), [("<b>&\"'", "&lt;b&gt;&amp;&quot;&#x27;"), ("", "a server")])
def test_name_is_text_and_no_part_of_the_page(model: str, title: str) -> None:
    shown = page(model).decode()
    assert shown.count(f"<title>{title}</title>") == shown.count(f"<h1>{title}</h1>") == 1
    assert "<b>" not in shown


@pytest.mark.parametrize("path", PATHS)
def test_button_leads_to_a_route(deliver: Callable[..., Outcome], path: str) -> None:
    (reply,) = read_replies(deliver(f"GET {path} HTTP/1.1\r\nHost: a\r\n\r\n".encode()).sent)
    assert reply.status == 200


def test_every_route_has_a_button() -> None:
    """But the page itself, and the two that have controls of their own."""
    routes = {re.sub("[0-9]+$", "", path) for path in PATHS}
    assert routes == {path.decode() for path in _ROUTES} - {"/", "/echo", "/ws"}
    assert all(f">{path}</button>" in PAGE for path in PATHS)
    assert 'call("/echo", { method: "POST", body: "Hello" })' in PAGE


@pytest.mark.parametrize(("protocol", "address"), [("http:", "ws://a/ws"), ("https:", "wss://a/ws")])
def test_websocket_is_as_encrypted_as_the_page(protocol: str, address: str) -> None:
    replace = re.search(
        r'WebSocket\(location\.protocol\.replace\("(\w+)", "(\w+)"\) \+ "//" \+ location\.host \+ "(.*)"\)', PAGE
    )
    assert replace is not None
    assert f"{protocol.replace(replace[1], replace[2], 1)}//a{replace[3]}" == address


def test_websocket_that_is_open_is_used_again() -> None:
    """HTML, 9.3.1: 1 is OPEN; a message before that would be an error, and one after 2 or 3 would get lost."""
    assert re.findall(r"link\.readyState === (\d)\) return send\(\)", PAGE) == ["1"]
