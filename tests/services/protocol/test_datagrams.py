"""One datagram is a whole conversation: at most one goes back."""

from collections.abc import Callable

import pytest

from services.protocol import DATAGRAM_SIZE, AdapterError, Close, Compute, DatagramConnection, Event, Limits, Send, Wait

LARGEST = 65_507
TOO_LARGE = b"-ERR the reply does not fit into a datagram of 65507 bytes\r\n"


def events_of(service: str, data: bytes, limits: Limits | None = None) -> list[Event]:
    """Everything up to and with Close."""
    conversation = DatagramConnection(service, data, "peer", limits=limits)
    events: list[Event] = []
    while not events or events[-1] != Close():
        event = conversation.next_event()
        assert event is not None
        if isinstance(event, Compute):
            conversation.receive_digest(b"digest")
        events.append(event)
    assert conversation.next_event() == Close()
    return events


def array(*arguments: bytes) -> bytes:
    return b"*%d\r\n" % len(arguments) + b"".join(b"$%d\r\n%b\r\n" % (len(text), text) for text in arguments)


ONE_SEND = {
    "greet": ("greet", b"hello", b"Thank you for connecting\r\n"),
    "greet-empty": ("greet", b"", b"Thank you for connecting\r\n"),
    "greet-largest": ("greet", bytes(LARGEST), b"Thank you for connecting\r\n"),
    "echo": ("echo", b"\x00\xff", b"\x00\xff"),
    "echo-empty": ("echo", b"", b""),
    "echo-largest": ("echo", bytes(LARGEST), bytes(LARGEST)),
    "echo-too-large": ("echo", bytes(LARGEST + 1), TOO_LARGE),
    "command": ("command", b"PING\r\n", b"+PONG\r\n"),
    "command-several": ("command", b"PING\r\n" + array(b"ECHO", b"x") + b"\r\n", b"+PONG\r\n$1\r\nx\r\n"),
    "command-empty": ("command", b"", b"-ERR the datagram holds no request\r\n"),
    "command-blank": ("command", b"\r\n", b"-ERR the datagram holds no request\r\n"),
    "command-null-array": ("command", b"*-1\r\n", b"-ERR the datagram holds no request\r\n"),
    "command-line-unfinished": ("command", b"PING", b"-ERR Protocol error: the datagram ends inside a request\r\n"),
    "command-header-unfinished": ("command", b"*1\r", b"-ERR Protocol error: the datagram ends inside a request\r\n"),
    "command-array-unfinished": ("command", b"*1\r\n", b"-ERR Protocol error: the datagram ends inside a request\r\n"),
    "command-bulk-unfinished": (
        "command",
        array(b"PING")[:-1],
        b"-ERR Protocol error: the datagram ends inside a request\r\n",
    ),
    "command-several-then-unfinished": (
        "command",
        b"PING\nPING\nPI",
        b"+PONG\r\n+PONG\r\n-ERR Protocol error: the datagram ends inside a request\r\n",
    ),
    "command-broken": (
        "command",
        b"PING\n*x\r\n",
        b"+PONG\r\n-ERR Protocol error: array length 'x' is not a number of arguments\r\n",
    ),
    "command-unknown": ("command", b"NOPE\n", b"-ERR unknown command 'NOPE'\r\n"),
    "command-quit": ("command", b"QUIT\nPING\n", b"+OK\r\n"),
    "command-64-kib": (
        "command",
        array(b"ECHO", bytes(LARGEST - 25)),
        TOO_LARGE[:0] + b"$65482\r\n" + bytes(65482) + b"\r\n",
    ),
    "command-largest-reply": ("command", b"BLOB 65497\n", None),
    "command-reply-too-large": ("command", b"BLOB 65498\n", TOO_LARGE),
    "command-reply-far-too-large": ("command", b"BLOB 60000000\n", TOO_LARGE),
    "command-replies-too-large-together": ("command", b"BLOB 40000\nBLOB 40000\nPING\n", TOO_LARGE),
    "command-line-over-limit": ("command", b"x" * LARGEST, b"-ERR Protocol error: line is longer than 65000 bytes\r\n"),
}


@pytest.mark.parametrize(("service", "data", "reply"), ONE_SEND.values(), ids=ONE_SEND)
def test_one_datagram_goes_back(service: str, data: bytes, reply: bytes | None) -> None:
    event, *rest = events_of(service, data, Limits(line=65_000))
    assert rest == [Close()]
    assert isinstance(event, Send)
    assert len(event.data) <= DATAGRAM_SIZE == LARGEST
    if reply is None:
        assert len(event.data) == LARGEST
    else:
        assert event.data == reply


@pytest.mark.parametrize("data", [b"", b"x", bytes(LARGEST)], ids=["empty", "one", "largest"])
def test_discard_sends_nothing_back(data: bytes) -> None:
    assert events_of("discard", data) == [Close()]


def test_work_is_done_before_the_one_reply() -> None:
    assert events_of("command", b"PING\nSLEEP 20\nBURN 3\nPING\n") == [
        Wait(0.02),
        Compute(3),
        Send(b"+PONG\r\n+OK\r\n$6\r\ndigest\r\n+PONG\r\n"),
        Close(),
    ]


def test_no_more_work_is_asked_for_once_the_reply_is_too_large() -> None:
    assert events_of("command", b"BLOB 70000\nBURN 3\n") == [Send(TOO_LARGE), Close()]


@pytest.mark.parametrize(
    ("data", "work", "error"),
    [
        (b"BURN 60\n" * 5000, [Compute(60)], b"-ERR a datagram may ask for 100 rounds in all\r\n"),
        (b"SLEEP 1\n" * 5000, [Wait(0.001)] * 50, b"-ERR a datagram may ask for 50 ms of sleep in all\r\n"),
    ],
    ids=["burn", "sleep"],
)
def test_a_datagram_may_ask_for_the_work_of_one_request(data: bytes, work: list[Event], error: bytes) -> None:
    """Whoever sends it need not wait for the answer: five thousand requests would keep a core for hours."""
    assert events_of("command", data, Limits(burn=100, sleep_ms=50)) == [*work, Send(error), Close()]


def test_chargen_is_not_spoken() -> None:
    with pytest.raises(AdapterError, match="chargen is not spoken over datagrams"):
        DatagramConnection("chargen", b"")


@pytest.mark.parametrize(
    "make", [lambda: DatagramConnection("echo", b"x"), lambda: DatagramConnection("command", b"PING\n")]
)
def test_digest_that_nobody_asked_for(make: Callable[[], DatagramConnection]) -> None:
    with pytest.raises(AdapterError, match="without a Compute"):
        make().receive_digest(b"x")


def test_digest_must_be_received_before_the_next_event() -> None:
    conversation = DatagramConnection("command", b"BURN 1\n")
    assert conversation.next_event() == Compute(1)
    with pytest.raises(AdapterError, match="digest"):
        conversation.next_event()


def test_error_behind_replies_that_nearly_fill_a_datagram_does_not_make_it_too_large() -> None:
    """$65490 CR LF, 65490 bytes and CR LF are 65500; the error about what is left over would make it 65558."""
    pattern = (bytes(range(32, 127)) * 690)[:65490]
    assert events_of("command", b"BLOB 65490\n") == [Send(b"$65490\r\n%b\r\n" % pattern), Close()]
    assert events_of("command", b"BLOB 65490\nPI") == [Send(TOO_LARGE), Close()]


@pytest.mark.parametrize("data", [b"\n", b"\r\n", b"*0\r\n", b"*-1\r\n\n"])
def test_datagram_of_blanks_holds_no_request(data: bytes) -> None:
    assert events_of("command", data) == [Send(b"-ERR the datagram holds no request\r\n"), Close()]


def test_datagram_may_ask_for_as_much_work_as_a_request() -> None:
    limits = Limits(burn=100, sleep_ms=50)
    data = b"BURN 60\nBURN 0\nSLEEP 30\nBURN 40\nSLEEP 20\n"
    *work, reply, end = events_of("command", data, limits)
    assert work == [Compute(60), Compute(0), Wait(0.03), Compute(40), Wait(0.02)]
    assert reply == Send(b"$6\r\ndigest\r\n" * 2 + b"+OK\r\n$6\r\ndigest\r\n+OK\r\n")
    assert end == Close()
    for more in (b"BURN 1\n", b"SLEEP 1\n"):
        refusal = events_of("command", data + more, limits)[-2]
        assert isinstance(refusal, Send)
        assert refusal.data.startswith(b"-ERR a datagram may ask for ")
