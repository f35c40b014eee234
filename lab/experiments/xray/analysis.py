"""From a recording to lanes, and to who waited for whom. All of it follows from the order of what was noted.

Three rules decide who waited for whom:

* A thread that slept, computed, sent or read for one client, and touched no other in that time, was held by it. Any
  other client that had sent something which this thread read only afterwards has waited for that client.
* A thread that turned to other clients while one of its own slept was not held: that client's time passed in a timer.
* Of two threads of one process with a GIL, one that computes delays the other.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from itertools import pairwise

from lab.experiments.xray.calls import Stretch, list_stretches
from lab.experiments.xray.recording import Client, Recording, Segment, Switches, Thread
from services.protocol.trace import Kind, Note

# Shorter waits are those of a machine, not of a model: a switch between threads, a system call.
SHORTEST = 1_000_000

# Threads of a server without a recorder that are shown though they have not been seen to run.
_FEW = 8

LaneKey = tuple[int, int]  # the process and the thread


class State(StrEnum):
    """What a lane shows. The words are those of the legend."""

    CONNECTING = "connecting"
    BACKLOG = "in the backlog"
    CONNECTED = "connected, silent"
    UNREAD = "sent, and not read yet"
    SERVED = "being served"
    SLEEPING = "sleeping"
    COMPUTING = "computing"
    SENDING = "waiting to send"
    READING = "waiting to read"
    ENDING = "waiting for the client to close"
    RUNNING = "running"
    GIL = "waiting for the GIL"
    LOCK = "waiting for a lock"
    CORE = "waiting for a core"
    LOOP = "waiting for any client"
    IDLE = "idle"


@dataclass(frozen=True, slots=True)
class Span:
    """A state of a lane.

    Args:
        client: the one for which the server is in this state; empty if for none.
    """

    start: int
    end: int
    state: State
    client: str = ""


@dataclass(frozen=True, slots=True)
class Mark:
    """A moment of a client's lane."""

    time: int
    name: str


@dataclass(frozen=True, slots=True)
class Lane:
    """A row of the picture: spans that follow each other from 0 to the end.

    Args:
        is_client: whether it is a client's; else a thread's of the server.
        key: of a thread.
        calls: its system calls and what is between them, if strace was attached.
        thread: what the kernel shows of it, if anything.
    """

    name: str
    is_client: bool
    spans: tuple[Span, ...]
    marks: tuple[Mark, ...] = ()
    key: LaneKey = (0, 0)
    calls: tuple[Stretch, ...] = ()
    thread: Thread | None = None

    @property
    def switches(self) -> Sequence[Switches]:
        """How often the thread was put on a core, from look to look."""
        return (self.thread and self.thread.switches) or ()

    @property
    def switched(self) -> int | None:
        """How often the thread was put on a core while it was looked at; None if not known."""
        if self.thread is None or self.thread.switches is None:
            return None
        return sum(each.number for each in self.thread.switches)


@dataclass(frozen=True, slots=True)
class Hold:
    """A thread that did something for one client, and for no other, from start to end."""

    lane: LaneKey
    client: str
    state: State
    start: int
    end: int


@dataclass(frozen=True, slots=True)
class Edge:
    """A client that waited for another.

    Args:
        via: `thread` if both had the same one, `GIL` if only the same process.
    """

    holder: str
    waiter: str
    via: str
    state: State
    start: int
    end: int
    lane: LaneKey

    @property
    def length(self) -> int:
        """Nanoseconds."""
        return self.end - self.start


@dataclass(frozen=True, slots=True)
class _Entry:
    """A note with the client whose connection it is about."""

    note: Note
    client: str
    lane: LaneKey


class Analysis:
    """What follows from a recording."""

    def __init__(self, recording: Recording) -> None:
        self.recording = recording
        self.clients = {client.name: client for client in recording.clients}
        self.entries = list(_list_entries(recording))
        self.by_client = {name: [each for each in self.entries if each.client == name] for name in self.clients}
        self.by_lane: dict[LaneKey, list[_Entry]] = {}
        for entry in self.entries:
            self.by_lane.setdefault(entry.lane, []).append(entry)
        self.loops = {key for key, entries in self.by_lane.items() if _is_interleaved(entries)}
        self.has_gil = {process.pid: process.has_gil for process in recording.processes}
        self.threads = {(thread.pid, thread.tid): thread for thread in recording.threads}
        self.holds = [hold for key, entries in self.by_lane.items() for hold in self._list_holds(key, entries)]
        self.edges = sorted(self._list_edges(), key=lambda edge: (edge.waiter, edge.start))
        self.waits = {name: self._measure_wait(name) for name in self.clients}
        self.lanes = [*self._make_client_lanes(), *self._make_server_lanes()]

    @property
    def chain(self) -> list[tuple[str, str, str]]:
        """Who blocks whom, as holder, waiter and via: in a row of A, B and C only that A blocks B and B blocks C."""
        direct = {(edge.holder, edge.waiter): edge.via for edge in self.edges}
        found = []
        for (holder, waiter), via in direct.items():
            between = any((holder, other) in direct and (other, waiter) in direct for other in self.clients)
            if not between:
                found.append((holder, waiter, via))
        order = list(self.clients)
        return sorted(found, key=lambda each: (order.index(each[1]), order.index(each[0])))

    def lane_of(self, client: str) -> LaneKey | None:
        """Return the thread that served a client; None if none did."""
        entries = self.by_client[client]
        return entries[0].lane if entries else None

    def _list_holds(self, key: LaneKey, entries: Sequence[_Entry]) -> Iterator[Hold]:
        for entry, following in pairwise(entries):
            state = _find_state(entry, following)
            if state is None or following.client != entry.client:
                continue
            start, end = entry.note.time, following.note.time
            if key not in self.loops or state is State.COMPUTING or self._is_deaf(key, entry.client, start, end):
                yield Hold(key, entry.client, state, start, end)

    def _is_deaf(self, key: LaneKey, client: str, start: int, end: int) -> bool:
        """Whether a loop left another of its clients unread for most of this time, as one that blocks would."""
        return any(
            start <= sent <= (start + end) // 2 and read > end
            for name in self.clients
            if name != client and self.lane_of(name) == key
            for sent, read in self._list_unread(name)
        )

    def _list_unread(self, name: str) -> Iterator[tuple[int, int]]:
        """Give each time at which a client has sent something, with the time at which the server took it."""
        received = [entry.note.time for entry in self.by_client[name] if entry.note.kind is Kind.RECEIVED]
        for sent in self.clients[name].sent:
            later = [time for time in received if time >= sent]
            if later:
                yield sent, later[0]

    def _list_waiting(self, name: str) -> Iterator[tuple[int, int]]:
        """Give the times in which a client waits and the server does nothing for it: unread, or late from a sleep."""
        yield from self._list_unread(name)
        for entry, following in pairwise(self.by_client[name]):
            if entry.note.kind is Kind.WAIT:
                yield entry.note.time + entry.note.value * 1000, following.note.time

    def _measure_wait(self, name: str) -> int:
        return sum(max(0, end - start) for start, end in self._list_waiting(name))

    def _list_edges(self) -> Iterator[Edge]:
        for name in self.clients:
            lane = self.lane_of(name)
            if lane is None:
                continue
            for start, end in self._list_waiting(name):
                for hold in self.holds:
                    first, last = max(start, hold.start), min(end, hold.end)
                    if hold.client == name or last - first < SHORTEST:
                        continue
                    if hold.lane == lane:
                        yield Edge(hold.client, name, "thread", hold.state, first, last, hold.lane)
                    elif hold.lane[0] == lane[0] and self.has_gil.get(lane[0]) and hold.state is State.COMPUTING:
                        yield Edge(hold.client, name, "GIL", hold.state, first, last, hold.lane)

    def _make_client_lanes(self) -> Iterator[Lane]:
        for client in self.recording.clients:
            marks = [Mark(time, "sent") for time in client.sent]
            if client.answered is not None:
                marks.append(Mark(client.answered, "answered"))
            marks.append(Mark(client.closed, "closed"))
            spans = _fill(list(self._list_client_spans(client)), self.recording.end, State.IDLE)
            yield Lane(client.name, True, tuple(spans), tuple(marks))

    def _list_client_spans(self, client: Client) -> Iterator[Span]:
        entries = self.by_client[client.name]
        end = client.closed if client.answered is None else client.answered
        opened = entries[0].note.time if entries else (client.connected if not self.recording.processes else end)
        sent = client.sent[0] if client.sent else end
        read = next((entry.note.time for entry in entries if entry.note.kind is Kind.RECEIVED), end)
        yield Span(client.connecting, client.connected, State.CONNECTING)
        accepted = min(max(opened, client.connected), end)
        yield Span(client.connected, accepted, State.BACKLOG)
        yield Span(accepted, max(accepted, min(sent, end)), State.CONNECTED)
        begin = max(accepted, sent)
        yield Span(begin, max(begin, min(read, end)), State.UNREAD)
        time = max(begin, min(read, end))
        for span in self._list_served(entries):
            start, until = max(span.start, time), min(span.end, end)
            if start < until:
                yield Span(time, start, State.SERVED)
                yield Span(start, until, span.state)
                time = until
        yield Span(time, max(time, end), State.SERVED if self.recording.processes else State.UNREAD)
        yield Span(max(time, end), client.closed, State.CONNECTED)

    def _list_served(self, entries: Sequence[_Entry]) -> Iterator[Span]:
        """Give what the server does for one client, whether or not a thread is held by it."""
        for entry, following in pairwise(entries):
            state = _find_state(entry, following)
            if state and state is not State.ENDING:  # the reply is on its way
                yield Span(entry.note.time, following.note.time, state)

    def _make_server_lanes(self) -> Iterator[Lane]:
        # Without notes it is not known who serves: all threads are shown, if they are few.
        everything = not self.recording.processes and len(self.threads) <= _FEW
        keys = sorted({*self.by_lane, *(key for key, each in self.threads.items() if everything or _has_run(each))})
        shown = sorted(keys, key=lambda key: self.by_lane[key][0].note.time if key in self.by_lane else -1)
        names = name_lanes(shown, self)
        traced = {each.tid: tuple(list_stretches(each.calls)) for each in self.recording.traced}
        for key in shown:
            base = list(self._list_base(key))
            thread = self.threads.get(key)
            spans = self._refine(key, base, thread) if thread else base
            joined = tuple(_join(_fill(spans, self.recording.end, State.IDLE)))
            yield Lane(names[key], False, joined, key=key, calls=traced.get(key[1], ()), thread=thread)

    def _list_base(self, key: LaneKey) -> Iterator[Span]:
        """Give what the notes alone prove of a thread."""
        entries = self.by_lane.get(key, [])
        holds = {hold.start: hold for hold in self.holds if hold.lane == key}
        at_rest = State.LOOP if key in self.loops else State.IDLE
        if entries:
            yield Span(0, entries[0].note.time, at_rest)
        for entry, following in pairwise(entries):
            start, end = entry.note.time, following.note.time
            if hold := holds.get(start):
                yield Span(start, end, hold.state, hold.client)
            elif entry.note.kind in (Kind.WAIT, Kind.ASKS, Kind.CLOSE, Kind.SEND):
                yield Span(start, end, at_rest)
            else:
                yield Span(start, end, State.RUNNING, entry.client)

    def _refine(self, key: LaneKey, base: Sequence[Span], thread: Thread) -> list[Span]:
        """Add what the kernel shows: where it contradicts rest, and where a thread waits for what it needs."""
        segments = _stretch(thread.segments, 2 * self.recording.look)
        found = []
        for span in _fill(list(base), self.recording.end, State.IDLE):
            time = span.start
            for segment in segments:
                first, last = max(time, segment.start), min(span.end, segment.end)
                state = self._judge(key, span, segment) if last > first else None
                if state is None:
                    continue
                found.append(Span(time, first, span.state, span.client))
                found.append(Span(first, last, state, span.client if state in (State.GIL, State.CORE) else ""))
                time = last
            found.append(Span(time, span.end, span.state, span.client))
        return found

    def _judge(self, key: LaneKey, span: Span, segment: Segment) -> State | None:
        """Return what a thread does by the kernel, if that says more than the notes."""
        if span.state is State.COMPUTING:
            return State.GIL if segment.state == "futex" else None
        if segment.queued * 2 > segment.end - segment.start > SHORTEST:
            return State.CORE
        if span.state is State.SLEEPING:
            return None  # some models sleep in a futex
        if segment.state == "futex":
            return State.GIL if self._is_computing_beside(key, segment) else State.LOCK
        if span.state in (State.IDLE, State.LOOP):
            return _STATES.get(segment.state)
        return None

    def _is_computing_beside(self, key: LaneKey, segment: Segment) -> bool:
        return self.has_gil.get(key[0], False) and any(
            hold.lane[0] == key[0]
            and hold.lane != key
            and hold.state is State.COMPUTING
            and min(hold.end, segment.end) - max(hold.start, segment.start) > 0
            for hold in self.holds
        )


# What a server does from one of these notes to the next.
_HELD = {
    Kind.WAIT: State.SLEEPING,
    Kind.COMPUTE: State.COMPUTING,
    Kind.SEND: State.SENDING,
    Kind.ASKS: State.READING,
}

# What a thread does by the system call that it is in.
_STATES = {
    "running": State.RUNNING,
    **dict.fromkeys(("epoll_wait", "epoll_pwait", "epoll_pwait2", "poll", "ppoll", "select", "pselect6"), State.LOOP),
    **dict.fromkeys(("accept", "accept4"), State.LOOP),
    **dict.fromkeys(("clock_nanosleep", "nanosleep"), State.SLEEPING),
    **dict.fromkeys(("recvfrom", "recvmsg"), State.READING),
    **dict.fromkeys(("sendto", "sendmsg"), State.SENDING),
    "fcntl": State.LOCK,
}


def _list_entries(recording: Recording) -> Iterator[_Entry]:
    """Give the notes about the scene's clients, in the order of time."""
    ports = {client.port: client.name for client in recording.clients}
    found = []
    for process in recording.processes:
        names = {note.connection: ports.get(note.value) for note in process.notes if note.kind is Kind.OPENED}
        for note in process.notes:
            name = names.get(note.connection)
            if name and note.kind not in (Kind.THREAD, Kind.TASK):
                found.append(_Entry(note, name, (process.pid, note.thread)))
    yield from sorted(found, key=lambda entry: entry.note.time)


def _find_state(entry: _Entry, following: _Entry) -> State | None:
    """Return what the server did for a client from one note to the next."""
    if entry.note.kind is Kind.ASKS and following.note.kind is Kind.ENDED:
        return State.ENDING
    return _HELD.get(entry.note.kind)


def _is_interleaved(entries: Sequence[_Entry]) -> bool:
    """Whether a thread came back to a client after it had turned to another."""
    seen: set[str] = set()
    current = ""
    for entry in entries:
        if entry.client != current and entry.client in seen:
            return True
        current = entry.client
        seen.add(current)
    return False


def _has_run(thread: Thread) -> bool:
    return any(segment.state == "running" and segment.start > 0 for segment in thread.segments)


def _stretch(segments: Sequence[Segment], most: int) -> list[Segment]:
    """Let each segment last until the next begins, if the looks were not interrupted for longer than `most`."""
    ends = [*(segment.start for segment in segments[1:]), segments[-1].end + most]
    return [
        Segment(segment.start, min(max(segment.start, until), segment.end + most), *_measured(segment))
        for segment, until in zip(segments, ends, strict=True)
    ]


def _measured(segment: Segment) -> tuple[str, int, int]:
    return segment.state, segment.cpu, segment.queued


def _fill(spans: list[Span], end: int, rest: State) -> list[Span]:
    """Return spans without gaps and without overlap from 0 to the end."""
    found = []
    time = 0
    for span in sorted(spans, key=lambda span: span.start):
        start, until = max(span.start, time), min(span.end, end)
        if until <= start:
            continue
        if start > time:
            found.append(Span(time, start, rest))
        found.append(Span(start, until, span.state, span.client))
        time = until
    if time < end:
        found.append(Span(time, end, rest))
    return found


def _join(spans: Iterable[Span]) -> list[Span]:
    """Join neighbours of the same state."""
    found: list[Span] = []
    for span in spans:
        if found and (found[-1].state, found[-1].client) == (span.state, span.client):
            found[-1] = Span(found[-1].start, span.end, span.state, span.client)
        else:
            found.append(span)
    return found


def name_lanes(keys: Sequence[LaneKey], analysis: Analysis) -> Mapping[LaneKey, str]:
    """Return a name for each thread: process and thread are numbered only if there are several."""
    pids = list(dict.fromkeys(pid for pid, _ in keys))
    names = {}
    for pid in pids:
        of_process = [key for key in keys if key[0] == pid]
        for number, key in enumerate(of_process, 1):
            kind = "loop" if key in analysis.loops else "thread"
            if len(pids) == 1:
                names[key] = kind if len(of_process) == 1 else f"{kind} {number}"
            elif len(of_process) == 1:
                names[key] = f"process {pids.index(pid) + 1}"
            else:
                names[key] = f"process {pids.index(pid) + 1}, {kind} {number}"
    return names


def is_orderly(recording: Recording) -> bool:
    """Whether the clients sent in the order of the scene, each before those before it were answered.

    And whether a server that sleeps for a client woke up in time, which another client's computation may prevent.
    """
    firsts = [client.sent[0] for client in recording.clients if client.sent]
    if len(firsts) != len(recording.clients) or firsts != sorted(firsts):
        return False
    for before, after in pairwise(recording.clients):
        if before.answered is None or before.answered < after.sent[0]:
            return False
    order = [client.name for client in recording.clients]
    return all(order.index(edge.holder) < order.index(edge.waiter) for edge in Analysis(recording).edges)


def find_waits(recording: Recording) -> Mapping[str, int]:
    """Return the nanoseconds that each client waited while the server did nothing for it."""
    return Analysis(recording).waits
