"""Recordings made up for tests: a line for each note, in milliseconds."""

from collections.abc import Sequence

from lab.experiments.xray.recording import Client, Process, Recording, Segment, Switches, Thread
from services.protocol.trace import Kind, Note

MS = 1_000_000

# A's sleep ends at 22, B's computation takes 10 from when it begins.
CLIENTS = (("A", 2.0, 23.0), ("B", 4.0, 34.0), ("C", 6.0, 35.0))

# One thread, one client at a time: time, client, kind, value.
SEQUENTIAL = """
0.5 A OPENED
0.6 A ASKS
2.1 A RECEIVED 9
2.2 A WAIT 20000
22.3 A SEND 5
22.4 A ASKS
23.1 A ENDED
23.2 A CLOSE
23.3 B OPENED
23.4 B RECEIVED 9
23.5 B COMPUTE 9
33.5 B DIGEST
33.6 B SEND 70
33.7 B ASKS
34.1 B ENDED
34.2 B CLOSE
34.3 C OPENED
34.4 C RECEIVED 6
34.5 C SEND 7
34.6 C ASKS
35.1 C ENDED
35.2 C CLOSE
"""

# One thread, a loop.
LOOP = """
0.5 A OPENED
0.6 A ASKS
0.7 B OPENED
0.8 B ASKS
0.9 C OPENED
1.0 C ASKS
2.1 A RECEIVED 9
2.2 A WAIT 20000
4.1 B RECEIVED 9
4.2 B COMPUTE 9
14.2 B DIGEST
14.3 B SEND 70
14.4 B ASKS
14.5 C RECEIVED 6
14.6 C SEND 7
14.7 C ASKS
15.0 B ENDED
15.1 B CLOSE
15.2 C ENDED
15.3 C CLOSE
22.3 A SEND 5
22.4 A ASKS
23.1 A ENDED
23.2 A CLOSE
"""
LOOP_CLIENTS = (("A", 2.0, 22.5), ("B", 4.0, 14.5), ("C", 6.0, 14.8))

# A thread or a process for each client; C's is delayed while B's computes.
OWN = {
    "A": "0.5 A OPENED\n0.6 A ASKS\n2.1 A RECEIVED 9\n2.2 A WAIT 20000\n22.3 A SEND 5\n22.4 A ASKS\n23.1 A CLOSE\n",
    "B": "0.7 B OPENED\n0.8 B ASKS\n4.1 B RECEIVED 9\n4.2 B COMPUTE 9\n14.2 B DIGEST\n14.3 B SEND 7\n14.8 B CLOSE\n",
    "C": "0.9 C OPENED\n1.0 C ASKS\n11.1 C RECEIVED 6\n11.2 C SEND 7\n11.3 C ASKS\n11.8 C CLOSE\n",
}
QUICK = "0.9 C OPENED\n1.0 C ASKS\n6.1 C RECEIVED 6\n6.2 C SEND 7\n6.3 C ASKS\n6.8 C CLOSE\n"


def make_client(name: str, sent: float, answered: float | None, error: str = "") -> Client:
    """Return a client that closes half a millisecond after its reply."""
    end = 40.0 if answered is None else answered
    return Client(
        name=name,
        does="something",
        port=ord(name),
        connecting=0,
        connected=int(0.1 * MS),
        sent=(round(sent * MS),),
        answered=None if answered is None else round(answered * MS),
        closed=round((end + 0.5) * MS),
        error=error,
    )


def make_process(pid: int, threads: Sequence[str], *, has_gil: bool = True) -> Process:
    """Return a process with these threads, numbered from the pid on, each as lines of notes."""
    notes = [
        _parse_note(line, pid + number) for number, lines in enumerate(threads) for line in lines.strip().splitlines()
    ]
    return Process(pid, has_gil, tuple(sorted(notes, key=lambda note: note.time)))


def make_recording(
    processes: Sequence[Process],
    clients: Sequence[tuple[str, float, float | None]] = CLIENTS,
    threads: Sequence[Thread] = (),
    missing: Sequence[str] = (),
) -> Recording:
    """Return a recording."""
    made = tuple(make_client(*client) for client in clients)
    return Recording(
        model="a_model",
        scene="sleep",
        date="2026-11-29 09:00:00 UTC",
        backend="process",
        clients=made,
        end=max(client.closed for client in made),
        processes=tuple(processes),
        threads=tuple(threads),
        look=MS if threads else 0,
        clock=70,
        missing=tuple(missing),
    )


def make_thread(pid: int, tid: int, states: str) -> Thread:
    """Return what the kernel shows of a thread: a letter for each millisecond, from 0 on."""
    calls = {"R": "running", "f": "futex", "e": "epoll_wait", "r": "recvfrom", "z": "clock_nanosleep"}
    segments = []
    start = 0
    for number in range(1, len(states) + 1):
        if number == len(states) or states[number] != states[start]:
            segments.append(Segment(start * MS, (number - 1) * MS, calls[states[start]], 0, 0))
            start = number
    return Thread(pid, tid, "python", tuple(segments))


def make_kernel(*segments: tuple[float, float, str, float], tid: int = 1) -> list[Thread]:
    """Make a thread of segments: begin, end, state, and how long it could have run and had no core."""
    return [
        Thread(
            1,
            tid,
            "python",
            tuple(
                Segment(round(start * MS), round(end * MS), state, 0, round(queued * MS))
                for start, end, state, queued in segments
            ),
        )
    ]


def make_switches(*looks: tuple[float, float, int]) -> tuple[Switches, ...]:
    """Return switches to a thread: two looks, in milliseconds, and how often it was put on a core between them."""
    return tuple(Switches(round(start * MS), round(end * MS), number) for start, end, number in looks)


def _parse_note(line: str, thread: int) -> Note:
    time, client, kind, *value = line.split()
    number = int(value[0]) if value else 0
    return Note(
        round(float(time) * MS), thread, Kind[kind], ord(client), number or (ord(client) if kind == "OPENED" else 0)
    )
