"""MULTI, EXEC and DISCARD: what is queued, what makes EXEC refuse, and what may wait."""

import tracemalloc
from collections.abc import Callable

import pytest

from fuzz.oracle import Outcome
from lab.clients.reference import answer
from services.protocol import Close, Compute, Connection, GiveWay, Limits, Send, Wait
from tests.support.events import sends

Exchange = Callable[..., Outcome]

ABORTED = b"-EXECABORT Transaction discarded because of previous errors.\r\n"
NO_MULTI = b"-ERR EXEC without MULTI\r\n"
QUEUED = b"+QUEUED\r\n"

# Each pair was recorded from redis-server 7.0.15, but for the words about an unknown command.
ANSWERS = {
    "empty": (b"MULTI\nEXEC\n", b"+OK\r\n*0\r\n"),
    "two": (b"MULTI\nPING\nECHO a\nEXEC\nPING\n", b"+OK\r\n" + QUEUED * 2 + b"*2\r\n+PONG\r\n$1\r\na\r\n+PONG\r\n"),
    "in-lower-case": (b"multi\nping\nexec\n", b"+OK\r\n" + QUEUED + b"*1\r\n+PONG\r\n"),
    "two-in-a-row": (b"MULTI\nPING\nEXEC\n" * 2, (b"+OK\r\n" + QUEUED + b"*1\r\n+PONG\r\n") * 2),
    "exec-without": (b"EXEC\n", NO_MULTI),
    "discard-without": (b"DISCARD\n", b"-ERR DISCARD without MULTI\r\n"),
    "exec-twice": (b"MULTI\nEXEC\nEXEC\n", b"+OK\r\n*0\r\n" + NO_MULTI),
    "nested": (
        b"MULTI\nMULTI\nPING\nEXEC\n",
        b"+OK\r\n-ERR MULTI calls can not be nested\r\n" + QUEUED + b"*1\r\n+PONG\r\n",
    ),
    "discarded": (b"MULTI\nPING\nDISCARD\nEXEC\nPING\n", b"+OK\r\n" + QUEUED + b"+OK\r\n" + NO_MULTI + b"+PONG\r\n"),
    "discarded-is-gone": (
        b"MULTI\nPING\nDISCARD\nMULTI\nEXEC\n",
        b"+OK\r\n" + QUEUED + b"+OK\r\n+OK\r\n*0\r\n",
    ),
    "unknown": (
        b"MULTI\nNOPE\nPING\nEXEC\nPING\n",
        b"+OK\r\n-ERR unknown command 'NOPE'\r\n" + QUEUED + ABORTED + b"+PONG\r\n",
    ),
    "aborted-is-over": (
        b"MULTI\nNOPE\nEXEC\nMULTI\nPING\nEXEC\n",
        b"+OK\r\n-ERR unknown command 'NOPE'\r\n" + ABORTED + b"+OK\r\n" + QUEUED + b"*1\r\n+PONG\r\n",
    ),
    "unknown-before": (
        b"NOPE\nMULTI\nPING\nEXEC\n",
        b"-ERR unknown command 'NOPE'\r\n+OK\r\n" + QUEUED + b"*1\r\n+PONG\r\n",
    ),
    "an-error-at-exec-is-a-reply": (
        b"MULTI\nSELECT 7\nPING\nEXEC\n",
        b"+OK\r\n" + QUEUED * 2 + b"*2\r\n-ERR DB index is out of range\r\n+PONG\r\n",
    ),
    "auth-is-queued": (
        b"MULTI\nAUTH bob x\nEXEC\n",
        b"+OK\r\n" + QUEUED + b"*1\r\n-WRONGPASS invalid username-password pair or user is disabled.\r\n",
    ),
    "exec-with-words": (
        b"MULTI\nPING\nEXEC x\nEXEC\n",
        b"+OK\r\n"
        + QUEUED
        + b"-EXECABORT Transaction discarded because of: wrong number of arguments for 'exec' command\r\n"
        + NO_MULTI,
    ),
    "multi-with-words": (
        b"MULTI x\nMULTI\nMULTI x\nEXEC\n",
        b"-ERR wrong number of arguments for 'multi' command\r\n+OK\r\n"
        b"-ERR wrong number of arguments for 'multi' command\r\n" + ABORTED,
    ),
    "discard-with-words": (
        b"MULTI\nDISCARD x\nEXEC\n",
        b"+OK\r\n-ERR wrong number of arguments for 'discard' command\r\n" + ABORTED,
    ),
    "reset-with-words": (
        b"MULTI\nRESET x\nEXEC\n",
        b"+OK\r\n-ERR wrong number of arguments for 'reset' command\r\n" + ABORTED,
    ),
    "reset": (b"MULTI\nPING\nRESET\nEXEC\nPING\n", b"+OK\r\n" + QUEUED + b"+RESET\r\n" + NO_MULTI + b"+PONG\r\n"),
    "hello-in-the-middle": (
        b"MULTI\nCLIENT GETNAME\nHELLO 9\nEXEC\n",
        b"+OK\r\n" + QUEUED * 2 + b"*2\r\n$-1\r\n-NOPROTO unsupported protocol version\r\n",
    ),
}


@pytest.mark.parametrize(("stream", "expected"), ANSWERS.values(), ids=ANSWERS)
def test_transaction_is_answered(exchange: Exchange, stream: bytes, expected: bytes) -> None:
    outcome = exchange(stream)
    assert outcome.sent == expected
    assert not outcome.closed
    assert answer("command", stream).sent == expected


WRONG = (
    "PING a b",
    "ECHO",
    "ECHO a b",
    "SLEEP",
    "SLEEP 1 2",
    "BURN",
    "BURN 1 2",
    "BLOB",
    "BLOB 1 2",
    "CONFIG",
    "CLIENT",
    "AUTH",
)


@pytest.mark.parametrize("request_", [text.encode() for text in (*WRONG, "SELECT", "SELECT 0 0")])
def test_wrong_number_of_arguments_is_the_same_error_in_a_transaction(exchange: Exchange, request_: bytes) -> None:
    """Outside, the command itself counts; inside, a table does."""
    outside = exchange(request_ + b"\n").sent
    name = request_.split()[0].lower()
    assert outside == b"-ERR wrong number of arguments for '%b' command\r\n" % name
    assert exchange(b"MULTI\n" + request_ + b"\nEXEC\n").sent == b"+OK\r\n" + outside + ABORTED


RIGHT = (
    "PING",
    "PING a",
    "ECHO a",
    "SLEEP 1",
    "BURN 1",
    "BLOB 1",
    "INFO server",
    "INFO a b",
    "COMMAND",
    "COMMAND COUNT",
    "CONFIG GET",
)
ASKED_ON_CONNECTING = (
    "CONFIG GET save",
    "CLIENT ID",
    "HELLO",
    "HELLO 2 SETNAME a",
    "SELECT 0",
    "AUTH a",
    "AUTH default b",
)


@pytest.mark.parametrize("request_", [text.encode() for text in RIGHT + ASKED_ON_CONNECTING])
def test_request_is_answered_by_exec_as_it_is_alone(exchange: Exchange, request_: bytes) -> None:
    alone = exchange(b"PING\n" + request_ + b"\n").sent.removeprefix(b"+PONG\r\n")
    assert exchange(b"MULTI\n" + request_ + b"\nEXEC\n").sent == b"+OK\r\n+QUEUED\r\n*1\r\n" + alone


def test_info_without_a_section_can_be_queued(exchange: Exchange) -> None:
    assert exchange(b"MULTI\nINFO\nEXEC\n").sent.startswith(b"+OK\r\n+QUEUED\r\n*1\r\n$")


def test_hello_at_exec_changes_the_replies_behind_it(exchange: Exchange) -> None:
    sent = exchange(b"MULTI\nCLIENT GETNAME\nHELLO 3\nCLIENT GETNAME\nEXEC\n").sent
    assert sent.startswith(b"+OK\r\n" + QUEUED * 3 + b"*3\r\n$-1\r\n%7\r\n")
    assert sent.endswith(b"_\r\n")


def test_quit_in_a_transaction_is_the_end(exchange: Exchange) -> None:
    outcome = exchange(b"MULTI\nPING\nQUIT\nEXEC\n")
    assert outcome.sent == b"+OK\r\n" + QUEUED + b"+OK\r\n"
    assert outcome.closed


def test_info_in_a_transaction_counts_each_request_once(exchange: Exchange) -> None:
    sent = exchange(b"MULTI\nPING\nINFO connection\nEXEC\nINFO connection\n").sent
    # When INFO is carried out, 4 requests have come; EXEC carries out PING, the third of them being INFO itself.
    assert sent.count(b"requests:4\r\n") == 1
    assert sent.count(b"requests:5\r\n") == 1


def test_work_in_a_transaction_is_asked_for_in_its_order() -> None:
    connection = Connection("command")
    connection.receive_data(b"MULTI\nSLEEP 10\nBURN 1\nPING\nEXEC\nPING\n")
    assert connection.next_event() == Send(b"+OK\r\n")
    assert connection.next_event() == Send(QUEUED * 3 + b"*3\r\n")
    assert connection.next_event() == Wait(0.01)
    assert connection.next_event() == Send(b"+OK\r\n")
    assert connection.next_event() == GiveWay()
    assert connection.next_event() == Compute(1)
    connection.receive_digest(b"digest")
    assert connection.next_event() == Send(b"$6\r\ndigest\r\n+PONG\r\n+PONG\r\n")
    assert connection.next_event() is None


@pytest.mark.parametrize("ending", ["receive_eof", "drain"])
def test_transaction_is_carried_out_to_its_end_when_the_stream_ends_in_the_middle(ending: str) -> None:
    connection = Connection("command")
    connection.receive_data(b"MULTI\nPING\nSLEEP 10\nBLOB 70000\nPING\nEXEC\nPING\nMULTI\nPING\n")
    sent = b""
    while (event := connection.next_event()) != Close():
        if event == Wait(0.01):
            getattr(connection, ending)()
        elif isinstance(event, Send):
            sent += event.data
    blob = b"$70000\r\n" + (bytes(range(32, 127)) * 737)[:70_000] + b"\r\n"
    carried_out = b"*4\r\n+PONG\r\n+OK\r\n" + blob + b"+PONG\r\n"
    # The second transaction has no EXEC, and is dropped.
    assert sent == b"+OK\r\n" + QUEUED * 4 + carried_out + b"+PONG\r\n+OK\r\n" + QUEUED


def test_long_transaction_is_carried_out_in_turns() -> None:
    connection = Connection("command", limits=Limits(pipeline=10))
    connection.receive_data(b"MULTI\n" + b"PING\n" * 25 + b"EXEC\n")
    sizes = [data.count(b"+PONG") for data in sends(connection)]
    # +OK; QUEUED 10, 10 and 5 with the array's header behind them; then the replies in tens.
    assert sizes == [0, 0, 0, 0, 10, 10, 5]


# A request costs 64 bytes, and each of its arguments 64 and its length: PING 64 + 68 = 132, and ECHO of 100 bytes
# 64 + 68 + 164 = 296; together 428.
TOO_LONG = b"-ERR the transaction is over the limit of 428 bytes\r\n"


def test_transaction_at_its_limit_is_carried_out(exchange: Exchange) -> None:
    outcome = exchange(b"MULTI\nPING\nECHO %b\nEXEC\n" % (b"x" * 100), limits=Limits(transaction=428))
    assert outcome.sent == b"+OK\r\n" + QUEUED * 2 + b"*2\r\n+PONG\r\n$100\r\n" + b"x" * 100 + b"\r\n"


def test_transaction_over_its_limit_is_refused(exchange: Exchange) -> None:
    stream = b"MULTI\nPING\nECHO %b\nPING\nEXEC\nMULTI\nPING\nEXEC\n" % (b"x" * 101)
    outcome = exchange(stream, limits=Limits(transaction=428))
    again = b"+OK\r\n" + QUEUED + b"*1\r\n+PONG\r\n"
    assert outcome.sent == b"+OK\r\n" + QUEUED + TOO_LONG + QUEUED + ABORTED + again


@pytest.mark.parametrize("ended_by", [b"EXEC", b"DISCARD", b"RESET\nMULTI\nEXEC"])
def test_limit_counts_from_each_multi(exchange: Exchange, ended_by: bytes) -> None:
    """Each of them is 428 bytes, as above."""
    stream = (b"MULTI\nPING\nECHO %b\n" % (b"x" * 100) + ended_by + b"\n") * 3
    assert b"-ERR" not in exchange(stream, limits=Limits(transaction=428)).sent


MANY = {
    "line": b"PING\n",
    "array": b"*1\r\n$4\r\nping\r\n",
    "many-arguments": b"INFO " + b"a " * 900 + b"\n",
    "long-argument": b"ECHO " + b"x" * 900 + b"\n",
}


@pytest.mark.parametrize("request_", MANY.values(), ids=MANY)
def test_what_waits_for_exec_is_bounded(request_: bytes) -> None:
    """Whatever is queued: its memory is what the limit says, and less when it is refused."""
    limits = Limits(transaction=500_000)
    connection = Connection("command", limits=limits)
    connection.receive_data(b"MULTI\n")
    most = 0
    tracemalloc.start()
    try:
        # 5000 requests: of PING, the smallest, 660,000 bytes as they are counted.
        for _ in range(100):
            connection.receive_data(request_ * 50)
            while connection.next_event() is not None:
                pass
            most = max(most, tracemalloc.get_traced_memory()[0])
        left = tracemalloc.get_traced_memory()[0]
    finally:
        tracemalloc.stop()
    assert most < limits.transaction + 100_000
    # Over the limit nothing can be carried out, and nothing is kept; the interpreter keeps some tuples for later use.
    assert left < limits.transaction / 2
