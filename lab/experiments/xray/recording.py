"""What was recorded of a scene: plain data, from which every picture and sentence is made.

All times are nanoseconds of CLOCK_MONOTONIC since the first client began to connect.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Self

from lab.base.errors import LabError
from services.protocol.trace import Kind, Note

VERSION = 1


@dataclass(frozen=True, slots=True)
class Client:
    """One client of the scene, and when it did what.

    Args:
        does: what it does, in a few words.
        port: its own, by which the server knows it.
        sent: when it sent each piece of its request.
        answered: when the reply was complete; None if it never was.
        error: why it got no reply.
    """

    name: str
    does: str
    port: int
    connecting: int
    connected: int
    sent: tuple[int, ...]
    answered: int | None
    closed: int
    error: str = ""


@dataclass(frozen=True, slots=True)
class Process:
    """What a process of the server noted. A note's thread is the kernel's number, if the process said it."""

    pid: int
    has_gil: bool
    notes: tuple[Note, ...]


@dataclass(frozen=True, slots=True)
class Segment:
    """What a thread did from one look to another, as the kernel shows it.

    Args:
        state: `running`, the name of a system call that it is in, or the letter of /proc/PID/stat.
        cpu: nanoseconds on a core.
        queued: nanoseconds in which it could run and had no core.
    """

    start: int
    end: int
    state: str
    cpu: int
    queued: int


@dataclass(frozen=True, slots=True)
class Switches:
    """From one look to another, a thread was put on a core a number of times. When in between is not known."""

    start: int
    end: int
    number: int


@dataclass(frozen=True, slots=True)
class Thread:
    """A thread of the server, as the kernel shows it.

    Args:
        switches: to it, in the order of time, without the looks between which there was none; None if not known.
    """

    pid: int
    tid: int
    name: str
    segments: tuple[Segment, ...]
    switches: tuple[Switches, ...] | None = None

    @property
    def start(self) -> int:
        """The first look at it."""
        return self.segments[0].start

    @property
    def end(self) -> int:
        """The last look at it: what it did between this and its end, if it has ended, is not known."""
        return self.segments[-1].end


@dataclass(frozen=True, slots=True)
class SystemCall:
    """A system call, or the part of it that is inside of the recording."""

    start: int
    end: int
    name: str


@dataclass(frozen=True, slots=True)
class TracedThread:
    """The system calls of a thread, in their order, as strace saw them."""

    tid: int
    calls: tuple[SystemCall, ...]


@dataclass(frozen=True, slots=True)
class Recording:
    """A scene with one model.

    Args:
        end: when the last client had closed.
        processes: empty if the server has no recorder.
        threads: empty if the kernel shows nothing.
        look: the median time between two looks at the kernel; 0 without.
        clock: the time from one reading of the clock to the next, which is the error between the sides.
        missing: what could not be recorded, and why.
        traced: the threads that strace was attached to; empty without it. Under it, times are longer.
        misaligned: the error between strace's clock and that of all other times.
        has_ended: whether the server ended meanwhile.
    """

    model: str
    scene: str
    date: str
    backend: str
    clients: tuple[Client, ...]
    end: int
    processes: tuple[Process, ...] = ()
    threads: tuple[Thread, ...] = ()
    look: int = 0
    clock: int = 0
    missing: tuple[str, ...] = ()
    traced: tuple[TracedThread, ...] = ()
    misaligned: int = 0
    has_ended: bool = False
    machine: Mapping[str, str | None] = field(default_factory=dict)

    def as_json(self) -> dict[str, Any]:
        """Return the object that a file has."""
        data = asdict(self)
        for process, found in zip(data["processes"], self.processes, strict=True):
            process["notes"] = [
                [note.time, note.thread, note.kind.name, note.connection, note.value] for note in found.notes
            ]
        for thread, seen in zip(data["threads"], self.threads, strict=True):
            thread["segments"] = [[item.start, item.end, item.state, item.cpu, item.queued] for item in seen.segments]
            if seen.switches is not None:
                thread["switches"] = [[item.start, item.end, item.number] for item in seen.switches]
        for traced, calls in zip(data["traced"], self.traced, strict=True):
            traced["calls"] = [[call.start, call.end, call.name] for call in calls.calls]
        return {"version": VERSION, **data}

    @classmethod
    def from_json(cls, data: Any, name: str = "it") -> Self:
        """Read one.

        Args:
            data: what `as_json` returned.
            name: where it is from, for the message.

        Raises:
            LabError: it is no recording, or of another version.
        """
        if not isinstance(data, dict) or "version" not in data or "clients" not in data:
            raise LabError(f"{name} is not a recording of `lab xray`")
        if data["version"] != VERSION:
            versions = f"a recording of version {data['version']}, and this lab reads version {VERSION}"
            raise LabError(f"{name} is {versions}: record again")
        try:
            return cls(
                **{key: data[key] for key in ("model", "scene", "date", "backend", "end", "look", "clock", "machine")},
                clients=tuple(Client(**{**item, "sent": tuple(item["sent"])}) for item in data["clients"]),
                processes=tuple(
                    Process(item["pid"], item["has_gil"], tuple(_read_note(*note) for note in item["notes"]))
                    for item in data["processes"]
                ),
                threads=tuple(
                    Thread(
                        item["pid"],
                        item["tid"],
                        item["name"],
                        tuple(Segment(*each) for each in item["segments"]),
                        _read_switches(item.get("switches")),
                    )
                    for item in data["threads"]
                ),
                missing=tuple(data["missing"]),
                traced=tuple(
                    TracedThread(item["tid"], tuple(SystemCall(*call) for call in item["calls"]))
                    for item in data.get("traced", ())
                ),
                misaligned=data.get("misaligned", 0),
                has_ended=data.get("has_ended", False),
            )
        except (KeyError, TypeError, ValueError) as error:
            raise LabError(f"{name} is a damaged recording: {error!r}") from None


def _read_switches(found: Sequence[tuple[int, int, int]] | None) -> tuple[Switches, ...] | None:
    return None if found is None else tuple(Switches(*each) for each in found)


def _read_note(time: int, thread: int, kind: str, connection: int, value: int) -> Note:
    return Note(time, thread, Kind[kind], connection, value)


def read_recordings(path: Path) -> list[Recording]:
    """Read a file of recordings.

    Raises:
        LabError: it cannot be read, or is of another kind or version.
    """
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise LabError(f"{path}: {error.strerror}") from None
    except ValueError:
        raise LabError(f"{path} is not a recording of `lab xray`") from None
    if not isinstance(data, list):
        raise LabError(f"{path} is not a recording of `lab xray`")
    return [Recording.from_json(item, str(path)) for item in data]


def write_recordings(path: Path, recordings: list[Recording]) -> None:
    """Write a file of recordings, one a line."""
    lines = ",\n".join(json.dumps(each.as_json(), separators=(",", ":")) for each in recordings)
    path.write_text(f"[\n{lines}\n]\n", encoding="utf-8")
