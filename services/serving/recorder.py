"""Note what the core does for which client: `LAB_XRAY=FOLDER` has each process of a server write a file there.

Strategy: a note is a tuple in memory; the last ones are kept. They are written when a server is about to sleep, to
compute or to close, which takes longer than a write and is what a recording is for. A server that only answers writes
nothing until a client leaves. So forked workers, which end by `os._exit`, lose no note, and a killed process a few.

The seam is the core's: a recorded connection stands in the place of a `Connection`, and no model knows of it. Datagrams
are not recorded.
"""

import os
import sys
import threading
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import replace
from itertools import count
from pathlib import Path
from threading import get_ident
from time import monotonic_ns
from typing import Protocol

from services.protocol import Close, Compute, Event, GiveWay, Send, StreamConversation, Wait
from services.protocol.trace import HEADER, LARGEST, NOTE, Kind, pack_header
from services.serving.listeners import Listener

# Notes of one process in its file, 1.5 MiB; and in memory, between two writes: as many as a cache of a core holds.
SLOTS = 1 << 16
KEPT = 1 << 11

# Takes a time, a thread and the rest of a note.
Keep = Callable[[tuple[int, int, int]], None]


class _Drain(Protocol):
    def __call__(self, arrived: int = 0) -> None: ...


class RecordedConnection:
    """A connection whose calls are noted. See `StreamConversation`."""

    # Functions and not methods: a call finds its connection's number without looking for it.
    __slots__ = ("drain", "next_event", "receive_data", "receive_digest", "receive_eof")

    next_event: Callable[[], Event | None]
    receive_data: Callable[[bytes], None]
    receive_digest: Callable[[bytes], None]
    receive_eof: Callable[[], None]
    drain: _Drain


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
        self._notes: deque[tuple[int, int, int]] = deque(maxlen=min(slots, KEPT))
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
        recorded = _record(connection, number, self._notes.append, self.flush)
        _note(self._notes.append, number, Kind.OPENED, port)
        _note(self._notes.append, number, Kind.THREAD, threading.get_native_id())
        if task := _find_task():
            _note(self._notes.append, number, Kind.TASK, task)
        return recorded

    def flush(self) -> None:
        """Write the notes to the file."""
        with self._lock:
            if self._file < 0:
                self._open()
            while notes := self._take(self._slots - self._written % self._slots):
                position = HEADER.size + self._written % self._slots * NOTE.size
                os.pwrite(self._file, b"".join(NOTE.pack(*note) for note in notes), position)
                self._written += len(notes)

    def _take(self, most: int) -> list[tuple[int, int, int]]:
        return [self._notes.popleft() for _ in range(min(most, len(self._notes)))]


def _note(keep: Keep, number: int, kind: Kind, value: int) -> None:
    keep((monotonic_ns(), get_ident(), kind << 48 | number | min(value, LARGEST)))


def _record(connection: StreamConversation, number: int, keep: Keep, flush: Callable[[], None]) -> RecordedConnection:
    # What a busy server does for each request is spelled out, and looks up nothing.
    received, asks, sends = (kind << 48 | number for kind in (Kind.RECEIVED, Kind.ASKS, Kind.SEND))
    take_data, find_next, now, thread, largest = (
        connection.receive_data,
        connection.next_event,
        monotonic_ns,
        get_ident,
        LARGEST,
    )

    def receive_data(data: bytes) -> None:
        size = len(data)
        keep((now(), thread(), received | (size if size < largest else largest)))
        take_data(data)

    def next_event() -> Event | None:
        event = find_next()
        if event is None:
            keep((now(), thread(), asks))
        elif type(event) is Send:
            size = len(event.data)
            keep((now(), thread(), sends | (size if size < largest else largest)))
        else:
            kind, value = _describe(event)
            _note(keep, number, kind, value)
            # The server is about to sleep, to compute or to close: it may not come back.
            if kind is not Kind.GIVE_WAY:
                flush()
        return event

    def receive_digest(digest: bytes) -> None:
        _note(keep, number, Kind.DIGEST, 0)
        connection.receive_digest(digest)

    def receive_eof() -> None:
        _note(keep, number, Kind.ENDED, 0)
        connection.receive_eof()

    def drain(arrived: int = 0) -> None:
        _note(keep, number, Kind.DRAIN, arrived)
        connection.drain(arrived)

    recorded = RecordedConnection()
    recorded.receive_data, recorded.next_event, recorded.receive_digest = receive_data, next_event, receive_digest
    recorded.receive_eof, recorded.drain = receive_eof, drain
    return recorded


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
