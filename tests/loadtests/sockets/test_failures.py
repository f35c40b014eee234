"""The name of each failure: what was the server's fault, and what was the generator's own limit."""

import errno
import os
import socket
import ssl

import pytest

from loadtests.sockets.failures import WrongBytesError, translate


def of(number: int) -> OSError:
    return OSError(number, os.strerror(number))


@pytest.mark.parametrize(
    ("error", "name"),
    [
        (of(errno.ECONNREFUSED), "connection refused"),
        (of(errno.ENOENT), "connection refused"),  # the file of a Unix socket
        (of(errno.ECONNRESET), "connection reset"),
        (of(errno.EPIPE), "connection reset"),
        (of(errno.ECONNABORTED), "connection reset"),
        (of(errno.ETIMEDOUT), "time-out: no reply"),
        (TimeoutError(), "time-out: no reply"),
        (socket.gaierror(socket.EAI_NONAME, "unknown"), "unknown host"),
        (ssl.SSLError(1, "wrong version"), "TLS failed"),
        (of(errno.EADDRNOTAVAIL), "generator: no local port or descriptor left"),
        (of(errno.EMFILE), "generator: no local port or descriptor left"),
        (of(errno.ENFILE), "generator: no local port or descriptor left"),
        (of(errno.EHOSTUNREACH), "network error"),
    ],
)
def test_error_of_the_system_is_a_named_failure(error: OSError, name: str) -> None:
    assert str(translate(error)) == name


def test_detail_is_one_line_of_limited_length() -> None:
    assert str(WrongBytesError(" a\n  b\t")) == "wrong bytes (a b)"
    assert str(WrongBytesError()) == repr(WrongBytesError("  ")) == "wrong bytes"
    assert WrongBytesError("x" * 160).detail == "x" * 160
    assert WrongBytesError("x" * 161).detail == "x" * 160
