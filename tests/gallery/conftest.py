"""The gallery from inside its network: `tests/lab/servers/docker/test_gallery.py` starts it and runs this there, with
`--network`.

Elsewhere none of its names means anything, and these tests are left out.
"""

import os
import socket
import ssl
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Self
from uuid import uuid4

import pytest

HERE = Path(__file__).parent

# Seconds that a client waits before it gives up. What it waits for takes milliseconds.
PATIENCE = 20.0

ANN = ("ann", "anns-secret")
BOB = ("bob", "bobs-secret")
WRONG = ("ann", "bobs-secret")


# Before xdist, which reads the groups in the same hook.
@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    files = {path for path in {item.path for item in items} if HERE in path.parents}
    ours = [item for item in items if item.path in files]
    if not config.getoption("network"):
        config.hook.pytest_deselected(items=ours)
        items[:] = [item for item in items if item.path not in files]
        return
    for item in ours:
        # What one says in the chat room all others hear: one worker at a time goes there.
        if "asynchat" in item.nodeid.lower():
            item.add_marker(pytest.mark.xdist_group("asynchat"))


@pytest.fixture(scope="session")
def tls() -> ssl.SSLContext:
    """A context that trusts only the lab's CA."""
    return ssl.create_default_context(cafile=os.environ["LAB_TLS_CA"])


@pytest.fixture
def name() -> str:
    """A name that no other test uses."""
    return uuid4().hex


class Talk:
    """A conversation in lines, as a person has one with nc.

    Args:
        link: a connected socket; closed by `with`.
    """

    def __init__(self, link: socket.socket) -> None:
        self.link = link
        self._rest = b""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self.link.close()

    def say(self, line: str | bytes) -> None:
        """Send a line."""
        self.link.sendall((line.encode() if isinstance(line, str) else line) + b"\r\n")

    def hear(self) -> str:
        """Return the next line without its end; empty at the end of the connection."""
        while b"\n" not in self._rest and (data := self.link.recv(65536)):
            self._rest += data
        line, _, self._rest = self._rest.partition(b"\n")
        return line.rstrip(b"\r").decode("utf-8", "replace")

    def hear_until(self, end: str) -> list[str]:
        """Return all lines before this one."""
        lines = []
        while (line := self.hear()) != end:
            lines.append(line)
        return lines

    def hear_all(self) -> bytes:
        """Return everything until the end of the connection."""
        data = self._rest
        while more := self.link.recv(65536):
            data += more
        return data

    def ask(self, line: str | bytes) -> str:
        """Send a line, and return the reply."""
        self.say(line)
        return self.hear()

    def secure(self, context: ssl.SSLContext, host: str) -> None:
        """Start TLS."""
        self.link = context.wrap_socket(self.link, server_hostname=host)


@pytest.fixture
def talk() -> Iterator[Callable[[str, int], Talk]]:
    """Open conversations, which are closed after the test."""
    with ExitStack() as stack:
        yield lambda host, port: stack.enter_context(Talk(socket.create_connection((host, port), PATIENCE)))
