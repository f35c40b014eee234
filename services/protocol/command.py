"""The service with work in it: a small part of Redis, so that anything which speaks to Redis can load this lab.

`PING [message]`, `ECHO message`, `SLEEP ms`, `BURN rounds`, `BLOB bytes`, `INFO`, `QUIT`, and the questions that
redis-cli, redis-benchmark and redis-py put when they connect: COMMAND, CONFIG GET, CLIENT, HELLO.
"""

from collections.abc import Callable

from services.protocol.errors import AdapterError, PeerError
from services.protocol.events import SEND_SIZE, Close, Compute, Event, Send, Wait
from services.protocol.limits import Limits
from services.protocol.resp import RequestReader

_OK = b"+OK\r\n"
_PONG = b"+PONG\r\n"

# What COMMAND tells of each: any arity, no flags, no keys (first, last, step), and four more lists that are empty.
_ANY_COMMAND = b":-1\r\n*0\r\n:0\r\n:0\r\n:0\r\n" + b"*0\r\n" * 4

# A blob is cut from one pattern, made once; sending it takes slices of this and no memory of its own.
_PATTERN = bytes(range(32, 127)) * (SEND_SIZE // 95)


def blob_bytes(size: int) -> bytes:
    """What `BLOB size` sends: the printable characters from space on, over and over."""
    turns, rest = divmod(size, len(_PATTERN))
    return _PATTERN * turns + _PATTERN[:rest]


class Command:
    """Answers requests in the order in which they came."""

    port = 6379
    tls_port: int | None = 6380
    over_datagrams = True
    endless = False

    def __init__(self, peer: str, limits: Limits, info: Callable[[], str]) -> None:
        self._peer = peer
        self._limits = limits
        self._info = info
        self._reader = RequestReader(limits)
        self.receive_data = self._reader.feed
        self._replies: list[bytes] = []  # not yet handed out
        self._upcoming: Wait | Compute | None = None  # behind the replies that precede it
        self._blob_left = 0
        self._awaits_digest = False
        self._closing = False
        self._answered = 0
        self._protocol = 2  # of RESP; HELLO changes it

    def receive_digest(self, digest: bytes) -> None:
        """Take what `Compute.run` returned.

        Raises:
            AdapterError: no `Compute` was handed out, or it was answered already.
        """
        if not self._awaits_digest:
            raise AdapterError("receive_digest without a Compute")
        self._awaits_digest = False
        self._replies.append(_bulk(digest))

    def next_event(self) -> Event | None:
        """Answer what has arrived, up to a Send's worth, or hand out the work that a request asks for."""
        if self._awaits_digest:
            raise AdapterError("next_event before the digest of a Compute was received")
        if self._upcoming is not None:
            return self._start(self._upcoming)
        if self._blob_left:
            return self._next_of_blob()
        replies = self._replies
        if not self._closing:
            next_request = self._reader.next_request
            size = 0
            try:
                for _ in range(self._limits.pipeline):
                    request = next_request()
                    if request is None:
                        break
                    self._answered += 1
                    name = request[0] if request[0] in _HANDLERS else request[0].upper()
                    # Not `get`, as with the tables of the reader.
                    handler = _HANDLERS[name] if name in _HANDLERS else Command._unknown  # noqa: SIM401
                    reply = handler(self, request)
                    if reply is None:
                        break
                    replies.append(reply)
                    size += len(reply)
                    if size >= SEND_SIZE:
                        break
            except PeerError as error:
                replies.append(error.reply)
                self._closing = True
        if replies:
            data = replies[0] if len(replies) == 1 else b"".join(replies)
            replies.clear()
            return Send(data)
        if self._upcoming is not None:
            return self._start(self._upcoming)
        return Close() if self._closing else None

    def end_datagram(self) -> bytes:
        """The error that a datagram earns which holds no request, or only a part of one."""
        if self._closing or (self._answered and self._reader.is_between_requests):
            return b""
        if self._reader.is_between_requests:
            return b"-ERR the datagram holds no request\r\n"
        return b"-ERR Protocol error: the datagram ends inside a request\r\n"

    def _start(self, work: Wait | Compute) -> Wait | Compute:
        self._upcoming = None
        if isinstance(work, Wait):
            self._replies.append(_OK)
        else:
            self._awaits_digest = True
        return work

    def _next_of_blob(self) -> Send:
        size = min(self._blob_left, len(_PATTERN))
        self._blob_left -= size
        if not self._blob_left:
            self._replies.append(b"\r\n")
        return Send(_PATTERN if size == len(_PATTERN) else _PATTERN[:size])

    # A handler returns its reply; or None when nothing may be answered before what it has set: work, a blob, the close.

    def _ping(self, request: list[bytes]) -> bytes:
        if len(request) == 1:
            return _PONG
        return _bulk(request[1]) if len(request) == 2 else _wrong_arity(request)

    def _echo(self, request: list[bytes]) -> bytes:
        return _bulk(request[1]) if len(request) == 2 else _wrong_arity(request)

    def _sleep(self, request: list[bytes]) -> bytes | None:
        number = _number(request, self._limits.sleep_ms, "ms")
        if isinstance(number, bytes):
            return number
        self._upcoming = Wait(number / 1000)
        return None

    def _burn(self, request: list[bytes]) -> bytes | None:
        number = _number(request, self._limits.burn, "rounds")
        if isinstance(number, bytes):
            return number
        self._upcoming = Compute(number)
        return None

    def _blob(self, request: list[bytes]) -> bytes | None:
        number = _number(request, self._limits.blob, "bytes")
        if isinstance(number, bytes):
            return number
        if number <= SEND_SIZE:
            return _bulk(blob_bytes(number))
        self._replies.append(b"$%d\r\n" % number)
        self._blob_left = number
        return None

    def _info_text(self, request: list[bytes]) -> bytes:
        return _text(f"{self._info()}# Connection\r\npeer:{self._peer}\r\nrequests:{self._answered}\r\n")

    def _quit(self, request: list[bytes]) -> None:
        self._replies.append(_OK)
        self._closing = True

    def _unknown(self, request: list[bytes]) -> bytes:
        return b"-ERR unknown command %b\r\n" % _quote(request[0])

    # What clients ask when they connect. They must get an answer of the right type; none of them uses its content.

    def _command(self, request: list[bytes]) -> bytes:
        if len(request) == 1:
            return _array([b"*10\r\n%b%b" % (_bulk(name.lower()), _ANY_COMMAND) for name in _HANDLERS])
        if request[1].upper() == b"COUNT":
            return b":%d\r\n" % len(_HANDLERS)
        return b"*0\r\n"  # COMMAND DOCS of a server that keeps none

    def _config(self, request: list[bytes]) -> bytes:
        if len(request) < 3 or request[1].upper() != b"GET":
            return b"-ERR only CONFIG GET is known here\r\n"
        values = {b"save": b"", b"appendonly": b"no", b"databases": b"1"}
        asked = [name.lower() for name in request[2:]]
        return self._map({name: _bulk(values[name]) for name in asked if name in values})

    def _client(self, request: list[bytes]) -> bytes:
        match request[1].upper() if len(request) > 1 else b"":
            case b"SETNAME" | b"SETINFO" | b"NO-EVICT" | b"NO-TOUCH":
                return _OK
            case b"ID":
                return b":1\r\n"
            case b"GETNAME":
                return b"_\r\n" if self._protocol == 3 else b"$-1\r\n"
            case b"INFO" | b"LIST":
                return _text(f"id=1 addr={self._peer} resp={self._protocol}\n")
        return b"-ERR unknown subcommand of CLIENT\r\n"

    def _hello(self, request: list[bytes]) -> bytes:
        # RESP3, which redis-py speaks unless told otherwise, has every type of RESP2. All that changes here is how a
        # map and a null are written.
        if len(request) > 1:
            if request[1] not in (b"2", b"3"):
                return b"-NOPROTO only protocols 2 and 3 are spoken here\r\n"
            self._protocol = int(request[1])
        about = {b"server": b"socketlab", b"version": b"7.0.0", b"mode": b"standalone", b"role": b"master"}
        pairs = {name: _bulk(text) for name, text in about.items()}
        return self._map({**pairs, b"proto": b":%d\r\n" % self._protocol, b"id": b":1\r\n", b"modules": b"*0\r\n"})

    def _map(self, pairs: dict[bytes, bytes]) -> bytes:
        """Names and replies; RESP2 has no type for that, and writes one after the other."""
        items = b"".join([_bulk(name) + reply for name, reply in pairs.items()])
        return b"%%%d\r\n%b" % (len(pairs), items) if self._protocol == 3 else b"*%d\r\n%b" % (2 * len(pairs), items)


_HANDLERS: dict[bytes, Callable[[Command, list[bytes]], bytes | None]] = {
    b"PING": Command._ping,
    b"ECHO": Command._echo,
    b"SLEEP": Command._sleep,
    b"BURN": Command._burn,
    b"BLOB": Command._blob,
    b"INFO": Command._info_text,
    b"QUIT": Command._quit,
    b"COMMAND": Command._command,
    b"CONFIG": Command._config,
    b"CLIENT": Command._client,
    b"HELLO": Command._hello,
}


def _bulk(data: bytes) -> bytes:
    if len(data) > SEND_SIZE:  # bytes formatting grows its result as it goes, and copies a large one several times
        return b"".join((b"$%d\r\n" % len(data), data, b"\r\n"))
    return b"$%d\r\n%b\r\n" % (len(data), data)


def _text(text: str) -> bytes:
    """As a bulk. The path of a peer's Unix socket need not be UTF-8: Python gives such bytes as surrogates."""
    return _bulk(text.encode(errors="backslashreplace"))


def _array(items: list[bytes]) -> bytes:
    return b"*%d\r\n%b" % (len(items), b"".join(items))


def _quote(text: bytes) -> bytes:
    """A name as an error line may carry it: shortened, and without CR, LF, NUL and high bytes."""
    return repr(text[:64])[1:].encode("ascii")


def _wrong_arity(request: list[bytes]) -> bytes:
    return b"-ERR wrong number of arguments for %b\r\n" % _quote(request[0].upper())


def _number(request: list[bytes], limit: int, unit: str) -> int | bytes:
    """The only argument as a number of at most `limit`, or the error to reply."""
    if len(request) != 2:
        return _wrong_arity(request)
    text = request[1]
    # Nineteen digits hold every limit; int() on a line full of digits would be slow, and from 4300 on an error.
    if text.isdigit() and len(text) < 20 and int(text) <= limit:
        return int(text)
    return b"-ERR %b takes 0 to %d %b, not %b\r\n" % (request[0].upper(), limit, unit.encode(), _quote(text))
