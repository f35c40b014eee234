"""The gallery's asynchat server: a chat room, after which the module is named. One loop for all clients.

    TEXT            is sent to all clients, also to its sender, as `NUMBER: TEXT`
    /who            replies with the number of clients
    /count BYTES    takes the next BYTES bytes as data, and replies with their CRC-32
    /quit           closes the connection

It uses both kinds of terminator that asynchat has: the end of a line, and a number of bytes.
"""

import signal
import socket
import warnings
import zlib
from itertools import count

with warnings.catch_warnings():
    warnings.simplefilter("ignore", DeprecationWarning)  # Python 3.11 is the last with these modules, and warns
    import asynchat
    import asyncore

PORT = 7000
LONGEST = 4096  # largest line, in bytes
LARGEST = 1024 * 1024  # largest /count, in bytes
# Lines that may wait for a client that does not read. asynchat has no limit, and the room has many clients.
BACKLOG = 1000


class Member(asynchat.async_chat):
    """One client in the room."""

    def __init__(self, sock: socket.socket, number: int, room: "set[Member]") -> None:
        super().__init__(sock=sock)
        self._number = number
        self._room = room
        self._line = bytearray()
        self._left = 0  # missing bytes of a /count
        self._crc = 0
        self._is_leaving = False
        self.set_terminator(b"\n")
        room.add(self)
        self.say(f"You are {number}. /who, /count BYTES, /quit; other lines go to all clients.")

    def say(self, text: str) -> None:
        """Send a line, or disconnect a client that has too many lines waiting."""
        if len(self.producer_fifo) > BACKLOG:  # type: ignore[attr-defined]  # missing in typeshed
            self.handle_close()
        else:
            self.push(f"{text}\r\n".encode())

    def collect_incoming_data(self, data: bytes) -> None:
        """Take a part of the input before the terminator."""
        if self._left:
            self._crc = zlib.crc32(data, self._crc)
        elif not self._is_leaving:
            self._line += data
            if len(self._line) > LONGEST:
                self._leave(f"! a line has at most {LONGEST} bytes")

    def found_terminator(self) -> None:
        """Answer a complete line, or a complete /count."""
        if self._left:
            self.say(f"{self._left} bytes, CRC-32 {self._crc:08x}")
            self._left = 0
            self.set_terminator(b"\n")
            return
        line, self._line = self._line.decode(errors="replace").removesuffix("\r"), bytearray()
        if self._is_leaving:
            return
        match line.split():
            case ["/who"]:
                self.say(f"{len(self._room)} here")
            case ["/quit"]:
                self._leave("Good-bye.")
            case ["/count", number] if number.isdecimal() and 0 < int(number) <= LARGEST:
                self._left, self._crc = int(number), 0
                self.set_terminator(self._left)
            case ["/count", *_]:
                self.say(f"! /count takes a number from 1 to {LARGEST}")
            case _:
                for member in list(self._room):
                    member.say(f"{self._number}: {line}")

    def handle_close(self) -> None:
        """Remove a client that has closed."""
        self._room.discard(self)
        self.close()

    def handle_error(self) -> None:
        """Remove a client whose handler has raised: a lost connection is normal, another exception is a bug."""
        self.handle_close()
        raise

    def _leave(self, last_words: str) -> None:
        self._is_leaving = True
        self._room.discard(self)
        self.say(last_words)
        self.close_when_done()


class Room(asyncore.dispatcher):
    """The listening socket and the clients."""

    def __init__(self) -> None:
        super().__init__()
        self._members: set[Member] = set()
        self._numbers = count(1)
        self.create_socket()
        self.set_reuse_addr()
        self.bind(("0.0.0.0", PORT))  # noqa: S104 - the lab's network is internal
        self.listen(128)

    def handle_accepted(self, sock: socket.socket, addr: object) -> None:
        """Add a client to the room."""
        Member(sock, next(self._numbers), self._members)


def main() -> None:
    """Serve until SIGTERM."""
    Room()
    signal.signal(signal.SIGTERM, lambda *_: exit())
    print(f"a chat room at port {PORT}", flush=True)
    # A signal just before the wait is handled after it, and the library's own 30 s are longer than `docker stop` waits.
    asyncore.loop(timeout=1.0, use_poll=True)


if __name__ == "__main__":
    main()
