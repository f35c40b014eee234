"""The scenes of an X-ray, and the program that plays one from where the server can be reached.

    python -m lab.experiments.xray.scenes '{"scene": "sleep", "host": ..., "port": ..., "folder": ..., "rounds": 3}'

One thread plays all clients, so that the order in which they send is the order of the scene. It prints JSON: the
clients of each round, and the notes that the server has left in `folder`.
"""

import json
import selectors
import socket
import statistics
import sys
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Any

import hiredis

from services.protocol import Compute
from services.protocol.trace import Kind, TraceError, parse

# The milliseconds of the scene of docs/models: A sleeps, B computes.
SLEEP_MS, BURN_MS = 20, 10
# A reply that no kernel buffer takes whole: the server has to wait for its reader.
BLOB = 4 * 1024 * 1024
# Clients are connected for this long before the first sends, and this apart from the one before.
_SETTLE, _APART = 0.01, 0.002
_TIMEOUT = 5.0
_PAUSE = 0.05
_LATEST = 2.0

# Files in `folder` by which this program and the sampler know of each other.
SAMPLING, DONE = "sampling", "done"
_NOT_YET = object()


@dataclass(frozen=True, slots=True)
class Actor:
    """A client of a scene.

    Args:
        steps: what it sends, and when, in seconds after the first client sends. `{burn}` stands for the rounds that
            take `BURN_MS` on this machine.
        reads_at: when it begins to read.
    """

    name: str
    does: str
    steps: tuple[tuple[float, str], ...]
    reads_at: float = 0.0


@dataclass(frozen=True, slots=True)
class Scene:
    """A few clients, in the order in which they connect.

    Args:
        services: what the server must speak.
        title: what it shows.
    """

    name: str
    title: str
    actors: tuple[Actor, ...]
    service: str = "command"


SCENES = {
    scene.name: scene
    for scene in (
        Scene(
            "sleep",
            f"A sleeps {SLEEP_MS} ms, B computes {BURN_MS} ms, C wants a PING",
            (
                Actor("A", f"SLEEP {SLEEP_MS}", ((0.0, f"SLEEP {SLEEP_MS}\r\n"),)),
                Actor("B", f"BURN, {BURN_MS} ms", ((_APART, "BURN {burn}\r\n"),)),
                Actor("C", "PING", ((2 * _APART, "PING\r\n"),)),
            ),
        ),
        Scene(
            "slow",
            "R reads its reply late, S sends its request in two pieces, C wants a PING",
            (
                Actor("R", "BLOB, reads after 20 ms", ((0.0, f"BLOB {BLOB}\r\n"),), reads_at=0.02),
                Actor("S", "PING in two pieces", ((_APART, "PI"), (0.045, "NG\r\n"))),
                Actor("C", "PING", ((2 * _APART, "PING\r\n"),)),
            ),
        ),
        # For servers that speak no `command`: what any echo server can be asked.
        Scene(
            "echo",
            "S sends its request in two pieces, C wants an echo",
            (
                Actor("S", "echo in two pieces", ((0.0, "one "), (0.02, "two\r\n"))),
                Actor("C", "echo", ((_APART, "hello\r\n"),)),
            ),
            service="echo",
        ),
    )
}


@dataclass(slots=True)
class _Player:
    actor: Actor
    stream: socket.socket
    connecting: int
    connected: int
    steps: list[tuple[float, bytes]]
    is_echo: bool
    reader: hiredis.Reader = field(default_factory=lambda: hiredis.Reader(notEnoughData=_NOT_YET))
    received: int = 0
    sent: list[int] = field(default_factory=list)
    answered: int | None = None
    closed: int = 0
    error: str = ""
    port: int = 0

    def take(self) -> None:
        """Read what there is; the client closes when its reply is complete."""
        try:
            data = self.stream.recv(1 << 20)
        except OSError as error:
            self.end(f"the connection broke: {error.strerror}")
            return
        if not data:
            self.end("the server closed the connection before the reply was complete")
        elif self.is_complete(data):
            self.answered = time.monotonic_ns()
            self.end()

    def is_complete(self, data: bytes) -> bool:
        """Whether the reply is complete with this."""
        if self.is_echo:
            self.received += len(data)
            return self.received >= sum(len(text) for _, text in self.actor.steps)
        self.reader.feed(data)
        return self.reader.gets() is not _NOT_YET

    def end(self, error: str = "") -> None:
        """Close the connection."""
        self.port = self.stream.getsockname()[1]
        self.stream.close()
        self.error = error
        self.closed = time.monotonic_ns()

    def as_json(self) -> dict[str, Any]:
        """Return the fields of a `Client`."""
        return {
            "name": self.actor.name,
            "does": self.actor.does,
            "port": self.port,
            "connecting": self.connecting,
            "connected": self.connected,
            "sent": self.sent,
            "answered": self.answered,
            "closed": self.closed,
            "error": self.error,
        }


def count_rounds(milliseconds: float = BURN_MS) -> int:
    """Return the rounds of BURN that take this long on this machine, now."""
    probe = 2000
    times = []
    for _ in range(5):
        begin = time.perf_counter()
        Compute(probe).run()
        times.append(time.perf_counter() - begin)
    return max(1, int(probe * milliseconds / 1000 / min(times)))


def play(scene: Scene, host: str, port: int, burn: int) -> list[dict[str, Any]]:
    """Play a scene once, and return the clients.

    Raises:
        OSError: the server cannot be reached.
    """
    players = [_connect(actor, host, port, burn, is_echo=scene.service == "echo") for actor in scene.actors]
    begin = time.monotonic() + _SETTLE
    with selectors.DefaultSelector() as selector:
        while open_ones := [player for player in players if not player.closed]:
            now = time.monotonic() - begin
            if now > _TIMEOUT:
                for player in open_ones:
                    player.end(f"no complete reply within {_TIMEOUT:g} s")
                break
            _send_due(open_ones, now)
            _watch(selector, open_ones, now)
            due = [player.steps[0][0] for player in open_ones if player.steps]
            due += [player.actor.reads_at for player in open_ones if player.actor.reads_at > now]
            for key, _ in selector.select(max(0.0, min([*due, _TIMEOUT]) + begin - time.monotonic())):
                key.data.take()
                if key.data.closed:
                    selector.unregister(key.fileobj)
    return [player.as_json() for player in players]


def _connect(actor: Actor, host: str, port: int, burn: int, *, is_echo: bool) -> _Player:
    connecting = time.monotonic_ns()
    stream = socket.create_connection((host, port), _TIMEOUT)
    connected = time.monotonic_ns()
    stream.setblocking(False)
    stream.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    steps = [(at, text.format(burn=burn).encode()) for at, text in actor.steps]
    return _Player(actor, stream, connecting, connected, steps, is_echo)


def _send_due(players: list[_Player], now: float) -> None:
    for player in players:
        while player.steps and player.steps[0][0] <= now:
            # Before the call: the server may have read it before this thread goes on.
            player.sent.append(time.monotonic_ns())
            with suppress(OSError):  # of a server that has ended; the next recv tells
                player.stream.send(player.steps.pop(0)[1])


def _watch(selector: selectors.BaseSelector, players: list[_Player], now: float) -> None:
    watched = {key.data.actor.name for key in selector.get_map().values()}
    for player in players:
        if player.actor.reads_at <= now and player.actor.name not in watched:
            selector.register(player.stream, selectors.EVENT_READ, player)


def play_rounds(scene: Scene, host: str, port: int, burn: int, count: int) -> tuple[list[list[dict[str, Any]]], str]:
    """Play a scene to warm the server up, and then some rounds, until the server ends.

    Returns:
        The clients of each round; and why the server cannot be reached any more, empty if it can. The warm-up is among
        the rounds if a client got no reply in it.

    Raises:
        OSError: the server cannot be reached, and there is no round.
    """
    rounds: list[list[dict[str, Any]]] = []
    for number in range(count + 1):
        try:
            clients = play(scene, host, port, burn)
        except OSError as error:
            if not rounds:
                raise
            return rounds, str(error.strerror or error)
        has_failed = any(client["error"] for client in clients)
        if number or has_failed:
            rounds.append(clients)
        if has_failed and (reason := _find_end(host, port)):
            return rounds, reason
        time.sleep(_PAUSE)
    return rounds, ""


def _find_end(host: str, port: int) -> str:
    """Return why a server cannot be reached; empty if it can."""
    try:
        socket.create_connection((host, port), _TIMEOUT).close()
    except OSError as error:
        return str(error.strerror or error)
    return ""


def compare_clocks() -> tuple[int, int]:
    """Return what CLOCK_REALTIME is ahead of CLOCK_MONOTONIC, and the error of that: the best of some readings."""
    readings = []
    for _ in range(100):
        before, real, after = time.monotonic_ns(), time.time_ns(), time.monotonic_ns()
        readings.append((after - before, real - (before + after) // 2))
    took, ahead = min(readings)
    return ahead, took // 2


def read_notes(folder: Path, since: int) -> tuple[list[dict[str, Any]], list[str]]:
    """Return what the processes of a server have noted since a time, and what is wrong with their files."""
    processes, faults = [], []
    for path in sorted(folder.glob("*.xray")):
        try:
            trace = parse(path.read_bytes())
        except (OSError, TraceError) as error:
            faults.append(f"{path.name}: {error}")
            continue
        notes = [[n.time, n.thread, n.kind.name, n.connection, n.value] for n in trace.notes if n.time >= since]
        if notes:
            processes.append({"pid": trace.pid, "has_gil": trace.has_gil, "notes": notes})
    return processes, faults


def await_notes(folder: Path, since: int, ports: set[int]) -> tuple[list[dict[str, Any]], list[str]]:
    """Return the notes as soon as they have replies to the clients at these ports, or what there is after two seconds.

    A server writes them at the latest when it has noticed that a client is gone. One without a recorder has no file.
    """
    deadline = time.monotonic() + _LATEST
    while True:
        processes, faults = read_notes(folder, since)
        replied = set()
        for process in processes:
            notes = process["notes"]
            clients = {number: value for _, _, kind, number, value in notes if kind == Kind.OPENED.name}
            replied |= {clients.get(number) for _, _, kind, number, _ in notes if kind == Kind.SEND.name}
        if ports <= replied or not any(folder.glob("*.xray")) or time.monotonic() > deadline:
            return processes, faults
        time.sleep(0.01)


def main() -> int:
    """Play a scene for the request in the first argument, and print what was recorded."""
    request: Mapping[str, Any] = json.loads(sys.argv[1])
    scene, host, port = SCENES[request["scene"]], request["host"], request["port"]
    folder = Path(request["folder"]) if request.get("folder") else None
    if folder and request.get("sampler"):
        deadline = time.monotonic() + _TIMEOUT
        while not (folder / SAMPLING).exists() and time.monotonic() < deadline:
            time.sleep(0.01)
    burn = count_rounds()
    clocks = [compare_clocks()]
    begin = time.monotonic_ns()
    try:
        rounds, ended = play_rounds(scene, host, port, burn, request["rounds"])
    except OSError as error:
        print(json.dumps({"error": f"{host}:{port}: {error.strerror or error}"}))
        return 1
    finally:
        if folder and folder.exists():
            (folder / DONE).touch()
    ports = {client["port"] for clients in rounds for client in clients if client["answered"] and not ended}
    processes, faults = await_notes(folder, begin, ports) if folder else ([], [])
    clocks.append(compare_clocks())
    ticks = [time.monotonic_ns() for _ in range(1000)]
    resolution = int(statistics.median(after - before for before, after in pairwise(ticks)))
    played = {"rounds": rounds, "ended": ended, "processes": processes, "faults": faults, "clock": resolution}
    print(json.dumps(played | {"clocks": clocks}))
    return 0


if __name__ == "__main__":
    sys.exit(main())
