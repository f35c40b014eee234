"""greet: the textbook's first server, and its client unchanged."""

import socket

import pytest

from services.protocol.greet import GREETING

stream = pytest.mark.service("greet", "stream")
datagram = pytest.mark.service("greet", "datagram")


def read_all(link) -> bytes:
    return b"".join(iter(link.receive, b""))


@stream
def test_thanks_and_closes(target) -> None:
    with target.connect() as link:
        assert read_all(link) == GREETING


@pytest.mark.service("greet", "stream")
def test_answers_the_textbooks_client(target) -> None:
    family = socket.AF_UNIX if target.transport.is_unix else socket.AF_INET
    address = target.address.path if target.transport.is_unix else (target.address.host, target.address.port)
    s = socket.socket(family)
    s.connect(address)
    greeting = s.recv(1024)
    s.close()
    assert greeting.decode().strip() == "Thank you for connecting"


@stream
def test_greets_whoever_speaks_first(target) -> None:
    """What the client sent is unread when the server closes; the greeting must arrive nevertheless."""
    with target.connect() as link:
        link.send(b"x" * 1000)
        assert read_all(link) == GREETING


@stream
def test_greets_whoever_has_closed_its_half(target) -> None:
    with target.connect() as link:
        link.half_close()
        assert read_all(link) == GREETING


@datagram
@pytest.mark.parametrize("data", [b"", b"hello", bytes(1000)], ids=["empty", "short", "long"])
def test_answers_a_datagram_of_any_content(target, data: bytes) -> None:
    with target.connect() as link:
        link.send(data)
        assert link.receive() == GREETING
