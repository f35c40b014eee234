"""http: what RFC 9110 and RFC 9112 say, of any server; each case is named after its section."""

import re
import time
from email.utils import parsedate_to_datetime

import pytest

from tests.support.http_cases import CASES, HOST, Case, get
from tests.support.http_link import HttpLink
from tests.support.http_observe import describe_right, is_right, observe

pytestmark = pytest.mark.service("http", "stream")


def _parameters(*, goes_on: bool, ours: bool) -> list[object]:
    chosen = [case for case in CASES if (case.goes_on, case.ours) == (goes_on, ours)]
    return [pytest.param(case, id=case.name) for case in chosen]


def _check(target, case: Case) -> None:
    with target.connect() as connection:
        seen = observe(connection, case)
    assert is_right(case, seen, persists=target.is_ours), f"{case.name}: {seen}; right: {describe_right(case)}"


@pytest.mark.once
@pytest.mark.parametrize("case", _parameters(goes_on=True, ours=False))
def test_request_is_answered_and_ends_where_it_ends(target, case: Case) -> None:
    _check(target, case)


@pytest.mark.ours
@pytest.mark.once
@pytest.mark.parametrize("case", _parameters(goes_on=True, ours=True))
def test_request_is_answered_where_the_rfc_leaves_a_choice(target, case: Case) -> None:
    _check(target, case)


@pytest.mark.once
@pytest.mark.parametrize("case", _parameters(goes_on=False, ours=False))
def test_request_ends_the_connection(target, case: Case) -> None:
    _check(target, case)


@pytest.mark.ours
@pytest.mark.once
@pytest.mark.parametrize("case", _parameters(goes_on=False, ours=True))
def test_request_ends_the_connection_where_the_rfc_leaves_a_choice(target, case: Case) -> None:
    _check(target, case)


def test_9110_6_6_1_date_is_the_present(target) -> None:
    with target.connect() as connection:
        date = HttpLink(connection).ask(get()).fields["date"]
    assert re.fullmatch(r"\w{3}, \d\d \w{3} \d{4} \d\d:\d\d:\d\d GMT", date)
    assert abs(parsedate_to_datetime(date).timestamp() - time.time()) < 60


@pytest.mark.once
def test_9112_9_3_connection_persists(target) -> None:
    with target.connect() as connection:
        link = HttpLink(connection)
        assert [link.ask(get()).status for _ in range(5)] == [200] * 5


def test_9112_9_3_2_pipeline(target) -> None:
    with target.connect() as connection:
        link = HttpLink(connection)
        link.send(get() * 20)
        assert [reply.status for _ in range(20) if (reply := link.read())] == [200] * 20


def test_9112_2_2_request_in_pieces(target) -> None:
    with target.connect() as connection:
        link = HttpLink(connection)
        for start in range(len(get())):
            link.send(get()[start : start + 1])
        assert link.ask(b"").status == 200


@pytest.mark.once
def test_9110_9_3_2_head_is_get_without_a_body(target) -> None:
    with target.connect() as connection:
        link = HttpLink(connection)
        head = link.ask(get(line=b"HEAD / HTTP/1.1"), "HEAD")
        reply = link.ask(get())
    assert head.status == reply.status == 200
    if "content-length" in head.fields:
        assert head.fields["content-length"] == reply.fields["content-length"]
    assert head.fields.get("content-type") == reply.fields.get("content-type")


@pytest.mark.once
def test_9110_15_5_5_unknown_path(target) -> None:
    with target.connect() as connection:
        link = HttpLink(connection)
        assert link.ask(get(line=b"GET /no/such/path HTTP/1.1")).status == 404
        assert link.ask(get()).status == 200


@pytest.mark.once
def test_9110_15_5_6_method_that_is_not_allowed(target) -> None:
    with target.connect() as connection:
        reply = HttpLink(connection).ask(get(line=b"DELETE / HTTP/1.1"))
    assert reply.status in (405, 501)
    if reply.status == 405:
        assert "GET" in reply.fields["allow"].split(", ")


def test_9112_9_6_half_closed_client_gets_its_reply(target) -> None:
    with target.connect() as connection:
        link = HttpLink(connection)
        link.send(get())
        connection.half_close()
        reply = link.read()
        assert reply is not None
        assert reply.status == 200


def test_9112_8_request_that_breaks_off(target) -> None:
    """It is not answered as if it were complete, and the next client notices nothing."""
    with target.connect() as connection:
        link = HttpLink(connection)
        link.send(b"GET / HTTP/1.1\r\n" + HOST)
        connection.half_close()
        reply = link.read()
        assert reply is None or reply.status in (400, 408)
    with target.connect() as connection:
        assert HttpLink(connection).ask(get()).status == 200


@pytest.mark.routes
@pytest.mark.capability("work")
def test_application_works(target) -> None:
    with target.connect() as connection:
        link = HttpLink(connection)
        request = b"POST /echo HTTP/1.1\r\n" + HOST + b"Content-Length: 5\r\nConnection: close\r\n\r\nhello"
        assert link.ask(request).body == b"hello"
    with target.connect() as connection:
        assert HttpLink(connection).ask(get(line=b"GET /sleep/1 HTTP/1.1")).body == b"OK\n"


@pytest.mark.routes
@pytest.mark.capability("websocket")
def test_6455_4_2_2_upgrade(target) -> None:
    fields = b"Upgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\n"
    key = b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"
    with target.connect() as connection:
        reply = HttpLink(connection).ask(get(fields + key, line=b"GET /ws HTTP/1.1"))
    assert reply.status == 101
    # The example of RFC 6455, 1.3.
    assert reply.fields["sec-websocket-accept"] == "s3pPLMBiTxaQ9kYGzzhZRbK+xOo="
