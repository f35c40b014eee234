"""The format in which a server notes what its core does, and for which client: `LAB_XRAY` asks for it.

A file for each process: a header, then slots for notes of three 64-bit words. When all slots are used, the oldest note
is overwritten. A slot of zeros is empty. The words of a note:

    time       CLOCK_MONOTONIC in nanoseconds, which all processes and containers of a machine share
    thread     the thread's identity within its process, as `threading.get_ident` gives it
    the rest   from the top: 16 bits for the kind, 24 for the number of the connection in its process, 24 for a value

Here is the format alone: services/serving/recorder.py writes it, and the lab reads it.
"""

import struct
from collections.abc import Iterator
from dataclasses import dataclass
from enum import IntEnum

MAGIC = b"lab-xray"
VERSION = 1

# Magic, version, pid, number of slots, whether there is a GIL.
HEADER = struct.Struct("<8sIIII40x")
NOTE = struct.Struct("<QQQ")
LARGEST = (1 << 24) - 1


class Kind(IntEnum):
    """What happened. The value of a note depends on it, and is cut to `LARGEST`."""

    OPENED = 1  # a connection was accepted; value: the client's port
    THREAD = 2  # with the one before; value: the number that the kernel gives the thread
    TASK = 3  # with the one before, in a model of tasks or greenlets; value: tells one from another
    RECEIVED = 4  # bytes were handed to the core; value: how many
    ENDED = 5  # the client sends no more
    DIGEST = 6  # a computation is done
    DRAIN = 7  # the server is told to stop
    ASKS = 8  # the core has nothing to do until the client sends more
    SEND = 9  # the core asks to send; value: bytes
    WAIT = 10  # to sleep; value: microseconds
    COMPUTE = 11  # to compute; value: rounds
    GIVE_WAY = 12  # to let others run
    CLOSE = 13  # to close


_KINDS = frozenset(map(int, Kind))


class TraceError(Exception):
    """A file that is not a recording, or one of another version; the message says which."""


@dataclass(frozen=True, slots=True)
class Note:
    """One entry, in the order of time."""

    time: int
    thread: int
    kind: Kind
    connection: int
    value: int


@dataclass(frozen=True, slots=True)
class Trace:
    """What one process has noted.

    Args:
        pid: as the process knows itself; in a container it has another number outside.
        has_gil: whether its threads take turns at a GIL.
        is_full: whether the oldest notes may have been overwritten.
    """

    pid: int
    has_gil: bool
    notes: tuple[Note, ...]
    is_full: bool


def pack_header(pid: int, slots: int, *, has_gil: bool) -> bytes:
    """Return the beginning of a file."""
    return HEADER.pack(MAGIC, VERSION, pid, slots, has_gil)


def parse(data: bytes) -> Trace:
    """Read a file.

    Raises:
        TraceError: it is no recording, or of another version.
    """
    if len(data) < HEADER.size or not data.startswith(MAGIC):
        raise TraceError("it is not a recording of a server")
    _, version, pid, slots, has_gil = HEADER.unpack_from(data)
    if version != VERSION:
        raise TraceError(f"it is a recording of version {version}, and this lab reads version {VERSION}")
    notes = list(_parse_notes(data[HEADER.size : HEADER.size + slots * NOTE.size]))
    is_full = len(notes) == slots
    # Stable: of two notes of the same time, the one in the earlier slot came first.
    return Trace(pid, bool(has_gil), tuple(sorted(notes, key=lambda note: note.time)), is_full)


def _parse_notes(data: bytes) -> Iterator[Note]:
    whole = len(data) // NOTE.size * NOTE.size
    for time, thread, rest in NOTE.iter_unpack(data[:whole]):
        # The slot is empty, or the process was killed in the middle: no last word, or one without its kind.
        if rest >> 48 in _KINDS:
            yield Note(time, thread, Kind(rest >> 48), rest >> 24 & LARGEST, rest & LARGEST)
