"""What each command answers, and in which order."""

import hashlib
import re
from collections.abc import Callable

import pytest

from fuzz.oracle import Outcome
from services.protocol import SEND_SIZE, AdapterError, Close, Compute, Connection, GiveWay, Limits, Send, Wait
from tests.support.events import sends

Exchange = Callable[..., Outcome]


def array(*arguments: bytes) -> bytes:
    return b"*%d\r\n" % len(arguments) + b"".join(b"$%d\r\n%b\r\n" % (len(text), text) for text in arguments)


def chained_digest(rounds: int) -> bytes:
    """BURN's answer, from its description: that many SHA-256, each of the one before, starting from 32 zero bytes."""
    digest = bytes.fromhex("00" * 32)
    while rounds:
        digest = hashlib.new("sha256", digest).digest()
        rounds -= 1
    return digest.hex().encode()


def blob(size: int) -> bytes:
    """BLOB's answer, from its description: the printable characters from space on, over and over."""
    return bytes(0x20 + index % 95 for index in range(size))


# Recorded from redis-server 7.0.15.
BAD_NAME = b"-ERR Client names cannot contain spaces, newlines or special characters.\r\n"
NO_PROTOCOL = b"-NOPROTO unsupported protocol version\r\n"
NO_INTEGER = b"-ERR Protocol version is not an integer or out of range\r\n"
NO_INDEX = b"-ERR value is out of range, value must between -2147483648 and 2147483647\r\n"
WRONG_PASSWORD = b"-WRONGPASS invalid username-password pair or user is disabled.\r\n"

ANSWERS = {
    "ping": (b"PING\r\n", b"+PONG\r\n"),
    "ping-message": (array(b"PING", b"a b"), b"$3\r\na b\r\n"),
    "ping-arity": (b"PING a b\r\n", b"-ERR wrong number of arguments for 'ping' command\r\n"),
    "echo": (array(b"ECHO", b"x"), b"$1\r\nx\r\n"),
    "echo-none": (b"ECHO\r\n", b"-ERR wrong number of arguments for 'echo' command\r\n"),
    "echo-many": (b"echo a b\r\n", b"-ERR wrong number of arguments for 'echo' command\r\n"),
    "unknown": (b"GET key\r\n", b"-ERR unknown command 'GET'\r\n"),
    "unknown-long": (b"x" * 100 + b"\n", b"-ERR unknown command '" + b"x" * 64 + b"'\r\n"),
    "sleep-none": (b"SLEEP\r\n", b"-ERR wrong number of arguments for 'sleep' command\r\n"),
    "sleep-over": (b"sleep 60001\r\n", b"-ERR SLEEP takes 0 to 60000 ms, not '60001'\r\n"),
    "sleep-negative": (b"SLEEP -1\r\n", b"-ERR SLEEP takes 0 to 60000 ms, not '-1'\r\n"),
    "sleep-fraction": (b"SLEEP 0.5\r\n", b"-ERR SLEEP takes 0 to 60000 ms, not '0.5'\r\n"),
    "sleep-nan": (b"SLEEP nan\r\n", b"-ERR SLEEP takes 0 to 60000 ms, not 'nan'\r\n"),
    "burn-over": (b"BURN 10000001\r\n", b"-ERR BURN takes 0 to 10000000 rounds, not '10000001'\r\n"),
    "burn-arity": (b"BURN 1 2\r\n", b"-ERR wrong number of arguments for 'burn' command\r\n"),
    "blob-over": (b"BLOB 67108865\r\n", b"-ERR BLOB takes 0 to 67108864 bytes, not '67108865'\r\n"),
    "blob-endless": (
        b"BLOB " + b"9" * 5000 + b"\n",
        b"-ERR BLOB takes 0 to 67108864 bytes, not '" + b"9" * 64 + b"'\r\n",
    ),
    "blob-empty": (b"BLOB 0\r\n", b"$0\r\n\r\n"),
    "blob-none": (b"BLOB\r\n", b"-ERR wrong number of arguments for 'blob' command\r\n"),
    "command-count": (b"COMMAND COUNT\r\n", b":17\r\n"),
    "command-docs": (b"COMMAND DOCS PING\r\n", b"*0\r\n"),
    "config-get": (b"CONFIG GET save\r\n", b"*2\r\n$4\r\nsave\r\n$0\r\n\r\n"),
    "config-get-two": (
        b"config get appendonly SAVE\r\n",
        b"*4\r\n$10\r\nappendonly\r\n$2\r\nno\r\n$4\r\nsave\r\n$0\r\n\r\n",
    ),
    "config-get-unknown": (b"CONFIG GET maxmemory\r\n", b"*0\r\n"),
    "config-get-databases": (b"CONFIG GET databases\r\n", b"*2\r\n$9\r\ndatabases\r\n$1\r\n1\r\n"),
    "config-set": (b"CONFIG SET save x\r\n", b"-ERR only CONFIG GET is known here\r\n"),
    "config-none": (b"CONFIG\r\n", b"-ERR wrong number of arguments for 'config' command\r\n"),
    "client-setname": (b"CLIENT SETNAME me\r\n", b"+OK\r\n"),
    "client-setinfo": (b"CLIENT SETINFO lib-name redis-py\r\n", b"+OK\r\n"),
    "client-id": (b"CLIENT ID\r\n", b":1\r\n"),
    "client-getname": (b"CLIENT GETNAME\r\n", b"$-1\r\n"),
    "client-none": (b"CLIENT\r\n", b"-ERR wrong number of arguments for 'client' command\r\n"),
    "client-unknown": (b"CLIENT KILL x\r\n", b"-ERR unknown subcommand of CLIENT\r\n"),
    "client-setname-again": (
        b"CLIENT SETNAME a\nCLIENT SETNAME b\nCLIENT GETNAME\nCLIENT SETNAME ''\nCLIENT GETNAME\n",
        b"+OK\r\n+OK\r\n$1\r\nb\r\n+OK\r\n$-1\r\n",
    ),
    "client-setname-first-and-last-character": (b"CLIENT SETNAME !~\nCLIENT GETNAME\n", b"+OK\r\n$2\r\n!~\r\n"),
    "client-setname-blank": (b"CLIENT SETNAME 'a b'\n", BAD_NAME),
    "client-setname-delete": (b"CLIENT SETNAME a\x7f\n", BAD_NAME),
    "client-setname-at-its-limit": (
        b"CLIENT SETNAME " + b"x" * 64 + b"\nCLIENT GETNAME\n",
        b"+OK\r\n$64\r\n" + b"x" * 64 + b"\r\n",
    ),
    "client-setname-over-its-limit": (
        b"CLIENT SETNAME " + b"x" * 65 + b"\nCLIENT GETNAME\n",
        b"-ERR Client names cannot be longer than 64 bytes here\r\n$-1\r\n",
    ),
    "client-setname-none": (b"CLIENT SETNAME\n", b"-ERR unknown subcommand of CLIENT\r\n"),
    "config-get-none": (b"CONFIG GET\r\n", b"-ERR only CONFIG GET is known here\r\n"),
    "hello-4": (b"HELLO 4\r\n", NO_PROTOCOL),
    "hello-1": (b"HELLO 1\r\n", NO_PROTOCOL),
    "hello-largest": (b"HELLO 9223372036854775807\r\n", NO_PROTOCOL),
    "hello-smallest": (b"HELLO -9223372036854775808\r\n", NO_PROTOCOL),
    "hello-larger": (b"HELLO 9223372036854775808\r\n", NO_INTEGER),
    "hello-smaller": (b"HELLO -9223372036854775809\r\n", NO_INTEGER),
    "hello-minus-zero": (b"HELLO -0\r\n", NO_INTEGER),
    "hello-leading-zero": (b"HELLO 03\r\n", NO_INTEGER),
    "hello-plus": (b"HELLO +3\r\n", NO_INTEGER),
    "hello-word": (b"HELLO three\r\n", NO_INTEGER),
    "hello-wrong-user": (b"HELLO 3 AUTH someone wrong\r\nCLIENT GETNAME\r\n", WRONG_PASSWORD + b"$-1\r\n"),
    "hello-user-in-lower-case-only": (b"hello 3 auth Default x\r\n", WRONG_PASSWORD),
    "hello-auth-one-word": (b"HELLO 2 AUTH default\r\n", b"-ERR Syntax error in HELLO option 'AUTH'\r\n"),
    "hello-setname-no-word": (b"HELLO 2 SETNAME\r\n", b"-ERR Syntax error in HELLO option 'SETNAME'\r\n"),
    "hello-option": (b"HELLO 2 FOO a b\r\n", b"-ERR Syntax error in HELLO option 'FOO'\r\n"),
    "hello-option-alone": (b"HELLO 2 FOO\r\n", b"-ERR Syntax error in HELLO option 'FOO'\r\n"),
    "hello-option-last": (b"HELLO 2 AUTH default x FOO\r\n", b"-ERR Syntax error in HELLO option 'FOO'\r\n"),
    "hello-setname-wrong": (b"HELLO 3 SETNAME 'a b'\r\nCLIENT GETNAME\r\n", BAD_NAME + b"$-1\r\n"),
    "select-0": (b"SELECT 0\r\n", b"+OK\r\n"),
    "select-1": (b"SELECT 1\r\n", b"-ERR DB index is out of range\r\n"),
    "select-largest": (b"SELECT 2147483647\r\n", b"-ERR DB index is out of range\r\n"),
    "select-smallest": (b"SELECT -2147483648\r\n", b"-ERR DB index is out of range\r\n"),
    "select-larger": (b"SELECT 2147483648\r\n", NO_INDEX),
    "select-smaller": (b"SELECT -2147483649\r\n", NO_INDEX),
    "select-word": (b"SELECT x\r\n", b"-ERR value is not an integer or out of range\r\n"),
    "select-zeros": (b"SELECT 00\r\n", b"-ERR value is not an integer or out of range\r\n"),
    "auth-password": (
        b"AUTH x\r\n",
        b"-ERR AUTH <password> called without any password configured for the default user. "
        b"Are you sure your configuration is correct?\r\n",
    ),
    "auth-default": (b"AUTH default bob\r\n", b"+OK\r\n"),
    "auth-other": (b"AUTH bob default\r\n", WRONG_PASSWORD),
    "auth-many": (b"AUTH a b c\r\n", b"-ERR syntax error\r\n"),
    "reset": (b"CLIENT SETNAME a\nRESET\nCLIENT GETNAME\n", b"+OK\r\n+RESET\r\n$-1\r\n"),
    "number-of-nineteen-digits": (b"BLOB 0000000000000000001\n", b"$1\r\n \r\n"),
    "number-of-twenty-digits": (
        b"BLOB 00000000000000000001\n",
        b"-ERR BLOB takes 0 to 67108864 bytes, not '00000000000000000001'\r\n",
    ),
}


@pytest.mark.parametrize(("stream", "expected"), ANSWERS.values(), ids=ANSWERS)
def test_answer(exchange: Exchange, stream: bytes, expected: bytes) -> None:
    outcome = exchange(stream)
    assert outcome.sent == expected
    assert not outcome.closed


def test_hello_describes_the_server(exchange: Exchange) -> None:
    for request in (b"HELLO\r\n", b"HELLO 2\r\n", b"HELLO 2 SETNAME me\r\n"):
        reply = exchange(request).sent
        assert reply.startswith(b"*14\r\n$6\r\nserver\r\n$9\r\nsocketlab\r\n")
        assert b"$5\r\nproto\r\n:2\r\n" in reply


def test_hello_takes_a_user_and_a_name(exchange: Exchange) -> None:
    sent = exchange(b"HELLO 2 setname me AUTH default x\r\nCLIENT GETNAME\r\nHELLO\r\nCLIENT GETNAME\r\n").sent
    assert sent.count(b"$9\r\nsocketlab\r\n") == 2
    assert sent.count(b"$2\r\nme\r\n") == 2  # the second HELLO changes nothing


def test_refused_hello_changes_nothing(exchange: Exchange) -> None:
    refused = exchange(b"HELLO 3 SETNAME me AUTH bob x\r\nCLIENT GETNAME\r\n").sent
    assert refused == WRONG_PASSWORD + b"$-1\r\n"


def test_reset_goes_back_to_the_first_protocol(exchange: Exchange) -> None:
    assert exchange(b"HELLO 3\r\nCLIENT GETNAME\r\n").sent.endswith(b"_\r\n")
    assert exchange(b"HELLO 3\r\nRESET\r\nCLIENT GETNAME\r\n").sent.endswith(b"+RESET\r\n$-1\r\n")


def test_client_list_tells_name_and_protocol(exchange: Exchange) -> None:
    text = b"id=1 addr=192.0.2.1:7 name=me db=0 resp=2 user=default\n"
    reply = exchange(b"CLIENT SETNAME me\r\nCLIENT LIST\r\n", peer="192.0.2.1:7").sent
    assert reply == b"+OK\r\n$%d\r\n%b\r\n" % (len(text), text)


def test_hello_3_changes_how_maps_and_nulls_are_written(exchange: Exchange) -> None:
    asked = b"CONFIG GET save\r\nCLIENT GETNAME\r\n"
    reply = exchange(b"HELLO 3\r\n" + asked + b"HELLO 2\r\n" + asked + b"PING\r\n").sent
    assert reply.startswith(b"%7\r\n$6\r\nserver\r\n")
    _, _, changed = reply.partition(b"$5\r\nproto\r\n:3\r\n")
    third, _, second = changed.partition(b"*14\r\n")
    assert third.endswith(b"%1\r\n$4\r\nsave\r\n$0\r\n\r\n_\r\n")
    assert second.endswith(b"*2\r\n$4\r\nsave\r\n$0\r\n\r\n$-1\r\n+PONG\r\n")


def test_command_lists_every_command(exchange: Exchange) -> None:
    reply = exchange(b"COMMAND\r\n").sent
    assert reply.startswith(b"*17\r\n*10\r\n$4\r\nping\r\n:-1\r\n")


def test_info_holds_the_server_the_peer_and_the_count(exchange: Exchange) -> None:
    reply = exchange(b"PING\r\nINFO\r\n", peer="192.0.2.1:4711", info=lambda: "# Server\r\nmodel:plain_socket\r\n").sent
    text = (
        b"# Server\r\nredis_version:7.0.0\r\nredis_mode:standalone\r\nmodel:plain_socket\r\n\r\n"
        b"# Persistence\r\nloading:0\r\n\r\n"
        b"# Replication\r\nrole:master\r\nconnected_slaves:0\r\n\r\n"
        b"# Cluster\r\ncluster_enabled:0\r\n\r\n"
        b"# Connection\r\npeer:192.0.2.1:4711\r\nrequests:2\r\n"
    )
    assert reply == b"+PONG\r\n$%d\r\n%b\r\n" % (len(text), text)


SERVER_AND_LIMITS = "# Server\r\nmodel:x # y\r\n# Limits\r\nbulk:9\r\n"
SECTIONS = {
    b"INFO SERVER": b"# Server\r\nredis_version:7.0.0\r\nredis_mode:standalone\r\nmodel:x # y\r\n",
    b"INFO limits": b"# Limits\r\nbulk:9\r\n",
    b"INFO limits Cluster": b"# Cluster\r\ncluster_enabled:0\r\n\r\n# Limits\r\nbulk:9\r\n",
    b"INFO nothing": b"",
}


@pytest.mark.parametrize(("asked", "text"), SECTIONS.items())
def test_info_holds_the_sections_that_are_asked_for(exchange: Exchange, asked: bytes, text: bytes) -> None:
    reply = exchange(asked + b"\r\n", info=lambda: SERVER_AND_LIMITS).sent
    assert reply == b"$%d\r\n%b\r\n" % (len(text), text)


@pytest.mark.parametrize("word", [b"all", b"DEFAULT", b"everything", b"nothing all"])
def test_info_holds_all_sections_when_all_are_asked_for(exchange: Exchange, word: bytes) -> None:
    reply = exchange(b"INFO " + word + b"\r\n", info=lambda: SERVER_AND_LIMITS).sent
    titles = [b"Server", b"Persistence", b"Replication", b"Cluster", b"Limits", b"Connection"]
    assert re.findall(rb"^# (\w+)", reply, re.MULTILINE) == titles


def test_peer_whose_path_is_not_utf8_can_ask_for_info(exchange: Exchange) -> None:
    peer = b"/run/\xff.sock".decode(errors="surrogateescape")
    assert b"peer:/run/\\udcff.sock\r\n" in exchange(b"INFO\r\n", peer=peer).sent
    assert exchange(b"CLIENT LIST\r\n", peer=peer).sent.startswith(b"$")


def test_quit_is_answered_and_closes(exchange: Exchange) -> None:
    outcome = exchange(b"PING\r\nquit\r\nPING\r\n")
    assert outcome.sent == b"+PONG\r\n+OK\r\n"
    assert outcome.closed


@pytest.mark.parametrize("milliseconds", [0, 1, 250, 60_000])
def test_sleep_waits_and_then_says_ok(exchange: Exchange, milliseconds: int) -> None:
    outcome = exchange(b"SLEEP %d\r\n" % milliseconds)
    assert outcome.waits == [milliseconds / 1000]
    assert outcome.sent == b"+OK\r\n"


@pytest.mark.parametrize("rounds", [0, 1, 2, 1000])
def test_burn_answers_the_digest(exchange: Exchange, rounds: int) -> None:
    outcome = exchange(b"BURN %d\r\n" % rounds)
    assert outcome.rounds == [rounds]
    assert outcome.sent == b"$64\r\n%b\r\n" % chained_digest(rounds)


@pytest.mark.parametrize("size", [1, 94, 95, 96, 1000, SEND_SIZE, SEND_SIZE + 1, 5 * SEND_SIZE - 7])
def test_blob_answers_the_pattern(exchange: Exchange, size: int) -> None:
    assert exchange(b"BLOB %d\r\n" % size).sent == b"$%d\r\n%b\r\n" % (size, blob(size))


def test_work_is_limited_as_the_limits_say(exchange: Exchange) -> None:
    limits = Limits(sleep_ms=5, burn=6, blob=7)
    outcome = exchange(b"SLEEP 5\nBURN 6\nBLOB 7\nSLEEP 6\nBURN 7\nBLOB 8\n", limits=limits)
    assert outcome.waits == [0.005]
    assert outcome.rounds == [6]
    assert outcome.sent == b"+OK\r\n$64\r\n%b\r\n$7\r\n%b\r\n%b" % (
        chained_digest(6),
        blob(7),
        b"-ERR SLEEP takes 0 to 5 ms, not '6'\r\n"
        b"-ERR BURN takes 0 to 6 rounds, not '7'\r\n"
        b"-ERR BLOB takes 0 to 7 bytes, not '8'\r\n",
    )


def test_what_precedes_work_is_sent_before_it_begins() -> None:
    connection = Connection("command")
    connection.receive_data(b"PING\nSLEEP 10\nPING\nBURN 1\nPING\n")
    assert connection.next_event() == Send(b"+PONG\r\n")
    assert connection.next_event() == Wait(0.01)
    assert connection.next_event() == Send(b"+OK\r\n+PONG\r\n")
    assert connection.next_event() == Compute(1)
    connection.receive_digest(b"digest")
    assert connection.next_event() == GiveWay()
    assert connection.next_event() == Send(b"$6\r\ndigest\r\n+PONG\r\n")
    assert connection.next_event() is None


def test_blob_of_one_send_is_sent_at_once() -> None:
    connection = Connection("command")
    connection.receive_data(b"BLOB %d\n" % SEND_SIZE)
    assert connection.next_event() == Send(b"$65536\r\n%b\r\n" % blob(65536))
    assert connection.next_event() is None


def test_large_blob_is_sent_in_few_parts() -> None:
    """689 times the 95 characters, 65,455 bytes, is the most that fits into a Send; fifteen of these are 981,825."""
    connection = Connection("command")
    connection.receive_data(b"BLOB 1000000\n")
    sizes = [len(data) for data in sends(connection)]
    assert sizes == [len(b"$1000000\r\n"), *[65_455] * 15, 1_000_000 - 981_825, len(b"\r\n")]


def test_large_blob_is_streamed_from_one_pattern() -> None:
    connection = Connection("command")
    connection.receive_data(b"BLOB 1000000\nPING\n")
    pieces = list(sends(connection))
    assert max(map(len, pieces)) <= SEND_SIZE
    assert len(set(map(id, pieces[1:-2]))) == 1  # the same object, again and again
    assert b"".join(pieces) == b"$1000000\r\n%b\r\n+PONG\r\n" % blob(1_000_000)


def test_digest_must_be_received_before_the_next_event() -> None:
    connection = Connection("command")
    connection.receive_data(b"BURN 1\n")
    assert connection.next_event() == Compute(1)
    with pytest.raises(AdapterError, match="digest"):
        connection.next_event()
    connection.receive_digest(b"x")
    assert connection.next_event() == Send(b"$1\r\nx\r\n")
    with pytest.raises(AdapterError, match="without a Compute"):
        connection.receive_digest(b"x")


@pytest.mark.parametrize("ending", ["receive_eof", "drain"])
def test_what_was_received_in_full_is_answered_before_the_end(ending: str) -> None:
    connection = Connection("command")
    connection.receive_data(b"PING\nSLEEP 10\nBURN 1\nBLOB 100000\nPING\n*1\r\n$4\r\nPI")
    getattr(connection, ending)()
    sent = b""
    events = []
    while not isinstance(event := connection.next_event(), Close):
        events.append(type(event))
        if isinstance(event, Send):
            sent += event.data
        elif isinstance(event, Compute):
            connection.receive_digest(event.run())
    assert events[:4] == [Send, Wait, Send, Compute]
    assert sent == b"+PONG\r\n+OK\r\n$64\r\n%b\r\n$100000\r\n%b\r\n+PONG\r\n" % (chained_digest(1), blob(100_000))
    assert connection.next_event() == Close()


def test_no_part_of_a_request_is_answered_at_the_end() -> None:
    for part in (b"PING", b"*1\r\n", b"*1\r\n$4\r\nPING", b"*1\r\n$4\r\nPING\r", b"*"):
        connection = Connection("command")
        connection.receive_data(part)
        connection.receive_eof()
        assert connection.next_event() == Close()
