"""One exchange with one service, over any transport, with a deadline.

    call("command", "tcp://127.0.0.1:6379", ["PING"], timeout=1.0)
    python -m lab.clients.call command unix:///run/lab/asyncio_streams/command.sock PING

Each `lab call` runs this module inside the lab's network, and each readiness check imports it: keep its start fast.
"""

import re
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass

import hiredis

from lab.base import output
from lab.base.errors import LabError
from loadtests.sockets.connection import RECEIVE_SIZE, TIMEOUT, BlockingConnection
from loadtests.sockets.errors import ClientError, SetupError, UnreachableError, WrongAnswerError
from services.protocol import DATAGRAM_SIZE, SERVICES, Address, AddressError, is_offered
from services.protocol.chargen import LINES

Value = str | bytes | int | None | list["Value"]


@dataclass(frozen=True, slots=True)
class Reply:
    """The answer of a server.

    Args:
        value: the answer: bytes, or for `command` the decoded RESP value (bytes, int, None or a list of these).
        is_error: a `command` server answered with a RESP error; `value` is its line.
        seconds: from before the connect to the last byte of the answer.
    """

    value: Value
    is_error: bool
    seconds: float

    def text(self) -> str:
        """Format the answer as redis-cli does: errors marked, elements of an array numbered."""
        if self.is_error:
            return f"(error) {self.value!s}"
        return _show(self.value)


def call(
    service: str, address: Address | str, arguments: Sequence[str | bytes] = (), *, timeout: float = TIMEOUT
) -> Reply:
    """Make one exchange.

    Args:
        service: a key of `SERVICES`.
        address: the server's.
        arguments: greet takes none. echo and discard send them, joined by spaces. chargen takes the number of lines to
            read (default: 3). command sends them as one request. http takes a path (default: /ping).
        timeout: seconds for the whole exchange.

    Raises:
        ClientError: the exchange failed; the message begins with the address.
        LabError: the service, address or arguments are invalid, or this machine cannot prepare the connection.
    """
    try:
        address = Address.parse(address) if isinstance(address, str) else address
    except AddressError as error:
        raise LabError(str(error)) from None
    exchange = _EXCHANGES.get(service)
    if exchange is None:
        raise LabError(f"unknown service {service!r}; known: {', '.join(SERVICES)}")
    if not is_offered(service, address.transport):
        raise LabError(f"{service} is not served over {address.transport}; use tcp or unix")
    words = [word.encode(errors="surrogateescape") if isinstance(word, str) else word for word in arguments]
    begin = time.monotonic()
    try:
        with BlockingConnection(address, timeout=timeout) as connection:
            value, is_error = exchange(connection, words)
    except SetupError as error:
        raise LabError(str(error)) from None
    return Reply(value, is_error, time.monotonic() - begin)


Exchanged = tuple[Value, bool]


def _greet(connection: BlockingConnection, words: list[bytes]) -> Exchanged:
    if words:
        raise LabError("greet takes no arguments")
    if connection.is_datagram:
        connection.send(b"")
        return connection.receive(), False
    greeting = _read_to_end(connection)
    if not greeting:
        raise WrongAnswerError(f"{connection.address}: the server closed without a greeting")
    return greeting, False


def _echo(connection: BlockingConnection, words: list[bytes]) -> Exchanged:
    data = b" ".join(words)
    if connection.is_datagram:
        _check_datagram(data)
        connection.send(data)
        answer = connection.receive()
    else:
        # A client that sends everything before it reads blocks itself once the kernel's buffers on both sides are full.
        answer = b""
        for start in range(0, len(data), RECEIVE_SIZE):
            connection.send(data[start : start + RECEIVE_SIZE])
            answer += _read_exactly(connection, min(RECEIVE_SIZE, len(data) - start))
    if answer != data:
        raise WrongAnswerError(f"{connection.address}: sent {_quote(data)}, got {_quote(answer)} back")
    return answer, False


def _discard(connection: BlockingConnection, words: list[bytes]) -> Exchanged:
    data = b" ".join(words)
    if connection.is_datagram:
        _check_datagram(data)
        connection.send(data)
        return b"", False  # silence is the answer, and no timeout proves it
    connection.send(data)
    connection.half_close()
    if answer := _read_to_end(connection):
        raise WrongAnswerError(f"{connection.address}: discard answered {_quote(answer)}")
    return b"", False


def _chargen(connection: BlockingConnection, words: list[bytes]) -> Exchanged:
    text = words[0] if words else b"3"
    if len(words) > 1 or not (text.isdigit() and len(text) < 20 and 0 < int(text) <= 1_000_000):
        raise LabError("chargen takes one argument: how many lines to read, 1 to 1000000")
    count = int(text)
    size = len(LINES[0])
    data = _read_exactly(connection, count * size)
    for number in range(count):
        line = data[number * size : (number + 1) * size]
        if line != LINES[number % len(LINES)]:
            raise WrongAnswerError(f"{connection.address}: line {number + 1} is {_quote(line)}")
    return data, False


def _command(connection: BlockingConnection, words: list[bytes]) -> Exchanged:
    if not words:
        raise LabError("command takes a request, for example: PING")
    request = pack(words)
    if connection.is_datagram:
        _check_datagram(request)
    connection.send(request)
    return read_resp(connection, ReplyReader())


def _http(connection: BlockingConnection, words: list[bytes]) -> Exchanged:
    path = words[0] if words else b"/ping"
    if len(words) > 1 or not path.startswith(b"/"):
        raise LabError("http takes one argument: a path, for example /ping")
    # HTTP/1.0: the reply has no chunks, and ends with the connection.
    connection.send(b"GET %b HTTP/1.0\r\nHost: lab\r\n\r\n" % path)
    head, separator, body = _read_to_end(connection).partition(b"\r\n\r\n")
    status = re.match(rb"HTTP/1\.[01] ([1-5][0-9]{2}) ", head)
    if status is None or not separator:
        raise WrongAnswerError(f"{connection.address}: {_quote(head)} is not the head of a reply")
    length = re.search(rb"(?i)\ncontent-length: *([0-9]+)\r?$", head, re.MULTILINE)
    # As text, since int() fails from 4300 digits on.
    if length is not None and (promised := length[1].lstrip(b"0").decode() or "0") != str(len(body)):
        raise WrongAnswerError(f"{connection.address}: {promised[:20]} bytes were promised, {len(body)} came")
    return body, status[1] >= b"400"


_EXCHANGES = {
    "greet": _greet,
    "echo": _echo,
    "discard": _discard,
    "chargen": _chargen,
    "command": _command,
    "http": _http,
}


_NOTHING = object()  # None is a value of RESP


class ReplyReader(hiredis.Reader):
    """Decode RESP: status lines and bulks to bytes, integers to int, the null bulk to None."""

    def __init__(self) -> None:
        super().__init__(notEnoughData=_NOTHING)


def pack(words: Sequence[bytes]) -> bytes:
    """Encode a request as a RESP array of bulks."""
    return bytes(hiredis.pack_command(tuple(words)))  # type: ignore[arg-type]  # its stub has a tuple of one


def read_resp(connection: BlockingConnection, reader: ReplyReader) -> Exchanged:
    """Read one RESP value; call again with the same reader for the next of a pipeline.

    Raises:
        WrongAnswerError: the connection ended too early, or the data is not RESP.
    """
    while True:
        try:
            value = reader.gets()
        except hiredis.ProtocolError as error:
            raise WrongAnswerError(f"{connection.address}: not RESP: {error}") from None
        if value is not _NOTHING:
            if isinstance(value, hiredis.ReplyError):
                return str(value), True
            return value, False
        data = connection.receive()
        if not data:
            raise WrongAnswerError(
                f"{connection.address}: the connection ended before a complete reply arrived"
                f"{connection.describe_received()}"
            )
        reader.feed(data)


def _read_exactly(connection: BlockingConnection, size: int) -> bytes:
    chunks = []
    left = size
    while left:
        chunk = connection.receive(min(left, RECEIVE_SIZE))
        if not chunk:
            raise WrongAnswerError(f"{connection.address}: the connection ended after {size - left} of {size} bytes")
        chunks.append(chunk)
        left -= len(chunk)
    return b"".join(chunks)


def _read_to_end(connection: BlockingConnection) -> bytes:
    return b"".join(iter(connection.receive, b""))


def _check_datagram(data: bytes) -> None:
    if len(data) > DATAGRAM_SIZE:
        raise LabError(f"{len(data)} bytes do not fit into a datagram: at most {DATAGRAM_SIZE}")


def _quote(data: bytes) -> str:
    return f"{data[:60]!r}" + (f"... ({len(data)} bytes)" if len(data) > 60 else "")


def _show(value: Value, indent: str = "") -> str:
    match value:
        case None:
            return "(nil)"
        case bytes():
            return value.decode("utf-8", "backslashreplace").removesuffix("\r\n").replace("\r\n", "\n")
        case int():
            return f"(integer) {value}"
        case list():
            width = len(str(len(value)))
            lines: list[str] = []
            for number, item in enumerate(value, 1):
                mark = f"{number:>{width}}) "
                lines.append((indent if lines else "") + mark + _show(item, indent + " " * len(mark)))
            return "\n".join(lines) if lines else "(empty array)"
    return str(value)


def main(argv: Sequence[str] | None = None) -> int:
    """Run `python -m lab.clients.call [--timeout SECONDS] SERVICE URL [ARG...]`.

    Returns:
        0: answered; 1: answered with an error, wrongly, or not in time; 2: the server could not be asked.
    """
    words = list(sys.argv[1:] if argv is None else argv)
    timeout = TIMEOUT
    try:
        if words[:1] == ["--timeout"]:
            timeout = float(words[1])
            words = words[2:]
        service, address, *arguments = words
    except (ValueError, IndexError):
        print("usage: python -m lab.clients.call [--timeout SECONDS] SERVICE URL [ARG...]", file=sys.stderr)
        return 2
    try:
        reply = call(service, address, arguments, timeout=timeout)
    except ClientError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2 if isinstance(error, UnreachableError) else 1
    except LabError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    if service != "discard":
        print(reply.text())
    return 1 if reply.is_error else 0


if __name__ == "__main__":
    output.install()
    sys.exit(main())
