"""One exchange with one service, over any transport: blocking, and with a deadline.

    call("command", "tcp://127.0.0.1:6379", ["PING"], timeout=1.0)
    python -m labent command unix:///run/lab/asyncio_streams/command.sock PING

It is run inside the lab's network for every `lab call`, and its start is part of every readiness check: keep it lean.
"""

import contextlib
import os
import socket
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import hiredis

from lab.base import output
from lab.base.errors import ClientError, LabError, NoAnswerError, UnreachableError, WrongAnswerError
from loadtests.sockets.addresses import Place, find_places, remember
from services.protocol import DATAGRAM_SIZE, SERVICES, Address, AddressError, Transport, is_offered
from services.protocol.chargen import LINES

if TYPE_CHECKING:
    from loadtests.sockets.tls_stream import SecureStream

TIMEOUT = 5.0
_RECEIVE_SIZE = 64 * 1024

Value = str | bytes | int | None | list["Value"]


@dataclass(frozen=True, slots=True)
class Reply:
    """What a server answered.

    Args:
        value: the answer: bytes, or for `command` the decoded RESP value (bytes, int, None or a list of these).
        is_error: a `command` server answered with a RESP error; `value` is its line.
        seconds: from before the connect to the last byte of the answer.
    """

    value: Value
    is_error: bool
    seconds: float

    def text(self) -> str:
        """The answer for a person, in the manner of redis-cli: errors marked, elements of an array numbered."""
        if self.is_error:
            return f"(error) {self.value!s}"
        return _show(self.value)


class Link:
    """A connected socket with a deadline on every step; closed by `with`.

    Args:
        address: where to.
        timeout: seconds for all that follows, the connect included.

    Raises:
        UnreachableError: nothing listens there.
        NoAnswerError: the connect took too long.
    """

    def __init__(self, address: Address, *, timeout: float = TIMEOUT) -> None:
        self.address = address
        self._timeout = timeout
        self._deadline = time.monotonic() + timeout
        self._resources = contextlib.ExitStack()
        self._secure: SecureStream | None = None
        self._received: int | None = None  # bytes; None until something was to be received
        # Of datagrams that nobody has answered yet: the other addresses of the host, and what was sent.
        self._others: list[Place] = []
        self._unanswered: list[bytes] = []
        self.socket = self._open()
        if address.transport is Transport.TLS:
            self._secure = self._open_secure()

    def __enter__(self) -> "Link":
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def renew(self) -> None:
        """Give what follows as much time as the connection had from its beginning."""
        self._deadline = time.monotonic() + self._timeout

    def close(self) -> None:
        """Close the socket, and remove the reply path of a Unix datagram socket."""
        self._resources.close()

    def send(self, data: bytes) -> None:
        """Send all of `data`, or as one datagram."""
        with self._errors("to take what was sent"):
            self._arm()
            if self._secure:
                self._secure.send(data)
            elif self.address.transport.is_datagram:
                self._send_datagram(data)
            else:
                self.socket.sendall(data)

    def send_some(self, data: bytes) -> int:
        """Send what the socket takes within its own time-out, at least a byte; returns how much that was.

        Raises:
            BlockingIOError, TimeoutError: it took nothing.
        """
        return self._secure.send_some(data) if self._secure else self.socket.send(data)

    def receive(self, size: int = _RECEIVE_SIZE) -> bytes:
        """Receive what there is, at least a byte; empty at the end of a stream. Of datagrams: one, possibly empty."""
        self._received = self._received or 0
        with self._errors("to answer"):
            self._arm()
            data = self._secure.receive(size) if self._secure else self._receive_plain(size)
            self._received += len(data)
            return data

    def _receive_plain(self, size: int) -> bytes:
        while True:
            try:
                data = self.socket.recv(size)
            except ConnectionRefusedError:
                if not self._move_on():
                    raise
            else:
                self._settle()
                return data

    def half_close(self) -> None:
        """Say that nothing more will be sent."""
        with self._errors("to take what was sent"):
            if self._secure:
                self._secure.half_close()
            else:
                self.socket.shutdown(socket.SHUT_WR)

    def _open(self) -> socket.socket:
        transport = self.address.transport
        kind = socket.SOCK_DGRAM if transport.is_datagram else socket.SOCK_STREAM
        try:
            with self._errors("to connect"):
                if transport.is_unix:
                    link = self._keep(socket.socket(socket.AF_UNIX, kind))
                    if transport.is_datagram:
                        # An unbound Unix datagram socket has no address that an answer could be sent to.
                        link.bind(self._resources.enter_context(reply_path(self.address.path)))
                    self._arm()
                    link.connect(self.address.path)
                    return link
                return self._open_inet(kind)
        except BaseException:
            self._resources.close()
            raise

    def _open_secure(self) -> "SecureStream":
        from loadtests.sockets.tls_stream import (
            SecureStream,  # only here: ssl takes longer to import than an exchange takes
        )

        try:
            with self._errors("to finish the TLS handshake"):
                return SecureStream(self.socket, self._arm, self.address.host, str(self.address))
        except BaseException:
            self._resources.close()
            raise

    def _open_inet(self, kind: socket.SocketKind) -> socket.socket:
        host, port = self.address.host, self.address.port
        if port is None:
            raise UnreachableError(f"{self.address}: no port is given")
        problem: OSError | None = None
        places = find_places(host, port, kind)
        for number, (family, where) in enumerate(places):
            try:
                link = socket.socket(family, kind)
            except OSError as error:  # this machine does not know the family
                problem = error
                continue
            try:
                # Those that follow get their part of the time.
                link.settimeout(self._left() / (len(places) - number))
                link.connect(where)
            except OSError as error:
                link.close()
                problem = error
                continue
            if kind is socket.SOCK_STREAM:
                link.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                if number:
                    remember(host, port, kind, (family, where))
            else:
                # Whether it leads anywhere shows when something was sent.
                self._others = places[number + 1 :]
            return self._keep(link)
        raise problem or UnreachableError(f"{self.address}: the host has no address")

    def _send_datagram(self, data: bytes) -> None:
        if self._others:
            self._unanswered.append(data)
        try:
            self.socket.send(data)
        except ConnectionRefusedError:
            if not self._move_on():
                raise

    def _move_on(self) -> bool:
        """Send what was refused to the next address of the host; returns whether there is one."""
        while self._others:
            family, where = self._others.pop(0)
            try:
                link = self._keep(socket.socket(family, socket.SOCK_DGRAM))
                self._arm()
                link.connect(where)
                for data in self._unanswered:
                    link.send(data)
            except TimeoutError:
                raise
            except OSError:
                continue
            remember(self.address.host, self.address.port, socket.SOCK_DGRAM, (family, where))
            return True
        return False

    def _settle(self) -> None:
        """Stay with the address that has answered."""
        self._others.clear()
        self._unanswered.clear()

    def _keep(self, link: socket.socket) -> socket.socket:
        self.socket = link
        return self._resources.enter_context(link)

    def _left(self) -> float:
        left = self._deadline - time.monotonic()
        if left <= 0:
            raise TimeoutError
        return left

    def _arm(self) -> float:
        left = self._left()
        self.socket.settimeout(left)
        return left

    @contextlib.contextmanager
    def _errors(self, waiting: str) -> Iterator[None]:
        try:
            yield
        except TimeoutError:
            come = self.tell_received()
            raise NoAnswerError(f"{self.address}: waited {self._timeout:g} s for the server {waiting}{come}") from None
        except socket.gaierror as error:
            raise UnreachableError(f"{self.address}: {error.strerror}") from None
        except UnicodeError:
            raise UnreachableError(f"{self.address}: {self.address.host!r} cannot be the name of a host") from None
        except (ConnectionResetError, BrokenPipeError) as error:
            come = self.tell_received()
            raise WrongAnswerError(
                f"{self.address}: the server broke the connection off ({error.strerror}){come}"
            ) from None
        except OSError as error:
            raise UnreachableError(f"{self.address}: {error.strerror or error}") from None

    def tell_received(self) -> str:
        """How much has come, for what ends without an answer; nothing where none was waited for yet."""
        if self._received is None:
            return ""
        return f"; {self._received} bytes have come" if self._received else "; nothing has come"


def call(
    service: str, address: Address | str, arguments: Sequence[str | bytes] = (), *, timeout: float = TIMEOUT
) -> Reply:
    """Have one exchange.

    Args:
        service: a key of `SERVICES`.
        address: where it is spoken.
        arguments: greet takes none. echo and discard send them, joined by blanks. chargen reads as many lines as its
            only argument says, 3 by default. command sends them as one request.
        timeout: seconds for the whole exchange.

    Raises:
        UnreachableError, NoAnswerError, WrongAnswerError: what did not come about, with the address.
        LabError: the service, address or arguments cannot be meant.
    """
    try:
        address = Address.parse(address) if isinstance(address, str) else address
    except AddressError as error:
        raise LabError(str(error)) from None
    exchange = _EXCHANGES.get(service)
    if exchange is None:
        raise LabError(f"unknown service {service!r}; known: {', '.join(SERVICES)}")
    if not is_offered(service, address.transport):
        raise LabError(f"{service} is not spoken over {address.transport}; it is over tcp and unix")
    words = [word.encode(errors="surrogateescape") if isinstance(word, str) else word for word in arguments]
    begin = time.monotonic()
    with Link(address, timeout=timeout) as link:
        value, is_error = exchange(link, words)
    return Reply(value, is_error, time.monotonic() - begin)


Exchanged = tuple[Value, bool]


def _greet(link: Link, words: list[bytes]) -> Exchanged:
    if words:
        raise LabError("greet takes no arguments")
    if link.address.transport.is_datagram:
        link.send(b"")
        return link.receive(), False
    greeting = _read_to_end(link)
    if not greeting:
        raise WrongAnswerError(f"{link.address}: the server closed without a greeting")
    return greeting, False


def _echo(link: Link, words: list[bytes]) -> Exchanged:
    data = b" ".join(words)
    if link.address.transport.is_datagram:
        _check_datagram(data)
        link.send(data)
        answer = link.receive()
    else:
        # Beyond what the kernel buffers on both sides, a client that sends all before it reads would wait for itself.
        answer = b""
        for start in range(0, len(data), _RECEIVE_SIZE):
            link.send(data[start : start + _RECEIVE_SIZE])
            answer += _read_exactly(link, min(_RECEIVE_SIZE, len(data) - start))
    if answer != data:
        raise WrongAnswerError(f"{link.address}: sent {_quote(data)}, got {_quote(answer)} back")
    return answer, False


def _discard(link: Link, words: list[bytes]) -> Exchanged:
    data = b" ".join(words)
    if link.address.transport.is_datagram:
        _check_datagram(data)
        link.send(data)
        return b"", False  # silence is the answer, and no time of silence proves it
    link.send(data)
    link.half_close()
    if answer := _read_to_end(link):
        raise WrongAnswerError(f"{link.address}: discard answered {_quote(answer)}")
    return b"", False


def _chargen(link: Link, words: list[bytes]) -> Exchanged:
    text = words[0] if words else b"3"
    if len(words) > 1 or not text.isdigit() or not 0 < int(text) <= 1_000_000:
        raise LabError("chargen takes one argument: how many lines to read, 1 to 1000000")
    count = int(text)
    size = len(LINES[0])
    data = _read_exactly(link, count * size)
    for number in range(count):
        line = data[number * size : (number + 1) * size]
        if line != LINES[number % len(LINES)]:
            raise WrongAnswerError(f"{link.address}: line {number + 1} is {_quote(line)}")
    return data, False


def _command(link: Link, words: list[bytes]) -> Exchanged:
    if not words:
        raise LabError("command takes a request, for example: PING")
    request = pack(words)
    if link.address.transport.is_datagram:
        _check_datagram(request)
    link.send(request)
    return read_resp(link, ReplyReader())


_EXCHANGES = {"greet": _greet, "echo": _echo, "discard": _discard, "chargen": _chargen, "command": _command}


_NOTHING = object()  # None is a value of RESP


class ReplyReader(hiredis.Reader):
    """Decodes RESP: status lines and bulks to bytes, integers to int, the null bulk to None."""

    def __init__(self) -> None:
        super().__init__(notEnoughData=_NOTHING)


def pack(words: Sequence[bytes]) -> bytes:
    """One request: a RESP array of bulks."""
    return b"*%d\r\n%b" % (len(words), b"".join(b"$%d\r\n%b\r\n" % (len(word), word) for word in words))


def read_resp(link: Link, reader: ReplyReader) -> Exchanged:
    """Read one RESP value; call again with the same reader for the next of a pipeline.

    Raises:
        WrongAnswerError: the connection ended before, or it is not RESP.
    """
    while True:
        try:
            value = reader.gets()
        except hiredis.ProtocolError as error:
            raise WrongAnswerError(f"{link.address}: not RESP: {error}") from None
        if value is not _NOTHING:
            if isinstance(value, hiredis.ReplyError):
                return str(value), True
            return value, False
        data = link.receive()
        if not data:
            come = link.tell_received()
            raise WrongAnswerError(f"{link.address}: the connection ended before a whole reply had come{come}")
        reader.feed(data)


def _read_exactly(link: Link, size: int) -> bytes:
    chunks = []
    left = size
    while left:
        chunk = link.receive(min(left, _RECEIVE_SIZE))
        if not chunk:
            raise WrongAnswerError(f"{link.address}: the connection ended after {size - left} of {size} bytes")
        chunks.append(chunk)
        left -= len(chunk)
    return b"".join(chunks)


def _read_to_end(link: Link) -> bytes:
    chunks = []
    while chunk := link.receive():
        chunks.append(chunk)
    return b"".join(chunks)


@contextlib.contextmanager
def reply_path(server: str) -> Iterator[str]:
    """A path to receive datagrams at, removed afterwards.

    Strategy: in the server's own directory where we may write to it, else in the directory above it, else in the one
    for temporary files. Client and server may be in different containers that share nothing but the directory with
    the sockets (and run as the same user), so a path in our own /tmp may lead nowhere at the other end.
    """
    import tempfile  # only here: it takes longer to import than an exchange takes

    here = Path(server).parent
    writable = [path for path in (here, here.parent) if os.access(path, os.W_OK | os.X_OK)]
    try:
        directory = tempfile.mkdtemp(prefix="c-", dir=writable[0] if writable else None)
    except OSError as error:
        raise LabError(f"no place for a reply path beside {server}: {error.strerror}") from None
    path = Path(directory) / "r"
    try:
        yield str(path)
    finally:
        path.unlink(missing_ok=True)
        Path(directory).rmdir()


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
    """`python -m labent [--timeout SECONDS] SERVICE URL [ARG...]`.

    Returns:
        0 answered; 1 answered with an error, or wrongly, or not in time; 2 could not be asked.
    """
    words = list(sys.argv[1:] if argv is None else argv)
    timeout = TIMEOUT
    try:
        if words[:1] == ["--timeout"]:
            timeout = float(words[1])
            words = words[2:]
        service, address, *arguments = words
    except (ValueError, IndexError):
        print("usage: python -m labent [--timeout SECONDS] SERVICE URL [ARG...]", file=sys.stderr)
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
