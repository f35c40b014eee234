"""http: what RFC 9110 and RFC 9112 say, of any server; each case is named after its section."""

import re
import time
from email.utils import parsedate_to_datetime

import pytest

from tests.support.http_cases import CASES, HOST, NEXT, Case, get
from tests.support.http_link import HttpLink

pytestmark = pytest.mark.service("http", "stream")


def _parameters(*, goes_on: bool, ours: bool) -> list[object]:
    chosen = [case for case in CASES if (case.goes_on, case.ours) == (goes_on, ours)]
    return [pytest.param(case, id=case.name) for case in chosen]


def _check_accepted(target, case: Case) -> None:
    with target.connect() as connection:
        link = HttpLink(connection)
        reply = link.ask(case.request + NEXT)
        if reply.status == 100 and 100 in case.statuses:
            reply = link.ask(b"")
        assert reply.status in case.statuses
        following = link.read()
        assert following is not None, "the connection ended"
        assert following.status == 200


def _check_last(target, case: Case) -> None:
    with target.connect() as connection:
        link = HttpLink(connection)
        reply = link.ask(case.request + NEXT)
        assert reply.status in case.statuses
        if reply.status >= 400:
            assert reply.fields.get("connection", "").lower() == "close", "RFC 9112, 9.6: the close is announced"
        assert link.is_over()


@pytest.mark.once
@pytest.mark.parametrize("case", _parameters(goes_on=True, ours=False))
def test_request_is_answered_and_ends_where_it_ends(target, case: Case) -> None:
    _check_accepted(target, case)


@pytest.mark.ours
@pytest.mark.once
@pytest.mark.parametrize("case", _parameters(goes_on=True, ours=True))
def test_request_is_answered_where_the_rfc_leaves_a_choice(target, case: Case) -> None:
    _check_accepted(target, case)


@pytest.mark.once
@pytest.mark.parametrize("case", _parameters(goes_on=False, ours=False))
def test_request_ends_the_connection(target, case: Case) -> None:
    _check_last(target, case)


@pytest.mark.ours
@pytest.mark.once
@pytest.mark.parametrize("case", _parameters(goes_on=False, ours=True))
def test_request_ends_the_connection_where_the_rfc_leaves_a_choice(target, case: Case) -> None:
    _check_last(target, case)


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
