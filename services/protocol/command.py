"""The service `command`: a small part of Redis, so clients and load generators of Redis can use this lab.

`PING [message]`, `ECHO message`, `SLEEP ms`, `BURN rounds`, `BLOB bytes`, `INFO`, `QUIT`; transactions (MULTI, EXEC,
DISCARD); and what redis-cli, redis-benchmark and redis-py ask when they connect: COMMAND, CONFIG GET, CLIENT, HELLO,
SELECT, AUTH, RESET.
"""

import re
import sys
from collections import deque
from collections.abc import Callable

from services.protocol.base import Service
from services.protocol.errors import AdapterError, PeerError
from services.protocol.events import SEND_SIZE, Close, Compute, Event, Send, Wait
from services.protocol.limits import Limits
from services.protocol.resp import RequestReader

_OK = b"+OK\r\n"
_PONG = b"+PONG\r\n"
_WRONG_PASSWORD = b"-WRONGPASS invalid username-password pair or user is disabled.\r\n"

# The version of Redis that is imitated. Clients read it before they use newer commands.
REDIS_VERSION = "7.0.0"

# The lines of INFO that clients read before they use a server.
_INFO = {
    "Server": f"redis_version:{REDIS_VERSION}\r\nredis_mode:standalone\r\n",
    "Persistence": "loading:0\r\n",
    "Replication": "role:master\r\nconnected_slaves:0\r\n",
    "Cluster": "cluster_enabled:0\r\n",
}

_TITLE = re.compile("^# ", re.MULTILINE)

# A whole number as Redis reads it (string2ll): no plus, no blank, no leading zero. 64 bits have up to 19 digits.
_INTEGER = re.compile(rb"0|-?[1-9][0-9]{0,18}")

# The overhead of each request and of each argument that waits for EXEC, in bytes: a Python object.
_KEEPING = 64

_NAME_SIZE = 64

# The first two bytes from a TLS client: a handshake record, of any version.
_HANDSHAKE = b"\x16\x03"
# First words of other protocols, with which no request begins here; and how the first line of a request ends in HTTP
# and protocols like it.
_GREETINGS = {b"EHLO": "SMTP", b"HELO": "SMTP", b"LHLO": "SMTP"}
_VERSIONS = {b"HTTP/": "HTTP", b"RTSP/": "RTSP", b"SIP/": "SIP"}

# What COMMAND says about each command: any arity, no flags, no keys (first, last, step), and four empty lists.
_ANY_COMMAND = b":-1\r\n*0\r\n:0\r\n:0\r\n:0\r\n" + b"*0\r\n" * 4

# A blob is sent as slices of this pattern, so it needs no memory of its own.
_PATTERN = bytes(range(32, 127)) * (SEND_SIZE // 95)


def blob_bytes(size: int) -> bytes:
    """Return the bytes of `BLOB size`: the printable characters of ASCII from space on, repeated."""
    turns, rest = divmod(size, len(_PATTERN))
    return _PATTERN * turns + _PATTERN[:rest]


class Command(Service):
    """One conversation. Requests are answered in the order in which they arrive.

    Args:
        peer: the client's address, for INFO and the log.
        limits: what a client may ask for.
        info: returns the server's part of INFO, as lines that end in CR LF.
        report: takes a line for the log about a client of another protocol.
    """

    port = 6379
    tls_port = 6380

    def __init__(self, peer: str, limits: Limits, info: Callable[[], str], report: Callable[[str], object]) -> None:
        self._peer = peer
        self._limits = limits
        self._info = info
        self._report = report
        self._reader = RequestReader(limits)
        self._next_request = self._reader.next_request  # during EXEC: `_next_queued`
        self._head = b""  # the first bytes of the stream, to recognize TLS
        self._replies: list[bytes] = []  # not yet handed out
        self._upcoming: Wait | Compute | None = None  # handed out after the replies before it
        self._blob_left = 0
        self._awaits_digest = False
        self._closing = False
        self._answered = 0
        self._protocol = 2  # version of RESP; HELLO changes it
        self._name = b""  # of the client, from CLIENT SETNAME or HELLO
        self._handlers = _HANDLERS
        self._queue: list[tuple[bytes, ...]] = []  # since MULTI; during EXEC in reverse order
        self._queue_size = 0  # bytes, with the overhead of each object
        self._is_aborted = False  # EXEC will refuse the transaction

    def receive_digest(self, digest: bytes) -> None:
        """Take the result of the last `Compute`.

        Raises:
            AdapterError: no `Compute` waits for its result.
        """
        if not self._awaits_digest:
            raise AdapterError("receive_digest without a Compute")
        self._awaits_digest = False
        self._replies.append(_bulk(digest))

    def receive_data(self, data: bytes) -> None:
        """Take bytes that have arrived. The first two show whether the client speaks TLS, which this port does not."""
        self._reader.feed(data)
        self._head = (self._head + data[: len(_HANDSHAKE)])[: len(_HANDSHAKE)]
        if len(self._head) == len(_HANDSHAKE):
            self.receive_data = self._reader.feed  # type: ignore[method-assign]  # one call less for each read
            if self._head == _HANDSHAKE:
                self._replies.append(self._foreign("TLS").reply)
                self._closing = True

    def next_event(self) -> Event | None:
        """Return the next event.

        Returns:
            The replies to complete requests, up to about `SEND_SIZE` bytes; the work that a request asks for; Close
            after QUIT or an error; None if more input is needed.

        Raises:
            AdapterError: the last `Compute` was not answered by `receive_digest`.
        """
        if self._awaits_digest:
            raise AdapterError("next_event before the digest of a Compute was received")
        if self._upcoming is not None:
            return self._start(self._upcoming)
        if self._blob_left:
            return self._next_of_blob()
        replies = self._replies
        if not self._closing:
            next_request = self._next_request
            handlers = self._handlers
            size = 0
            try:
                for _ in range(self._limits.pipeline):
                    request = next_request()
                    if request is None:
                        break
                    self._answered += 1
                    name = request[0] if request[0] in handlers else request[0].upper()
                    # Not `get`, as with the tables of the reader.
                    handler = handlers[name] if name in handlers else Command._unknown  # noqa: SIM401
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
        """Return the error for a datagram without a request, or with an incomplete one; empty if there is no error."""
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

    # A handler returns its reply. None: it has changed what comes next (work, a blob, the close, the source of
    # requests, the table of handlers), so the loop in `next_event` must stop here.

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
        sections = dict(_INFO)
        for section in _TITLE.split(self._info())[1:]:
            title, _, lines = section.partition("\r\n")
            sections[title] = sections.get(title, "") + lines
        sections["Connection"] = f"peer:{self._peer}\r\nrequests:{self._answered}\r\n"
        asked = {word.lower() for word in request[1:]}
        is_all = not asked or bool(asked & {b"all", b"default", b"everything"})
        wanted = [title for title in sections if is_all or title.lower().encode() in asked]
        return _text("\r\n".join(f"# {title}\r\n{sections[title]}" for title in wanted))

    def _quit(self, request: list[bytes]) -> None:
        self._replies.append(_OK)
        self._closing = True

    def _unknown(self, request: list[bytes]) -> bytes | None:
        name = request[0].upper()
        if name == b"POST" or name.startswith(b"HOST:"):
            # As Redis does, without a reply: a web page can make a browser send a request with commands in its body.
            self._foreign("HTTP")
            self._closing = True
            return None
        protocol = _GREETINGS.get(name) or ("SSH" if name.startswith(b"SSH-") else None)
        if len(request) == 3 and (request[1].startswith((b"/", b"*")) or b":" in request[1]):
            version = request[2].upper()
            protocol = next((_VERSIONS[start] for start in _VERSIONS if version.startswith(start)), protocol)
        if protocol:
            raise self._foreign(protocol)
        self._is_aborted = True
        return b"-ERR unknown command %b\r\n" % _quote(request[0])

    def _foreign(self, protocol: str) -> PeerError:
        """Report a client of another protocol to the log, and return the error for it."""
        self._report(f"closed a connection from {self._peer!a}: it speaks {protocol} to the port of command")
        return PeerError(f"this is {protocol}, and this port speaks RESP")

    # Transactions. After MULTI, all but a few commands go to `_enqueue`. EXEC makes the queue the source of requests in
    # place of the reader, so `next_event` answers them like any others, also those that wait or compute.

    def _multi(self, request: list[bytes]) -> bytes | None:
        if len(request) != 1:
            return self._refuse(request)
        if self._handlers is _QUEUEING:
            return b"-ERR MULTI calls can not be nested\r\n"
        self._handlers = _QUEUEING
        self._is_aborted = False
        self._replies.append(_OK)
        return None

    def _enqueue(self, request: list[bytes]) -> bytes:
        name = request[0].upper()
        least, most = _ARITY[name]
        if not least <= len(request) <= most:
            return self._refuse(request)
        if not self._is_aborted:
            self._queue_size += _KEEPING * (1 + len(request)) + sum(map(len, request))
            if self._queue_size > self._limits.transaction:
                self._is_aborted = True
                self._queue.clear()
                return b"-ERR the transaction is over the limit of %d bytes\r\n" % self._limits.transaction
            self._queue.append(tuple(request))  # a tuple is smaller than a list
        return b"+QUEUED\r\n"

    def _exec(self, request: list[bytes]) -> bytes | None:
        if len(request) != 1:
            reply = b"-EXECABORT Transaction discarded because of: %b" % _wrong_arity(request).removeprefix(b"-ERR ")
        elif self._handlers is not _QUEUEING:
            reply = b"-ERR EXEC without MULTI\r\n"
        elif self._is_aborted:
            reply = b"-EXECABORT Transaction discarded because of previous errors.\r\n"
        else:
            self._replies.append(b"*%d\r\n" % len(self._queue))
            self._queue.reverse()
            self._handlers = _HANDLERS
            self._next_request = self._next_queued
            return None
        self._forget_queue()
        self._replies.append(reply)
        return None

    def _next_queued(self) -> list[bytes] | None:
        if self._queue:
            self._answered -= 1  # it was counted when it arrived
            return list(self._queue.pop())
        self._forget_queue()
        self._next_request = self._reader.next_request
        return self._next_request()

    def _discard(self, request: list[bytes]) -> bytes | None:
        if len(request) != 1:
            return self._refuse(request)
        if self._handlers is not _QUEUEING:
            return b"-ERR DISCARD without MULTI\r\n"
        self._forget_queue()
        self._replies.append(_OK)
        return None

    def _reset(self, request: list[bytes]) -> bytes | None:
        if len(request) != 1:
            return self._refuse(request)
        self._forget_queue()
        self._protocol = 2
        self._name = b""
        self._replies.append(b"+RESET\r\n")
        return None

    def _forget_queue(self) -> None:
        self._queue.clear()
        self._queue_size = 0
        self._handlers = _HANDLERS

    def _refuse(self, request: list[bytes]) -> bytes:
        self._is_aborted = True
        return _wrong_arity(request)

    # What clients ask when they connect. They need replies of the right type, and the errors of Redis.

    def _select(self, request: list[bytes]) -> bytes:
        if len(request) != 2:
            return _wrong_arity(request)
        index = _integer(request[1])
        if index is None:
            return b"-ERR value is not an integer or out of range\r\n"
        if not -(2**31) <= index < 2**31:
            return b"-ERR value is out of range, value must between -2147483648 and 2147483647\r\n"
        return b"-ERR DB index is out of range\r\n" if index else _OK

    def _auth(self, request: list[bytes]) -> bytes:
        # As a Redis without a password: the user `default` may use any password, and there is no other user.
        match len(request):
            case 2:
                return (
                    b"-ERR AUTH <password> called without any password configured for the default user. "
                    b"Are you sure your configuration is correct?\r\n"
                )
            case 3:
                return _OK if request[1] == b"default" else _WRONG_PASSWORD
            case 1:
                return _wrong_arity(request)
        return b"-ERR syntax error\r\n"

    def _command(self, request: list[bytes]) -> bytes:
        if len(request) == 1:
            return _array([b"*10\r\n%b%b" % (_bulk(name.lower()), _ANY_COMMAND) for name in _HANDLERS])
        if request[1].upper() == b"COUNT":
            return b":%d\r\n" % len(_HANDLERS)
        return b"*0\r\n"  # such as COMMAND DOCS: there are none

    def _config(self, request: list[bytes]) -> bytes:
        if len(request) < 2:
            return _wrong_arity(request)
        if len(request) < 3 or request[1].upper() != b"GET":
            return b"-ERR only CONFIG GET is known here\r\n"
        values = {b"save": b"", b"appendonly": b"no", b"databases": b"1"}
        asked = [name.lower() for name in request[2:]]
        return self._map({name: _bulk(values[name]) for name in asked if name in values})

    def _client(self, request: list[bytes]) -> bytes:
        if len(request) < 2:
            return _wrong_arity(request)
        match request[1].upper():
            case b"SETNAME" if len(request) == 3:
                return self._rename(request[2]) or _OK
            case b"SETINFO" | b"NO-EVICT" | b"NO-TOUCH":
                return _OK
            case b"ID":
                return b":1\r\n"
            case b"GETNAME":
                if self._name:
                    return _bulk(self._name)
                return b"_\r\n" if self._protocol == 3 else b"$-1\r\n"
            case b"INFO" | b"LIST":
                name = self._name.decode("ascii")
                return _text(f"id=1 addr={self._peer} name={name} db=0 resp={self._protocol} user=default\n")
        return b"-ERR unknown subcommand of CLIENT\r\n"

    def _rename(self, name: bytes) -> bytes:
        """Set the client's name; return the error if it is not a valid name, else nothing."""
        if not all(0x21 <= byte <= 0x7E for byte in name):
            return b"-ERR Client names cannot contain spaces, newlines or special characters.\r\n"
        if len(name) > _NAME_SIZE:
            return b"-ERR Client names cannot be longer than %d bytes here\r\n" % _NAME_SIZE
        self._name = name
        return b""

    def _hello(self, request: list[bytes]) -> bytes:
        # RESP3, the default of redis-py, has every type of RESP2. Only maps and nulls are written differently here.
        protocol = self._protocol
        if len(request) > 1:
            version = _integer(request[1])
            if version is None:
                return b"-ERR Protocol version is not an integer or out of range\r\n"
            if version not in (2, 3):
                return b"-NOPROTO unsupported protocol version\r\n"
            protocol = version
        user = b"default"
        name = self._name
        options = deque(request[2:])
        while options:
            option = options.popleft()
            if option.upper() == b"AUTH" and len(options) >= 2:
                user = options.popleft()
                options.popleft()  # any password
            elif option.upper() == b"SETNAME" and options:
                name = options.popleft()
            else:
                return b"-ERR Syntax error in HELLO option %b\r\n" % _quote(option)
        if user != b"default":
            return _WRONG_PASSWORD
        if error := self._rename(name):
            return error
        self._protocol = protocol
        about = {
            b"server": b"socketlab",
            b"version": REDIS_VERSION.encode(),
            b"mode": b"standalone",
            b"role": b"master",
        }
        pairs = {name: _bulk(text) for name, text in about.items()}
        return self._map({**pairs, b"proto": b":%d\r\n" % protocol, b"id": b":1\r\n", b"modules": b"*0\r\n"})

    def _map(self, pairs: dict[bytes, bytes]) -> bytes:
        """Return a map of names to replies; RESP2 has no such type, so there it is a flat array."""
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
    b"SELECT": Command._select,
    b"AUTH": Command._auth,
    b"MULTI": Command._multi,
    b"EXEC": Command._exec,
    b"DISCARD": Command._discard,
    b"RESET": Command._reset,
}

# The commands that are not queued between MULTI and EXEC.
_AT_ONCE = (b"MULTI", b"EXEC", b"DISCARD", b"RESET", b"QUIT")
_QUEUEING = {name: _HANDLERS[name] if name in _AT_ONCE else Command._enqueue for name in _HANDLERS}

# The fewest and most words of a request that can be queued, with its name.
_ANY = sys.maxsize
_ARITY = {
    b"PING": (1, 2),
    b"ECHO": (2, 2),
    b"SLEEP": (2, 2),
    b"BURN": (2, 2),
    b"BLOB": (2, 2),
    b"INFO": (1, _ANY),
    b"COMMAND": (1, _ANY),
    b"CONFIG": (2, _ANY),
    b"CLIENT": (2, _ANY),
    b"HELLO": (1, _ANY),
    b"SELECT": (2, 2),
    b"AUTH": (2, _ANY),
}


def _bulk(data: bytes) -> bytes:
    if len(data) > SEND_SIZE:  # formatting enlarges its result step by step, and copies a large one several times
        return b"".join((b"$%d\r\n" % len(data), data, b"\r\n"))
    return b"$%d\r\n%b\r\n" % (len(data), data)


def _text(text: str) -> bytes:
    """Return a text as a bulk. In the path of a Unix socket, bytes that are not UTF-8 are surrogates in Python."""
    return _bulk(text.encode(errors="backslashreplace"))


def _array(items: list[bytes]) -> bytes:
    return b"*%d\r\n%b" % (len(items), b"".join(items))


def _quote(text: bytes) -> bytes:
    """Return a name for an error line: at most 64 bytes of it, and no CR, LF, NUL or high byte."""
    return repr(text[:64])[1:].encode("ascii")


def _wrong_arity(request: list[bytes]) -> bytes:
    return b"-ERR wrong number of arguments for %b command\r\n" % _quote(request[0].lower())


def _integer(text: bytes) -> int | None:
    """Return a whole number of 64 bits, as Redis reads it; None if it is none."""
    return int(text) if _INTEGER.fullmatch(text) and -(2**63) <= int(text) < 2**63 else None


def _number(request: list[bytes], limit: int, unit: str) -> int | bytes:
    """Return the only argument as a number from 0 to `limit`; otherwise the error to reply."""
    if len(request) != 2:
        return _wrong_arity(request)
    text = request[1]
    # No limit has more than 19 digits. int() is slow for very many digits, and fails from 4300 on.
    if text.isdigit() and len(text) < 20 and int(text) <= limit:
        return int(text)
    return b"-ERR %b takes 0 to %d %b, not %b\r\n" % (request[0].upper(), limit, unit.encode(), _quote(text))
