"""Real clients' encoders and decoders against the core, with no socket between them."""

from collections.abc import Callable
from typing import Any

import hiredis
import pytest
from redis._parsers.encoders import Encoder

from services.protocol import Connection

Pull = Callable[..., Any]

CALLS: dict[tuple[str | bytes | int, ...], Any] = {
    ("PING",): b"PONG",
    ("PING", "a b"): b"a b",
    ("ECHO", bytes(range(256))): bytes(range(256)),
    ("ECHO", ""): b"",
    ("ECHO", "ä\r\n€"): "ä\r\n€".encode(),
    ("SLEEP", 5): b"OK",
    ("BURN", 0): b"0" * 64,
    ("BLOB", 97): bytes(range(32, 127)) + b" !",
    ("BLOB", 200_000): (bytes(range(32, 127)) * 2106)[:200_000],
    ("COMMAND", "COUNT"): 17,
    ("COMMAND", "DOCS"): [],
    ("CONFIG", "GET", "save"): [b"save", b""],
    ("CLIENT", "SETNAME", "me"): b"OK",
    ("CLIENT", "ID"): 1,
    ("QUIT",): b"OK",
}
REFUSED: dict[tuple[str | bytes | int, ...], str] = {
    ("GET", "key"): "ERR unknown command 'GET'",
    ("SLEEP", "soon"): "ERR SLEEP takes 0 to 60000 ms, not 'soon'",
    ("HELLO", 4): "NOPROTO unsupported protocol version",
}


def replies_to(pull: Pull, *calls: tuple[str | bytes | int, ...]) -> list[Any]:
    """Packed by hiredis, answered by the core, unpacked by hiredis."""
    connection = Connection("command")
    encode = Encoder("utf-8", "strict", decode_responses=False).encode
    connection.receive_data(b"".join(hiredis.pack_command(tuple(encode(item) for item in call)) for call in calls))
    reader = hiredis.Reader()
    reader.feed(pull(connection).sent)
    replies = [reader.gets() for _ in calls]
    assert not reader.has_data()
    return replies


@pytest.mark.parametrize(("call", "reply"), CALLS.items(), ids=[str(call[:2])[:30] for call in CALLS])
def test_reply(pull: Pull, call: tuple[str | bytes | int, ...], reply: Any) -> None:
    assert replies_to(pull, call) == [reply]


@pytest.mark.parametrize(("call", "message"), REFUSED.items(), ids=[str(call[0]) for call in REFUSED])
def test_refusal_is_an_error_to_the_client(pull: Pull, call: tuple[str | bytes | int, ...], message: str) -> None:
    (reply,) = replies_to(pull, call)
    assert isinstance(reply, hiredis.ReplyError)
    assert str(reply) == message


def test_client_of_resp3_reads_maps(pull: Pull) -> None:
    hello, config = replies_to(pull, ("HELLO", 3), ("CONFIG", "GET", "save"))
    assert hello[b"proto"] == 3
    assert hello[b"server"] == b"socketlab"
    assert config == {b"save": b""}


def test_pipeline_of_all_of_them(pull: Pull) -> None:
    assert replies_to(pull, *CALLS) == [*CALLS.values()]


def test_listing_of_commands_has_the_shape_that_clients_expect(pull: Pull) -> None:
    (listing,) = replies_to(pull, ("COMMAND",))
    assert [entry[0] for entry in listing][:3] == [b"ping", b"echo", b"sleep"]
    assert all(len(entry) == 10 for entry in listing)
