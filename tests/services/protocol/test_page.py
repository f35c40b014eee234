"""docs/protocol.md says what is so: its transcripts, its limits and its example are run."""

import ast
import re
import socket
import threading
from collections.abc import Callable
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest

from services.protocol import SERVICES, Connection, Limits

PAGE = (Path(__file__).resolve().parents[3] / "docs" / "protocol.md").read_text(encoding="utf-8")
# `$ printf 'what is typed' | nc -N host port`, then what is printed, up to the next command or the end of the block.
TRANSCRIPTS = re.findall(r"^    \$ printf '(.*)' \| nc -N \w+ (\d+)\n((?:    (?!\$ ).*\n)+)", PAGE, re.MULTILINE)
(EXAMPLE,) = re.findall(r"^```python\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL)


@pytest.mark.parametrize(("typed", "port", "printed"), TRANSCRIPTS, ids=range(len(TRANSCRIPTS)))
def test_transcript(pull: Callable[..., Any], typed: str, port: str, printed: str) -> None:
    (service,) = (name for name, item in SERVICES.items() if item.port == int(port))
    connection = Connection(service)
    data: bytes = ast.literal_eval(f"b'{typed}'")
    if data:
        connection.receive_data(data)
    connection.receive_eof()
    outcome = pull(connection)
    assert outcome.closed
    assert outcome.sent.decode("ascii").splitlines() == [line[4:] for line in printed.splitlines()]


def test_every_transcript_was_found() -> None:
    assert len(TRANSCRIPTS) == PAGE.count("| nc -N ") > 5


def test_table_of_services() -> None:
    rows = re.findall(r"^\| `(\w+)` \| (\d+) \| (yes|no) \| (\d*) ?\|", PAGE, re.MULTILINE)
    assert rows == [
        (name, str(service.port), "yes" if service.over_datagrams else "no", str(service.tls_port or ""))
        for name, service in SERVICES.items()
    ]


def test_table_of_limits() -> None:
    rows = re.findall(r"^\| `(LAB_\w+)` \| (\d+) \|", PAGE, re.MULTILINE)
    assert rows == [(item.metadata["variable"], f"{item.default:.0f}") for item in fields(Limits)]


def test_every_command_has_a_row(pull: Callable[..., Any]) -> None:
    connection = Connection("command")
    connection.receive_data(b"COMMAND\n")
    known = re.findall(rb"\*10\r\n\$\d+\r\n(\w+)\r\n", pull(connection).sent)
    for name in known:
        assert re.search(rf"^\|.*`{name.decode().upper()}\b.*\|", PAGE, re.MULTILINE), name


def test_example_serves() -> None:
    namespace: dict[str, Any] = {}
    exec(compile(EXAMPLE, "docs/protocol.md", "exec"), namespace)  # noqa: S102  # our own page
    here, there = socket.socketpair()
    with here, there:
        here.settimeout(30)
        thread = threading.Thread(target=namespace["serve_connection"], args=(there, "command"))
        thread.start()
        here.sendall(b"PING\r\nSLEEP 1\r\nBURN 0\r\nQUIT\r\n")
        received = b""
        while chunk := here.recv(65536):
            received += chunk
        thread.join(30)
        assert not thread.is_alive()
    assert received == b"+PONG\r\n+OK\r\n$64\r\n" + b"0" * 64 + b"\r\n+OK\r\n"
