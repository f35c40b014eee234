"""The library's servers with `ForkingMixIn`: a process for each client.

Unit of concurrency: a process, which is forked for a client and exits after it; a datagram gets one too.
What blocks whom: no client blocks another, neither by waiting nor by computing: each process has its own GIL, and the
kernel schedules the processes on all cores.
What runs out first: processes (`pids_limit`) and their memory. Each connection costs a fork, which takes longer the
more memory the parent has. The mixin blocks at forty children (`max_children`); this model stops accepting at
`LAB_MAX_CONNECTIONS` instead, and clients wait in the backlog.

What each server inherits: `ForkingMixIn` stands before one of the library's four servers and replaces its
`process_request`, which forks, and `service_actions`, which collects the children that have ended. The loop calls it in
each iteration; without it, children would stay as zombies.
"""

import os
import signal
import time
from contextlib import suppress
from socket import socket
from socketserver import BaseServer, ForkingMixIn, TCPServer, UDPServer, UnixDatagramServer, UnixStreamServer
from typing import Any

from services.protocol import Transport
from services.serving.blocking import Drain
from services.serving.closing import stop_accepting, warn_cut_off
from services.serving.listeners import Listener
from services.serving.socketservers import make_server, serve_until
from services.serving.workers import die_with


class ChildMixIn(ForkingMixIn, BaseServer):
    """What a child process does before it serves its client."""

    listening: list[socket]
    parent: int

    def finish_request(self, request: Any, client_address: Any) -> None:
        if not die_with(self.parent):
            return
        # A copy of a listening socket keeps the port taken for as long as the child lives, also after its parent died.
        for inherited in self.listening:
            inherited.close()
        signal.set_wakeup_fd(-1)  # this process's signals are no business of the parent's loop
        signal.signal(signal.SIGALRM, signal.SIG_IGN)  # when the grace period is over, the parent decides
        super().finish_request(request, client_address)


class ForkingTCPServer(ChildMixIn, TCPServer):
    """A process for each connection."""


class ForkingUDPServer(ChildMixIn, UDPServer):
    """A process for each datagram."""


class ForkingUnixStreamServer(ChildMixIn, UnixStreamServer):
    """A process for each connection."""


class ForkingUnixDatagramServer(ChildMixIn, UnixDatagramServer):
    """A process for each datagram."""


CLASSES: dict[Transport, type[TCPServer]] = {
    Transport.TCP: ForkingTCPServer,
    Transport.UDP: ForkingUDPServer,
    Transport.UNIX: ForkingUnixStreamServer,
    Transport.UNIXGRAM: ForkingUnixDatagramServer,
}


def serve(listeners: list[Listener]) -> None:
    """Serve until a stop signal.

    Raises:
        SystemExit: with code 1, if a child was still serving when the grace period ended.
    """
    limits = listeners[0].limits
    stop = Drain(listeners)
    # A handler of any kind makes the end of a child wake the loop, which then collects it.
    signal.signal(signal.SIGCHLD, lambda *_: None)
    servers = []
    for listener in listeners:
        server = make_server(listener, CLASSES, stop.serve_stream)
        # 40 by default. With as many children `service_actions` blocks until one ends, and hears no signal meanwhile.
        server.max_children = limits.connections + 1  # type: ignore[attr-defined]  # ForkingMixIn's
        server.listening = [other.socket for other in listeners if not other.is_datagram]  # type: ignore[attr-defined]
        server.parent = os.getpid()  # type: ignore[attr-defined]
        servers.append((listener, server))

    def children() -> list[int]:
        return [pid for _, server in servers for pid in (server.active_children or ())]  # type: ignore[attr-defined]

    serve_until(stop, servers, has_room=lambda: len(children()) < limits.connections)
    signal.setitimer(signal.ITIMER_REAL, 0)  # Drain's alarm is for processes with a conversation: the children
    stop_accepting(listeners)
    for pid in children():
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGTERM)
    deadline = time.monotonic() + limits.grace
    cut = 0
    while left := children():
        if not cut and time.monotonic() > deadline:
            cut = len(left)
            warn_cut_off(limits.grace, cut)
            for pid in left:
                with suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
        for _, server in servers:
            server.service_actions()
        time.sleep(0.01)
    for _, server in servers:
        server.server_close()
    stop.close()
    if cut:
        raise SystemExit(1)
