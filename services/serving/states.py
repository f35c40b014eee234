"""The states of a conversation over callbacks: one table for all models of this kind.

A coroutine keeps its state in its position; a callback keeps it in an attribute. A conversation is in one state at a
time, so there are no combinations. `docs/design.md` follows a request through the states.

    READING -> SENDING      the kernel, or the library, does not take all of a Send
            -> WAITING      Wait, GiveWay
            -> LINGERING    Close
            -> CLOSED       Close after the end of the client's stream: nothing is left to read
    SENDING -> READING      everything has been taken
    WAITING -> READING      the timer, or the next turn
    LINGERING -> CLOSED     the client has closed too, or the linger time is over
    any     -> CLOSED       the connection is lost, idle, broken off by an error, or refused

`reads` is the back-pressure: only two states read. Events are requested in READING alone, so SENDING and WAITING never
coincide. The end of the client's stream is not a state: it is read in READING, and then the connection's next `None` is
a `Close`.
"""

from enum import Enum


class State(Enum):
    """The activity of a conversation.

    Args:
        reads: whether the socket is read.
        is_open: whether received data goes to the connection; otherwise it is dropped.
    """

    # The server asks for events, and for more bytes when there is no event. The state to begin in.
    READING = 1, True, True
    # Replies are left that the client has not taken. If it never takes them, it is idle.
    SENDING = 2, False, True
    # For a timer, or for the next turn. It is the server that is quiet: the client is not idle.
    WAITING = 3, False, True
    # Our half is closed. Reading goes on, because closing a socket with unread data resets the connection, and a reset
    # can destroy the last reply on its way (RFC 2525, section 2.17). It must not go on for ever: see the linger time.
    LINGERING = 4, True, False
    # Nothing is read, sent or waited for. A library may still deliver what it holds, and calls back a last time.
    CLOSED = 5, False, False

    def __init__(self, number: int, reads: bool, is_open: bool) -> None:
        self.reads = reads
        self.is_open = is_open


# By themselves, because a global name is found faster than an attribute of a class: they are compared for each event.
READING, SENDING, WAITING, LINGERING, CLOSED = State
