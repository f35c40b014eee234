"""discard, RFC 863."""

import pytest


@pytest.mark.service("discard", "stream")
def test_megabyte_is_discarded_without_a_reply(target) -> None:
    with target.connect() as link:
        link.send(bytes(1_000_000))
        link.half_close()
        assert link.receive() == b""


@pytest.mark.service("discard", "datagram")
def test_datagram_is_discarded_without_a_reply(target, unit: float) -> None:
    with target.connect() as link:
        for data in (b"", b"x", bytes(60_000)):
            link.send(data)
        link.socket.settimeout(unit)
        with pytest.raises(TimeoutError):
            link.socket.recv(1)
