"""What non-blocking sockets and a selector leave to their user."""

import socket

import pytest

from services.models.selector_loop import Loop, Server
from services.protocol import Limits
from services.serving.listeners import open_listeners, parse_listens
from services.serving.states import LINGERING


@pytest.mark.parametrize("transport", ["tcp", "udp"])
def test_client_that_waits_for_a_place_does_not_wake_the_loop(transport: str) -> None:
    """Its socket is ready until it is served: a loop that watched it would use a core for nothing."""
    kind = socket.SOCK_DGRAM if transport == "udp" else socket.SOCK_STREAM
    wanted = parse_listens([f"command={transport}://127.0.0.1:0"], "m")
    with (
        open_listeners(wanted, Limits(connections=1), str) as listeners,
        socket.socket(type=kind) as first,
        socket.socket(type=kind) as second,
    ):
        listening = listeners[0].socket
        loop = Loop()
        server = Server(loop, listeners)
        for client in (first, second):
            client.connect(listening.getsockname())
            client.send(b"SLEEP 60000\r\n")
        assert listening in [key.fileobj for key, _ in loop._selector.select(0)]
        loop.turn()
        assert server.conversations.count == 1
        assert listening not in [key.fileobj for key, _ in loop._selector.select(0)]
        server.conversations.cut_off()
        loop.close()


def test_client_that_ends_its_half_after_the_server_leaves_at_once() -> None:
    """Otherwise it would hold a place, and wake the loop, until the linger time is over."""
    with open_listeners(parse_listens(["command=tcp://127.0.0.1:0"], "m"), Limits(), str) as listeners:
        loop = Loop()
        server = Server(loop, listeners)
        with socket.create_connection(listeners[0].socket.getsockname()) as client:
            loop.turn()
            (stream,) = server.conversations.streams
            client.sendall(b"QUIT\r\n")
            while stream.state is not LINGERING:
                loop.turn()
            client.shutdown(socket.SHUT_WR)
            loop.turn()
            assert server.conversations.count == 0
            # The timer of the linger time finds it closed: its place is given back once.
            stream.close()
            assert server.conversations.count == 0
        loop.close()
