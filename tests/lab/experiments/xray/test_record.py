"""What surrounds a recording: servers that have no recorder, what the kernel does not show, models that end."""

import errno
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from uuid import uuid4

import pytest

from lab.base.environ import ENV_XRAY
from lab.base.errors import LabError
from lab.experiments.xray import sampler, scenes
from lab.experiments.xray.analysis import Analysis
from lab.experiments.xray.record import find_address, make_recordings, record, record_target
from lab.experiments.xray.scenes import SCENES, Actor, Scene, await_notes, play, play_rounds, read_notes
from lab.experiments.xray.sentences import conclude, explain
from lab.experiments.xray.strace import Log, traced_process
from lab.metrics.socket_owner import Owner, find_owner
from lab.servers.catalogue import Catalogue
from lab.servers.processes import Processes
from services.protocol import Address
from services.protocol.trace import Kind
from tests.support.made_up_xray import MS, make_process, make_recording
from tests.support.waiting import wait_until

ECHO = """
import socketserver
class Handler(socketserver.BaseRequestHandler):
    def handle(self):
        while data := self.request.recv(65536):
            self.request.sendall(data)
with socketserver.TCPServer(("127.0.0.1", 0), Handler) as server:
    print(server.server_address[1], flush=True)
    server.serve_forever()
"""


@pytest.fixture(scope="module")
def echo() -> Iterator[tuple[Address, int]]:
    """An echo server as others write it, one client after the other: its address and its pid."""
    with subprocess.Popen([sys.executable, "-c", ECHO], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout
        yield Address.parse(f"tcp://127.0.0.1:{process.stdout.readline().strip()}"), process.pid
        process.kill()


@pytest.fixture
def lab() -> Iterator[Processes]:
    backend = Processes(f"test-{uuid4().hex[:8]}", Catalogue.load())
    yield backend
    backend.down()


def test_server_of_others_has_lanes_of_clients_and_what_the_kernel_shows(
    lab: Processes, echo: tuple[Address, int]
) -> None:
    address, pid = echo
    owner = find_owner(address)
    assert owner.pid == pid

    def record() -> Analysis:
        return Analysis(record_target(lab, address, SCENES["echo"], owner, rounds=1))

    def waits(analysis: Analysis) -> bool:
        states = {segment.state for thread in analysis.recording.threads for segment in thread.segments}
        return not states.isdisjoint({"recvfrom", "poll"})

    # Without a core, it may be seen only while it is to run.
    analysis = wait_until(lambda: next(filter(waits, [record()]), None))
    assert analysis is not None
    assert [lane.name for lane in analysis.lanes] == ["S", "C", "thread"]
    assert conclude(analysis) == "the server has no recorder: only its clients are known"
    assert analysis.recording.missing == ("the server's side: it left no notes",)
    assert all(client.answered for client in analysis.recording.clients)


def test_server_elsewhere_has_lanes_of_clients_only(lab: Processes, echo: tuple[Address, int]) -> None:
    found = record_target(lab, echo[0], SCENES["echo"], Owner(unknown="it is on the moon"), rounds=1)
    assert found.missing == ("the kernel's side: it is on the moon", "the server's side: it left no notes")
    assert not found.threads


def test_scene_that_a_server_does_not_answer_is_shown_with_the_reason(echo: tuple[Address, int]) -> None:
    """An echo server is asked for a PING, and sends the request back."""
    scene = Scene("odd", "odd", (Actor("C", "BLOB", ((0.0, "$9\r\nxx"),)),))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("lab.experiments.xray.scenes._TIMEOUT", 0.3)
        (client,) = play(scene, echo[0].host, echo[0].port or 0, 1)
    assert client["answered"] is None
    assert client["error"] == "no complete reply within 0.3 s"


def test_model_that_ends_while_it_is_recorded_is_named(lab: Processes, tmp_path: Path) -> None:
    lab.up(["plain_socket"])
    lab.stop("plain_socket")
    with pytest.raises(LabError, match="plain_socket does not listen for command over tcp: `lab ls plain_socket`"):
        record(lab, "plain_socket", SCENES["sleep"], str(tmp_path))


def test_clients_of_a_model_that_is_killed_in_a_scene_have_what_came_until_then(lab: Processes, tmp_path: Path) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(ENV_XRAY, str(tmp_path))
        lab.up(["plain_socket"])
    address = find_address(lab, "plain_socket", SCENES["sleep"])
    actors = (
        Actor("A", "SLEEP", ((0.0, "SLEEP 60000\r\n"), (1.0, "PING\r\n"))),
        Actor("C", "PING", ((0.0, "PING\r\n"),)),
    )
    scene = Scene("sleep", "", actors)

    def kill_in_sleep() -> None:
        wait_until(lambda: any(note[2] == "WAIT" for each in read_notes(tmp_path, 0)[0] for note in each["notes"]))
        os.kill(lab.pid("plain_socket"), signal.SIGKILL)

    killer = threading.Thread(target=kill_in_sleep)
    killer.start()
    rounds, ended = play_rounds(scene, address.host, address.port or 0, 1, 3)
    killer.join()
    assert ended == "Connection refused"
    processes, faults = read_notes(tmp_path, 0)
    played = {"rounds": rounds, "ended": ended, "processes": processes, "faults": faults, "clock": 1, "clocks": []}
    looks = {"threads": [], "faults": [], "machine": "", "look": 0}
    (found,) = make_recordings(played, looks, Log(), model="plain_socket", scene="sleep", date="", backend="process")
    assert found.has_ended
    assert found.missing == ("the rounds after number 1: the server ended: Connection refused",)
    assert [client.answered for client in found.clients] == [None, None]
    assert all(client.error for client in found.clients)
    assert [note.kind for process in found.processes for note in process.notes][-1] is Kind.WAIT
    assert [text.partition(":")[0] for text in explain(Analysis(found))] == ["A got no reply", "C got no reply"]


def test_notes_are_awaited_until_they_have_a_reply_to_each_client(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    first = [[1, 5, "OPENED", 1, 7001], [2, 5, "OPENED", 2, 7002], [3, 5, "SEND", 1, 7]]
    states = [first, first, [*first, [4, 5, "SEND", 2, 7]]]
    seen: list[int] = []

    def read(folder: Path, since: int) -> tuple[list[dict[str, object]], list[str]]:
        seen.append(since)
        return [{"pid": 1, "has_gil": True, "notes": states[min(len(seen), 3) - 1]}], ["a fault"]

    monkeypatch.setattr(scenes, "read_notes", read)
    # No server that notes anything: nothing to wait for.
    assert await_notes(tmp_path, 9, {7001, 7002})[0][0]["notes"] == first
    assert seen.copy() == [9]
    seen.clear()
    (tmp_path / "m-1.xray").touch()
    assert await_notes(tmp_path, 9, {7001, 7002}) == ([{"pid": 1, "has_gil": True, "notes": states[2]}], ["a fault"])
    assert len(seen) == 3
    seen.clear()
    monkeypatch.setattr(scenes, "_LATEST", -1.0)
    assert await_notes(tmp_path, 9, {7001, 7002})[0][0]["notes"] == first


def test_server_that_ends_between_two_rounds_leaves_those_before(monkeypatch: pytest.MonkeyPatch) -> None:
    rounds = [[{"name": "A", "error": ""}] for _ in range(3)]
    left = iter(rounds)

    def play_or_fail(*_: object) -> object:
        try:
            return next(left)
        except StopIteration:
            raise ConnectionRefusedError(errno.ECONNREFUSED, "Connection refused") from None

    monkeypatch.setattr("lab.experiments.xray.scenes.play", play_or_fail)
    assert play_rounds(SCENES["sleep"], "127.0.0.1", 1, 1, 9) == (rounds[1:], "Connection refused")
    with pytest.raises(ConnectionRefusedError):
        play_rounds(SCENES["sleep"], "127.0.0.1", 1, 1, 9)


def test_system_calls_of_a_scene_are_those_of_the_thread_that_serves(lab: Processes, tmp_path: Path) -> None:
    folder = str(tmp_path / "{model}")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(ENV_XRAY, folder)
        lab.up(["plain_socket"])
    found = record(lab, "plain_socket", SCENES["sleep"], folder, rounds=1, is_traced=True)
    (process,) = found.processes
    (traced,) = found.traced
    assert traced.tid == process.notes[0].thread
    names = [call.name for call in traced.calls]
    assert {"accept4", "recvfrom", "clock_nanosleep", "sendto"} <= set(names)
    # Both clocks agree: the thread sleeps in the kernel after the core has asked for it, and sends afterwards.
    (sleep,) = [call for call in traced.calls if call.name == "clock_nanosleep"]
    asked, answered = (
        next(note.time for note in process.notes if note.kind is kind) for kind in (Kind.WAIT, Kind.SEND)
    )
    # On a busy machine, strace may get a core, and look at its clock, when the sleep has long begun.
    assert asked - found.misaligned <= sleep.start <= sleep.end
    assert asked + 20 * MS - found.misaligned <= sleep.end <= answered + found.misaligned
    assert 1000 < found.misaligned < MS
    (lane,) = [lane for lane in Analysis(found).lanes if lane.calls]
    assert not lane.is_client


def test_system_calls_of_a_server_of_others_are_shown(lab: Processes, echo: tuple[Address, int]) -> None:
    address, pid = echo
    found = record_target(lab, address, SCENES["echo"], Owner(pid=pid), rounds=1, is_traced=True)
    (traced,) = found.traced
    assert traced.tid == pid
    assert {"recvfrom", "sendto"} <= {call.name for call in traced.calls}
    assert [lane.name for lane in Analysis(found).lanes if lane.calls] == ["thread"]


def test_scene_without_strace_is_shown_with_the_reason(
    lab: Processes, echo: tuple[Address, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("lab.experiments.xray.strace.shutil.which", lambda name: None)
    found = record_target(lab, echo[0], SCENES["echo"], Owner(pid=echo[1]), rounds=1, is_traced=True)
    assert found.missing[0] == "system calls: strace is not installed: apt-get install strace"
    assert not found.traced
    assert all(client.answered for client in found.clients)


def test_scene_of_a_process_that_may_not_be_traced_is_shown_with_the_reason(
    lab: Processes, echo: tuple[Address, int]
) -> None:
    """As one of another user: here a process that is traced already."""
    with traced_process(echo[1]):
        found = record_target(lab, echo[0], SCENES["echo"], Owner(pid=echo[1]), rounds=1, is_traced=True)
    assert found.missing[0].startswith("system calls: ")
    assert found.missing[0].endswith("Operation not permitted")
    assert all(client.answered for client in found.clients)


def test_system_calls_of_a_server_elsewhere_cannot_be_had(lab: Processes, echo: tuple[Address, int]) -> None:
    elsewhere = Owner(unknown="it is on the moon")
    found = record_target(lab, echo[0], SCENES["echo"], elsewhere, rounds=1, is_traced=True)
    assert "system calls: strace needs a process of this machine" in found.missing


def test_client_without_a_reply_has_a_sentence() -> None:
    lost = make_recording([make_process(1, ["0.5 A OPENED\n2.1 A RECEIVED 9\n2.2 A WAIT 20000"])], (("A", 2.0, None),))
    (client,) = lost.clients
    broken = type(client)(**{name: getattr(client, name) for name in client.__slots__} | {"error": "it broke"})
    recording = type(lost)(**{name: getattr(lost, name) for name in lost.__slots__} | {"clients": (broken,)})
    assert "A got no reply: it broke." in explain(Analysis(recording))


def test_sampler_without_the_right_to_system_calls_shows_states(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "stat").write_bytes(b"7 (a name\xd0) S 1 2 3")
    file, fault = sampler.open_state(str(tmp_path))
    assert fault == "/proc/PID/syscall: No such file or directory: no system calls are seen"
    assert os.pread(file, 100, 0).startswith(b"7 (a name\xd0)")
    monkeypatch.setattr(sampler, "open_state", lambda root: (file, fault))
    thread = sampler.Thread(os.getpid(), os.getpid())
    thread.look()
    assert thread.segments[-1][2] == "S"
    thread.close()


def test_sampler_sees_what_a_thread_waits_in() -> None:
    numbers = {"0", "63"}  # of read(2), here and on other machines
    # The kernel cuts its name at 15 bytes, which leaves half a letter: PR_SET_NAME, prctl(2).
    rename = 'import ctypes; ctypes.CDLL(None).prctl(15, "обработчик".encode()); print(flush=True); input()'
    child = subprocess.Popen([sys.executable, "-c", rename], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    try:
        assert child.stdout is not None
        child.stdout.readline()
        seen = sampler.Sampler(child.pid)
        seen.look()

        def waits_in_read() -> bool:
            seen.look()
            return str(seen.threads[child.pid].segments[-1][2]) in numbers

        wait_until(waits_in_read)
        found = seen.as_json()
    finally:
        child.kill()
        child.communicate()
    assert [thread[:3] for thread in found["threads"]] == [[child.pid, child.pid, "обработ\ufffd"]]
    assert found["look"] > 0
    json.dumps(found)
    seen.look()
    assert not seen.threads  # it has ended, and is kept among those that have
    (ended,) = seen.ended
    assert (ended.tid, ended.state_file, ended.schedule_file) == (child.pid, -1, -1)
    ended.faults.append("what could not be seen of it")
    assert "what could not be seen of it" in seen.as_json()["faults"]


def test_sampler_sees_threads_that_come_later() -> None:
    seen = sampler.Sampler(os.getpid())
    seen.look()
    before = set(seen.threads)
    release = threading.Event()
    late = threading.Thread(target=release.wait)
    late.start()
    try:
        for _ in range(2 * sampler._PATIENCE):  # of many threads, not each look is for all
            seen.look()
        assert late.native_id in set(seen.threads) - before
    finally:
        release.set()
        late.join()


@pytest.mark.parametrize(
    ("error", "faults"),
    [
        (ProcessLookupError(errno.ESRCH, "No such process"), set()),
        (
            PermissionError(errno.EACCES, "Permission denied"),
            {"/proc/7: Permission denied: it is the process of another user"},
        ),
    ],
    ids=["ended", "another-user's"],
)
def test_thread_that_cannot_be_looked_at_hides_no_other(
    monkeypatch: pytest.MonkeyPatch, error: OSError, faults: set[str]
) -> None:
    number, make = threading.get_native_id(), sampler.Thread

    def make_thread(pid: int, tid: int, absent: int) -> sampler.Thread:
        if tid == 8:
            raise error
        return make(pid, tid, absent)

    monkeypatch.setattr(sampler, "Thread", make_thread)
    seen = sampler.Sampler(os.getpid())
    monkeypatch.setattr(seen, "list_threads", lambda: {8: 7, number: os.getpid()})
    seen.look()
    assert (set(seen.threads), seen.faults) == ({number}, faults)


@pytest.fixture(autouse=True)
def _close_files_of_samplers(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A sampler keeps two files open for each thread of the tests' own process."""
    made: list[sampler.Sampler] = []

    class Closed(sampler.Sampler):
        def __init__(self, pid: int) -> None:
            super().__init__(pid)
            made.append(self)

    monkeypatch.setattr(sampler, "Sampler", Closed)
    yield
    for thread in [thread for one in made for thread in one.threads.values()]:
        thread.close()


def see_schedule(thread: sampler.Thread, path: Path, *lines: str) -> None:
    """Let a thread have these lines for its schedstat, one at each look, and look once for each."""
    made_up = os.open(path, os.O_RDWR | os.O_CREAT)
    os.dup2(made_up, thread.schedule_file)
    os.close(made_up)
    for line in lines:
        path.write_text(f"{line}\n")
        thread.look()


def test_sampler_notes_how_often_a_thread_was_put_on_a_core_between_two_looks(tmp_path: Path) -> None:
    seen = sampler.Sampler(os.getpid())
    thread = seen.threads[1] = sampler.Thread(os.getpid(), threading.get_native_id())
    see_schedule(thread, tmp_path / "schedstat", "500 7 40")
    begun = thread.looked
    thread.switches.clear()
    see_schedule(thread, tmp_path / "schedstat", "500 7 40", "600 9 41", "600 9 41", "700 9 44", "700 9 46")
    first, second, third = thread.switches
    assert [first[2], second[2], third[2]] == [1, 3, 2]
    # From look to look, in their order; nothing is noted of the two between which there was none.
    times = [begun, *first[:2], *second[:2], *third[:2]]
    assert times == sorted(times)
    assert begun < first[0]
    assert first[1] < second[0]
    assert (second[1], third[1]) == (third[0], thread.looked)
    assert [sum(segment[field] for segment in thread.segments) for field in (3, 4)] == [200, 2]  # as before
    assert seen.as_json()["threads"][0][4] == thread.switches
    thread.close()


@pytest.mark.parametrize("is_there", [True, False])
def test_sampler_without_numbers_of_the_kernel_knows_of_no_switches(tmp_path: Path, is_there: bool) -> None:
    """A kernel without the file; and one that does not keep the numbers, where all are 0."""
    seen = sampler.Sampler(os.getpid())
    thread = seen.threads[1] = sampler.Thread(os.getpid(), threading.get_native_id())
    thread.switched = 0
    if is_there:
        thread.cpu = thread.queued = 0
        see_schedule(thread, tmp_path / "schedstat", "0 0 0", "0 0 0")
    else:
        os.close(thread.schedule_file)
        thread.schedule_file = -1
        thread.look()
    assert seen.as_json()["threads"][0][4] is None
    assert thread.segments
    thread.close()


@pytest.mark.parametrize(
    ("looks", "usual"),
    [
        ([], 0),
        ([7], 0),
        ([0, 1, 9, 12], 3),  # 1, 8 and 3 apart, in their order 1, 3, 8
        ([0, 9, 10, 12, 19, 23], 4),  # 9, 1, 2, 7 and 4 apart, in their order 1, 2, 4, 7, 9
    ],
)
def test_sampler_says_how_far_apart_its_looks_are_as_a_rule(looks: list[int], usual: int) -> None:
    """The median: for as long as twice this, what a look has seen is taken to go on."""
    seen = sampler.Sampler(os.getpid())
    seen.looks = looks
    assert seen.as_json()["look"] == usual


def test_thread_that_sleeps_is_put_on_a_core_each_time() -> None:
    times = 20
    seen = sampler.Sampler(os.getpid())
    ready, go, done, release = (threading.Event() for _ in range(4))

    def sleep() -> None:
        ready.set()
        go.wait()
        for _ in range(times):
            time.sleep(0.001)
        done.set()
        release.wait()

    sleeper = threading.Thread(target=sleep)
    sleeper.start()
    ready.wait()
    try:
        look_at_all(seen)
        assert sleeper.native_id
        before = len(seen.threads[sleeper.native_id].switches)
        go.set()
        done.wait()
        look_at_all(seen)
    finally:
        release.set()
        sleeper.join()
    switches = seen.threads[sleeper.native_id].switches[before:]
    assert sum(number for _, _, number in switches) >= times
    assert all(start < end for start, end, _ in switches)


def look_at_all(seen: sampler.Sampler) -> None:
    """Look until a look was at each thread: of many, not each is."""
    for _ in range(sampler._PATIENCE):
        seen.look()


def test_switches_of_a_thread_that_is_new_count_from_its_beginning() -> None:
    """And those of one that was there before the first look do not: nor if /proc has left it out once."""
    seen = sampler.Sampler(os.getpid())
    release = threading.Event()
    # More than one look can list.
    *others, late = threads = [threading.Thread(target=release.wait) for _ in range(sampler._MANY + 2)]
    for each in others:
        each.start()
    try:
        look_at_all(seen)
        last = seen.listed
        late.start()
        look_at_all(seen)
        old, new = (seen.threads[each.native_id or 0] for each in (others[0], late))
        assert [start for start, _, _ in new.switches][:1] == [last]
        assert sum(number for _, _, number in new.switches) == new.switched > 0
        assert sum(number for _, _, number in old.switches) < old.switched
        seen.ended.append(seen.threads.pop(new.tid))
        look_at_all(seen)
        again = seen.threads[new.tid]
        assert sum(number for _, _, number in again.switches) < again.switched
    finally:
        release.set()
        for each in threads:
            each.join()


def test_quiet_threads_are_left_alone_only_between_two_looks_at_all(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sampler, "_MANY", 0)
    seen = sampler.Sampler(os.getpid())
    seen.looks = [0] * (sampler._PATIENCE - 1)
    seen.look()
    listed, own = seen.listed, seen.threads[threading.get_native_id()]
    for number in range(sampler._PATIENCE):
        own.same, before = sampler._PATIENCE, own.looked
        seen.look()
        is_full = number == sampler._PATIENCE - 1
        assert (own.looked > before, seen.listed > listed) == (is_full, is_full)
        own.same = 0
    before = own.looked
    seen.look()
    assert own.looked > before


def test_thread_is_quiet_from_its_last_news_on(tmp_path: Path) -> None:
    thread = sampler.Thread(os.getpid(), threading.get_native_id())
    found = []
    for line in ("500 7 40", "500 7 40", "500 9 40", "600 9 41", "600 9 41"):
        see_schedule(thread, tmp_path / "schedstat", line)
        found.append(thread.same)
    thread.close()
    # The first look shows what it had before it was seen.
    assert found[1:] == [found[0] + 1, found[0] + 2, 0, 1]


@pytest.mark.parametrize(("done_after", "looks"), [(3, 4), (None, 7)])
def test_sampler_looks_once_a_period_until_it_is_told_or_after_20_seconds(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
    done_after: int | None,
    looks: int,
) -> None:
    """A look takes 1 s, and one 5 s, after which it does not catch up."""
    now = [1000.0]
    slept: list[float] = []
    looked: list[float] = []

    class Fake:
        def __init__(self, top: int) -> None:
            assert top == 7

        def look(self) -> None:
            assert (tmp_path / "sampling").exists() == bool(looked)
            looked.append(now[0])
            assert len(looked) < 99, "it does not end"
            now[0] += 5 if len(looked) == 3 else 1
            if len(looked) == (done_after or 99) + 1:
                (tmp_path / "done").touch()

        def as_json(self) -> dict[str, int]:
            return {"looks": len(looked)}

    def sleep(seconds: float) -> None:
        slept.append(seconds)
        now[0] += seconds

    monkeypatch.setattr(sampler, "Sampler", Fake)
    monkeypatch.setattr(sampler, "time", SimpleNamespace(monotonic=lambda: now[0], sleep=sleep))
    monkeypatch.setattr("sys.argv", ["sampler", "7", str(tmp_path), "3"])
    sampler.main()
    assert json.loads(capsys.readouterr().out) == {"looks": looks}
    # The first look is before it says that it looks, at 1001; the one at 1004 ends at 1009; and 1021 is the end.
    assert looked == [1000, 1001, 1004, 1009, 1012, 1015, 1018][:looks]
    assert slept == [2, 0, 2, 2, 2, 2][: looks - 1]
