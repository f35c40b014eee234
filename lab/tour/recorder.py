"""Record the data that a process sends and receives over its sockets: the dialogue of an exhibit.

Strategy: while an exhibit runs, the methods of `socket.socket` and `ssl.SSLSocket` that transfer bytes are wrapped, and
the wrappers record the bytes. The alternatives show less. A relay would replace the server: the code would name other
hosts and ports, a certificate would not match, and FTP's data connection, to an address that the server chooses, would
bypass it. A packet capture sees only ciphertext of TLS, and needs a capability that no container of the lab has. With
wrappers, the exhibit runs unchanged, the data connection is recorded too, and TLS is recorded decrypted.

Not recorded: packets (acknowledgements, retransmissions, segments); the TLS handshake, which happens in C; and loops
that do TLS themselves, as asyncio does. No exhibit uses one.

Only sockets that connect are recorded. If an exhibit is both client and server, the server's messages are those that
its client receives.
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
    """A message while it grows."""

    connection: int
    peer: str
    side: Side
    tls: bool
    kept: bytearray = field(default_factory=bytearray)
    size: int = 0


class Recorder:
    """Records connections while `recording`."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._parts: list[_Part] = []
        self._connections: weakref.WeakKeyDictionary[socket.socket, tuple[int, str]] = weakref.WeakKeyDictionary()
        self._count = 0
        self._names: dict[object, str] = {}
        self._inside = threading.local()

    def messages(self) -> list[Message]:
        """Return the recorded messages in order."""
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
        """Record the sockets of this process, in all threads, until the end of the block."""
        with contextlib.ExitStack() as stack:

            def replace(owner: Any, name: str, make: Callable[[Any], Any]) -> None:
                had_own = name in vars(owner)
                original = getattr(owner, name)
                setattr(owner, name, make(original))
                stack.callback(setattr, owner, name, original) if had_own else stack.callback(delattr, owner, name)

            replace(socket, "getaddrinfo", self._wrap_getaddrinfo)
            replace(ssl.SSLContext, "wrap_socket", self._wrap_wrap_socket)
            for name in ("connect", "connect_ex"):
                replace(socket.socket, name, self._wrap_connect)
            for owner in (socket.socket, ssl.SSLSocket):
                for name, make in self._make_wrappers().items():
                    replace(owner, name, make)
            yield

    def _make_wrappers(self) -> dict[str, Callable[[Any], Any]]:
        def sending(amount: Callable[[Any, Any], Any]) -> Callable[[Any], Any]:
            return lambda original: self._wrap(original, "client", amount)

        def receiving(amount: Callable[[Any, Any], Any]) -> Callable[[Any], Any]:
            return lambda original: self._wrap(original, "server", amount)

        return {
            "send": sending(lambda sent, data: memoryview(data).cast("B")[:sent]),
            "sendall": sending(lambda _, data: data),
            "sendmsg": sending(lambda sent, buffers: b"".join(buffers)[:sent]),
            "recv": receiving(lambda got, _: got),
            "recv_into": receiving(lambda size, buffer: memoryview(buffer).cast("B")[:size]),
        }

    def _wrap(self, original: Any, side: Side, amount: Callable[[Any, Any], Any]) -> Any:
        def method(stream: socket.socket, *arguments: Any, **options: Any) -> Any:
            # A method may call another one, as SSLSocket.sendall calls send: only the outermost is recorded.
            if getattr(self._inside, "is_wrap", False):
                return original(stream, *arguments, **options)
            # asyncio passes an iterator to sendmsg, which can be read only once.
            if arguments and isinstance(arguments[0], Iterator):
                arguments = list(arguments[0]), *arguments[1:]
            self._inside.is_wrap = True
            try:
                result = original(stream, *arguments, **options)
            finally:
                self._inside.is_wrap = False
            self._record(stream, side, bytes(amount(result, arguments[0] if arguments else None)))
            return result

        return method

    def _record(self, stream: socket.socket, side: Side, data: bytes) -> None:
        with self._lock:
            known = self._connections.get(stream)
            if known is None or not data:
                return
            tls = isinstance(stream, ssl.SSLSocket)
            part = self._parts[-1] if self._parts else None
            if part is None or (part.connection, part.side, part.tls) != (known[0], side, tls):
                part = _Part(*known, side, tls)
                self._parts.append(part)
            part.size += len(data)
            part.kept += data[: KEPT - len(part.kept)]

    def _wrap_connect(self, original: Any) -> Any:
        def method(stream: socket.socket, address: Any) -> Any:
            if stream.family in (socket.AF_INET, socket.AF_INET6) and stream not in self._connections:
                with self._lock:
                    self._count += 1
                    self._connections[stream] = self._count, f"{self._names.get(address[0], address[0])}:{address[1]}"
            return original(stream, address)

        return method

    def _wrap_wrap_socket(self, original: Any) -> Any:
        def method(context: ssl.SSLContext, sock: socket.socket, *arguments: Any, **options: Any) -> Any:
            wrapped = original(context, sock, *arguments, **options)
            with self._lock:
                if (known := self._connections.get(sock)) is not None:
                    self._connections[wrapped] = known
            return wrapped

        return method

    def _wrap_getaddrinfo(self, original: Any) -> Any:
        def function(host: Any, *arguments: Any, **options: Any) -> Any:
            found = original(host, *arguments, **options)
            with self._lock:
                # The first name of an address counts: FTP's data connection uses the address itself.
                for *_, address in found:
                    if isinstance(host, str):
                        self._names.setdefault(address[0], host)
            return found

        return function
