"""Where a service is spoken: `tcp://127.0.0.1:7`, `tls://...`, `udp://...`, `unix:///run/lab/echo.sock`, `unixgram:///...`."""

import re
from dataclasses import dataclass
from enum import StrEnum
from typing import Self

_HOST_AND_PORT = re.compile(r"(?:\[([^\s\[\]/?#@]*:[^\s\[\]/?#@]*)\]|([^\s\[\]/?#@:]+))(?::([^\s\[\]/?#@:]*))?")
_PORT = re.compile(r"[0-9]{1,5}")


class AddressError(ValueError):
    """An address that cannot be used; the message quotes it and says what is wrong."""


class Transport(StrEnum):
    """The ways to a service."""

    TCP = "tcp"
    TLS = "tls"
    UDP = "udp"
    UNIX = "unix"
    UNIXGRAM = "unixgram"

    @property
    def is_datagram(self) -> bool:
        """Whether one message is a whole conversation."""
        return self in (Transport.UDP, Transport.UNIXGRAM)

    @property
    def carrier(self) -> "Transport":
        """The transport as the kernel sees it: TLS is TCP."""
        return Transport.TCP if self is Transport.TLS else self

    @property
    def is_unix(self) -> bool:
        """Whether the address is a path in the file system."""
        return self in (Transport.UNIX, Transport.UNIXGRAM)


@dataclass(frozen=True, slots=True)
class Address:
    """One end point: `host` and `port` (None where none was given) for TCP, TLS and UDP, `path` for Unix sockets."""

    transport: Transport
    host: str = ""
    port: int | None = None
    path: str = ""

    @classmethod
    def parse(cls, url: str) -> Self:
        """Read an address.

        Raises:
            AddressError: what is wrong with it, in one line.
        """
        scheme, separator, _ = url.partition("://")
        if not separator or scheme not in list(Transport):
            raise AddressError(f"{url!r} does not start with {', '.join(f'{item}://' for item in Transport)}")
        # urlsplit drops line ends without a word; a socket's path cannot hold NUL, nor be shown with what is not text.
        if not url.isprintable():
            raise AddressError(f"{url!r} holds characters that cannot be printed")
        transport = Transport(scheme)
        if transport.is_unix:
            path = url.removeprefix(f"{scheme}://")
            if not path.startswith("/"):
                raise AddressError(f"{url!r} needs an absolute path, as in {scheme}:///run/lab/echo.sock")
            # sockaddr_un holds 108 bytes with the terminating NUL, unix(7).
            if len(path.encode()) > 107:
                raise AddressError(
                    f"{url!r}: a Unix socket's path has at most 107 bytes, this one has {len(path.encode())}"
                )
            return cls(transport, path=path)
        rest = url.removeprefix(f"{scheme}://")
        match = _HOST_AND_PORT.fullmatch(rest)
        if match is None:
            if rest.count(":") > 1 and not rest.startswith("["):
                host, _, port = rest.rpartition(":")
                raise AddressError(f"{url!r}: an IPv6 address stands in brackets, as in {scheme}://[{host}]:{port}")
            raise AddressError(f"{url!r} is not of the form {scheme}://host:port, or {scheme}://[IPv6 address]:port")
        bracketed, plain, port = match.groups()
        if port is not None and not (_PORT.fullmatch(port) and int(port) < 65536):
            raise AddressError(f"{url!r}: {port!r} is not a port, which is a number from 0 to 65535")
        return cls(transport, host=(bracketed or plain).lower(), port=None if port is None else int(port))

    def __str__(self) -> str:
        if self.transport.is_unix:
            return f"{self.transport}://{self.path}"
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{self.transport}://{host}" + ("" if self.port is None else f":{self.port}")
