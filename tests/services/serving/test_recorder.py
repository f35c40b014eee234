"""The recorder of LAB_XRAY: what it notes, and where it leaves it."""

import asyncio
import os
import socket
import ssl
import sys
import threading
import time
from pathlib import Path

import greenlet
import pytest
import trio

from services.protocol import Address, Close, Compute, Connection, GiveWay, Limits, Send, StreamConversation, Wait
from services.protocol.trace import HEADER, NOTE, Kind, Trace, TraceError, pack_header, parse
from services.serving.listeners import Listener
from services.serving.recorder import Recorder
from services.serving.tls import SecureConnection


def read(folder: Path, recorder: Recorder) -> list[Trace]:
    recorder.flush()
    return [parse(path.read_bytes()) for path in sorted(folder.glob("*.xray"))]


# What ran: a task where another test has imported greenlet.
RUNS = (Kind.THREAD, Kind.TASK)


def outline(trace: Trace) -> list[tuple[Kind, int, int]]:
    return [(note.kind, note.connection, note.value) for note in trace.notes if note.kind not in RUNS]


@pytest.fixture
def recorder(tmp_path: Path) -> Recorder:
    return Recorder(str(tmp_path), "a_model", has_gil=True)


def test_conversation_is_noted_in_its_order(recorder: Recorder, tmp_path: Path) -> None:
    connection = recorder.wrap(Connection("command"), 4711)
    connection.receive_data(b"PING\r\nSLEEP 20\r\nBURN 3\r\n")
    assert connection.next_event() == Send(b"+PONG\r\n")
    assert connection.next_event() == Wait(0.02)
    work = connection.next_event()
    while not isinstance(work, Compute):
        work = connection.next_event()
    connection.receive_digest(work.run())
    while connection.next_event() is not None:
        pass
    connection.receive_eof()
    assert connection.next_event() == Close()
    (trace,) = read(tmp_path, recorder)
    assert trace.pid == os.getpid()
    assert trace.has_gil
    assert not trace.is_full
    left_out = (Kind.SEND, Kind.GIVE_WAY, Kind.TASK)
    kinds = [note.kind for note in trace.notes if note.kind not in left_out]
    assert kinds == [
        Kind.OPENED,
        Kind.THREAD,
        Kind.RECEIVED,
        Kind.WAIT,
        Kind.COMPUTE,
        Kind.DIGEST,
        Kind.ASKS,
        Kind.ENDED,
        Kind.CLOSE,
    ]
    values = {note.kind: note.value for note in trace.notes}
    assert values[Kind.OPENED] == 4711
    assert values[Kind.THREAD] == threading.get_native_id()
    assert values[Kind.RECEIVED] == 24
    assert values[Kind.WAIT] == 20_000
    assert values[Kind.COMPUTE] == 3
    assert {note.thread for note in trace.notes} == {threading.get_ident()}
    times = [note.time for note in trace.notes]
    assert times == sorted(times)
    assert times[-1] <= time.monotonic_ns()


def test_connections_are_told_apart(recorder: Recorder, tmp_path: Path) -> None:
    first, second = (recorder.wrap(Connection("command"), port) for port in (1, 2))
    second.receive_data(b"PING\r\n")
    assert second.next_event() == Send(b"+PONG\r\n")
    assert second.next_event() is None
    first.drain(3)
    (trace,) = read(tmp_path, recorder)
    assert outline(trace) == [
        (Kind.OPENED, 1, 1),
        (Kind.OPENED, 2, 2),
        (Kind.RECEIVED, 2, 6),
        (Kind.SEND, 2, 7),
        (Kind.ASKS, 2, 0),
        (Kind.DRAIN, 1, 3),
    ]
    # It was told of the three bytes, too, and waits for them.
    assert first.next_event() is None
    first.receive_data(b"PI\n")
    assert isinstance(first.next_event(), Send)
    assert first.next_event() == Close()


def test_pieces_of_a_request_and_of_a_reply_have_notes_of_their_own(recorder: Recorder, tmp_path: Path) -> None:
    connection = recorder.wrap(Connection("command"), 1)
    connection.receive_data(b"PI")
    assert connection.next_event() is None
    connection.receive_data(b"NG\r\nBLOB 7")
    connection.receive_data(b"0000\r\n")
    sizes = []
    while (event := connection.next_event()) is not None:
        if isinstance(event, Send):
            sizes.append(len(event.data))
    assert len(sizes) > 1
    (trace,) = read(tmp_path, recorder)
    assert [note for note in outline(trace)[1:] if note[0] is not Kind.GIVE_WAY] == [
        (Kind.RECEIVED, 1, 2),
        (Kind.ASKS, 1, 0),
        (Kind.RECEIVED, 1, 10),
        (Kind.RECEIVED, 1, 6),
        *((Kind.SEND, 1, size) for size in sizes),
        (Kind.ASKS, 1, 0),
    ]
    assert len({note.time for note in trace.notes if note.kind not in RUNS}) == len(outline(trace))


def test_what_came_before_a_note_of_another_kind_is_noted_before_it(recorder: Recorder, tmp_path: Path) -> None:
    connection = recorder.wrap(Connection("command"), 1)
    for act, kind in ((lambda: connection.drain(0), Kind.DRAIN), (connection.receive_eof, Kind.ENDED)):
        connection.receive_data(b"P")
        act()
        (trace,) = read(tmp_path, recorder)
        assert [each.kind for each in trace.notes][-2:] == [Kind.RECEIVED, kind]


def test_large_value_is_cut_and_touches_no_other_field(recorder: Recorder, tmp_path: Path) -> None:
    recorder.wrap(Connection("command"), 1).drain(1 << 40)
    (trace,) = read(tmp_path, recorder)
    assert outline(trace)[-1] == (Kind.DRAIN, 1, (1 << 24) - 1)


def test_oldest_notes_are_overwritten(tmp_path: Path) -> None:
    recorder = Recorder(str(tmp_path), "a_model", has_gil=False, slots=5)
    connection = recorder.wrap(Connection("discard"), 1)
    for size in range(1, 7):
        connection.receive_data(bytes(size))
        assert connection.next_event() is None
        if size % 2:  # so that what is written in pieces meets the end of the file
            recorder.flush()
    (trace,) = read(tmp_path, recorder)
    assert trace.is_full
    assert not trace.has_gil
    assert outline(trace) == [
        (Kind.ASKS, 1, 0),
        (Kind.RECEIVED, 1, 5),
        (Kind.ASKS, 1, 0),
        (Kind.RECEIVED, 1, 6),
        (Kind.ASKS, 1, 0),
    ]


def test_last_requests_are_kept_of_a_server_that_only_answers(recorder: Recorder, tmp_path: Path) -> None:
    """It writes nothing, and its memory does not grow: 256 requests, and the size of each tells which."""
    connection = recorder.wrap(Connection("discard"), 1)
    for size in range(1, 301):
        connection.receive_data(bytes(size))
        assert connection.next_event() is None
    (trace,) = read(tmp_path, recorder)
    assert [note.value for note in trace.notes if note.kind is Kind.RECEIVED] == list(range(45, 301))


def test_number_of_a_connection_begins_again_where_its_field_ends(recorder: Recorder, tmp_path: Path) -> None:
    recorder._next_number = lambda: (2 << 24) + 5
    recorder.wrap(Connection("discard"), 1)
    (trace,) = read(tmp_path, recorder)
    assert outline(trace) == [(Kind.OPENED, 5, 1)]


def test_notes_are_written_before_the_server_sleeps_computes_or_closes(recorder: Recorder, tmp_path: Path) -> None:
    """A worker ends by `os._exit`, and a killed server without any last words."""
    connection = recorder.wrap(Connection("command"), 1)
    written = []
    for request in (b"PING\r\n", b"SLEEP 1\r\n", b"BURN 1\r\n", b"QUIT\r\n"):
        connection.receive_data(request)
        event = connection.next_event()
        (path,) = tmp_path.glob("*.xray")
        written.append([note.kind for note in parse(path.read_bytes()).notes][-1:])
        if isinstance(event, Compute):
            connection.receive_digest(event.run())
        while connection.next_event() not in (None, Close()):
            pass
    assert written == [[], [Kind.WAIT], [Kind.COMPUTE], [Kind.COMPUTE]]


def test_nothing_is_written_when_others_get_their_turn(recorder: Recorder, tmp_path: Path) -> None:
    """That is often, and the server comes back."""
    connection = recorder.wrap(Connection("command"), 1)
    connection.receive_data(b"BLOB 1000000\r\n")
    while connection.next_event() != GiveWay():
        pass
    (path,) = tmp_path.glob("*.xray")
    assert parse(path.read_bytes()).notes == ()
    recorder.flush()
    assert parse(path.read_bytes()).notes[-1].kind is Kind.GIVE_WAY


def test_forked_process_has_a_file_of_its_own(recorder: Recorder, tmp_path: Path) -> None:
    recorder.wrap(Connection("echo"), 1)
    child = os.fork()
    if not child:
        connection = recorder.wrap(Connection("echo"), 2)
        connection.receive_eof()
        assert connection.next_event() == Close()
        os._exit(0)  # as a forked worker ends
    assert os.waitpid(child, 0)[1] == 0
    ports = {
        trace.pid: [note.value for note in trace.notes if note.kind is Kind.OPENED]
        for trace in read(tmp_path, recorder)
    }
    assert ports == {os.getpid(): [1], child: [2]}


def test_forked_process_without_a_client_leaves_no_file(recorder: Recorder, tmp_path: Path) -> None:
    child = os.fork()
    if not child:
        os._exit(0)
    os.waitpid(child, 0)
    assert [trace.pid for trace in read(tmp_path, recorder)] == [os.getpid()]


def test_connection_behind_tls_is_recorded_as_what_the_client_asked_for(recorder: Recorder, tmp_path: Path) -> None:
    layered: list[StreamConversation] = []

    def secure(connection: StreamConversation, peer: str) -> SecureConnection:
        layered.append(connection)
        return SecureConnection(connection, ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER), peer)

    address = Address.parse("tls://127.0.0.1:1")
    with socket.socket() as unused:
        listener = Listener("command", address, unused, Limits(), str, secure, recorder=recorder.wrap)
        outer = listener.connection(("127.0.0.1", 99))
    assert isinstance(outer, SecureConnection)
    layered[0].receive_data(b"PING\r\n")
    assert layered[0].next_event() == Send(b"+PONG\r\n")
    layered[0].receive_eof()
    assert outline(*read(tmp_path, recorder)) == [
        (Kind.OPENED, 1, 99),
        (Kind.RECEIVED, 1, 6),
        (Kind.SEND, 1, 7),
        (Kind.ENDED, 1, 0),
    ]


def test_notes_are_in_the_order_of_their_times() -> None:
    """Of the same time, in that of their slots: the second thread was first, and the slots began again."""
    words = [(30, 1, Kind.SEND), (10, 2, Kind.RECEIVED), (20, 1, Kind.COMPUTE), (20, 0, Kind.DIGEST)]
    slots = b"".join(NOTE.pack(when, thread, kind << 48) for when, thread, kind in words)
    notes = parse(pack_header(7, 4, has_gil=False) + slots).notes
    assert [(note.time, note.thread, note.kind) for note in notes] == [words[number] for number in (1, 2, 3, 0)]


def test_file_of_another_kind_or_version_is_refused() -> None:
    with pytest.raises(TraceError, match="not a recording"):
        parse(b"nothing")
    for data in (bytes(HEADER.size), pack_header(1, 0, has_gil=True)[:-1]):
        with pytest.raises(TraceError, match="not a recording"):
            parse(data)
    header = bytearray(pack_header(1, 0, has_gil=True))
    header[8] = 9
    with pytest.raises(TraceError, match="version 9, and this lab reads version 1"):
        parse(bytes(header))


def test_numbers_of_kinds_are_those_of_the_format() -> None:
    """A recording of yesterday is read with the numbers of today."""
    kinds = [Kind.OPENED, Kind.THREAD, Kind.TASK, Kind.RECEIVED, Kind.ENDED, Kind.DIGEST, Kind.DRAIN, Kind.ASKS]
    kinds += [Kind.SEND, Kind.WAIT, Kind.COMPUTE, Kind.GIVE_WAY, Kind.CLOSE]
    notes = b"".join(NOTE.pack(5, 1, number << 48) for number in range(1, 14))
    assert [note.kind for note in parse(pack_header(1, 13, has_gil=True) + notes).notes] == kinds


def test_file_is_for_its_user_alone_and_keeps_nothing_of_an_older_one(tmp_path: Path) -> None:
    """A recording tells who asked for what. In a container, the next run has the same process number."""
    path = tmp_path / f"a_model-{os.getpid()}.xray"
    path.write_bytes(pack_header(1, 9, has_gil=True) + NOTE.pack(5, 1, Kind.ASKS << 48) * 9)
    Recorder(str(tmp_path), "a_model", has_gil=True)
    assert path.stat().st_size == HEADER.size
    path.unlink()
    before = os.umask(0)
    try:
        Recorder(str(tmp_path), "a_model", has_gil=True)
    finally:
        os.umask(before)
    assert path.stat().st_mode & 0o777 == 0o600


def test_torn_note_is_left_out() -> None:
    whole = NOTE.pack(5, 1, Kind.ASKS << 48 | 7 << 24)
    torn = NOTE.pack(6, 1, 0)
    trace = parse(pack_header(1, 4, has_gil=True) + whole + torn + whole[:10])
    assert outline(trace) == [(Kind.ASKS, 7, 0)]
    assert len(pack_header(1, 4, has_gil=True)) == HEADER.size


@pytest.mark.parametrize(("notes", "is_full"), [(0, False), (2, False), (3, True)])
def test_recording_is_full_with_its_last_slot(notes: int, is_full: bool) -> None:
    slots = [NOTE.pack(number, 7, Kind.CLOSE << 48) for number in range(1, notes + 1)]
    slots += [bytes(NOTE.size)] * (3 - notes)
    trace = parse(pack_header(1, 3, has_gil=False) + b"".join(slots))
    assert (len(trace.notes), trace.is_full, trace.has_gil) == (notes, is_full, False)


def read_tasks(folder: Path, recorder: Recorder) -> list[int]:
    (trace,) = read(folder, recorder)
    return [note.value for note in trace.notes if note.kind is Kind.TASK]


def test_each_task_of_asyncio_is_told_from_others(recorder: Recorder, tmp_path: Path) -> None:
    async def begin() -> int:
        recorder.wrap(Connection("discard"), 1)
        return id(asyncio.current_task())

    async def begin_two() -> list[int]:
        return list(await asyncio.gather(begin(), begin()))

    # An object is at a multiple of 16, and its address is cut to what a note has room for.
    wanted = [number // 16 % (1 << 24) for number in asyncio.run(begin_two())]
    assert wanted[0] != wanted[1]
    assert read_tasks(tmp_path, recorder) == wanted


def test_each_task_of_trio_is_told_from_others(
    recorder: Recorder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delitem(sys.modules, "greenlet", raising=False)  # which a server of trio does not import
    wanted: list[int] = []

    async def begin() -> None:
        recorder.wrap(Connection("discard"), 1)
        wanted.append(id(trio.lowlevel.current_task()) // 16 % (1 << 24))

    async def begin_two() -> None:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(begin)
            nursery.start_soon(begin)

    trio.run(begin_two)
    assert wanted[0] != wanted[1]
    assert read_tasks(tmp_path, recorder) == wanted


def test_each_greenlet_is_told_from_others(recorder: Recorder, tmp_path: Path) -> None:
    wanted: list[int] = []

    def begin() -> None:
        recorder.wrap(Connection("discard"), 1)
        wanted.append(id(greenlet.getcurrent()) // 16 % (1 << 24))

    greenlets = [greenlet.greenlet(begin) for _ in range(2)]
    for each in greenlets:
        each.switch()
    assert wanted[0] != wanted[1]
    assert read_tasks(tmp_path, recorder) == wanted


def test_thread_alone_has_no_task(recorder: Recorder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, "greenlet", raising=False)
    recorder.wrap(Connection("discard"), 1)
    for name in ("trio", "asyncio"):
        monkeypatch.delitem(sys.modules, name)
        recorder.wrap(Connection("discard"), 1)
    assert read_tasks(tmp_path, recorder) == []
