"""The four services beside `command`, and the rules that hold for every stream."""

import tracemalloc
from collections.abc import Callable
from itertools import islice

import pytest

from services.protocol import (
    SEND_SIZE,
    SERVICES,
    AdapterError,
    Close,
    Compute,
    Connection,
    GiveWay,
    Send,
    Transport,
    Wait,
    is_offered,
    port_of,
)
from services.protocol.clock import StoppedClock

WAYS = {
    "whole": lambda data: [data],
    "bytewise": lambda data: [data[start : start + 1] for start in range(len(data))],
    "trailing": lambda data: [data[:-5], data[-5:]],
}


@pytest.fixture(params=WAYS)
def pieces(request: pytest.FixtureRequest) -> Callable[[bytes], list[bytes]]:
    """A way to cut a stream up; these services know no requests, so that any cut has trailing bytes."""
    return WAYS[request.param]


def test_ports_are_the_well_known_ones() -> None:
    ports = {name: service.port for name, service in SERVICES.items()}
    assert ports == {"greet": 1234, "echo": 7, "discard": 9, "chargen": 19, "command": 6379, "http": 8080}


def test_services_without_datagrams() -> None:
    assert [name for name, service in SERVICES.items() if not service.over_datagrams] == ["chargen", "http"]


PLACES = {  # the port over TCP and UDP, over TLS, over Unix sockets; None: there is none
    "greet": (1234, None, None),
    "echo": (7, 7007, None),
    "discard": (9, None, None),
    "chargen": (19, None, None),
    "command": (6379, 6380, None),
    "http": (8080, 8443, None),
}


@pytest.mark.parametrize("service", SERVICES)
def test_port_and_offer_of_each_transport(service: str) -> None:
    plain, tls, unix = PLACES[service]
    wanted = {"tcp": plain, "udp": plain, "tls": tls, "unix": unix, "unixgram": unix}
    assert {str(transport): port_of(service, transport) for transport in Transport} == wanted
    offered = {str(transport) for transport in Transport if is_offered(service, transport)}
    datagrams = set() if service in ("chargen", "http") else {"udp", "unixgram"}
    assert offered == {"tcp", "unix"} | datagrams | ({"tls"} if tls else set())


def test_greet_speaks_first_and_closes() -> None:
    connection = Connection("greet")
    assert connection.next_event() == Send(b"Thank you for connecting\r\n")
    assert connection.next_event() == Close()
    assert connection.next_event() == Close()


def test_greet_does_not_mind_what_the_client_says(pieces: Callable[[bytes], list[bytes]]) -> None:
    connection = Connection("greet")
    for piece in pieces(b"hello there\r\n"):
        connection.receive_data(piece)
    connection.receive_eof()
    assert connection.next_event() == Send(b"Thank you for connecting\r\n")
    assert connection.next_event() == Close()


def test_echo_returns_what_it_gets(pieces: Callable[[bytes], list[bytes]]) -> None:
    data = bytes(range(256)) * 3
    connection = Connection("echo")
    returned = b""
    for piece in pieces(data):
        connection.receive_data(piece)
        while isinstance(event := connection.next_event(), Send):
            returned += event.data
        assert event is None
    assert returned == data


def test_echo_joins_what_came_before_it_was_asked() -> None:
    connection = Connection("echo")
    connection.receive_data(b"a")
    connection.receive_data(b"b")
    connection.receive_eof()
    assert [connection.next_event() for _ in range(3)] == [Send(b"ab"), Close(), Close()]


def test_echo_copies_nothing_in_the_usual_case() -> None:
    data = b"some bytes that arrived"
    connection = Connection("echo")
    connection.receive_data(data)
    event = connection.next_event()
    assert isinstance(event, Send)
    assert event.data is data


@pytest.mark.parametrize("service", ["echo", "command"])
def test_each_of_many_small_echoes_is_whole(service: str) -> None:
    """Five thousand on one connection, each of another size and content, and each compared."""
    connection = Connection(service)
    for number in range(5000):
        data = b"%d:%b" % (number, bytes([number % 256]) * (number % 7))
        sent, expected = data, data
        if service == "command":
            sent, expected = (
                b"*2\r\n$4\r\nECHO\r\n$%d\r\n%b\r\n" % (len(data), data),
                b"$%d\r\n%b\r\n" % (len(data), data),
            )
        connection.receive_data(sent)
        assert connection.next_event() == Send(expected)
        assert connection.next_event() is None


def test_discard_never_answers(pieces: Callable[[bytes], list[bytes]]) -> None:
    connection = Connection("discard")
    for piece in pieces(b"PING\r\n" * 10):
        connection.receive_data(piece)
        assert connection.next_event() is None
    connection.receive_eof()
    assert connection.next_event() == Close()


def test_chargen_sends_the_lines_of_rfc_864() -> None:
    """72 of the 95 printable characters a line, in order and round; each line starts one character later."""
    connection = Connection("chargen")
    stream = b""
    for _ in range(4):
        event = connection.next_event()
        assert isinstance(event, Send)
        assert len(event.data) <= SEND_SIZE
        stream += event.data
    lines = stream.split(b"\r\n")
    assert lines.pop() == b""
    assert len(lines) > 3 * 95
    for number, line in enumerate(lines):
        assert line == bytes(0x20 + (number + column) % 95 for column in range(72))


def test_chargen_takes_no_memory_for_a_reader() -> None:
    first, second = Connection("chargen"), Connection("chargen")
    events = [first.next_event(), first.next_event(), second.next_event()]
    assert len(set(map(id, events))) == 1


@pytest.mark.parametrize("ending", ["receive_eof", "drain"])
def test_chargen_ends_when_its_reader_does(ending: str) -> None:
    connection = Connection("chargen")
    connection.receive_data(b"ignored")
    assert isinstance(connection.next_event(), Send)
    getattr(connection, ending)()
    assert connection.next_event() == Close()
    assert connection.next_event() == Close()


@pytest.mark.parametrize("service", SERVICES)
class TestEveryService:
    def test_nothing_arrives_after_the_end(self, service: str) -> None:
        connection = Connection(service)
        connection.receive_eof()
        with pytest.raises(AdapterError, match="after receive_eof"):
            connection.receive_data(b"x")

    def test_end_may_be_told_twice_and_after_drain(self, service: str) -> None:
        connection = Connection(service)
        connection.drain()
        connection.receive_eof()
        connection.receive_eof()
        events = list(islice(iter(connection.next_event, Close()), 3))
        assert len(events) <= 1  # greet says what it has to say
        assert connection.next_event() == Close()

    def test_digest_that_nobody_asked_for(self, service: str) -> None:
        with pytest.raises(AdapterError, match="without a Compute"):
            Connection(service).receive_digest(b"x")

    def test_what_comes_after_close_is_dropped(self, service: str) -> None:
        connection = Connection(service)
        connection.drain()
        while connection.next_event() != Close():
            pass
        connection.receive_data(b"PING\r\n")
        assert connection.next_event() == Close()


LAST_WORDS = {
    "greet": b"",
    "echo": b"",
    "discard": b"",
    "chargen": b"",
    "command": b"PING\r\n*1\r\n$4\r\nQUIT\r\n",
    "http": b"GET /ping HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n",
}


@pytest.mark.parametrize("with_the_last", [0, 500_000])
@pytest.mark.parametrize("ending", ["drain", "by-itself"])
@pytest.mark.parametrize("service", SERVICES)
def test_nothing_is_held_after_close(service: str, ending: str, with_the_last: int) -> None:
    """Ten megabytes that come after it, and what had come with the last request."""
    connection = Connection(service)
    tracemalloc.start()
    try:
        if said := LAST_WORDS[service] + bytes(with_the_last):
            connection.receive_data(said)
        del said
        if ending == "drain" or service in ("echo", "discard", "chargen"):
            connection.drain()
        while connection.next_event() != Close():
            pass
        for _ in range(100):
            connection.receive_data(bytes(100_000))
            assert connection.next_event() == Close()
        assert tracemalloc.get_traced_memory()[0] < 100_000
    finally:
        tracemalloc.stop()


def test_what_has_arrived_is_answered_though_it_was_not_received_yet() -> None:
    connection = Connection("command")
    connection.receive_data(b"SLEEP 1\r\n")
    assert connection.next_event() == Wait(0.001)
    connection.drain(arrived=17)
    assert connection.next_event() == Send(b"+OK\r\n")
    for left in (True, False):
        assert connection.next_event() is None
        connection.receive_data(b"ECHO 1234\r" if left else b"\nPING\r\n")
    assert connection.next_event() == Send(b"$4\r\n1234\r\n+PONG\r\n")
    assert connection.next_event() == Close()


@pytest.mark.parametrize("service", ["discard", "echo", "command"])
def test_every_byte_that_had_arrived_is_waited_for(service: str) -> None:
    """Seven bytes, of which six come first."""
    connection = Connection(service)
    connection.drain(arrived=7)
    connection.receive_data(b"PING\r\n")
    while isinstance(connection.next_event(), Send):
        pass
    assert connection.next_event() is None
    connection.receive_data(b"\n")
    assert next(event for event in iter(connection.next_event, None) if not isinstance(event, Send)) == Close()


def test_one_byte_that_had_arrived_is_waited_for() -> None:
    connection = Connection("command")
    connection.drain(arrived=1)
    assert connection.next_event() is None
    connection.receive_data(b"\n")
    assert connection.next_event() == Close()


def test_the_end_of_the_stream_ends_the_wait_for_what_had_arrived() -> None:
    connection = Connection("command")
    connection.drain(arrived=1000)
    assert connection.next_event() is None
    connection.receive_eof()
    assert connection.next_event() == Close()
    # It may have come before.
    connection = Connection("command")
    connection.receive_eof()
    connection.drain(arrived=1000)
    assert connection.next_event() == Close()


def test_an_endless_service_does_not_wait_for_what_has_arrived() -> None:
    connection = Connection("chargen")
    connection.drain(arrived=1000)
    assert connection.next_event() == Close()


def test_http_is_told_of_a_drain() -> None:
    """Only its last reply says that the connection ends, so it has to know."""
    connection = Connection("http")
    connection.receive_data(b"GET /ping HTTP/1.1\r\nHost: a\r\n\r\n")
    connection.drain()
    event = connection.next_event()
    assert isinstance(event, Send)
    assert b"\r\nConnection: close\r\n" in event.data


def test_stopped_clock_stands_still() -> None:
    clock = StoppedClock()
    assert (clock.elapsed(), clock.elapsed()) == (0.0, 0.0)


def test_data_may_arrive_while_draining() -> None:
    connection = Connection("command")
    connection.receive_data(b"PING\n*1\r\n$4\r\n")
    connection.drain()
    connection.receive_data(b"PING\r\n")
    assert connection.next_event() == Send(b"+PONG\r\n+PONG\r\n")
    assert connection.next_event() == Close()


def test_turn_ends_after_four_events() -> None:
    connection = Connection("chargen")
    events = [type(connection.next_event()) for _ in range(10)]
    assert events == [*[Send] * 4, GiveWay, *[Send] * 4, GiveWay]


@pytest.mark.parametrize("ending", ["receive_eof", "drain"])
def test_turn_does_not_end_after_close(ending: str) -> None:
    connection = Connection("command")
    connection.receive_data(b"BLOB 131000\nQUIT\n")
    getattr(connection, ending)()
    events = [type(connection.next_event()) for _ in range(12)]
    assert events == [*[Send] * 4, GiveWay, Send, *[Close] * 6]


def test_turn_begins_again_when_there_is_nothing_to_do() -> None:
    connection = Connection("echo")
    for _ in range(5):
        for _ in range(3):
            connection.receive_data(b"x")
            assert connection.next_event() == Send(b"x")
        assert connection.next_event() is None


@pytest.mark.parametrize("service", ["greet", "discard", "echo", "command"])
def test_close_says_whether_the_stream_has_ended(service: str) -> None:
    at_eof = {}
    for ending in ("receive_eof", "drain"):
        connection = Connection(service)
        getattr(connection, ending)()
        close = next(event for event in iter(connection.next_event, None) if isinstance(event, Close))
        again = connection.next_event()
        assert isinstance(again, Close)
        assert close.at_eof == again.at_eof
        at_eof[ending] = close.at_eof
    assert at_eof == {"receive_eof": True, "drain": False}


def test_close_of_the_service_says_that_the_stream_has_not_ended() -> None:
    connection = Connection("command")
    connection.receive_data(b"QUIT\n")
    assert connection.next_event() == Send(b"+OK\r\n")
    assert [event.at_eof for event in [connection.next_event()] if isinstance(event, Close)] == [False]
    connection.receive_eof()
    assert [event.at_eof for event in [connection.next_event()] if isinstance(event, Close)] == [True]


def test_unknown_service_is_a_key_error() -> None:
    with pytest.raises(KeyError):
        Connection("telnet")


def test_events_are_values() -> None:
    assert Send(b"x") == Send(b"x") != Send(b"y")
    assert Close() == Close(at_eof=True)
    assert not Close().at_eof
    assert Send.__match_args__ == ("data",)
    assert Wait.__match_args__ == ("seconds",)
    assert Compute.__match_args__ == ("rounds",)
    assert repr(Send(b"x")) == "Send(data=b'x')"
