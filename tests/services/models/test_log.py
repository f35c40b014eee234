"""What a client can make a server write into its log."""

from pathlib import Path

import pytest

from tests.support.servers import Server


# A process for each client, processes that are there before, and one for all.
@pytest.mark.parametrize("name", ["socketserver_forking", "prefork", "asyncio_protocol"])
@pytest.mark.parametrize("transport", ["tcp", "tls"])
def test_forms_of_a_web_page_are_one_line_a_minute(name: str, transport: str, tmp_path: Path) -> None:
    (tmp_path / "s").mkdir()
    with Server(name, tmp_path / "s", {}) as server:
        for _ in range(5):
            with server.connect(transport=transport) as link:
                link.send(b"POST / HTTP/1.1\r\nHost: localhost\r\n\r\nBURN 2000000\r\n")
                assert link.receive() == b""
        server.terminate()
        assert server.wait_end() == 0
        lines = server.log.read_text().splitlines()
    assert [line.partition("WARNING ")[2].partition(":")[0] for line in lines] == [
        "closed a connection from '127.0.0.1"
    ]
    assert lines[0].endswith("': it speaks HTTP to the port of command")
