"""The oracle (`lab.clients.reference`) itself, against answers that were written down by hand."""

import pytest

from lab.clients.reference import Bounds, answer, answer_datagram, blob, chargen, digest, integer, number, split

# Each is a stream to `command`, and what is sent back.
ANSWERS = {
    b"": b"",
    b"PING\r\n*1\r\n$4\r\npi": b"+PONG\r\n",
    b'PING\necho "a b"\r\n*2\r\n$4\r\nECHO\r\n$2\r\n\r\n\r\n': b"+PONG\r\n$3\r\na b\r\n$2\r\n\r\n\r\n",
    b"SLEEP 5\r\nBURN 0\r\nBLOB 3\r\nQUIT\r\nPING\r\n": b"+OK\r\n$64\r\n" + b"0" * 64 + b'\r\n$3\r\n !"\r\n+OK\r\n',
    b"*0\r\n\r\n*-1\r\nNOPE\r\n": b"-ERR unknown command 'NOPE'\r\n",
    b"*1\r\n$-0\r\nPING\r\n": b"-ERR Protocol error: bulk length '-0' is not a number of bytes\r\n",
    b"*-0\r\n": b"-ERR Protocol error: array length '-0' is not a number of arguments\r\n",
    b"PING\n*1\r\n$4\r\nPINGxx": b"+PONG\r\n-ERR Protocol error: a bulk of 4 bytes is not followed by CR LF\r\n",
    b"SLEEP 60001\r\n": b"-ERR SLEEP takes 0 to 60000 ms, not '60001'\r\n",
    b"MULTI\r\nPING\r\nECHO a\r\nEXEC\r\n": b"+OK\r\n+QUEUED\r\n+QUEUED\r\n*2\r\n+PONG\r\n$1\r\na\r\n",
    b"PING\r\nPOST / HTTP/1.1\r\nPING\r\n": b"+PONG\r\n",
    # The second word is no target, so this is no HTTP.
    b"GET a HTTP/1.1\r\nPING\r\n": b"-ERR unknown command 'GET'\r\n+PONG\r\n",
    b"GET /a HTTP/1.1\r\n": b"-ERR Protocol error: this is HTTP, and this port speaks RESP\r\n",
    b'PING "\\x\n': b"-ERR Protocol error: unbalanced quotes in request\r\n",
    b'PING "\\\n': b"-ERR Protocol error: unbalanced quotes in request\r\n",
    # A stream has no largest reply.
    b"BLOB 65508\nPING\n": b"$65508\r\n" + blob(65_508) + b"\r\n+PONG\r\n",
}


@pytest.mark.parametrize(("stream", "sent"), ANSWERS.items(), ids=range(len(ANSWERS)))
def test_reference_answers_a_stream(stream: bytes, sent: bytes) -> None:
    assert answer("command", stream).sent == sent


def test_reference_adds_up_the_sizes_of_a_request() -> None:
    """Three bulks of 60 are 180 bytes: over the limit of 150, though no two of them are."""
    three = b"*4\r\n$4\r\nPING\r\n" + (b"$60\r\n" + b"x" * 60 + b"\r\n") * 3
    assert answer("command", three, Bounds(request=150)).sent == (
        b"-ERR Protocol error: request of 184 bytes is over the limit of 150\r\n"
    )


def test_reference_notes_the_work() -> None:
    found = answer("command", b"SLEEP 20\nBURN 1\nSLEEP 99999\nSLEEP 0\n")
    assert (found.waits, found.rounds, found.ended) == ([0.02, 0.0], [1], False)


def test_reference_does_not_know_what_only_a_server_knows() -> None:
    assert not answer("command", b"MULTI\nINFO\nEXEC\n").is_known
    assert not answer("command", b"CLIENT LIST\n").is_known
    assert answer("command", b"CLIENT ID\n").is_known


def test_reference_answers_the_other_services() -> None:
    assert answer("greet", b"hello").sent == b"Thank you for connecting\r\n"
    assert answer("echo", b"hello").sent == b"hello"
    assert answer("discard", b"hello").sent == b""
    with pytest.raises(ValueError, match="chargen"):
        answer("chargen", b"")


def test_reference_knows_the_patterns() -> None:
    assert blob(97) == bytes(range(0x20, 0x7F)) + b" !"
    # `printf '66687aad...' | xxd` of sha256sum over 32 zero bytes.
    assert digest(1) == b"66687aadf862bd776c8fc18b8e9f8e20089714856ee233b3902a591d0d5f2925"
    # RFC 864's first lines: 72 characters from space on, then from "!" on.
    first = b" !\"#$%&'()*+,-./0123456789:;<=>?@ABCDEFGHIJKLMNOPQRSTUVWXYZ[\\]^_`abcdefg\r\n"
    assert chargen(76) == first + b'!"'
    assert chargen(74 * 96)[-74:] == first  # the ninety-sixth line is the first again


@pytest.mark.parametrize(
    ("data", "sent"),
    [
        (b"", b"-ERR the datagram holds no request\r\n"),
        (b"\r\n", b"-ERR the datagram holds no request\r\n"),
        (b"PING\n*1\r\n", b"+PONG\r\n-ERR Protocol error: the datagram ends inside a request\r\n"),
        (b"SLEEP 40000\nSLEEP 20001\n", b"-ERR a datagram may ask for 60000 ms of sleep in all\r\n"),
        (b"BLOB 65508\n", b"-ERR the reply does not fit into a datagram of 65507 bytes\r\n"),
    ],
    ids=["empty", "blank", "cut-off", "excess", "too-large"],
)
def test_reference_answers_a_datagram(data: bytes, sent: bytes) -> None:
    assert answer_datagram("command", data).sent == sent


def test_reference_splits_lines_as_redis_does() -> None:
    assert split(rb"""a"b c" 'it\'s' "\x41\q" x\n""") == [b"ab c", b"it's", b"Aq", rb"x\n"]


def test_reference_refuses_an_echo_that_is_larger_than_a_datagram() -> None:
    assert answer_datagram("echo", bytes(65_507)).sent == bytes(65_507)
    assert answer_datagram("echo", bytes(65_508)).sent == (
        b"-ERR the reply does not fit into a datagram of 65507 bytes\r\n"
    )


def test_reference_has_the_limits_of_the_documentation() -> None:
    bounds = Bounds()
    assert (bounds.line, bounds.array, bounds.bulk) == (65_536, 1024, 1_048_576)
    assert (bounds.request, bounds.transaction) == (2_097_152, 2_097_152)
    assert (bounds.sleep_ms, bounds.burn, bounds.blob) == (60_000, 10_000_000, 67_108_864)


def test_reference_closes_after_a_greeting() -> None:
    assert answer("greet", b"").ended
    assert not answer("echo", b"").ended


BROKEN = b"-ERR Protocol error: "


@pytest.mark.parametrize(
    ("stream", "bounds", "sent"),
    [
        (b"ECHO 1234\n", Bounds(line=10), b"$4\r\n1234\r\n"),
        (b"ECHO 1234", Bounds(line=10), b""),
        (b"ECHO 12345\n", Bounds(line=10), BROKEN + b"line is longer than 10 bytes\r\n"),
        (b"ECHO a\n", Bounds(array=2), b"$1\r\na\r\n"),
        (b"ECHO a b\n", Bounds(array=2), BROKEN + b"3 arguments are over the limit of 2\r\n"),
        (b"*1\r\n$4\r\nPING\r\n", Bounds(bulk=4), b"+PONG\r\n"),
        (b"*1\r\n$5\r\nPINGS\r\n", Bounds(bulk=4), BROKEN + b"bulk of 5 bytes is over the limit of 4\r\n"),
        (b"*2\r\n$4\r\nECHO\r\n$4\r\nabcd\r\n", Bounds(request=8), b"$4\r\nabcd\r\n"),
        (b"*2\r\n$4\r\nECHO\r\n$5\r\n", Bounds(request=8), BROKEN + b"request of 9 bytes is over the limit of 8\r\n"),
        (b"SLEEP 60000\n", Bounds(), b"+OK\r\n"),
        (b"BLOB 0000000000000000001\n", Bounds(), b"$1\r\n \r\n"),
        (
            b"BLOB 00000000000000000001\n",
            Bounds(),
            b"-ERR BLOB takes 0 to 67108864 bytes, not '00000000000000000001'\r\n",
        ),
        (b"x" * 65 + b"\n", Bounds(), b"-ERR unknown command '" + b"x" * 64 + b"'\r\n"),
    ],
)
def test_reference_knows_each_limit(stream: bytes, bounds: Bounds, sent: bytes) -> None:
    """Nothing up to it, and the error one above it."""
    assert answer("command", stream, bounds).sent == sent


def test_reference_counts_the_bytes_of_a_transaction() -> None:
    """PING takes 64 for the request and 64 + 4 for its word, ECHO a 64 + 68 + 65: 329 in all."""
    stream = b"MULTI\nPING\nECHO a\nPING\nEXEC\n"
    assert answer("command", stream.replace(b"PING\nEXEC", b"EXEC"), Bounds(transaction=329)).sent == (
        b"+OK\r\n+QUEUED\r\n+QUEUED\r\n*2\r\n+PONG\r\n$1\r\na\r\n"
    )
    assert answer("command", stream, Bounds(transaction=328)).sent == (
        b"+OK\r\n+QUEUED\r\n-ERR the transaction is over the limit of 328 bytes\r\n+QUEUED\r\n"
        b"-EXECABORT Transaction discarded because of previous errors.\r\n"
    )


@pytest.mark.parametrize(
    ("data", "sent"),
    [
        (b"SLEEP 30000\nSLEEP 30000\n", b"+OK\r\n+OK\r\n"),
        (b"BURN 1\nBURN 0\n" * 2, (b"$64\r\n" + digest(1) + b"\r\n$64\r\n" + b"0" * 64 + b"\r\n") * 2),
        (b"BURN 1\nBURN 2\n", b"-ERR a datagram may ask for 2 rounds in all\r\n"),
        # The reply to BLOB has ten bytes more: 65507 in all.
        (b"BLOB 65497\n", b"$65497\r\n" + blob(65_497) + b"\r\n"),
        (b"BLOB 65497\nPING\n", b"-ERR the reply does not fit into a datagram of 65507 bytes\r\n"),
        (b"BLOB 65498\nPING\n", b"-ERR the reply does not fit into a datagram of 65507 bytes\r\n"),
    ],
    ids=["sleep", "burn", "too many rounds", "largest", "more than the largest", "too-large"],
)
def test_reference_adds_up_what_a_datagram_asks_for(data: bytes, sent: bytes) -> None:
    assert answer_datagram("command", data, Bounds(burn=2)).sent == sent


def test_reference_does_no_work_behind_a_reply_that_is_too_large() -> None:
    found = answer_datagram("command", b"SLEEP 1\nBLOB 65498\nSLEEP 2\nBURN 1\n")
    assert (found.waits, found.rounds) == ([0.001], [])


ABOUT = (
    b"$6\r\nserver\r\n$9\r\nsocketlab\r\n$7\r\nversion\r\n$5\r\n7.0.0\r\n$4\r\nmode\r\n$10\r\nstandalone\r\n"
    b"$4\r\nrole\r\n$6\r\nmaster\r\n$5\r\nproto\r\n:%d\r\n$2\r\nid\r\n:1\r\n$7\r\nmodules\r\n*0\r\n"
)
HELLO_2, HELLO_3 = b"*14\r\n" + ABOUT % 2, b"%7\r\n" + ABOUT % 3
WRONG_PASSWORD = b"-WRONGPASS invalid username-password pair or user is disabled.\r\n"
BAD_NAME = b"-ERR Client names cannot contain spaces, newlines or special characters.\r\n"
NOT_32_BITS = b"-ERR value is out of range, value must between -2147483648 and 2147483647\r\n"


@pytest.mark.parametrize(
    ("stream", "sent"),
    [
        (b"COMMAND COUNT\nCOMMAND DOCS x\n", b":17\r\n*0\r\n"),
        (b"COMMAND" + b" x" * 100 + b"\n", b"*0\r\n"),
        (b"CONFIG GET SAVE appendonly none save\n", b"*4\r\n$4\r\nsave\r\n$0\r\n\r\n$10\r\nappendonly\r\n$2\r\nno\r\n"),
        (b"CONFIG GET databases\n", b"*2\r\n$9\r\ndatabases\r\n$1\r\n1\r\n"),
        (b"CONFIG GET\nCONFIG SET save x\n", b"-ERR only CONFIG GET is known here\r\n" * 2),
        (b"CONFIG GET" + b" x" * 100 + b"\n", b"*0\r\n"),
        (b"CLIENT SETNAME !~\nCLIENT GETNAME\n", b"+OK\r\n$2\r\n!~\r\n"),
        (b"CLIENT SETNAME\nCLIENT SETNAME a b\nCLIENT NAME a\n", b"-ERR unknown subcommand of CLIENT\r\n" * 3),
        (b"CLIENT SETNAME 'a b'\nCLIENT SETNAME \x7f\nCLIENT GETNAME\n", BAD_NAME * 2 + b"$-1\r\n"),
        (b"CLIENT SETNAME " + b"n" * 64 + b"\n", b"+OK\r\n"),
        (
            b"CLIENT SETNAME " + b"n" * 65 + b"\n",
            b"-ERR Client names cannot be longer than 64 bytes here\r\n",
        ),
        (b"CLIENT NO-TOUCH" + b" x" * 100 + b"\n", b"+OK\r\n"),
        (b"HELLO\nHELLO 2\nHELLO 3\nHELLO\n", HELLO_2 * 2 + HELLO_3 * 2),
        (
            b"HELLO 3\nCLIENT GETNAME\nRESET\nHELLO\nCLIENT GETNAME\n",
            HELLO_3 + b"_\r\n+RESET\r\n" + HELLO_2 + b"$-1\r\n",
        ),
        (b"CLIENT SETNAME me\nRESET\nCLIENT GETNAME\n", b"+OK\r\n+RESET\r\n$-1\r\n"),
        (b"HELLO 1\nHELLO 4\n", b"-NOPROTO unsupported protocol version\r\n" * 2),
        (b"HELLO +2\n", b"-ERR Protocol version is not an integer or out of range\r\n"),
        (b"HELLO 2 SETNAME me AUTH default x\nCLIENT GETNAME\n", HELLO_2 + b"$2\r\nme\r\n"),
        (b"HELLO 2 AUTH default x SETNAME me\nCLIENT GETNAME\n", HELLO_2 + b"$2\r\nme\r\n"),
        (
            b"HELLO 2 AUTH me default\nHELLO 2 AUTH default\n",
            WRONG_PASSWORD + b"-ERR Syntax error in HELLO option 'AUTH'\r\n",
        ),
        (b"HELLO 2 SETNAME\n", b"-ERR Syntax error in HELLO option 'SETNAME'\r\n"),
        (b"HELLO 2 " + b"x" * 65 + b"\n", b"-ERR Syntax error in HELLO option '" + b"x" * 64 + b"'\r\n"),
        (b"SELECT 0\nSELECT -0\n", b"+OK\r\n-ERR value is not an integer or out of range\r\n"),
        (b"SELECT 2147483647\nSELECT -2147483648\n", b"-ERR DB index is out of range\r\n" * 2),
        (b"SELECT 2147483648\nSELECT -2147483649\n", NOT_32_BITS * 2),
        (b"AUTH default x\nAUTH x default\n", b"+OK\r\n" + WRONG_PASSWORD),
        (
            b"AUTH x\n",
            b"-ERR AUTH <password> called without any password configured for the default user. "
            b"Are you sure your configuration is correct?\r\n",
        ),
        (b"AUTH default x y\nAUTH" + b" x" * 100 + b"\n", b"-ERR syntax error\r\n" * 2),
    ],
)
def test_reference_knows_each_command(stream: bytes, sent: bytes) -> None:
    assert answer("command", stream).sent == sent


@pytest.mark.parametrize(
    "request_",
    [
        *("PING a b", "ECHO", "ECHO a b", "SLEEP", "SLEEP 1 2", "BURN", "BURN 1 2", "BLOB", "BLOB 1 2", "CONFIG"),
        *("CLIENT", "SELECT", "SELECT 0 0", "AUTH", "MULTI 1", "DISCARD 1", "RESET 1"),
    ],
)
def test_reference_knows_how_many_words_a_command_has(request_: str) -> None:
    name = request_.split()[0].lower()
    assert answer("command", f"{request_}\n".encode()).sent == (
        f"-ERR wrong number of arguments for '{name}' command\r\n".encode()
    )


def test_reference_reads_integers_as_redis_does() -> None:
    right = {b"0": 0, b"-12": -12, b"9223372036854775807": 2**63 - 1, b"-9223372036854775808": -(2**63)}
    assert {text: integer(text) for text in right} == right
    wrong = (b"", b"-", b"-0", b"01", b"+1", b" 1", b"None", b"9223372036854775808", b"-9223372036854775809")
    assert [integer(text) for text in wrong] == [None] * len(wrong)
    # int() fails from 4300 digits on.
    assert (number(b"0" * 3999), number(b"0" * 4000)) == (0, None)


def test_reference_takes_two_hexadecimal_digits() -> None:
    assert split(rb'"\x4g" "\x4" "\x4A"') == [b"x4g", b"x4", b"J"]
    # Of another escape they are what follows it, and between single quotes there is only one.
    assert split(rb""" "\n41" 'a\nb\x41' """) == [b"\n41", rb"a\nb\x41"]
