"""A second implementation of the protocol: the oracle of the tests and the fuzzers.

It shares no code with `services.protocol`, so that it does not repeat a mistake of the core. It follows
docs/protocol.md, RFC 862 to 864 and the behaviour of redis-server. It takes a whole stream at once, and prefers simple
code to fast code.

    answer("command", b"PING\\r\\n").sent             # a stream that ends in a half-close
    answer_datagram("echo", b"hello").sent           # one datagram
    chargen(1000)                                    # the first bytes of an endless stream
"""

import hashlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

GREETING = b"Thank you for connecting\r\n"
DATAGRAM = 65_507
COMMANDS = "ping echo sleep burn blob info quit command config client hello select auth multi exec discard reset"


@dataclass(frozen=True, slots=True)
class Bounds:
    """The limits of a server; the defaults are those of docs/protocol.md."""

    line: int = 65_536
    bulk: int = 1_048_576
    array: int = 1024
    request: int = 2_097_152
    transaction: int = 2_097_152
    sleep_ms: int = 60_000
    burn: int = 10_000_000
    blob: int = 67_108_864


@dataclass(slots=True)
class Answer:
    """Everything that a server does in answer to a stream.

    Args:
        sent: all bytes.
        waits: seconds of each SLEEP that was executed.
        rounds: of each BURN that was executed.
        ended: the server closes without waiting for the end of the stream.
        is_known: False if a reply depends on the state of the server (INFO, CLIENT LIST).
    """

    sent: bytes = b""
    waits: list[float] = field(default_factory=list)
    rounds: list[int] = field(default_factory=list)
    ended: bool = False
    is_known: bool = True


def chargen(size: int) -> bytes:
    """Return the first bytes of RFC 864's pattern: lines of 72 characters, each line starting one character later."""
    lines: list[bytes] = []
    while 74 * len(lines) < size:
        lines.append(bytes(32 + (len(lines) + column) % 95 for column in range(72)) + b"\r\n")
    return b"".join(lines)[:size]


def blob(size: int) -> bytes:
    """Return the reply to BLOB, without its header: the 95 printable characters from space on, repeated."""
    return bytes(range(32, 127)) * (size // 95) + bytes(range(32, 32 + size % 95))


def digest(rounds: int) -> bytes:
    """Return the reply to BURN, without its header: SHA-256 of 32 zero bytes, of that digest, and so on."""
    value = b"\x00" * 32
    for _ in range(rounds):
        value = hashlib.new("sha256", value).digest()
    return value.hex().encode()


def bulk(text: bytes) -> bytes:
    return b"$" + str(len(text)).encode() + b"\r\n" + text + b"\r\n"


def answer(service: str, stream: bytes, bounds: Bounds | None = None) -> Answer:
    """Return the answer to a stream that ends with a half-close. The answer of chargen has no end: use `chargen`."""
    match service:
        case "greet":
            return Answer(GREETING, ended=True)
        case "echo":
            return Answer(stream)
        case "discard":
            return Answer()
        case "command":
            return _Redis(bounds or Bounds()).serve(stream)
    raise ValueError(f"{service} has no answer that ends")


def answer_datagram(service: str, data: bytes, bounds: Bounds | None = None) -> Answer:
    """Return the answer to one datagram; `sent` is b"" if the server sends nothing back.

    `echo` answers an empty datagram with an empty datagram, which is b"" too.
    """
    if service == "command":
        redis = _Redis(bounds or Bounds())
        found = redis.serve(data, is_datagram=True)
        if not found.ended and not redis.is_at_end:
            found.sent += b"-ERR Protocol error: the datagram ends inside a request\r\n"
        elif not found.ended and not redis.has_answered:
            found.sent += b"-ERR the datagram holds no request\r\n"
    else:
        found = answer(service, data)
    if len(found.sent) > DATAGRAM:
        found.sent = b"-ERR the reply does not fit into a datagram of 65507 bytes\r\n"
    return found


class _BrokenError(Exception):
    """The rest of the stream cannot be parsed; the message is sent to the client."""


class _ExcessError(Exception):
    """A datagram asks for too much; its error replaces all other replies."""


class _Redis:
    """One client of `command`."""

    def __init__(self, bounds: Bounds) -> None:
        self.bounds = bounds
        self.answer = Answer()
        self.is_datagram = False
        self.has_answered = False
        self.is_at_end = False  # no part of another request is left
        self.protocol = 2
        self.name = b""
        self.queue: list[list[bytes]] | None = None  # since MULTI
        self.queued_bytes = 0
        self.is_aborted = False

    def serve(self, stream: bytes, *, is_datagram: bool = False) -> Answer:
        self.is_datagram = is_datagram
        try:
            if stream[:2] == b"\x16\x03":
                raise _BrokenError("this is TLS, and this port speaks RESP")
            for request in self.requests(stream):
                self.has_answered = True
                self.say(self.reply(request))
                if self.answer.ended:
                    break
        except _BrokenError as error:
            self.say(b"-ERR Protocol error: " + str(error).encode("ascii") + b"\r\n")
            self.answer.ended = True
        except _ExcessError as error:
            self.answer.sent = b"-ERR a datagram may ask for " + str(error).encode("ascii") + b" in all\r\n"
            self.answer.ended = True
        return self.answer

    def say(self, reply: bytes) -> None:
        """Add a reply; end if the datagram becomes too large, which `answer_datagram` replaces by an error."""
        self.answer.sent += reply
        if self.is_datagram and len(self.answer.sent) > DATAGRAM:
            self.answer.ended = True

    # Requests.

    def requests(self, stream: bytes) -> Iterator[list[bytes]]:
        """Yield the complete requests of a stream until it ends or cannot be parsed."""
        position = 0
        while position < len(stream):
            if stream[position : position + 1] == b"*":
                found = self.array(stream, position)
            else:
                found = self.line(stream, position)
            if found is None:
                return
            request, position = found
            if request:
                yield request
        self.is_at_end = True

    def line(self, stream: bytes, start: int) -> tuple[list[bytes], int] | None:
        most = self.bounds.line
        text, newline, _ = stream[start : start + most].partition(b"\n")
        if not newline:
            if len(text) == most:
                raise _BrokenError(f"line is longer than {most} bytes")
            return None
        words = split(text)
        if len(words) > self.bounds.array:
            raise _BrokenError(f"{len(words)} arguments are over the limit of {self.bounds.array}")
        return words, start + len(text) + 1

    def array(self, stream: bytes, start: int) -> tuple[list[bytes], int] | None:
        header = self.header(stream, start, "array")
        if header is None:
            return None
        digits, position = header
        if digits in (b"-1", b"0"):
            return [], position
        count = number(digits)
        if count is None:
            raise _BrokenError(f"array length {quoted(digits, 16)} is not a number of arguments")
        if count > self.bounds.array:
            raise _BrokenError(f"array of {count} arguments is over the limit of {self.bounds.array}")
        words: list[bytes] = []
        while len(words) < count:
            kind = stream[position : position + 1]
            if not kind:
                return None
            if kind != b"$":
                raise _BrokenError(f"expected '$', got {quoted(kind, 16)}")
            header = self.header(stream, position, "bulk")
            if header is None:
                return None
            digits, position = header
            size = number(digits)
            if size is None:
                raise _BrokenError(f"bulk length {quoted(digits, 16)} is not a number of bytes")
            if size > self.bounds.bulk:
                raise _BrokenError(f"bulk of {size} bytes is over the limit of {self.bounds.bulk}")
            total = sum(len(word) for word in words) + size
            if total > self.bounds.request:
                raise _BrokenError(f"request of {total} bytes is over the limit of {self.bounds.request}")
            word, end = stream[position : position + size], stream[position + size : position + size + 2]
            if len(end) < 2:
                return None
            if end != b"\r\n":
                raise _BrokenError(f"a bulk of {size} bytes is not followed by CR LF")
            words.append(word)
            position += size + 2
        return words, position

    def header(self, stream: bytes, start: int, what: str) -> tuple[bytes, int] | None:
        """Return the text between the type byte and CR LF, and the position after it; at most sixteen bytes."""
        text, end, _ = stream[start : start + 16].partition(b"\r\n")
        if end:
            return text[1:], start + len(text) + 2
        if len(text) == 16:
            raise _BrokenError(f"{what} header is longer than 16 bytes")
        return None

    # Replies.

    def reply(self, request: list[bytes]) -> bytes:
        name = request[0].upper()
        refused = self.refuse(request, name)
        if refused is not None:
            self.is_aborted = True
            if name == b"EXEC":
                self.queue = None
            return refused
        if self.queue is not None and name not in (b"MULTI", b"EXEC", b"DISCARD", b"RESET", b"QUIT"):
            return self.enqueue(self.queue, request)
        return self.execute(request, name)

    def refuse(self, request: list[bytes], name: bytes) -> bytes | None:
        """Return the error if a request is unknown or has a wrong number of arguments."""
        if name.decode("latin-1").lower() not in COMMANDS.split():
            return self.unknown(request, name)
        least, most = _ARITY[name]
        if least <= len(request) <= most:
            return None
        reason = b"wrong number of arguments for '" + name.lower() + b"' command\r\n"
        return b"-EXECABORT Transaction discarded because of: " + reason if name == b"EXEC" else b"-ERR " + reason

    def unknown(self, request: list[bytes], name: bytes) -> bytes:
        if name == b"POST" or name[:5] == b"HOST:":
            self.answer.ended = True
            return b""
        protocol = ""
        if name in (b"EHLO", b"HELO", b"LHLO"):
            protocol = "SMTP"
        if name[:4] == b"SSH-":
            protocol = "SSH"
        if len(request) == 3 and (request[1][:1] in (b"/", b"*") or b":" in request[1]):
            version = request[2].upper()
            words = (word for word in ("HTTP", "RTSP", "SIP") if version.startswith(f"{word}/".encode()))
            protocol = next(words, protocol)
        if protocol:
            raise _BrokenError(f"this is {protocol}, and this port speaks RESP")
        return b"-ERR unknown command " + quoted(request[0], 64).encode() + b"\r\n"

    def enqueue(self, queue: list[list[bytes]], request: list[bytes]) -> bytes:
        if not self.is_aborted:
            self.queued_bytes += 64 + sum(64 + len(word) for word in request)
            if self.queued_bytes > self.bounds.transaction:
                self.is_aborted = True
                return b"-ERR the transaction is over the limit of %d bytes\r\n" % self.bounds.transaction
            queue.append(request)
        return b"+QUEUED\r\n"

    def execute(self, request: list[bytes], name: bytes) -> bytes:
        method: Callable[[list[bytes]], bytes] = getattr(self, "do_" + name.decode().lower())
        return method(request)

    def do_ping(self, request: list[bytes]) -> bytes:
        return bulk(request[1]) if request[1:] else b"+PONG\r\n"

    def do_echo(self, request: list[bytes]) -> bytes:
        return bulk(request[1])

    def do_sleep(self, request: list[bytes]) -> bytes:
        milliseconds = self.amount(request, self.bounds.sleep_ms, "ms")
        if isinstance(milliseconds, bytes):
            return milliseconds
        total = sum(round(seconds * 1000) for seconds in self.answer.waits) + milliseconds
        if self.is_datagram and total > self.bounds.sleep_ms:
            raise _ExcessError(f"{self.bounds.sleep_ms} ms of sleep")
        self.answer.waits.append(milliseconds / 1000)
        return b"+OK\r\n"

    def do_burn(self, request: list[bytes]) -> bytes:
        rounds = self.amount(request, self.bounds.burn, "rounds")
        if isinstance(rounds, bytes):
            return rounds
        if self.is_datagram and sum(self.answer.rounds) + rounds > self.bounds.burn:
            raise _ExcessError(f"{self.bounds.burn} rounds")
        self.answer.rounds.append(rounds)
        return bulk(digest(rounds))

    def do_blob(self, request: list[bytes]) -> bytes:
        size = self.amount(request, self.bounds.blob, "bytes")
        return size if isinstance(size, bytes) else bulk(blob(size))

    def amount(self, request: list[bytes], most: int, unit: str) -> int | bytes:
        value = number(request[1])
        if value is not None and len(request[1]) < 20 and value <= most:
            return value
        name = request[0].upper().decode()
        return f"-ERR {name} takes 0 to {most} {unit}, not {quoted(request[1], 64)}\r\n".encode()

    def do_quit(self, request: list[bytes]) -> bytes:
        self.answer.ended = True
        return b"+OK\r\n"

    def do_info(self, request: list[bytes]) -> bytes:
        self.answer.is_known = False
        return b""

    def do_command(self, request: list[bytes]) -> bytes:
        names = COMMANDS.split()
        if not request[1:]:
            entries = [
                b"*10\r\n" + bulk(name.encode()) + b":-1\r\n*0\r\n" + b":0\r\n" * 3 + b"*0\r\n" * 4 for name in names
            ]
            return b"*%d\r\n" % len(names) + b"".join(entries)
        return b":%d\r\n" % len(names) if request[1].upper() == b"COUNT" else b"*0\r\n"

    def do_config(self, request: list[bytes]) -> bytes:
        if len(request) < 3 or request[1].upper() != b"GET":
            return b"-ERR only CONFIG GET is known here\r\n"
        known = {b"save": b"", b"appendonly": b"no", b"databases": b"1"}
        asked = list(dict.fromkeys(word.lower() for word in request[2:]))
        return self.pairs([(word, bulk(known[word])) for word in asked if word in known])

    def do_client(self, request: list[bytes]) -> bytes:
        word = request[1].upper()
        if word in (b"SETINFO", b"NO-EVICT", b"NO-TOUCH"):
            return b"+OK\r\n"
        if word == b"SETNAME" and len(request) == 3:
            return self.rename(request[2]) or b"+OK\r\n"
        if word == b"GETNAME":
            return bulk(self.name) if self.name else (b"$-1\r\n", b"_\r\n")[self.protocol == 3]
        if word == b"ID":
            return b":1\r\n"
        if word in (b"INFO", b"LIST"):
            self.answer.is_known = False
            return b""
        return b"-ERR unknown subcommand of CLIENT\r\n"

    def rename(self, name: bytes) -> bytes:
        """Set the client's name; return the error, or b"" if the name is valid."""
        if any(not 33 <= byte <= 126 for byte in name):
            return b"-ERR Client names cannot contain spaces, newlines or special characters.\r\n"
        if len(name) > 64:
            return b"-ERR Client names cannot be longer than 64 bytes here\r\n"
        self.name = name
        return b""

    def do_hello(self, request: list[bytes]) -> bytes:
        wanted, user, name = self.protocol, b"default", None
        if request[1:]:
            version = integer(request[1])
            if version is None:
                return b"-ERR Protocol version is not an integer or out of range\r\n"
            if version not in (2, 3):
                return b"-NOPROTO unsupported protocol version\r\n"
            wanted = version
        rest = request[2:]
        while rest:
            if rest[0].upper() == b"AUTH" and len(rest) > 2:
                user, rest = rest[1], rest[3:]
            elif rest[0].upper() == b"SETNAME" and len(rest) > 1:
                name, rest = rest[1], rest[2:]
            else:
                return b"-ERR Syntax error in HELLO option " + quoted(rest[0], 64).encode() + b"\r\n"
        if user != b"default":
            return b"-WRONGPASS invalid username-password pair or user is disabled.\r\n"
        if name is not None and (error := self.rename(name)):
            return error
        self.protocol = wanted
        texts = [(b"server", b"socketlab"), (b"version", b"7.0.0"), (b"mode", b"standalone"), (b"role", b"master")]
        items = [(key, bulk(text)) for key, text in texts]
        numbers = [(b"proto", b":%d\r\n" % wanted), (b"id", b":1\r\n"), (b"modules", b"*0\r\n")]
        return self.pairs(items + numbers)

    def pairs(self, items: list[tuple[bytes, bytes]]) -> bytes:
        head = b"%%%d\r\n" % len(items) if self.protocol == 3 else b"*%d\r\n" % (2 * len(items))
        return head + b"".join(bulk(key) + value for key, value in items)

    def do_select(self, request: list[bytes]) -> bytes:
        index = integer(request[1])
        if index is None:
            return b"-ERR value is not an integer or out of range\r\n"
        if abs(2 * index + 1) >= 2**32:
            return b"-ERR value is out of range, value must between -2147483648 and 2147483647\r\n"
        return b"-ERR DB index is out of range\r\n" if index else b"+OK\r\n"

    def do_auth(self, request: list[bytes]) -> bytes:
        if len(request) > 3:
            return b"-ERR syntax error\r\n"
        if len(request) == 2:
            return (
                b"-ERR AUTH <password> called without any password configured for the default user. "
                b"Are you sure your configuration is correct?\r\n"
            )
        if request[1] == b"default":
            return b"+OK\r\n"
        return b"-WRONGPASS invalid username-password pair or user is disabled.\r\n"

    def do_multi(self, request: list[bytes]) -> bytes:
        if self.queue is not None:
            return b"-ERR MULTI calls can not be nested\r\n"
        self.queue, self.queued_bytes, self.is_aborted = [], 0, False
        return b"+OK\r\n"

    def do_exec(self, request: list[bytes]) -> bytes:
        queue, self.queue = self.queue, None
        if queue is None:
            return b"-ERR EXEC without MULTI\r\n"
        if self.is_aborted:
            return b"-EXECABORT Transaction discarded because of previous errors.\r\n"
        self.say(b"*%d\r\n" % len(queue))
        for queued in queue:
            if not self.answer.ended:
                self.say(self.execute(queued, queued[0].upper()))
        return b""

    def do_discard(self, request: list[bytes]) -> bytes:
        queue, self.queue = self.queue, None
        return b"-ERR DISCARD without MULTI\r\n" if queue is None else b"+OK\r\n"

    def do_reset(self, request: list[bytes]) -> bytes:
        self.queue, self.name, self.protocol = None, b"", 2
        return b"+RESET\r\n"


# The minimum and maximum number of words of a request, including the command's name.
_ARITY = {name.upper().encode(): (1, 10**9) for name in COMMANDS.split()} | {
    b"PING": (1, 2),
    b"ECHO": (2, 2),
    b"SLEEP": (2, 2),
    b"BURN": (2, 2),
    b"BLOB": (2, 2),
    b"CONFIG": (2, 10**9),
    b"CLIENT": (2, 10**9),
    b"SELECT": (2, 2),
    b"AUTH": (2, 10**9),
    b"MULTI": (1, 1),
    b"EXEC": (1, 1),
    b"DISCARD": (1, 1),
    b"RESET": (1, 1),
}


def number(text: bytes) -> int | None:
    return int(text) if text and all(byte in b"0123456789" for byte in text) and len(text) < 4000 else None


def integer(text: bytes) -> int | None:
    """Parse a 64-bit integer as redis does: no plus sign, no blanks, no leading zeros."""
    digits = text[1:] if text[:1] == b"-" else text
    value = number(digits)
    if value is None or str(value).encode() != digits or (value == 0 and text != digits):
        return None
    value = -value if text[:1] == b"-" else value
    return value if -(2**63) <= value < 2**63 else None


def quoted(text: bytes, most: int) -> str:
    """Return the first bytes of a text as an error message shows them."""
    return repr(text[:most])[1:]


def split(line: bytes) -> list[bytes]:
    """Split a line into words as redis's sdssplitargs does, a character at a time."""
    blanks = b" \t\n\r\v\f"
    words: list[bytes] = []
    position = 0
    while True:
        while position < len(line) and line[position] in blanks:
            position += 1
        if position == len(line):
            return words
        word = b""
        while position < len(line) and line[position] not in blanks:
            character = line[position : position + 1]
            if character not in (b'"', b"'"):
                word += character
                position += 1
                continue
            text, position = _quoted_part(line, position + 1, character)
            word += text
            if position < len(line) and line[position] not in blanks:
                raise _BrokenError("unbalanced quotes in request")
        words.append(word)


def _quoted_part(line: bytes, position: int, quote: bytes) -> tuple[bytes, int]:
    """Return the quoted text that begins at a position, and the position after its closing quote."""
    text = b""
    while position < len(line):
        character, following = line[position : position + 1], line[position + 1 : position + 2]
        if character == quote:
            return text, position + 1
        if character == b"\\" and quote == b"'" and following == b"'":
            text += b"'"
            position += 2
        elif character == b"\\" and quote == b'"':
            digits = line[position + 2 : position + 4]
            if following == b"x" and len(digits) == 2 and all(byte in b"0123456789abcdefABCDEF" for byte in digits):
                text += bytes([int(digits, 16)])
                position += 4
            else:
                text += {b"n": b"\n", b"r": b"\r", b"t": b"\t", b"b": b"\b", b"a": b"\a"}.get(following, following)
                position += 2
        else:
            text += character
            position += 1
    raise _BrokenError("unbalanced quotes in request")
