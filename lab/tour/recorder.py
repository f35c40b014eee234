"""Notes what a process says over its own sockets, and what it hears: the truth about an exhibit's dialogue.

Strategy: the methods of `socket.socket` and `ssl.SSLSocket` through which bytes pass are replaced while an exhibit
runs, by ones that call them and note what went through. All else was weighed and is less true or less whole. A relay
would have to stand in for the server: the code would name other hosts and ports than a reader's own would, a
certificate would name another host, and FTP's second connection, to an address that the server names, would go past it.
A capture on the network sees cipher text where there is TLS, and needs a privilege that no container of the lab has.
Here the exhibit's code is as it stands in the file, the second connection is noted like the first, and of TLS there is
what was inside.

What it does not see: packets, and so acknowledgements, retransmissions and how bytes were cut; the handshake of TLS,
which happens in C; and what passes a loop that does TLS by itself, as asyncio does. No exhibit does that.

Only sockets that connect are noted. Where an exhibit is both client and server, what the server's side says is what the
client's side hears.
"""

import contextlib
import socket
import ssl
import threading
import weakref
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

from lab.tour.dialogue import KEPT, Message, Side, mask, show_text


@dataclass(slots=True)
class _Part:
    """What one side said before the other spoke, as it grows."""

    connection: int
    peer: str
    side: Side
    tls: bool
    kept: bytearray = field(default_factory=bytearray)
    size: int = 0


class Recorder:
    """Notes connections while `recording`."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._parts: list[_Part] = []
        self._connections: weakref.WeakKeyDictionary[socket.socket, tuple[int, str]] = weakref.WeakKeyDictionary()
        self._count = 0
        self._names: dict[object, str] = {}
        self._inside = threading.local()

    def messages(self) -> list[Message]:
        """What has been noted, in the order in which it happened."""
        with self._lock:
            return [
                Message(
                    part.connection,
                    part.peer,
                    part.side,
                    mask(show_text(bytes(part.kept))),
                    part.tls,
                    part.size - len(part.kept),
                )
                for part in self._parts
            ]

    @contextlib.contextmanager
    def recording(self) -> Iterator[None]:
        """Note what this process's sockets say and hear until the end of the block, in all its threads."""
        with contextlib.ExitStack() as stack:

            def replace(owner: Any, name: str, make: Callable[[Any], Any]) -> None:
                had_own = name in vars(owner)
                original = getattr(owner, name)
                setattr(owner, name, make(original))
                stack.callback(setattr, owner, name, original) if had_own else stack.callback(delattr, owner, name)

            replace(socket, "getaddrinfo", self._remember_names)
            replace(ssl.SSLContext, "wrap_socket", self._follow_into_tls)
            for name in ("connect", "connect_ex"):
                replace(socket.socket, name, self._note_connect)
            for owner in (socket.socket, ssl.SSLSocket):
                for name, make in self._makers().items():
                    # SSLSocket has what it does otherwise; the rest it inherits, replaced already.
                    if owner is socket.socket or name in vars(ssl.SSLSocket):
                        replace(owner, name, make)
            yield

    def _makers(self) -> dict[str, Callable[[Any], Any]]:
        def said(amount: Callable[[Any, Any], Any]) -> Callable[[Any], Any]:
            return lambda original: self._noting(original, "client", amount)

        def heard(amount: Callable[[Any, Any], Any]) -> Callable[[Any], Any]:
            return lambda original: self._noting(original, "server", amount)

        return {
            "send": said(lambda sent, data: memoryview(data).cast("B")[:sent]),
            "sendall": said(lambda _, data: data),
            "sendmsg": said(lambda sent, buffers: b"".join(buffers)[:sent]),
            "recv": heard(lambda got, _: got),
            "recv_into": heard(lambda size, buffer: memoryview(buffer).cast("B")[:size]),
        }

    def _noting(self, original: Any, side: Side, amount: Callable[[Any, Any], Any]) -> Any:
        def method(link: socket.socket, *arguments: Any, **options: Any) -> Any:
            # One method may be made of another, as SSLSocket.sendall is of send: the outermost is noted.
            if getattr(self._inside, "is_noting", False):
                return original(link, *arguments, **options)
            # asyncio gives sendmsg an iterator, which can be read once.
            if arguments and isinstance(arguments[0], Iterator):
                arguments = list(arguments[0]), *arguments[1:]
            self._inside.is_noting = True
            try:
                result = original(link, *arguments, **options)
            finally:
                self._inside.is_noting = False
            self._note(link, side, bytes(amount(result, arguments[0] if arguments else None)))
            return result

        return method

    def _note(self, link: socket.socket, side: Side, data: bytes) -> None:
        with self._lock:
            known = self._connections.get(link)
            if known is None or not data:
                return
            tls = isinstance(link, ssl.SSLSocket)
            part = self._parts[-1] if self._parts else None
            if part is None or (part.connection, part.side, part.tls) != (known[0], side, tls):
                part = _Part(*known, side, tls)
                self._parts.append(part)
            part.size += len(data)
            part.kept += data[: KEPT - len(part.kept)]

    def _note_connect(self, original: Any) -> Any:
        def method(link: socket.socket, address: Any) -> Any:
            if link.family in (socket.AF_INET, socket.AF_INET6) and link not in self._connections:
                with self._lock:
                    self._count += 1
                    self._connections[link] = self._count, f"{self._names.get(address[0], address[0])}:{address[1]}"
            return original(link, address)

        return method

    def _follow_into_tls(self, original: Any) -> Any:
        def method(context: ssl.SSLContext, sock: socket.socket, *arguments: Any, **options: Any) -> Any:
            wrapped = original(context, sock, *arguments, **options)
            with self._lock:
                if (known := self._connections.get(sock)) is not None:
                    self._connections[wrapped] = known
            return wrapped

        return method

    def _remember_names(self, original: Any) -> Any:
        def function(host: Any, *arguments: Any, **options: Any) -> Any:
            found = original(host, *arguments, **options)
            with self._lock:
                # The first name counts: FTP's second connection asks for an address, not for a name.
                for *_, address in found:
                    if isinstance(host, str):
                        self._names.setdefault(address[0], host)
            return found

        return function
