"""One loop for all connections of a process: each reply is checked, each time is kept.

Layers, each of which imports only those before it: destination, connection, exchanges, datagrams, loop.
"""

from loadtests.sockets.engine.connection import FIRST_BACK_OFF, LONGEST_BACK_OFF, Connection, ConnectionGroup
from loadtests.sockets.engine.loop import Engine

__all__ = ["FIRST_BACK_OFF", "LONGEST_BACK_OFF", "Connection", "ConnectionGroup", "Engine"]
