"""discard, RFC 863."""

import pytest


@pytest.mark.service("discard", "stream")
def test_takes_a_megabyte_and_says_nothing(target) -> None:
    with target.connect() as link:
        link.send(bytes(1_000_000))
        link.half_close()
        assert link.receive() == b""


@pytest.mark.service("discard", "datagram")
def test_takes_a_datagram_and_says_nothing(target, unit: float) -> None:
    with target.connect() as link:
        for data in (b"", b"x", bytes(60_000)):
            link.send(data)
        link.socket.settimeout(unit)
        with pytest.raises(TimeoutError):
            link.socket.recv(1)
