"""The service command: RESP2, work, and invalid requests."""

import hashlib
import re
import select
import selectors
import time
from contextlib import ExitStack
from typing import Any

import pytest
import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from lab.clients.call import ReplyReader, pack, read_resp
from lab.clients.reference import blob
from loadtests.sockets.connection import BlockingConnection
from loadtests.sockets.tls import ca_file, certificate_file
from services.protocol import Transport
from tests.support.reading import read_all

stream = pytest.mark.service("command", "stream")
datagram = pytest.mark.service("command", "datagram")
# This lab's additions: SLEEP, BURN, BLOB, INFO's lines, error texts, limits, and the staged close.
ours = pytest.mark.ours


def once(*values):
    """Return a case that the shared protocol code decides. It runs for one model only."""
    return pytest.param(*values, marks=pytest.mark.once)


def burn(rounds: int) -> bytes:
    digest = b"\0" * 32
    for _ in range(rounds):
        digest = hashlib.new("sha256", digest).digest()
    return digest.hex().encode()


def ask(link: BlockingConnection, *words: bytes) -> object:
    link.send(pack(words))
    value, _ = read_resp(link, ReplyReader())
    return value


@stream
@pytest.mark.parametrize(
    ("words", "reply"),
    [
        once((b"PING",), b"PONG"),
        once((b"ping",), b"PONG"),
        once((b"PING", b"hello"), b"hello"),
        once((b"ECHO", b""), b""),
        ((b"ECHO", bytes(range(256))), bytes(range(256))),
        ((b"ECHO", b"x" * 500_000), b"x" * 500_000),
    ],
    ids=lambda value: (
        value[0].decode() + "".join(f"-{len(word)}" for word in value[1:]) if type(value) is tuple else ""
    ),
)
def test_request_is_answered(target, words: tuple[bytes, ...], reply: bytes) -> None:
    with target.connect() as link:
        assert ask(link, *words) == reply
        assert ask(link, b"PING") == b"PONG"  # the connection stays open


@stream
@ours
@pytest.mark.parametrize(
    ("words", "reply"),
    [
        ((b"SLEEP", b"1"), b"OK"),
        once((b"BURN", b"0"), b"0" * 64),
        ((b"BURN", b"100"), burn(100)),
        once((b"BLOB", b"0"), b""),
        once((b"BLOB", b"65536"), blob(65536)),
        ((b"BLOB", b"200000"), blob(200_000)),
    ],
    ids=lambda value: (
        value[0].decode() + "".join(f"-{len(word)}" for word in value[1:]) if type(value) is tuple else ""
    ),
)
def test_work_is_done(target, words: tuple[bytes, ...], reply: bytes) -> None:
    with target.connect() as link:
        assert ask(link, *words) == reply
        assert ask(link, b"PING") == b"PONG"  # the connection stays open


@stream
def test_inline_commands_are_answered(target) -> None:
    with target.connect() as link:
        link.send(b'PING\r\n\r\n  echo  "a \\x41\\"b"\nquit\n')
        assert read_all(link) == b'+PONG\r\n$5\r\na A"b\r\n+OK\r\n'


@stream
@ours
def test_info_has_the_server_and_its_limits(target) -> None:
    with target.connect() as link:
        text = ask(link, b"INFO")
    assert isinstance(text, bytes)
    pairs = dict(line.split(":", 1) for line in text.decode().splitlines() if ":" in line)
    assert {"model", "process_id", "bulk", "idle", "connections"} <= set(pairs)


@stream
@pytest.mark.capability("half-close")
def test_pipeline_is_answered_in_order_before_the_close(target) -> None:
    """Five thousand requests and a half-close: each is answered once and in order."""
    requests = [pack([b"ECHO", b"%d" % number]) for number in range(5000)]
    with target.connect() as link:
        link.send(b"".join(requests))
        link.half_close()
        replies = read_all(link)
    assert replies == b"".join(b"$%d\r\n%d\r\n" % (len(str(number)), number) for number in range(5000))


@stream
@ours
def test_work_in_a_pipeline_is_answered_in_order(target) -> None:
    with target.connect() as link:
        link.send(b"PING\r\nSLEEP 5\r\nBURN 3\r\nBLOB 70000\r\nPING\r\n")
        link.half_close()
        expected = b"+PONG\r\n+OK\r\n$64\r\n%b\r\n$70000\r\n%b\r\n+PONG\r\n" % (burn(3), blob(70_000))
        assert read_all(link) == expected


@stream
def test_request_in_pieces_is_answered(target, unit: float) -> None:
    with target.connect() as link:
        for piece in (b"*2\r", b"\n$4\r\nEC", b"HO\r\n$1", b"0\r\n01234", b"56789\r", b"\nPI", b"NG\r\n"):
            link.send(piece)
            time.sleep(unit / 20)  # so that the server reads the pieces separately
        link.send(b"QUIT\r\n")
        assert read_all(link) == b"$10\r\n0123456789\r\n+PONG\r\n+OK\r\n"


@stream
def test_quit_is_answered_and_closes(target) -> None:
    with target.connect() as link:
        link.send(b"PING\r\nQUIT\r\nPING\r\n")
        assert read_all(link) == b"+PONG\r\n+OK\r\n"


@stream
def test_unknown_command_is_an_error_that_keeps_the_connection(target) -> None:
    with target.connect() as link:
        link.send(b"NOPE x\r\n")
        error, is_error = read_resp(link, ReplyReader())
        assert is_error
        assert str(error).startswith("ERR unknown command 'NOPE'")
        assert ask(link, b"PING") == b"PONG"


@stream
def test_invalid_request_is_an_error_that_closes(target) -> None:
    with target.connect() as link:
        link.send(b"PING\r\n*1\r\n$4x\r\n")
        said = read_all(link)
    assert re.fullmatch(rb"\+PONG\r\n-ERR Protocol error: [^\r\n]+\r\n", said)


@stream
@ours
@pytest.mark.parametrize(
    ("request_", "error"),
    [
        (b"NOPE x\r\n", b"unknown command 'NOPE'"),
        once(b"*1\r\n$4\r\n\x00\xff\r\n\r\n", b"unknown command '\\x00\\xff\\r\\n'"),
        once(b"ECHO\r\n", b"wrong number of arguments for 'echo' command"),
        once(b"SLEEP 60001\r\n", b"SLEEP takes 0 to 60000 ms, not '60001'"),
        once(b"SLEEP -1\r\n", b"SLEEP takes 0 to 60000 ms, not '-1'"),
        once(b"BURN ten\r\n", b"BURN takes 0 to 10000000 rounds, not 'ten'"),
        once(b"BLOB 67108865\r\n", b"BLOB takes 0 to 67108864 bytes, not '67108865'"),
        once(b"BLOB " + b"9" * 5000 + b"\r\n", b"BLOB takes 0 to 67108864 bytes"),
    ],
    ids=["unknown", "binary-name", "no-argument", "sleep-limit", "negative", "word", "blob-limit", "long-number"],
)
def test_command_error_keeps_the_connection(target, request_: bytes, error: bytes) -> None:
    with target.connect() as link:
        link.send(request_ + b"PING\r\n")
        link.half_close()
        reply = read_all(link)
    assert reply.startswith(b"-ERR ")
    assert error in reply
    assert reply.endswith(b"\r\n+PONG\r\n")
    assert reply.count(b"\r\n") == 2


@stream
@ours
@pytest.mark.parametrize(
    ("request_", "error"),
    [
        once(b"x" * 70_000, b"line is longer than 65536 bytes"),
        once(b"*2000\r\n", b"array of 2000 arguments is over the limit of 1024"),
        (b"*1\r\n$1048577\r\n", b"bulk of 1048577 bytes is over the limit of 1048576"),
        once(b"*-7\r\n", b"array length '-7' is not a number"),
        once(b"*1\r\n$-7\r\n", b"bulk length '-7' is not a number"),
        once(b"*1\r\n$4x\r\n", b"bulk length '4x' is not a number"),
        once(b"*1\r\nPING\r\n", b"expected '$', got 'P'"),
        once(b"*1\r\n$4\r\nPINGxx", b"a bulk of 4 bytes is not followed by CR LF"),
        once(b'ECHO "unbalanced\r\n', b"unbalanced quotes"),
    ],
    ids=["line", "array", "bulk", "negative-array", "negative-bulk", "letters", "no-bulk", "no-end", "quotes"],
)
def test_protocol_error_is_answered_and_closes(target, request_: bytes, error: bytes) -> None:
    """Another megabyte is in flight when the server gives up. A reset must not destroy the error reply."""
    with target.connect() as link:
        link.send(b"PING\r\n" + request_)
        link.socket.setblocking(False)
        try:
            for _ in range(16):
                link.send_some(bytes(65536))
        except BlockingIOError:
            pass
        except (BrokenPipeError, ConnectionResetError):
            # A Unix socket reports at once that the server reads no more; the replies can still be read.
            assert target.transport.is_unix
        reply = read_all(link)
    assert reply.startswith(b"+PONG\r\n-ERR Protocol error: ")
    assert error in reply
    assert reply.endswith(b"\r\n")
    with target.connect() as link:
        assert ask(link, b"PING") == b"PONG"


@stream
@pytest.mark.capability("overlap")
def test_bad_client_affects_no_other(target, client_timeout: float) -> None:
    with target.connect() as bad, target.connect(client_timeout) as endless, target.connect(client_timeout) as good:
        bad.send(b"*1\r\n$-1\r\n")
        endless.send(b"*1\r\n$1000000\r\n" + b"x" * 1000)  # a bulk that never ends
        for _ in range(10):
            assert ask(good, b"ECHO", b"still here") == b"still here"
        assert read_all(bad).startswith(b"-ERR")


@stream
@ours
@pytest.mark.capability("overlap")
def test_unread_pipeline_blocks_no_other_client(target, client_timeout: float) -> None:
    with target.connect() as silent:
        silent.send(b"BLOB 10000000\r\n" * 100)
        with target.connect(client_timeout) as other:
            assert ask(other, b"PING") == b"PONG"


def order_of_answers(target, unit: float, wanted: list[int]) -> list[int]:
    """Start three SLEEPs, each shorter than the one before, on three connections; return the order of the answers.

    If the server is sequential, the replies come in the order of the requests. If the SLEEPs overlap, the order is
    reversed, which no sequential server can do. Any other order than the wanted one may mean that a busy machine
    started them too late: then they are longer. After the second attempt, that is believed of a mixed order only.
    """
    order = _start_sleeps(target, 400 * unit)
    if order != wanted:
        order = _start_sleeps(target, 1500 * unit)
    return order if order in ([0, 1, 2], [2, 1, 0]) else _start_sleeps(target, 15_000 * unit)


def _start_sleeps(target, shorter: float) -> list[int]:
    count = 3
    order = []
    with ExitStack() as stack:
        waiting = {}
        for number in range(count):
            link = stack.enter_context(target.connect(30))
            link.send(b"SLEEP %d\r\nQUIT\r\n" % (shorter * (count - number)))
            waiting[link] = number
        with selectors.DefaultSelector() as selector:
            for link in waiting:
                selector.register(link.socket, selectors.EVENT_READ, link)
            while waiting:
                for key, _ in selector.select():
                    assert key.data.receive().startswith(b"+OK\r\n")
                    selector.unregister(key.fileobj)
                    order.append(waiting.pop(key.data))
                    key.data.close()
    return order


@stream
@ours
@pytest.mark.capability("overlap")
def test_sleeping_clients_overlap(target, unit: float) -> None:
    assert order_of_answers(target, unit, [2, 1, 0]) == [2, 1, 0]


@stream
@ours
@pytest.mark.limit("overlap")
def test_sequential_model_serves_clients_in_order(target, unit: float) -> None:
    assert order_of_answers(target, unit, [0, 1, 2]) == [0, 1, 2]


@stream
@pytest.mark.capability("overlap")
def test_fifty_clients_are_served_at_the_same_time(target, client_timeout: float) -> None:
    with ExitStack() as stack:
        links = [stack.enter_context(target.connect(client_timeout)) for _ in range(50)]
        for number, link in enumerate(links):
            link.send(pack([b"ECHO", b"%d" % number]))
        for number, link in reversed(list(enumerate(links))):
            assert read_resp(link, ReplyReader()) == (b"%d" % number, False)


# Recorded from redis-server 7.0.15; 8.0.2 gives the same replies.
NO_PASSWORD = (
    b"-ERR AUTH <password> called without any password configured for the default user. "
    b"Are you sure your configuration is correct?\r\n"
)
WRONG_PASSWORD = b"-WRONGPASS invalid username-password pair or user is disabled.\r\n"
ABORTED = b"-EXECABORT Transaction discarded because of previous errors.\r\n"
REDIS_REPLIES = {
    b"SELECT 0\nSELECT 1\nSELECT x\n": (
        b"+OK\r\n-ERR DB index is out of range\r\n-ERR value is not an integer or out of range\r\n"
    ),
    b"AUTH x\nAUTH default x\n": NO_PASSWORD + b"+OK\r\n",
    # On its own connection: after a successful AUTH, redis-server 8.0.2 does not answer it.
    b"AUTH bob x\n": WRONG_PASSWORD,
    b"HELLO 3 AUTH someone wrong\nHELLO 4\nHELLO x\n": (
        WRONG_PASSWORD
        + b"-NOPROTO unsupported protocol version\r\n"
        + b"-ERR Protocol version is not an integer or out of range\r\n"
    ),
    b"CLIENT GETNAME\nCLIENT SETNAME me\nCLIENT GETNAME\nRESET\nCLIENT GETNAME\n": (
        b"$-1\r\n+OK\r\n$2\r\nme\r\n+RESET\r\n$-1\r\n"
    ),
    b"MULTI\nPING\nECHO a\nEXEC\nPING\n": b"+OK\r\n+QUEUED\r\n+QUEUED\r\n*2\r\n+PONG\r\n$1\r\na\r\n+PONG\r\n",
    b"EXEC\nDISCARD\n": b"-ERR EXEC without MULTI\r\n-ERR DISCARD without MULTI\r\n",
    b"MULTI\nMULTI\nPING\nDISCARD\nPING\n": (
        b"+OK\r\n-ERR MULTI calls can not be nested\r\n+QUEUED\r\n+OK\r\n+PONG\r\n"
    ),
    b"MULTI\nECHO\nPING\nEXEC\nPING\n": (
        b"+OK\r\n-ERR wrong number of arguments for 'echo' command\r\n+QUEUED\r\n" + ABORTED + b"+PONG\r\n"
    ),
    b"MULTI\nEXEC x\nEXEC\n": (
        b"+OK\r\n-EXECABORT Transaction discarded because of: wrong number of arguments for 'exec' command\r\n"
        b"-ERR EXEC without MULTI\r\n"
    ),
    b"EXEC x\n": b"-EXECABORT Transaction discarded because of: wrong number of arguments for 'exec' command\r\n",
}
# These end the connection.
REDIS_REPLIES_THAT_CLOSE = {
    b"MULTI\nPING\nQUIT\nEXEC\n": b"+OK\r\n+QUEUED\r\n+OK\r\n",
    b"POST / HTTP/1.1\r\nHost: x\r\n\r\nPING\r\n": b"",
    b"*1\r\n$5\r\nhOst:\r\nPING\r\n": b"",
}


@stream
@pytest.mark.redis
def test_replies_match_redis(target) -> None:
    ended = {sent + b"QUIT\n": wanted + b"+OK\r\n" for sent, wanted in REDIS_REPLIES.items()}
    for sent, wanted in {**ended, **REDIS_REPLIES_THAT_CLOSE}.items():
        with target.connect() as link:
            link.send(sent)
            assert read_all(link) == wanted, sent


@stream
@pytest.mark.redis
def test_http_post_closes_the_connection(target) -> None:
    """The client neither half-closes nor stops sending."""
    with target.connect() as link:
        link.send(b"POST / HTTP/1.1\r\nHost: localhost\r\n\r\nECHO never\r\n")
        assert read_all(link) == b""


@stream
@ours
@pytest.mark.parametrize(
    ("said", "protocol"),
    [
        once(b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc", b"TLS"),
        (b"GET / HTTP/1.1\r\n", b"HTTP"),
        once(b"EHLO x\r\n", b"SMTP"),
    ],
    ids=["tls", "http", "smtp"],
)
def test_client_of_another_protocol_gets_an_error_and_is_closed(target, said: bytes, protocol: bytes) -> None:
    with target.connect() as link:
        link.send(said)
        assert read_all(link) == b"-ERR Protocol error: this is %b, and this port speaks RESP\r\n" % protocol


@stream
@ours
def test_work_in_a_transaction_is_done_at_exec(target) -> None:
    with target.connect() as link:
        link.send(b"MULTI\nSLEEP 5\nBURN 3\nBLOB 70000\nPING\nEXEC\n")
        link.half_close()
        done = b"*4\r\n+OK\r\n$64\r\n%b\r\n$70000\r\n%b\r\n+PONG\r\n" % (burn(3), blob(70_000))
        assert read_all(link) == b"+OK\r\n" + b"+QUEUED\r\n" * 4 + done


def redis_client(target, **settings: Any) -> redis.Redis:
    where = target.address
    options: dict[str, Any] = {"host": where.host, "port": where.port}
    if where.transport.is_unix:
        options = {"unix_socket_path": where.path}
    if where.transport is Transport.TLS:
        options |= {"ssl": True, "ssl_ca_certs": ca_file()}
        options |= {"ssl_certfile": certificate_file(), "ssl_keyfile": certificate_file()}
    # No retries: with redis-py's default, a refusal takes ten seconds.
    return redis.Redis(**options, socket_timeout=10, retry=Retry(NoBackoff(), 0), **settings)


@stream
def test_redis_py_is_served(target) -> None:
    with redis_client(target) as client:
        assert client.ping()
        assert client.echo("hello") == b"hello"
        pipeline = client.pipeline(transaction=False)
        for number in range(100):
            pipeline.echo(number)
        assert pipeline.execute() == [b"%d" % number for number in range(100)]
        assert client.config_get("save") == {"save": ""}
        with pytest.raises(redis.ResponseError, match="unknown command"):
            client.execute_command("NOPE")
        client.connection_pool.disconnect()


@stream
@ours
def test_redis_py_gets_work_done(target) -> None:
    with redis_client(target, password="any", protocol=3) as client:  # noqa: S106  # HELLO 3 AUTH default any
        assert client.info()["model"]
        assert client.execute_command("BURN", 10) == burn(10)
        assert client.execute_command("BLOB", 100_000) == blob(100_000)
        assert client.execute_command("SLEEP", 1) == b"OK"
        client.connection_pool.disconnect()


@stream
@pytest.mark.redis
@pytest.mark.parametrize("protocol", [2, 3])
def test_redis_py_with_its_defaults_is_served(target, protocol: int) -> None:
    """Its default pipeline is a transaction; it selects a database, names itself, and reads INFO."""
    with redis_client(target, protocol=protocol, db=0, client_name="me") as client:
        pipeline = client.pipeline()
        for number in range(50):
            pipeline.echo(number)
        assert pipeline.execute() == [b"%d" % number for number in range(50)]
        with pytest.raises(redis.ResponseError, match="unknown command"):
            client.pipeline().ping().execute_command("NOPE").execute()
        assert client.ping()
        assert client.client_getname() in ("me", b"me")
        assert client.client_id() > 0
        assert re.fullmatch(r"\d+\.\d+\.\d+", client.info()["redis_version"])
        assert client.info("server")["redis_version"] == client.info()["redis_version"]
        assert client.info("persistence")["loading"] == 0
        assert client.info("replication")["role"] == "master"
        client.connection_pool.disconnect()


@stream
@ours
@pytest.mark.parametrize(
    ("settings", "message"),
    [
        once({"db": 1}, "DB index is out of range"),
        once({"password": "x", "protocol": 2}, "without any password configured"),
        once({"username": "bob", "password": "x", "protocol": 2}, "invalid username-password pair"),
        ({"username": "bob", "password": "x", "protocol": 3}, "invalid username-password pair"),
    ],
    ids=["database", "password", "user", "user-in-hello"],
)
def test_redis_py_is_refused_as_by_a_redis_without_passwords(target, settings: dict[str, Any], message: str) -> None:
    with redis_client(target, **settings) as client, pytest.raises(redis.RedisError, match=message):
        client.ping()


@datagram
@pytest.mark.parametrize(
    ("data", "reply"),
    [
        (b"PING\r\n", b"+PONG\r\n"),
        (pack([b"ECHO", b"x" * 60_000]), b"$60000\r\n" + b"x" * 60_000 + b"\r\n"),
        (b"PING\r\nSLEEP 2\r\nBURN 2\r\nPING\r\n", b"+PONG\r\n+OK\r\n$64\r\n%b\r\n+PONG\r\n" % burn(2)),
        (b"", b"-ERR the datagram holds no request\r\n"),
        once(b"*2\r\n$4\r\nECHO\r\n$5\r\nhel", b"-ERR Protocol error: the datagram ends inside a request\r\n"),
        once(b"BLOB 65507\r\n", b"-ERR the reply does not fit into a datagram of 65507 bytes\r\n"),
        once(b"NOPE\r\n", b"-ERR unknown command 'NOPE'\r\n"),
        (b"x" * 65_507, b"-ERR Protocol error: the datagram ends inside a request\r\n"),
    ],
    ids=["ping", "echo-60000", "work", "empty", "cut-off", "too-large-a-reply", "unknown", "64-KiB"],
)
def test_datagram_is_a_whole_conversation(target, data: bytes, reply: bytes) -> None:
    with target.connect() as link:
        link.send(data)
        assert link.receive() == reply
        link.send(b"PING\r\n")
        assert link.receive() == b"+PONG\r\n"


@datagram
@pytest.mark.capability("overlap")
def test_sleeping_datagrams_overlap(target, unit: float) -> None:
    # On a busy machine the PING may take longer than the SLEEP: then try one that is longer.
    assert any(overtakes(target, sleep * unit) for sleep in (500, 3000, 15_000))


def overtakes(target, sleep: float) -> bool:
    """Return whether a PING is answered before a SLEEP that was sent earlier."""
    with target.connect(30) as slow, target.connect(30) as quick:
        slow.send(b"SLEEP %d\r\n" % sleep)
        quick.send(b"PING\r\n")
        assert quick.receive() == b"+PONG\r\n"
        is_first = not select.select([slow.socket], [], [], 0)[0]
        assert slow.receive() == b"+OK\r\n"
    return is_first
