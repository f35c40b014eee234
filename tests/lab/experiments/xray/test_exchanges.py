"""The program that makes exchanges to be counted: how many, when, and by which clock."""

import json
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from lab.experiments.xray import exchanges


@contextmanager
def serving(reply: Callable[[bytes], list[bytes]]) -> Iterator[tuple[int, list[bytes]]]:
    """Answer one client, whose requests are lines; give the port, and the requests."""
    asked: list[bytes] = []

    def serve() -> None:
        stream, _ = listener.accept()
        with stream, stream.makefile("rb") as lines:
            for line in lines:
                asked.append(line)
                pieces = reply(line)
                for piece in pieces:
                    stream.sendall(piece)
                if not pieces:
                    return

    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=serve)
        thread.start()
        yield listener.getsockname()[1], asked
        thread.join()


def run_main(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], request: object
) -> tuple[int, dict[str, object]]:
    monkeypatch.setattr(sys, "argv", ["exchanges", json.dumps(request)])
    return exchanges.main(), json.loads(capsys.readouterr().out)


def test_requests_have_the_sizes_of_their_names() -> None:
    sizes = {name: (service, len(request), size) for name, (service, request, size) in exchanges.EXCHANGES.items()}
    assert sizes == {
        "PING": ("command", 6, 7),
        "echo 1 KiB": ("echo", 1024, 1024),
        "echo 64 KiB": ("echo", 65536, 65536),
    }


def test_exchange_ends_with_the_last_byte_of_its_reply() -> None:
    sent: list[bytes] = []
    counts = [3, 3, 1, 7]
    stream: Any = SimpleNamespace(sendall=sent.append, recv_into=lambda buffer: counts.pop(0))
    exchanges.exchange(stream, b"PING\r\n", 7, memoryview(bytearray(10)))
    assert (sent, counts) == ([b"PING\r\n"], [7])


def test_leg_is_timed_by_both_clocks_between_two_quiet_times(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without the exchanges of the warm-up. A reply in two pieces is one."""
    quiet: list[tuple[float, int]] = []
    clocks: list[tuple[str, int]] = []

    def read(name: str) -> int:
        clocks.append((name, len(asked)))
        return len(clocks)

    streams: list[socket.socket] = []
    options: list[tuple[float | None, bool]] = []
    connect = socket.create_connection

    def note(address: tuple[str, int], timeout: float) -> socket.socket:
        streams.append(connect(address, timeout))
        return streams[-1]

    def rest(seconds: float) -> None:
        quiet.append((seconds, len(asked)))
        is_prompt = bool(streams[0].getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY))
        options.append((streams[0].gettimeout(), is_prompt))

    monkeypatch.setattr(socket, "create_connection", note)
    with serving(lambda line: [b"+PO", b"NG\r\n"]) as (port, asked):
        monkeypatch.setattr(
            exchanges,
            "time",
            SimpleNamespace(
                sleep=rest,
                time_ns=lambda: read("real"),
                monotonic_ns=lambda: read("monotonic"),
            ),
        )
        leg = exchanges.run_leg("PING", "127.0.0.1", port, 7)
    assert leg == {"name": "PING", "count": 7, "begin": (1, 2), "end": (3, 4)}
    assert clocks == [("real", 20), ("monotonic", 20), ("real", 27), ("monotonic", 27)]
    assert quiet == [(0.15, 20), (0.15, 27)]
    assert options == [(10.0, True)] * 2
    assert set(asked) == {b"PING\r\n"}


def test_legs_are_printed_and_the_watcher_is_told(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    monkeypatch.setattr(exchanges, "SETTLE", 0.0)
    with serving(lambda line: [b"+PONG\r\n"]) as (port, _):
        before = time.time_ns(), time.monotonic_ns()
        request = {"legs": [["PING", "127.0.0.1", port]], "count": 2, "done": str(tmp_path / "done")}
        code, said = run_main(monkeypatch, capsys, request)
        after = time.time_ns(), time.monotonic_ns()
    assert code == 0
    assert isinstance(said["legs"], list)
    (leg,) = said["legs"]
    for number in (0, 1):
        assert before[number] <= leg["begin"][number] <= leg["end"][number] <= after[number]
    assert (tmp_path / "done").exists()


def test_server_that_closes_is_an_error_of_which_the_watcher_is_told(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    with serving(lambda line: []) as (port, _):
        request = {"legs": [["PING", "127.0.0.1", port]], "count": 2, "done": str(tmp_path / "done")}
        code, said = run_main(monkeypatch, capsys, request)
    assert (code, said) == (1, {"error": "the server closed the connection"})
    assert (tmp_path / "done").exists()
    request = {"legs": [["PING", "127.0.0.1", port]], "count": 2}
    assert run_main(monkeypatch, capsys, request) == (1, {"error": "Connection refused"})
