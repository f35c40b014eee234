"""Record a scene: play it against a running model, collect what the server noted and what the kernel shows."""

import json
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from lab.base.errors import LabError, last_line
from lab.experiments.xray import sampler, scenes
from lab.experiments.xray.analysis import find_waits, is_orderly
from lab.experiments.xray.recording import (
    Client,
    Process,
    Recording,
    Segment,
    Switches,
    SystemCall,
    Thread,
    TracedThread,
)
from lab.experiments.xray.scenes import Scene
from lab.experiments.xray.strace import Call, Log, parse_log, traced, traced_process
from lab.metrics.socket_owner import Owner
from lab.servers.backend import Backend, Servers
from services.protocol import Address
from services.protocol.trace import Kind, Note

ROUNDS = 3
_TRIES = 4
_PERIOD = 0.001
_TIMEOUT = 60.0


def _number(text: str) -> Mapping[int, str]:
    words = text.split()
    return {int(number): name for number, name in zip(words[::2], words[1::2], strict=True)}


# The system calls in which a server waits, by their numbers.
_CALLS: Mapping[str, Mapping[int, str]] = {
    "x86_64": _number(
        "0 read 1 write 7 poll 20 writev 23 select 35 nanosleep 43 accept 44 sendto 45 recvfrom 46 sendmsg 47 recvmsg "
        "56 clone 57 fork 61 wait4 72 fcntl 202 futex 230 clock_nanosleep 232 epoll_wait 247 waitid 270 pselect6 "
        "271 ppoll 281 epoll_pwait 288 accept4 435 clone3 441 epoll_pwait2"
    ),
    "aarch64": _number(
        "22 epoll_pwait 25 fcntl 63 read 64 write 66 writev 72 pselect6 73 ppoll 95 waitid 98 futex 101 nanosleep "
        "115 clock_nanosleep 202 accept 206 sendto 207 recvfrom 211 sendmsg 212 recvmsg 220 clone 242 accept4 "
        "260 wait4 435 clone3 441 epoll_pwait2"
    ),
}


def choose_folder(servers: Servers, runtime: Path) -> str:
    """Return the value of `LAB_XRAY` for a lab: a folder that its servers can write and its clients read."""
    return "/run/lab/xray/{model}" if servers.in_containers else f"{runtime}/xray/{{model}}"


def record(
    backend: Backend,
    model: str,
    scene: Scene,
    folder: str,
    *,
    rounds: int = ROUNDS,
    is_traced: bool = False,
    machine: Mapping[str, str | None] | None = None,
) -> Recording:
    """Play a scene against a model that is up, some rounds, and return the round in the middle.

    If the clients came late in all rounds, play them again, a few times. If the server ends, what there is by then is
    returned.

    Args:
        folder: the value of `LAB_XRAY` with which the model was started.
        is_traced: whether strace is attached, for the system calls of each thread.
        machine: facts about it, to be kept with the recording.

    Raises:
        LabError: the model cannot be reached.
    """
    address = find_address(backend, model, scene)
    place = folder.replace("{model}", model)
    request = {
        "scene": scene.name,
        "host": address.host,
        "port": address.port,
        "folder": place,
        "rounds": rounds,
        "sampler": True,
    }
    recorded: list[Recording] = []
    for _ in range(_TRIES):
        _clear(backend, place)
        date = datetime.now(UTC).strftime("%Y-%m-%d %H:%M:%S UTC")
        tracing = traced(backend, model) if is_traced else None
        with _sampled(backend, model, place) as looks, _traced_if_possible(tracing) as log:
            played = _play(backend, request)
        facts = {"model": model, "scene": scene.name, "date": date, "backend": backend.name}
        recorded += make_recordings(played, looks.result(), log, **facts)
        if played["ended"] or any(is_orderly(each) for each in recorded):
            break
    return replace(choose_round(recorded), machine=machine or {})


def record_target(
    backend: Backend,
    address: Address,
    scene: Scene,
    owner: Owner,
    *,
    rounds: int = ROUNDS,
    is_traced: bool = False,
    machine: Mapping[str, str | None] | None = None,
) -> Recording:
    """Play a scene against a server that is not one of the lab's: it has no recorder.

    Args:
        backend: of processes, from which the scene is played.
        owner: the server's process, if that runs on this machine: the kernel shows what its threads do.
        is_traced: as in `record`, if it does.

    Raises:
        LabError: the server cannot be reached.
    """
    date = datetime.now(UTC).strftime("%Y-%m-%d %H:%M:%S UTC")
    with tempfile.TemporaryDirectory() as folder, ThreadPoolExecutor(max_workers=1) as pool:
        request = {"scene": scene.name, "host": address.host, "port": address.port, "folder": folder, "rounds": rounds}
        looks: Mapping[str, Any] = _see_nothing(owner.unknown or "it does not run as a process of this machine")
        log = Log(fault="system calls: strace needs a process of this machine" if is_traced else "")
        if owner.pid:
            watching = pool.submit(_look_locally, backend, owner.pid, folder)
            with _traced_if_possible(traced_process(owner.pid) if is_traced else None) as log:
                played = _play(backend, request | {"sampler": True})
            looks = watching.result()
        else:
            played = _play(backend, request)
    facts = {"model": str(address), "scene": scene.name, "date": date, "backend": "process"}
    return replace(choose_round(make_recordings(played, looks, log, **facts)), machine=machine or {})


@contextmanager
def _traced_if_possible(tracing: AbstractContextManager[Log] | None) -> Iterator[Log]:
    """Trace the block; if there is no strace, or no right to trace, the log says so."""
    with ExitStack() as stack:
        log = Log()
        if tracing is not None:
            try:
                log = stack.enter_context(tracing)
            except LabError as error:
                log.fault = f"system calls: {error}"
        yield log


def _look_locally(backend: Backend, pid: int, folder: str) -> Mapping[str, Any]:
    source = Path(sampler.__file__).read_text(encoding="utf-8")
    done = backend.helpers.run(["python", "-c", source, str(pid), folder, str(_PERIOD)], capture=True, timeout=_TIMEOUT)
    if done.returncode:
        return _see_nothing(last_line(done.stderr, "the script ended"))
    found: Mapping[str, Any] = json.loads(done.stdout)
    return found


def _see_nothing(reason: str) -> Mapping[str, Any]:
    """Return the looks of a sampler that could not look."""
    return {"threads": [], "faults": [f"the kernel's side: {reason}"], "machine": "", "look": 0}


def find_address(backend: Backend, model: str, scene: Scene) -> Address:
    """Return where a model speaks the service of a scene over TCP.

    Raises:
        LabError: it does not, or is not running.
    """
    for listener in backend.targets():
        if (listener.model, listener.service, listener.transport) == (model, scene.service, "tcp"):
            return Address.parse(str(listener.address))
    raise LabError(f"{model} does not listen for {scene.service} over tcp: `lab ls {model}`")


def _clear(backend: Backend, place: str) -> None:
    script = f"import os, pathlib; [os.path.exists(p) and os.remove(p) for p in ('{place}/sampling', '{place}/done')]"
    backend.helpers.run(["python", "-c", script], capture=True, timeout=_TIMEOUT)


@contextmanager
def _sampled(backend: Backend, model: str, place: str) -> Iterator["Future[Mapping[str, Any]]"]:
    source = Path(sampler.__file__).read_text(encoding="utf-8")

    def look() -> Mapping[str, Any]:
        try:
            found: Mapping[str, Any] = json.loads(backend.faults.run_beside(model, source, [place, str(_PERIOD)]))
        except LabError as error:
            return _see_nothing(str(error))
        return found

    with ThreadPoolExecutor(max_workers=1) as pool:
        yield pool.submit(look)


def _play(backend: Backend, request: Mapping[str, Any]) -> Mapping[str, Any]:
    done = backend.helpers.run(["python", "-m", scenes.__name__, json.dumps(request)], capture=True, timeout=_TIMEOUT)
    try:
        played: Mapping[str, Any] = json.loads(done.stdout)
    except ValueError:
        raise LabError(f"the scene could not be played: {last_line(done.stderr, 'no output')}") from None
    if "error" in played:
        raise LabError(f"the scene could not be played: {played['error']}")
    return played


def make_recordings(
    played: Mapping[str, Any], looks: Mapping[str, Any], log: Log, *, model: str, scene: str, date: str, backend: str
) -> list[Recording]:
    """Return a recording for each round, from what the programs have printed."""
    missing = [*played["faults"], *looks["faults"], *([log.fault] if log.fault else [])]
    calls = list(parse_log(log.lines))
    ahead, misaligned = _align(played["clocks"]) if calls else (0, 0)
    if played["ended"]:
        missing.append(f"the rounds after number {len(played['rounds'])}: the server ended: {played['ended']}")
    if not played["processes"]:
        missing.append("the server's side: it left no notes")
    found = []
    for clients in played["rounds"]:
        start = clients[0]["connecting"]
        end = max(client["closed"] for client in clients)
        found.append(
            Recording(
                model=model,
                scene=scene,
                date=date,
                backend=backend,
                clients=tuple(_make_client(client, start) for client in clients),
                end=end - start,
                processes=tuple(_make_processes(played["processes"], start, {client["port"] for client in clients})),
                threads=tuple(_make_threads(looks, start, end)),
                look=looks["look"],
                clock=played["clock"],
                missing=tuple(missing),
                traced=tuple(_make_traced(calls, start + ahead, end + ahead)),
                misaligned=misaligned,
                has_ended=bool(played["ended"]),
            )
        )
    return found


def choose_round(found: Sequence[Recording]) -> Recording:
    """Return the round whose last client waited the median time.

    Rounds in which the clients came late are left out: a machine that is busy may keep a client from sending until the
    others have been answered.
    """
    orderly = [each for each in found if is_orderly(each)]
    chosen = sorted(orderly or found, key=lambda each: find_waits(each)[each.clients[-1].name])
    middle = chosen[len(chosen) // 2]
    if orderly:
        return middle
    return replace(middle, missing=(*middle.missing, "clients came late in each round: this machine was too busy"))


def _make_client(data: Mapping[str, Any], start: int) -> Client:
    answered = data["answered"]
    return Client(
        name=data["name"],
        does=data["does"],
        port=data["port"],
        connecting=data["connecting"] - start,
        connected=data["connected"] - start,
        sent=tuple(time - start for time in data["sent"]),
        answered=None if answered is None else answered - start,
        closed=data["closed"] - start,
        error=data["error"],
    )


def _make_processes(processes: Sequence[Mapping[str, Any]], start: int, ports: set[int]) -> Iterator[Process]:
    """Give the notes about the clients with these ports, which may go on after the clients have closed."""
    for process in processes:
        # A thread's identity goes to another when it has ended: what it meant when the connection was opened counts.
        opened_by = {connection: value for _, _, kind, connection, value in process["notes"] if kind == "THREAD"}
        numbers: dict[int, int] = {}
        chosen: set[int] = set()
        notes = []
        for time_, thread, kind, connection, value in process["notes"]:
            if kind == "OPENED":
                numbers[thread] = opened_by.get(connection, thread)
                if value in ports and time_ >= start:
                    chosen.add(connection)
            if connection in chosen:
                notes.append(Note(time_ - start, numbers.get(thread, thread), Kind[kind], connection, value))
        if notes:
            yield Process(process["pid"], process["has_gil"], tuple(notes))


def _make_threads(looks: Mapping[str, Any], start: int, end: int) -> Iterator[Thread]:
    calls = _CALLS.get(looks["machine"], {})
    for pid, tid, name, segments, switches in looks["threads"]:
        inside = [
            Segment(max(begin - start, 0), min(until, end) - start, _name_state(state, calls), cpu, queued)
            for begin, until, state, cpu, queued in segments
            if until >= start and begin <= end
        ]
        if inside:
            yield Thread(pid, tid, name, tuple(inside), _make_switches(switches, start, end))


def _make_switches(
    switches: Sequence[tuple[int, int, int]] | None, start: int, end: int
) -> tuple[Switches, ...] | None:
    if switches is None:
        return None
    return tuple(
        Switches(max(since - start, 0), min(until, end) - start, number)
        for since, until, number in switches
        if until > start and since < end
    )


def _align(clocks: Sequence[tuple[int, int]]) -> tuple[int, int]:
    """Return what strace's clock is ahead, and the error: of a reading, from one to the other, and of a microsecond."""
    (first, error), (last, other) = clocks
    return (first + last) // 2, max(error, other) + abs(last - first) // 2 + 1000


def _make_traced(calls: Sequence[Call], start: int, end: int) -> Iterator[TracedThread]:
    """Give the calls that are in part between two times of strace's clock, by thread."""
    found: dict[int, list[SystemCall]] = {}
    for call in calls:
        until = end if call.end is None else min(call.end, end)
        if call.start < end and until > start:
            inside = SystemCall(max(call.start - start, 0), until - start, call.name)
            found.setdefault(call.thread, []).append(inside)
    for tid, inside_ in sorted(found.items()):
        yield TracedThread(tid, tuple(sorted(inside_, key=lambda call: call.start)))


def _name_state(state: str, calls: Mapping[int, str]) -> str:
    if state in ("running", "R"):
        return "running"
    if state.isdigit():
        return calls.get(int(state), f"system call {state}")
    return {"-1": "blocked", "S": "asleep", "D": "disk"}.get(state, state)
