"""The programs that play scenes and exchanges: what they send and when, what they print, and how they end."""

import json
import os
import selectors
import socket
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from lab.experiments.xray import scenes
from lab.experiments.xray.scenes import (
    SCENES,
    Actor,
    Scene,
    compare_clocks,
    count_rounds,
    play,
    play_rounds,
    read_notes,
)
from services.protocol.trace import NOTE, Kind, pack_header

Serve = Callable[[socket.socket], None]


@contextmanager
def serving(serve: Serve) -> Iterator[int]:
    """Serve each client of a port in a thread of its own."""
    listener = socket.create_server(("127.0.0.1", 0))

    def converse(stream: socket.socket) -> None:
        with stream, suppress(OSError):
            serve(stream)

    def accept() -> None:
        with suppress(OSError):  # the end of the listener
            while True:
                threads.append(threading.Thread(target=converse, args=[listener.accept()[0]]))
                threads[-1].start()

    threads = [threading.Thread(target=accept)]
    threads[0].start()
    yield listener.getsockname()[1]
    listener.shutdown(socket.SHUT_RDWR)
    for thread in threads:
        thread.join()
    listener.close()


def echo(stream: socket.socket) -> None:
    while data := stream.recv(65536):
        stream.sendall(data)


def hang_up(stream: socket.socket) -> None:
    stream.recv(65536)


@pytest.fixture
def closed() -> Iterator[int]:
    """A port at which nobody listens, nor will."""
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        yield bound.getsockname()[1]


@pytest.mark.parametrize("scene", SCENES.values(), ids=lambda scene: scene.name)
def test_clients_begin_in_the_order_of_the_scene(scene: Scene) -> None:
    begins = [actor.steps[0][0] for actor in scene.actors]
    assert begins == sorted(set(begins))
    assert begins[0] == 0.0
    assert all(list(actor.steps) == sorted(actor.steps) for actor in scene.actors)


def test_reply_is_complete_with_its_last_piece() -> None:
    """An echo server answers the first half before the second one is sent."""
    with serving(echo) as port:
        first, second = play(SCENES["echo"], "127.0.0.1", port, 1)
    assert [(each["name"], len(each["sent"]), each["error"]) for each in (first, second)] == [
        ("S", 2, ""),
        ("C", 1, ""),
    ]
    assert first["sent"][0] < first["sent"][1] < first["answered"]


def test_slow_reader_is_not_watched_before_its_time() -> None:
    ours, theirs = socket.socketpair()
    other, their_other = socket.socketpair()
    with ours, theirs, other, their_other, selectors.DefaultSelector() as selector:
        slow = scenes._Player(Actor("R", "", (), reads_at=0.02), ours, 0, 0, [], False)
        quick = scenes._Player(Actor("C", "", ()), other, 0, 0, [], False)
        for now, watched in ((0.0, [other]), (0.019, [other]), (0.02, [other, ours]), (0.03, [other, ours])):
            scenes._watch(selector, [slow, quick], now)
            assert [key.fileobj for key in selector.get_map().values()] == watched


def test_server_that_closes_too_early_is_an_error() -> None:
    with serving(hang_up) as port:
        (client,) = play(Scene("odd", "", (Actor("C", "", ((0.0, "PING\r\n"),)),)), "127.0.0.1", port, 1)
    assert client["answered"] is None
    assert client["error"] == "the server closed the connection before the reply was complete"


def test_time_of_a_step_is_noted_before_it_is_sent() -> None:
    """The server may have read it before the client's thread goes on."""
    noted = []

    def send(data: bytes) -> None:
        noted.append((data, len(player.sent)))

    stream = cast(socket.socket, SimpleNamespace(send=send))
    steps = [(0.0, b"a"), (1.0, b"b"), (9.0, b"c")]
    player = scenes._Player(Actor("C", "", ()), stream, 0, 0, steps, is_echo=False)
    scenes._send_due([player], 1.0)
    assert noted == [(b"a", 1), (b"b", 2)]
    assert player.steps == [(9.0, b"c")]


def test_rounds_are_those_after_the_warm_up(monkeypatch: pytest.MonkeyPatch) -> None:
    played: list[int] = []

    def note(*_: object) -> list[dict[str, object]]:
        played.append(len(played))
        return [{"name": "A", "number": played[-1], "error": ""}]

    monkeypatch.setattr(scenes, "play", note)
    monkeypatch.setattr(scenes, "_PAUSE", 0.0)
    rounds, ended = play_rounds(SCENES["sleep"], "127.0.0.1", 1, 1, 3)
    assert ([client["number"] for (client,) in rounds], ended) == ([1, 2, 3], "")


def test_server_that_ends_in_the_last_round_is_said_to_have_ended(monkeypatch: pytest.MonkeyPatch, closed: int) -> None:
    monkeypatch.setattr(scenes, "play", lambda *_: [{"name": "A", "error": "it broke"}])
    rounds, ended = play_rounds(SCENES["sleep"], "127.0.0.1", closed, 1, 0)
    assert (len(rounds), ended) == (1, "Connection refused")


def test_burn_is_counted_by_the_fastest_probe(monkeypatch: pytest.MonkeyPatch) -> None:
    """2000 rounds in 4 ms at best: 5000 in 10 ms, and 1 in less than a microsecond."""
    took = [0.010, 0.004, 0.008, 0.005, 0.009]
    times = [time for number, seconds in enumerate(took) for time in (10.0 * number, 10.0 * number + seconds)]
    for milliseconds, rounds in ((10, 5000), (0.0001, 1)):
        clock = iter(times)
        monkeypatch.setattr(scenes, "time", SimpleNamespace(perf_counter=lambda clock=clock: next(clock)))
        assert count_rounds(milliseconds) == pytest.approx(rounds, abs=1)


def test_clocks_are_compared_by_the_quickest_reading(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each reading takes 1000 ns, and one 10: then the other clock is 5 s and 5 ns minus the middle of it ahead."""
    now = [0]

    def monotonic() -> int:
        now[0] += 10 if 70_000 <= now[0] < 70_020 else 500
        return now[0]

    monkeypatch.setattr(scenes, "time", SimpleNamespace(monotonic_ns=monotonic, time_ns=lambda: now[0] + 5_000))
    assert compare_clocks() == (5_000 - 5, 5)


def test_notes_are_those_of_each_process_since_a_time_and_damage_is_named(tmp_path: Path) -> None:
    def write(pid: int, *times: int) -> None:
        notes = (NOTE.pack(time, 5, Kind.SEND << 48 | 1 << 24 | 9) for time in times)
        (tmp_path / f"m-{pid}.xray").write_bytes(pack_header(pid, len(times), has_gil=pid == 8) + b"".join(notes))

    write(8, 99, 100, 101)
    write(9, 98)
    write(7, 200)
    (tmp_path / "m-1.xray").write_bytes(b"nonsense")
    assert read_notes(tmp_path, 100) == (
        [
            {"pid": 7, "has_gil": False, "notes": [[200, 5, "SEND", 1, 9]]},
            {"pid": 8, "has_gil": True, "notes": [[100, 5, "SEND", 1, 9], [101, 5, "SEND", 1, 9]]},
        ],
        ["m-1.xray: it is not a recording of a server"],
    )


def run_main(
    main: Callable[[], int], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, request: object
) -> tuple[int, Any]:
    """Run a program with this request; return its exit code, and what it has printed."""
    monkeypatch.setattr(sys, "argv", ["program", json.dumps(request)])
    return main(), json.loads(capsys.readouterr().out)


def test_program_prints_rounds_notes_and_clocks(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    request = {"scene": "echo", "host": "127.0.0.1", "folder": str(tmp_path), "rounds": 2, "sampler": True}
    readings = iter([(7, 1), (9, 2)])
    awaited = []

    def await_notes(folder: Path, since: int, ports: set[int]) -> tuple[list[object], list[str]]:
        awaited.append(ports)
        assert (folder / scenes.DONE).exists()
        return [{"pid": 1}], ["a fault"]

    monkeypatch.setattr(scenes, "compare_clocks", lambda: next(readings))
    monkeypatch.setattr(scenes, "await_notes", await_notes)
    monkeypatch.setattr(scenes, "count_rounds", lambda: 1)
    # Of the clock's readings, the steps: 5 more often than not.
    monkeypatch.setattr(scenes, "pairwise", lambda ticks: [(0, 5), (5, 10), (10, 15), (15, 900)])
    (tmp_path / scenes.SAMPLING).touch()
    with serving(echo) as port:
        code, played = run_main(scenes.main, capsys, monkeypatch, request | {"port": port})
    assert code == 0
    assert [[client["name"] for client in clients] for clients in played["rounds"]] == [["S", "C"]] * 2
    assert awaited == [{client["port"] for clients in played["rounds"] for client in clients}]
    assert (played["processes"], played["faults"], played["ended"]) == ([{"pid": 1}], ["a fault"], "")
    assert played["clocks"] == [[7, 1], [9, 2]]
    assert played["clock"] == 5


def test_scene_begins_when_the_sampler_looks(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    waited = []

    def sleep(seconds: float) -> None:
        waited.append(seconds)
        if len(waited) == 3:
            (tmp_path / scenes.SAMPLING).touch()

    def play_rounds(*arguments: object) -> tuple[list[object], str]:
        assert len(waited) == 3 * request["sampler"]
        return [], ""

    request: dict[str, Any] = {"scene": "echo", "host": "h", "port": 1, "folder": str(tmp_path), "rounds": 1}
    monkeypatch.setattr(scenes, "play_rounds", play_rounds)
    monkeypatch.setattr(scenes, "count_rounds", lambda: 1)
    for is_sampled in (True, False):
        waited.clear()
        (tmp_path / scenes.SAMPLING).unlink(missing_ok=True)
        request["sampler"] = is_sampled
        with monkeypatch.context() as patch:
            patch.setattr("time.sleep", sleep)
            assert run_main(scenes.main, capsys, patch, request)[0] == 0


def test_server_that_cannot_be_reached_ends_the_sampler_and_is_an_error(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path, closed: int
) -> None:
    request = {"scene": "echo", "host": "127.0.0.1", "port": closed, "folder": str(tmp_path), "rounds": 1}
    monkeypatch.setattr(scenes, "count_rounds", lambda: 1)
    code, played = run_main(scenes.main, capsys, monkeypatch, request)
    assert (code, played) == (1, {"error": f"127.0.0.1:{closed}: Connection refused"})
    assert os.listdir(tmp_path) == [scenes.DONE]  # noqa: PTH208
