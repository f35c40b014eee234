"""The oracle (`lab.clients.reference`) itself, against answers that were written down by hand."""

import pytest

from lab.clients.reference import Bounds, answer, answer_datagram, blob, chargen, digest, split

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
