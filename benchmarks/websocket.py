"""What one echoed WebSocket message costs without I/O: this project's own code, `websockets` and `wsproto`.

    python -m benchmarks.websocket

Install the other two where it runs: `pip install websockets wsproto`; what is missing has no row. Each figure is the
median over repeats of the CPU time to take one masked message and to make its echo. All contestants run one after the
other within a repeat, in a shuffled order.
"""

import argparse
import importlib
import importlib.util
import os
import platform
import tracemalloc
from collections.abc import Callable, Mapping
from functools import partial
from statistics import median

from benchmarks.figures import Contestant, time_calls
from services.protocol import Connection, Send

_HANDSHAKE = (
    b"GET /ws HTTP/1.1\r\nHost: lab.test\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
    b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
)
_SIZES = (16, 125, 1024, 65536)

Echo = Callable[[bytes], bytes]


def frame(payload: bytes) -> bytes:
    """Make a masked text frame."""
    size = len(payload)
    if size < 126:
        head = bytes((0x81, 0x80 | size))
    else:
        head = b"\x81\xfe" + size.to_bytes(2, "big") if size < 65536 else b"\x81\xff" + size.to_bytes(8, "big")
    key = os.urandom(4)
    return head + key + bytes(byte ^ key[index % 4] for index, byte in enumerate(payload))


def own() -> Echo:
    """Make a connection of `http` that has become a WebSocket."""
    connection = Connection("http")
    connection.receive_data(_HANDSHAKE)
    while connection.next_event() is not None:
        pass

    def echo(data: bytes) -> bytes:
        connection.receive_data(data)
        event = connection.next_event()
        connection.next_event()  # None: what a model asks before it reads on
        return event.data if isinstance(event, Send) else b""

    return echo


def websockets() -> Echo:
    """Make a ServerProtocol of websockets."""
    text = importlib.import_module("websockets.frames").Opcode.TEXT
    protocol = importlib.import_module("websockets.server").ServerProtocol()
    protocol.receive_data(_HANDSHAKE)
    (request,) = protocol.events_received()
    protocol.send_response(protocol.accept(request))
    protocol.data_to_send()

    def echo(data: bytes) -> bytes:
        protocol.receive_data(data)
        for event in protocol.events_received():
            if event.opcode is text:
                str(event.data, "utf-8")
                protocol.send_text(event.data)
        return b"".join(protocol.data_to_send())

    return echo


def wsproto() -> Echo:
    """Make a WSConnection of wsproto."""
    from wsproto import ConnectionType, WSConnection
    from wsproto.events import AcceptConnection, TextMessage

    connection = WSConnection(ConnectionType.SERVER)
    connection.receive_data(_HANDSHAKE)
    list(connection.events())
    connection.send(AcceptConnection())

    def echo(data: bytes) -> bytes:
        connection.receive_data(data)
        return b"".join(
            connection.send(TextMessage(event.data)) for event in connection.events() if isinstance(event, TextMessage)
        )

    return echo


def memory(make: Callable[[], Echo]) -> float:
    """Return KiB of Python's memory for one idle connection."""
    make()
    tracemalloc.start()
    before = tracemalloc.get_traced_memory()[0]
    held = [make() for _ in range(100)]
    grown = tracemalloc.get_traced_memory()[0] - before
    tracemalloc.stop()
    return grown / len(held) / 1024


def measure(echoes: Mapping[str, Echo], size: int, repeats: int) -> dict[str, float]:
    """Return the median of microseconds per message of this size for each contestant."""
    data = frame(b"x" * size)
    if len({echo(data) for echo in echoes.values()}) != 1:
        raise SystemExit("the contestants do not do the same")
    count = max(20, 200_000 // (size + 200))
    contestants = {name: Contestant(partial(echo, data), count) for name, echo in echoes.items()}
    return {name: median(values) for name, values in time_calls(contestants, repeats).items()}


def main() -> None:
    """Print a table of microseconds per message, by size, and of KiB per connection."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=21)
    options = parser.parse_args()
    makers: dict[str, Callable[[], Echo]] = {"own": own}
    makers |= {make.__name__: make for make in (websockets, wsproto) if importlib.util.find_spec(make.__name__)}
    print(f"Python {platform.python_version()}, {platform.machine()}; microseconds per echoed text message")
    print(f"{'':12}" + "".join(f"{size:>9} B" for size in _SIZES) + f"{'KiB each':>12}")
    rows: dict[str, list[float]] = {name: [] for name in makers}
    for size in _SIZES:
        for name, figure in measure({name: make() for name, make in makers.items()}, size, options.repeats).items():
            rows[name].append(figure)
    for name, figures in rows.items():
        print(f"{name:12}" + "".join(f"{figure:11.2f}" for figure in figures) + f"{memory(makers[name]):12.1f}")


if __name__ == "__main__":
    main()
