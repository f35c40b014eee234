"""WebSocket on /ws: what RFC 6455 and RFC 7692 say, of any server that echoes; each case is named after its section.

Cases that the protocol decides before a model sees anything are asked of one of our models; what a model can get wrong
stands at the end, and is asked of each.
"""

import select
from collections.abc import Mapping, Sequence

import pytest

from tests.support.reading import count_unread
from tests.support.waiting import settled
from tests.support.ws_cases import ACCEPTED, ANSWERED, CLOSED, FAILED, FAILED_OURS, REFUSED, Answered, Closed, Failed
from tests.support.ws_link import (
    BINARY,
    CLOSE,
    CONTINUATION,
    FIN,
    PING,
    RSV1,
    TEXT,
    WsLink,
    deflate,
    frame,
    handshake,
    inflate,
)

pytestmark = pytest.mark.service("websocket", "stream")

DEFLATE = "Sec-WebSocket-Extensions: permessage-deflate"


def by_name(cases: Sequence[Answered | Failed | Closed]) -> list[object]:
    return [pytest.param(case, id=case.name) for case in cases]


def names(cases: Mapping[str, object]) -> list[object]:
    return [pytest.param(name, id=name) for name in cases]


@pytest.mark.once
@pytest.mark.parametrize("name", names(ACCEPTED))
def test_handshake(target, name: str) -> None:
    with target.connect() as connection:
        link = WsLink(connection)
        reply = link.open(ACCEPTED[name])
        assert "sec-websocket-protocol" not in reply.fields
        assert "x-unknown" not in reply.fields.get("sec-websocket-extensions", "")
        assert link.ask(b"hello") == b"hello"


@pytest.mark.once
@pytest.mark.parametrize("name", names(REFUSED))
def test_handshake_that_is_refused(target, name: str) -> None:
    request, statuses = REFUSED[name]
    with target.connect() as connection:
        reply = WsLink(connection).http.ask(request)
        assert reply.status in statuses
        if reply.status == 426:
            assert reply.fields["upgrade"].lower() == "websocket"
        if "4.2.2-version" in name:
            assert "13" in reply.fields["sec-websocket-version"]


@pytest.mark.ours
@pytest.mark.once
@pytest.mark.parametrize("origin", ["http://other.test", "null", "http://lab.test:81", "http://lab.test.other.test"])
def test_10_2_page_of_another_site_is_refused(target, origin: str) -> None:
    with target.connect() as connection:
        assert WsLink(connection).http.ask(handshake(more=[f"Origin: {origin}"])).status == 403


@pytest.mark.once
@pytest.mark.parametrize("case", by_name(ANSWERED))
def test_message(target, case: Answered) -> None:
    with target.connect() as connection:
        link = WsLink(connection)
        link.open()
        link.send(case.sent)
        assert tuple(link.read_message() for _ in case.messages) == case.messages
        assert link.ask(b"and goes on") == b"and goes on"


def _check_failure(target, case: Failed) -> None:
    with target.connect() as connection:
        link = WsLink(connection)
        link.open()
        link.send(case.sent)
        code = link.read_close()
        # 7.1.7 lets a server leave the close out; ours does not.
        assert code in case.codes or (code is None and not target.is_ours)


@pytest.mark.once
@pytest.mark.parametrize("case", by_name(FAILED))
def test_frame_that_fails_the_connection(target, case: Failed) -> None:
    _check_failure(target, case)


@pytest.mark.ours
@pytest.mark.once
@pytest.mark.parametrize("case", by_name(FAILED_OURS))
def test_frame_that_fails_the_connection_where_the_rfc_leaves_a_choice(target, case: Failed) -> None:
    _check_failure(target, case)


@pytest.mark.once
@pytest.mark.parametrize("case", by_name(CLOSED))
def test_close(target, case: Closed) -> None:
    with target.connect() as connection:
        link = WsLink(connection)
        link.open()
        assert link.ask(b"before") == b"before"
        # 5.5.1: what follows a close is not answered.
        link.send(frame(CLOSE, case.data) + frame(TEXT, b"behind"))
        assert link.read_close() == case.code


# RFC 7692. A server may decline compression, so these are for ours.

OFFERS = {
    "7.1-no-parameter": (DEFLATE, "permessage-deflate"),
    "7.1.1.1-server-no-context-takeover": (f"{DEFLATE}; server_no_context_takeover", "permessage-deflate"),
    "7.1.2.2-client-window": (f"{DEFLATE}; client_max_window_bits", "permessage-deflate"),
    "7.1.2.2-client-window-of-10": (f"{DEFLATE}; client_max_window_bits=10", "permessage-deflate"),
    "7.1.2.1-server-window-of-10": (f"{DEFLATE}; server_max_window_bits=10", "server_max_window_bits=10"),
    "7.1.2.1-server-window-in-quotes": (f'{DEFLATE}; server_max_window_bits="10"', "server_max_window_bits=10"),
    "7.1.2.1-server-window-of-8": (f"{DEFLATE}; server_max_window_bits=8", None),
    "7.1.2.1-server-window-of-16": (f"{DEFLATE}; server_max_window_bits=16", None),
    "7.1.2.1-server-window-of-010": (f"{DEFLATE}; server_max_window_bits=010", None),
    "7.1.2.1-server-window-without-bits": (f"{DEFLATE}; server_max_window_bits", None),
    "7.1.1.1-flag-with-a-value": (f"{DEFLATE}; server_no_context_takeover=1", None),
    "7.1-unknown-parameter": (f"{DEFLATE}; level=9", None),
    "7.1-parameter-twice": (f"{DEFLATE}; client_no_context_takeover; client_no_context_takeover", None),
    "7.1-second-offer": (f"{DEFLATE}; level=9, permessage-deflate", "permessage-deflate"),
    "7.1-other-extension": ("Sec-WebSocket-Extensions: permessage-bzip2", None),
}


@pytest.mark.ours
@pytest.mark.once
@pytest.mark.parametrize("name", names(OFFERS))
def test_compression_is_agreed(target, name: str) -> None:
    field, wanted = OFFERS[name]
    text = b"hello " * 100
    with target.connect() as connection:
        link = WsLink(connection)
        agreed = link.open(handshake(more=[field])).fields.get("sec-websocket-extensions")
        assert (wanted is None) == (agreed is None)
        if agreed is None:
            assert link.ask(text) == text
            return
        assert wanted is not None
        assert wanted in agreed
        link.send(frame(TEXT, deflate(text), bits=FIN | RSV1))
        kind, data = link.read_message()
        assert (kind, inflate(data)) == (TEXT | RSV1, text)


TEXTS = b"hello " * 100
COMPRESSED = {
    "7.2.2-whole": frame(TEXT, deflate(TEXTS), bits=FIN | RSV1),
    "7.2.2-fragments": frame(TEXT, deflate(TEXTS)[:5], bits=RSV1) + frame(CONTINUATION, deflate(TEXTS)[5:]),
    "7.2.2-ping-between": frame(TEXT, deflate(TEXTS)[:5], bits=RSV1)
    + frame(PING)
    + frame(CONTINUATION, deflate(TEXTS)[5:]),
    "7.2.3.3-not-compressed": frame(TEXT, b"\0" + b"\x58\x02\xa7\xfd" + TEXTS + b"\0", bits=FIN | RSV1),
}


@pytest.mark.ours
@pytest.mark.once
@pytest.mark.parametrize("name", names(COMPRESSED))
def test_compressed_message(target, name: str) -> None:
    with target.connect() as connection:
        link = WsLink(connection)
        link.open(handshake(more=[DEFLATE]))
        link.send(COMPRESSED[name])
        kind, data = link.read_message()
        if kind == 10:
            kind, data = link.read_message()
        assert (kind, inflate(data)) == (TEXT | RSV1, TEXTS)
        assert link.ask(b"not compressed") == b"not compressed"  # 6: allowed for each message


@pytest.mark.ours
@pytest.mark.once
def test_7_2_3_6_empty_compressed_message(target) -> None:
    with target.connect() as connection:
        link = WsLink(connection)
        link.open(handshake(more=[DEFLATE]))
        link.send(frame(TEXT, b"\0", bits=FIN | RSV1))
        assert link.read_message() == (TEXT, b"")


UNFIT = {
    "7.2.2-no-deflated-data": (frame(BINARY, b"\xff" * 20, bits=FIN | RSV1), 1007),
    "8.1-inflated-text-is-not-utf-8": (frame(TEXT, deflate(b"\xff" * 20), bits=FIN | RSV1), 1007),
    "6.1-bit-in-a-later-fragment": (frame(TEXT, b"", bits=RSV1) + frame(CONTINUATION, b"", bits=FIN | RSV1), 1002),
    "6-bit-in-a-ping": (frame(PING, bits=FIN | RSV1), 1002),
    "8-bomb": (frame(BINARY, deflate(bytes(50_000_000)), bits=FIN | RSV1), 1009),
}


@pytest.mark.ours
@pytest.mark.once
@pytest.mark.parametrize("name", names(UNFIT))
def test_compressed_message_that_fails_the_connection(target, name: str) -> None:
    sent, code = UNFIT[name]
    with target.connect() as connection:
        link = WsLink(connection)
        link.open(handshake(more=[DEFLATE]))
        link.send(sent)
        assert link.read_close() == code


# What a model can get wrong.


def test_4_2_2_handshake_and_echo(target) -> None:
    with target.connect() as connection:
        link = WsLink(connection)
        # The first message comes with the handshake.
        link.open(handshake() + frame(TEXT, b"early"))
        assert link.read_message() == (TEXT, b"early")
        for size in (0, 1000, 100_000):
            link.send(frame(BINARY, b"x" * size))
            assert link.read_message() == (BINARY, b"x" * size)
        link.send(frame(CLOSE, (1000).to_bytes(2, "big")))
        assert link.read_close() == 1000


def test_5_2_frame_in_pieces(target) -> None:
    with target.connect() as connection:
        link = WsLink(connection)
        link.open()
        sent = frame(TEXT, b"byte by byte", bits=0) + frame(PING, b"p") + frame(CONTINUATION, b"!")
        for start in range(len(sent)):
            link.send(sent[start : start + 1])
        assert link.read_message() == (10, b"p")
        assert link.read_message() == (TEXT, b"byte by byte!")


@pytest.mark.ours
def test_words_of_command(target) -> None:
    with target.connect() as connection:
        link = WsLink(connection)
        link.open()
        words = [b"PING", b"PING hello", b"ECHO PING", b"SLEEP 1", b"BURN 0", b"BLOB 5", b"SLEEP x", b"ping", b"PINGS"]
        link.send(b"".join(frame(TEXT, word) for word in words))
        wanted = [b"PONG", b"hello", b"PING", b"OK", b"0" * 64, b' !"#$', b"ERR SLEEP takes 0 to 60000 ms"]
        assert [link.read_message() for _ in words] == [(TEXT, text) for text in [*wanted, b"ping", b"PINGS"]]
        assert len(link.ask(b"BLOB 300000")) == 300_000
        info = link.ask(b"INFO").decode()
        assert not target.is_ours or f"model:{target.model}\r\n" in info
        link.send(frame(TEXT, b"QUIT"))
        assert link.read_message() == (TEXT, b"OK")
        assert link.read_close() == 1000


@pytest.mark.ours
@pytest.mark.capability("overlap")
def test_sleep_blocks_no_other_websocket(target, client_timeout: float) -> None:
    # On a busy machine the echo may take longer than the SLEEP: then try one that is longer.
    assert any(overtakes(target, client_timeout, sleep) for sleep in (30, 500, 3000))


def overtakes(target, client_timeout: float, sleep: int) -> bool:
    """Return whether a message is echoed before a SLEEP that was asked for earlier."""
    with target.connect(client_timeout) as sleeper, target.connect(client_timeout) as other:
        sleeping, awake = WsLink(sleeper), WsLink(other)
        sleeping.open()
        sleeping.send(frame(TEXT, b"SLEEP %d" % sleep))
        awake.open()
        assert awake.ask(b"hello") == b"hello"
        is_first = not select.select([sleeper.socket], [], [], 0)[0]
        assert sleeping.read_message() == (TEXT, b"OK")
    return is_first


def test_slow_reader_gets_every_message(target, unit: float) -> None:
    with target.connect() as connection:
        link = WsLink(connection)
        link.open()
        link.send(frame(TEXT, b"BLOB 2000000") + frame(TEXT, b"last") if target.is_ours else frame(TEXT, b"last"))
        settled(lambda: count_unread(connection), unit / 10)
        if target.is_ours:
            assert len(link.read_message()[1]) == 2_000_000
        assert link.read_message() == (TEXT, b"last")
