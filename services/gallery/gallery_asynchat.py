"""The gallery's asynchat server: a chat room, which is what the module was named for. One loop for all clients.

    TEXT            goes to everybody here, the speaker too, as `NUMBER: TEXT`
    /who            how many are here
    /count BYTES    the next BYTES bytes are data and no lines; answered by their CRC-32
    /quit           good-bye

The two kinds of terminator that asynchat knows, a line's end and a number of bytes, are both at work.
"""

import signal
import socket
import warnings
import zlib
from itertools import count

with warnings.catch_warnings():
    warnings.simplefilter("ignore", DeprecationWarning)  # Python 3.11 still has them, and says that it is the last
    import asynchat
    import asyncore

PORT = 7000
LONGEST = 4096  # bytes of a line
LARGEST = 1024 * 1024  # bytes of one /count
# What may wait for a member who does not read. asynchat would keep any amount, and that of a room adds up.
BACKLOG = 1000  # lines


class Member(asynchat.async_chat):
    """One client in the room."""

    def __init__(self, sock: socket.socket, number: int, room: "set[Member]") -> None:
        super().__init__(sock=sock)
        self._number = number
        self._room = room
        self._line = bytearray()
        self._left = 0  # bytes of a /count that are still to come
        self._crc = 0
        self._is_leaving = False
        self.set_terminator(b"\n")
        room.add(self)
        self.say(f"You are {number}. /who, /count BYTES, /quit; all else goes to everybody here.")

    def say(self, text: str) -> None:
        """Send a line; who has too many of them waiting is shown out."""
        if len(self.producer_fifo) > BACKLOG:  # type: ignore[attr-defined]  # typeshed has forgotten it
            self.handle_close()
        else:
            self.push(f"{text}\r\n".encode())

    def collect_incoming_data(self, data: bytes) -> None:
        """Called by asynchat with what came before the terminator, in pieces."""
        if self._left:
            self._crc = zlib.crc32(data, self._crc)
        elif not self._is_leaving:
            self._line += data
            if len(self._line) > LONGEST:
                self._leave(f"! a line has {LONGEST} bytes at most")

    def found_terminator(self) -> None:
        """Called by asynchat at a line's end, or when the bytes of a /count are all there."""
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
        """Called by asyncore when the client has closed."""
        self._room.discard(self)
        self.close()

    def handle_error(self) -> None:
        """Called by asyncore where a handler has raised: a client who is gone is no news, the rest is a bug."""
        self.handle_close()
        raise

    def _leave(self, last_words: str) -> None:
        self._is_leaving = True
        self._room.discard(self)
        self.say(last_words)
        self.close_when_done()


class Room(asyncore.dispatcher):
    """The listening socket, and who is there."""

    def __init__(self) -> None:
        super().__init__()
        self._members: set[Member] = set()
        self._numbers = count(1)
        self.create_socket()
        self.set_reuse_addr()
        self.bind(("0.0.0.0", PORT))  # noqa: S104 - the lab's network is internal
        self.listen(128)

    def handle_accepted(self, sock: socket.socket, addr: object) -> None:
        """Called by asyncore with each client."""
        Member(sock, next(self._numbers), self._members)


def main() -> None:
    """Serve until SIGTERM."""
    Room()
    signal.signal(signal.SIGTERM, lambda *_: exit())
    print(f"a chat room at port {PORT}", flush=True)
    asyncore.loop(use_poll=True)


if __name__ == "__main__":
    main()
