"""chargen, RFC 864."""

from functools import cache

import pytest

pytestmark = pytest.mark.service("chargen", "stream")

# The RFC's pattern, computed differently than in the server: 95 printable characters in a ring.
RING = "".join(chr(code) for code in range(32, 127))


def line(number: int) -> str:
    return "".join(RING[(number + column) % 95] for column in range(72)) + "\r\n"


@cache
def lines(count: int) -> str:
    return "".join(line(number) for number in range(count))


def read_lines(link, count: int) -> str:
    data = bytearray()
    while len(data) < count * 74:
        chunk = link.receive()
        assert chunk, "the stream ended"
        data += chunk
    return data[: count * 74].decode("ascii")


def test_stream_has_the_rotating_lines(target) -> None:
    with target.connect() as link:
        text = read_lines(link, 2000)
    assert text == lines(2000)


def test_conversation_ends_when_the_client_disconnects(target) -> None:
    """A sequential model serves the next client only if the first conversation has ended."""
    for _ in range(3):
        with target.connect() as link:
            assert read_lines(link, 1) == line(0)


def test_input_is_discarded(target) -> None:
    with target.connect() as link:
        link.send(b"stop, please\r\n")
        assert read_lines(link, 100) == lines(100)


@pytest.mark.capability("overlap")
def test_client_that_does_not_read_blocks_no_other(target, client_timeout: float) -> None:
    with target.connect() as reader:
        reader.receive(1)
        with target.connect(client_timeout) as other:
            assert read_lines(other, 10) == lines(10)
