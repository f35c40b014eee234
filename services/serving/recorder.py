"""Note what the core does for which client: `LAB_XRAY=FOLDER` has each process of a server write a file there.

Strategy: notes are tuples in memory; the last ones are kept. They are written when a server is about to sleep, to
compute or to close, which takes longer than a write and is what a recording is for. A server that only answers writes
nothing until a client leaves. So forked workers, which end by `os._exit`, lose no note, and a killed process a few. The
three notes of a request that is answered at once are one tuple, made when the core asks for more: until then, the
connection has their times.

The seam is the core's: a recorded connection stands in the place of a `Connection`, and no model knows of it. Datagrams
are not recorded.
"""

import os
import sys
import threading
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from itertools import count
from pathlib import Path
from threading import get_ident
from time import monotonic_ns

from services.protocol import Close, Compute, Event, GiveWay, Send, StreamConversation, Wait
from services.protocol.trace import HEADER, LARGEST, NOTE, Kind, pack_header
from services.serving.listeners import Listener

# Notes of one process in its file, 1.5 MiB; and tuples in memory, between two writes: as many as a core's cache holds.
SLOTS = 1 << 16
KEPT = 1 << 8

# Either a note, as in its file: time, thread, the rest. Or the notes of an answered request: thread, number of the
# connection, and for RECEIVED and SEND the time and the size, for ASKS the time. A time of 0: there is no such note.
Kept = tuple[int, int, int] | tuple[int, int, int, int, int, int, int]
Keep = Callable[[Kept], None]


class RecordedConnection:
    """A connection whose calls are noted. See `StreamConversation`."""

    # One small object, and nothing looked up twice: a request finds little of this in the core's cache.
    __slots__ = ("_connection", "_flush", "_keep", "_length", "_number", "_received", "_sent", "_size")

    def __init__(self, connection: StreamConversation, number: int, keep: Keep, flush: Callable[[], None]) -> None:
        self._connection, self._number, self._keep, self._flush = connection, number, keep, flush
        self._received = self._size = self._sent = self._length = 0

    def receive_data(self, data: bytes) -> None:
        if self._received:
            self._keep_request()
        self._received = monotonic_ns()
        self._size = len(data)
        self._connection.receive_data(data)

    def next_event(self) -> Event | None:
        event = self._connection.next_event()
        if event is None:
            self._keep(
                (get_ident(), self._number, self._received, self._size, self._sent, self._length, monotonic_ns())
            )
            self._received = self._sent = 0
        elif type(event) is Send:
            if self._sent:
                self._keep_request()
            self._sent = monotonic_ns()
            self._length = len(event.data)
        else:
            kind, value = _describe(event)
            self._note(kind, value)
            # The server is about to sleep, to compute or to close: it may not come back.
            if kind is not Kind.GIVE_WAY:
                self._flush()
        return event

    def receive_digest(self, digest: bytes) -> None:
        self._note(Kind.DIGEST, 0)
        self._connection.receive_digest(digest)

    def receive_eof(self) -> None:
        self._note(Kind.ENDED, 0)
        self._connection.receive_eof()

    def drain(self, arrived: int = 0) -> None:
        self._note(Kind.DRAIN, arrived)
        self._connection.drain(arrived)

    def _note(self, kind: Kind, value: int) -> None:
        self._keep_request()
        _note(self._keep, self._number, kind, value)

    def _keep_request(self) -> None:
        """Keep what is noted of a request that is not answered yet, or not at once."""
        if self._received or self._sent:
            self._keep((get_ident(), self._number, self._received, self._size, self._sent, self._length, 0))
            self._received = self._sent = 0


class Recorder:
    """The notes of this process, and of those that are forked from it, each in a file of its own.

    Args:
        folder: where the files are made. It may have `{model}` in it.
        model: the beginning of the files' names.
        has_gil: whether threads take turns at a GIL.
        slots: how many notes the file has room for.

    Raises:
        OSError: the folder or the file cannot be made.
    """

    def __init__(self, folder: str, model: str, *, has_gil: bool, slots: int = SLOTS) -> None:
        self._folder = Path(folder.replace("{model}", model))
        self._model = model
        self._has_gil = has_gil
        self._slots = slots
        # Append and popleft are atomic, with a GIL and without one.
        self._notes: deque[Kept] = deque(maxlen=min(slots, KEPT))
        self._next_number = count(1).__next__
        self._begin()
        self._open()  # now, so that a folder that cannot be written is noticed
        os.register_at_fork(after_in_child=self._begin)

    def _begin(self) -> None:
        """Leave the parent's notes to the parent. A process without a client makes no file."""
        self._lock = threading.Lock()
        self._notes.clear()
        self._written = 0
        self._file = -1

    def _open(self) -> None:
        self._folder.mkdir(parents=True, exist_ok=True)
        path = self._folder / f"{self._model}-{os.getpid()}.xray"
        self._file = os.open(path, os.O_CREAT | os.O_TRUNC | os.O_WRONLY | os.O_CLOEXEC, 0o600)
        os.pwrite(self._file, pack_header(os.getpid(), self._slots, has_gil=self._has_gil), 0)

    def wrap(self, connection: StreamConversation, port: int) -> StreamConversation:
        """Return a connection that notes what is done with this one.

        Args:
            port: the client's, which tells whose it is.
        """
        number = (self._next_number() & LARGEST) << 24
        recorded = RecordedConnection(connection, number, self._notes.append, self.flush)
        _note(self._notes.append, number, Kind.OPENED, port)
        _note(self._notes.append, number, Kind.THREAD, threading.get_native_id())
        if task := _find_task():
            _note(self._notes.append, number, Kind.TASK, task)
        return recorded

    def flush(self) -> None:
        with self._lock:
            if self._file < 0:
                self._open()
            taken = [self._notes.popleft() for _ in range(len(self._notes))]
            notes = [NOTE.pack(*note) for kept in taken for note in _list_notes(kept)]
            while notes:
                room = self._slots - self._written % self._slots
                position = HEADER.size + self._written % self._slots * NOTE.size
                os.pwrite(self._file, b"".join(notes[:room]), position)
                self._written += len(notes[:room])
                del notes[:room]


def _list_notes(kept: Kept) -> Iterator[tuple[int, int, int]]:
    if len(kept) == 3:
        yield kept
        return
    thread, number, received, size, sent, length, asked = kept
    for kind, time, value in ((Kind.RECEIVED, received, size), (Kind.SEND, sent, length), (Kind.ASKS, asked, 0)):
        if time:
            yield time, thread, kind << 48 | number | min(value, LARGEST)


def _note(keep: Keep, number: int, kind: Kind, value: int) -> None:
    keep((monotonic_ns(), get_ident(), kind << 48 | number | min(value, LARGEST)))


def _describe(event: Event) -> tuple[Kind, int]:
    match event:
        case Wait(seconds):
            return Kind.WAIT, int(seconds * 1e6)
        case Compute(rounds):
            return Kind.COMPUTE, rounds
        case Send(data):
            return Kind.SEND, len(data)
        case GiveWay():
            return Kind.GIVE_WAY, 0
        case Close():
            return Kind.CLOSE, 0


def _find_task() -> int:
    """Return what tells the running task of an imported library from others; 0 if there is none."""
    if asyncio := sys.modules.get("asyncio"):
        try:
            task = asyncio.current_task()
        except RuntimeError:  # no loop runs in this thread
            task = None
        if task is not None:
            return id(task) >> 4 & LARGEST
    if greenlet := sys.modules.get("greenlet"):
        return id(greenlet.getcurrent()) >> 4 & LARGEST
    if trio := sys.modules.get("trio"):
        try:
            return id(trio.lowlevel.current_task()) >> 4 & LARGEST
        except RuntimeError:
            return 0
    return 0


def record(listeners: Sequence[Listener], folder: str, model: str, *, has_gil: bool) -> list[Listener]:
    """Return listeners whose connections are recorded.

    Args: see `Recorder`.

    Raises:
        OSError: the recorder's file cannot be made.
    """
    recorder = Recorder(folder, model, has_gil=has_gil)
    return [replace(listener, recorder=recorder.wrap) for listener in listeners]
