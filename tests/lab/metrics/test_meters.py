"""Meters: on real processes, and on files laid out as the kernel does."""

import contextlib
import os
import subprocess
import sys
import time
from types import SimpleNamespace

import docker
import docker.errors
import psutil
import pytest
import requests

from lab.metrics.cgroup import CgroupMeter, read_throttled
from lab.metrics.meters import StatsMeter, find_container, open_container_meter
from lab.metrics.process import ProcessMeter, count_zombies, open_process_meter, read_cpu_clock
from lab.metrics.sample import Meter, NoMeter, Sample, Switches, count_descriptors

# Burns until it has used this much CPU (whatever time that takes here), says so, and waits.
_BURN = """
import sys, time
while time.process_time() < {seconds}: pass
print("done", flush=True)
sys.stdin.read()
"""

# The same in a child that it waits for: the CPU of a child that has gone must not be lost.
_FORK = """
import subprocess, sys
subprocess.run([sys.executable, "-c", "import time\\nwhile time.process_time() < {seconds}: pass"], check=True)
print("done", flush=True)
sys.stdin.read()
"""


@pytest.fixture
def run():
    children = []

    def start(program):
        child = subprocess.Popen([sys.executable, "-c", program], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        children.append(child)
        assert child.stdout is not None
        assert child.stdout.readline() == b"done\n"
        return child

    yield start
    for child in children:
        child.communicate()


@pytest.mark.parametrize("program", [_BURN, _FORK], ids=["own", "reaped-child"])
def test_process_cpu_time_is_measured(run, program):
    child = run(program.format(seconds=0.5))
    sample = ProcessMeter(child.pid).read()
    assert sample.cpu_seconds is not None
    assert sample.memory_bytes is not None
    assert sample.user_seconds is not None
    assert sample.system_seconds is not None
    # Accounts in ticks of 10 ms, and Python's start on top.
    assert 0.45 <= sample.cpu_seconds <= 1.5
    assert sample.memory_bytes > 2**20
    assert sample.processes == 1
    assert sample.threads == 1
    # The three standard ones.
    assert ProcessMeter(child.pid).count_descriptors() == 3
    assert sample.user_seconds + sample.system_seconds == pytest.approx(sample.cpu_seconds)


# Workers that have each used a little CPU, 15 ms or more: of its ticks, a third would be cut off.
_WORKERS = """
import os, sys, time
for _ in range(20):
    if os.fork() == 0:
        while time.process_time() < 0.015: pass
        os.write(1, b".")
        sys.stdin.read()
        os._exit(0)
while time.process_time() < 0.015: pass
os.write(1, b".")
sys.stdin.read()
"""


def test_cpu_time_of_many_workers_is_not_rounded():
    command = [sys.executable, "-c", _WORKERS]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as server:
        assert server.stdout is not None
        assert server.stdout.read(21) == b"." * 21
        used = ProcessMeter(server.pid).read().cpu_seconds
    assert used is not None
    assert used >= 21 * 0.015


def test_switches_include_threads_that_end(tmp_path):
    def tell(thread, count):
        folder = tmp_path / "7" / "task" / str(thread)
        folder.mkdir(parents=True, exist_ok=True)
        # The kernel cuts a name at 15 bytes, here in the middle of a letter.
        counts = b"voluntary_ctxt_switches:\t%d\nnonvoluntary_ctxt_switches:\t1\n" % count
        (folder / "status").write_bytes(b"Name:\t%b\n%b" % ("обработчик".encode()[:15], counts))

    switches = Switches(tmp_path)
    tell(7, 100)
    assert switches.read([7]) == 0
    tell(7, 110)
    tell(8, 4)
    assert switches.read([7]) == 15
    (tmp_path / "7" / "task" / "8" / "status").unlink()
    assert switches.read([7]) == 15
    # Another thread, with the identity of one that has ended: it takes nothing back, and counts from the next reading.
    tell(7, 3)
    assert switches.read([7]) == 15
    tell(7, 5)
    assert switches.read([7]) == 17
    # With the first that makes 128, which are still looked at.
    for thread in range(100, 227):
        tell(thread, 1)
    assert switches.read([7]) is not None
    tell(227, 1)
    assert switches.read([7]) is None
    # A process that has ended is left out; with all of them ended, nothing is known.
    assert switches.read([99]) is None
    others = Switches(tmp_path)
    (tmp_path / "8" / "task" / "8").mkdir(parents=True)
    (tmp_path / "8" / "task" / "8" / "status").write_text("voluntary_ctxt_switches:\t3\n")
    assert others.read([99, 8]) == 0


def test_ended_process_gives_an_empty_sample(run):
    child = run(_BURN.format(seconds=0))
    meter = open_process_meter(child.pid)
    child.communicate()
    assert meter.read() == Sample()
    assert meter.count_descriptors() is None
    assert meter.count_zombies() is None
    none = open_process_meter(child.pid)
    assert (none.read(), none.count_zombies()) == (Sample(), None)
    assert isinstance(none, NoMeter)
    assert str(child.pid) in none.reason


def test_no_meter_knows_nothing():
    meter: Meter = NoMeter()
    assert meter.read() == Sample(None, None, None, None)
    assert meter.count_descriptors() is None


def _write(folder, **files):
    folder.mkdir(parents=True)
    for name, text in files.items():
        (folder / name.replace("__", ".")).write_text(text)


def test_cgroup_version_2(tmp_path):
    _write(tmp_path / "proc" / "42", cgroup="0::/system.slice/docker-abc123.scope\n")
    _write(
        tmp_path / "fs" / "system.slice" / "docker-abc123.scope",
        cpu__stat="usage_usec 1500000\nuser_usec 1000000\nsystem_usec 500000\nnr_throttled 2\nthrottled_usec 250000\n",
        memory__current="5000\n",
        memory__peak="7000\n",
        memory__stat="anon 1\ninactive_file 1000\n",
        cgroup__procs="1\n7\n",
        pids__current="9\n",
    )
    meter = CgroupMeter.find(42, "abc123", proc=tmp_path / "proc", root=tmp_path / "fs")
    assert meter is not None
    assert meter.read() == Sample(1.5, 4000, 2, 9, 1.0, 0.5, 7000, 0.25)
    # Of the two processes one has ended meanwhile.
    assert meter.count_descriptors() is None
    _write(tmp_path / "proc" / "7" / "fd", **{"0": "", "1": "", "2": "", "3": ""})
    assert meter.count_descriptors() == 4


def test_cgroup_version_1(tmp_path):
    lines = [
        f"{n}:{name}:/docker/abc123" for n, name in enumerate(("cpu,cpuacct", "memory", "pids", "name=systemd"), 2)
    ]
    _write(tmp_path / "proc" / "42", cgroup="\n".join([*lines, "0::/"]))
    ticks = os.sysconf("SC_CLK_TCK")
    _write(
        tmp_path / "fs" / "cpuacct" / "docker" / "abc123",
        cpuacct__usage="1500000000\n",
        cpuacct__stat=f"user {ticks}\nsystem {ticks // 2}\n",
        cgroup__procs="1\n7\n",
    )
    _write(tmp_path / "fs" / "cpu" / "docker" / "abc123", cpu__stat="nr_throttled 2\nthrottled_time 250000000\n")
    _write(
        tmp_path / "fs" / "memory" / "docker" / "abc123",
        memory__usage_in_bytes="5000\n",
        memory__max_usage_in_bytes="7000\n",
        memory__stat="cache 1\ntotal_inactive_file 1000\n",
    )
    _write(tmp_path / "fs" / "pids" / "docker" / "abc123", pids__current="9\n")
    meter = CgroupMeter.find(42, "abc123", proc=tmp_path / "proc", root=tmp_path / "fs")
    assert meter is not None
    assert meter.read() == Sample(1.5, 4000, 2, 9, 1.0, 0.5, 7000, 0.25)


def test_group_that_has_used_nothing_yet_is_known(tmp_path):
    """Nor is it throttled, and no part of its memory is cache."""
    _write(tmp_path / "proc" / "1", cgroup="2:cpu,cpuacct:/abc\n3:memory:/abc\n")
    _write(tmp_path / "fs" / "cpuacct" / "abc", cpuacct__usage="0\n", cpuacct__stat="user 0\nsystem 0\n")
    _write(tmp_path / "fs" / "cpu" / "abc", cpu__stat="throttled_time 0\n")
    _write(tmp_path / "fs" / "memory" / "abc", memory__usage_in_bytes="5000\n", memory__stat="total_inactive_file 0\n")
    _write(tmp_path / "proc" / "2", cgroup="0::/abc\n")
    _write(
        tmp_path / "fs" / "abc",
        cpu__stat="usage_usec 0\nuser_usec 0\nsystem_usec 0\nthrottled_usec 0\n",
        memory__current="5000\n",
        memory__stat="inactive_file 0\n",
    )
    for pid in (1, 2):
        meter = CgroupMeter.find(pid, "abc", proc=tmp_path / "proc", root=tmp_path / "fs")
        assert meter is not None
        found = meter.read()
        assert (found.cpu_seconds, found.user_seconds, found.system_seconds) == (0.0, 0.0, 0.0)
        assert (found.throttled_seconds, found.memory_bytes) == (0.0, 5000)


def test_descriptors_are_unknown_if_those_of_one_process_are(tmp_path, monkeypatch):
    for pid, names in (("1", "012"), ("2", "01")):
        _write(tmp_path / pid / "fd", **dict.fromkeys(names, ""))
    assert count_descriptors([1, 2, 3], tmp_path) == 5  # 3 has ended
    assert count_descriptors([3], tmp_path) is None
    listdir = os.listdir

    def refuse(folder):
        if folder == tmp_path / "2" / "fd":
            raise PermissionError
        return listdir(folder)

    monkeypatch.setattr(os, "listdir", refuse)
    assert count_descriptors([1], tmp_path) == 3
    # Part of them would look like all.
    assert count_descriptors([1, 2], tmp_path) is None
    assert count_descriptors([2, 1], tmp_path) is None


@pytest.mark.parametrize("group", ["/", "/docker/abc123"])
def test_own_quota_is_read_wherever_the_group_is_mounted(tmp_path, group):
    """The path is the host's, and only the group itself may be mounted."""
    for version, line, folder, text in (
        (1, f"4:cpu,cpuacct:{group}\n0::/\n", "cpu", "nr_throttled 2\nthrottled_time 250000000\n"),
        (2, f"0::{group}\n", "", "usage_usec 1\nthrottled_usec 250000\n"),
    ):
        place = tmp_path / str(version)
        _write(place / "proc" / "self", cgroup=line)
        _write(place / "fs" / folder, cpu__stat=text)
        assert read_throttled(proc=place / "proc", root=place / "fs") == 0.25


def test_own_quota_that_has_stopped_nothing_is_0(tmp_path):
    _write(tmp_path / "proc" / "self", cgroup="0::/a\n")
    _write(tmp_path / "fs" / "a", cpu__stat="throttled_usec 0\n")
    assert read_throttled(proc=tmp_path / "proc", root=tmp_path / "fs") == 0.0


def test_own_quota_is_none_if_unreadable(tmp_path):
    assert read_throttled(proc=tmp_path, root=tmp_path) is None
    _write(tmp_path / "self", cgroup="3:memory:/a\n0::/a\n")
    _write(tmp_path / "a", cpu__stat="usage_usec 1\n")
    assert read_throttled(proc=tmp_path, root=tmp_path) is None


def test_cgroup_of_another_container_is_not_read(tmp_path):
    """With a remote engine, the pid belongs to an unrelated local process."""
    _write(tmp_path / "proc" / "42", cgroup="4:cpuacct:/user.slice\n0::/user.slice\n")
    _write(tmp_path / "fs" / "user.slice", cpu__stat="usage_usec 1500000\n")
    _write(tmp_path / "fs" / "cpuacct" / "user.slice", cpuacct__usage="2500000000\n")
    assert CgroupMeter.find(42, "abc123", proc=tmp_path / "proc", root=tmp_path / "fs") is None
    assert CgroupMeter.find(43, "abc123", proc=tmp_path / "proc", root=tmp_path / "fs") is None


def test_name_of_a_cgroup_may_be_any_bytes(tmp_path):
    """A file's name need not be UTF-8, nor that of another group of the same process."""
    path = os.fsdecode(b"n\xe9e/abc123")
    _write(tmp_path / "proc" / "42")
    (tmp_path / "proc" / "42" / "cgroup").write_bytes(b"1:name=n\xe9e:/\n0::/n\xe9e/abc123\n")
    _write(tmp_path / "fs" / path, cpu__stat="usage_usec 1500000\n")
    meter = CgroupMeter.find(42, "abc123", proc=tmp_path / "proc", root=tmp_path / "fs")
    assert meter is not None
    assert meter.read() == Sample(1.5, None, None, None)


def test_missing_cgroup_files_are_none(tmp_path):
    _write(tmp_path / "proc" / "42", cgroup="0::/abc123\n")
    _write(tmp_path / "fs" / "abc123", cpu__stat="usage_usec 1500000\n")
    meter = CgroupMeter.find(42, "abc123", proc=tmp_path / "proc", root=tmp_path / "fs")
    assert meter is not None
    assert meter.read() == Sample(1.5, None, None, None)
    assert meter.count_descriptors() is None
    # Part of them, or no number.
    (tmp_path / "fs" / "abc123" / "memory.stat").write_text("inactive_file 1000\n")
    (tmp_path / "fs" / "abc123" / "pids.current").write_text("unknown\n")
    assert meter.read() == Sample(1.5, None, None, None)


def test_stats_of_the_engine_are_read():
    throttling = {"throttled_time": 250_000_000}
    answer = {
        "cpu_stats": {
            "cpu_usage": {
                "total_usage": 1_500_000_000,
                "usage_in_usermode": 1_000_000_000,
                "usage_in_kernelmode": 500_000_000,
            },
            "throttling_data": throttling,
        },
        "memory_stats": {"usage": 5000, "stats": {"inactive_file": 1000}},
        "pids_stats": {"current": 9},
    }
    assert StatsMeter(lambda: answer).read() == Sample(1.5, 4000, None, 9, 1.0, 0.5, None, 0.25)
    throttling["throttled_time"] = 0
    assert StatsMeter(lambda: answer).read().throttled_seconds == 0.0
    # What a stopped container gets.
    nothing = {"total_usage": 0, "usage_in_usermode": 0, "usage_in_kernelmode": 0}
    stopped = {"cpu_usage": nothing, "throttling_data": {"throttled_time": 0}}
    assert StatsMeter(lambda: {"cpu_stats": stopped, "memory_stats": {}}).read() == Sample()


@pytest.mark.parametrize("error", [docker.errors.NotFound("gone"), requests.ConnectionError("refused")])
def test_stats_that_cannot_be_read_are_an_empty_sample(error):
    def fail():
        raise error

    meter: Meter = StatsMeter(fail)
    assert meter.read() == Sample()
    assert (meter.pid, meter.count_descriptors(), meter.count_zombies()) == (None, None, None)


@pytest.mark.parametrize(
    ("details", "memory"),
    [
        ({"inactive_file": 0}, 5000),
        ({"inactive_file": 1000}, 4000),  # cgroups version 2
        ({"total_inactive_file": 1500}, 3500),
        (
            {"inactive_file": 1000, "total_inactive_file": 1500},
            3500,
        ),  # version 1: alone, and with all below
        ({"cache": 700}, None),
    ],
)
def test_cache_of_all_groups_below_a_container_is_no_memory_of_its_server(details, memory):
    answer = {"cpu_stats": {}, "memory_stats": {"usage": 5000, "stats": details}}
    assert StatsMeter(lambda: answer).read().memory_bytes == memory


def test_cpu_readings_never_decrease(run):
    child = run(_BURN.format(seconds=0.05))
    meter = ProcessMeter(child.pid)
    readings = [meter.read().cpu_seconds or 0.0 for _ in range(5)]
    assert all(readings)
    assert readings == sorted(readings)


@pytest.mark.parametrize(
    ("ip", "found"),
    [("172.18.0.3", "bbb"), ("172.19.0.9", "bbb"), ("fd00::5", "aaa"), ("172.18.0.4", None), ("", None)],
)
def test_container_is_found_by_any_of_its_addresses(monkeypatch, ip, found):
    answer = [
        {"Id": "host", "NetworkSettings": {"Networks": None}},
        {
            "Id": "aaa",
            "NetworkSettings": {"Networks": {"n": {"IPAddress": "172.18.0.2", "GlobalIPv6Address": "fd00::5"}}},
        },
        {
            "Id": "bbb",
            "NetworkSettings": {"Networks": {"n": {"IPAddress": "172.18.0.3"}, "m": {"IPAddress": "172.19.0.9"}}},
        },
    ]
    closed = []
    api = SimpleNamespace(containers=lambda: answer)
    monkeypatch.setattr(docker, "from_env", lambda: SimpleNamespace(api=api, close=lambda: closed.append(True)))
    assert find_container(ip) == found
    assert closed == [True]


@pytest.mark.parametrize("error", [docker.errors.DockerException("no engine"), requests.ConnectionError("refused")])
def test_container_is_not_found_without_an_engine(monkeypatch, error):
    def fail():
        raise error

    monkeypatch.setattr(docker, "from_env", fail)
    assert find_container("172.18.0.3") is None


class Fake:
    """A process with its own figures."""

    def __init__(self, pid, user, system, memory, threads, *, status="sleeping", below=(), reaped=(0.0, 0.0)):
        self.pid, self._status, self._below, self._threads, self._memory = pid, status, below, threads, memory
        self._times = SimpleNamespace(user=user, system=system, children_user=reaped[0], children_system=reaped[1])

    def children(self, *, recursive):
        assert recursive
        return list(self._below)

    def oneshot(self):
        return contextlib.nullcontext()

    def cpu_times(self):
        return self._times

    def status(self):
        if self._status is None:
            raise psutil.NoSuchProcess(self.pid)
        return self._status

    def num_threads(self):
        return self._threads

    def memory_full_info(self):
        if self._memory is None:
            raise psutil.NoSuchProcess(self.pid)
        return SimpleNamespace(pss=self._memory, rss=10 * self._memory)


def test_process_sample_covers_the_whole_tree(monkeypatch):
    tree = Fake(
        *(10, 1.0, 2.0, 100, 3),
        reaped=(16.0, 32.0),
        below=[
            # Ended, and not waited for: it has used CPU, and has nothing else.
            Fake(11, 4.0, 8.0, 999, 999, status=psutil.STATUS_ZOMBIE),
            # Gone in the middle of the reading.
            Fake(12, 64.0, 128.0, None, 999),
            Fake(13, 256.0, 512.0, 1000, 5),
        ],
    )
    monkeypatch.setattr(psutil, "Process", lambda pid: tree)
    monkeypatch.setattr("lab.metrics.process.read_cpu_clock", lambda pid: None)
    meter = ProcessMeter(10)
    monkeypatch.setattr(meter, "_switches", SimpleNamespace(read=lambda pids: sum(pids)))
    assert meter.read() == Sample(
        cpu_seconds=1023.0,
        memory_bytes=1100,
        processes=2,
        threads=8,
        user_seconds=341.0,
        system_seconds=682.0,
        switches=46,
    )
    assert meter.count_zombies() == 1
    assert meter.pid == 10
    looked = []

    def count(pids):
        looked.extend(pids)
        return 7

    monkeypatch.setattr("lab.metrics.process.count_descriptors", count)
    assert meter.count_descriptors() == 7
    assert looked == [10, 11, 12, 13]


def test_process_that_ends_meanwhile_hides_no_zombie(monkeypatch):
    statuses = (None, psutil.STATUS_ZOMBIE, None, psutil.STATUS_ZOMBIE)
    tree = Fake(10, 0.0, 0.0, 1, 1, below=[Fake(11, 0.0, 0.0, 1, 1, status=status) for status in statuses])
    monkeypatch.setattr(psutil, "Process", lambda pid: tree)
    assert count_zombies(10) == 2


def test_exact_time_is_divided_as_the_ticks_are(monkeypatch):
    # 1:2 and 3:1 by their ticks; the third has none yet.
    tree = Fake(10, 1.0, 2.0, 1, 1, below=[Fake(11, 3.0, 1.0, 1, 1), Fake(12, 0.0, 0.0, 1, 1)], reaped=(0.5, 0.25))
    monkeypatch.setattr(psutil, "Process", lambda pid: tree)
    monkeypatch.setattr("lab.metrics.process.read_cpu_clock", {10: 3.03, 11: 4.04, 12: 0.007}.get)
    sample = ProcessMeter(10).read()
    assert sample.user_seconds == pytest.approx(1.01 + 3.03 + 0.007 + 0.5)
    assert sample.system_seconds == pytest.approx(2.02 + 1.01 + 0.25)
    assert sample.cpu_seconds == pytest.approx(3.03 + 4.04 + 0.007 + 0.75)


def test_cpu_clock_of_no_process_is_unknown():
    child = subprocess.Popen(["true"])
    child.wait()
    assert read_cpu_clock(child.pid) is None
    assert 0 < (read_cpu_clock(os.getpid()) or 0) <= time.process_time()


def test_memory_smaller_than_the_cache_is_zero(tmp_path):
    _write(tmp_path / "proc" / "42", cgroup="1:name=a:/x\n0::/abc123\n")
    files = {"cpu__stat": "usage_usec 1\n", "memory__current": "500\n"}
    _write(tmp_path / "fs" / "abc123", **files)
    meter = CgroupMeter.find(42, "abc123", proc=tmp_path / "proc", root=tmp_path / "fs")
    assert meter is not None
    assert meter.pid == 42
    assert meter.read().memory_bytes is None
    (tmp_path / "fs" / "abc123" / "memory.stat").write_text("inactive_file 1000\n")
    assert meter.read().memory_bytes == 0
    cache = {"inactive_file": 1000}
    stats = {"cpu_stats": {}, "memory_stats": {"usage": 500, "max_usage": 900, "stats": cache}}
    found = StatsMeter(lambda: stats).read()
    assert (found.memory_bytes, found.peak_bytes) == (0, 900)
    del cache["inactive_file"]
    assert StatsMeter(lambda: stats).read().memory_bytes is None
    stats = {"memory_stats": {"stats": {"inactive_file": 1000}}}
    assert StatsMeter(lambda: stats).read().memory_bytes is None


def test_cgroup_is_found_among_other_lines(tmp_path):
    """The line of version 2 comes first and has no files; a path holds colons; a controller has no folder."""
    (tmp_path / "proc" / "42").mkdir(parents=True)
    table = tmp_path / "proc" / "42" / "cgroup"
    table.write_text("0::/a:abc123\n4:cpuacct:/a:abc123\n5:memory:/a:abc123\n")
    find = lambda: CgroupMeter.find(42, "abc123", proc=tmp_path / "proc", root=tmp_path / "fs")  # noqa: E731
    assert find() is None
    _write(tmp_path / "fs" / "cpuacct" / "a:abc123", cpuacct__usage="2500000000\n")
    meter = find()
    assert meter is not None
    assert meter.read() == Sample(cpu_seconds=2.5)


def test_cgroup_switches_and_zombies_are_those_of_its_processes(tmp_path, run):
    folder = tmp_path / "7" / "task" / "7"
    _write(folder, status="voluntary_ctxt_switches:\t3\n")
    _write(tmp_path / "group", cgroup__procs="7\n")
    child = run(_BURN.format(seconds=0))
    meter = CgroupMeter({"cpuacct": tmp_path / "group"}, unified=True, proc=tmp_path, first=child.pid)
    assert meter.read().switches == 0
    (folder / "status").write_text("voluntary_ctxt_switches:\t8\n")
    assert meter.read().switches == 5
    assert meter.count_zombies() == 0
    assert CgroupMeter({}, unified=True).count_zombies() is None


class Engine:
    """A Docker client that knows one container, whose first process is given."""

    def __init__(self, pid):
        self.api, self.pid, self.asked, self.is_closed = self, pid, [], False

    def inspect_container(self, name):
        if name != "web":
            raise docker.errors.NotFound(f"no {name}")
        return {"State": {"Pid": self.pid}, "Id": "abc123"}

    def stats(self, container, **options):
        self.asked.append((container, options))
        return {"cpu_stats": {"cpu_usage": {"total_usage": 2_000_000_000}}}

    def close(self):
        self.is_closed = True


@pytest.fixture
def open_engine(monkeypatch):
    def start(pid):
        engine = Engine(pid)
        monkeypatch.setattr(docker, "from_env", lambda: engine)
        return engine

    return start


def test_local_container_is_read_from_its_cgroup(open_engine, monkeypatch):
    engine, found = open_engine(42), object()
    monkeypatch.setattr(CgroupMeter, "find", lambda pid, container: found if (pid, container) == (42, "abc123") else 0)
    assert open_container_meter("web") is found
    assert engine.is_closed


@pytest.mark.parametrize("pid", [42, 0])
def test_remote_container_is_read_from_its_engine(open_engine, monkeypatch, pid):
    """Its pid has no local group, or it has no pid: each reading asks the engine once, by the container's id."""
    engine = open_engine(pid)
    monkeypatch.setattr(CgroupMeter, "find", lambda pid, container: None)
    assert open_container_meter("web").read() == Sample(cpu_seconds=2.0)
    assert engine.asked == [("abc123", {"stream": False, "one_shot": True})]
    assert not engine.is_closed


@pytest.mark.parametrize(
    ("found", "reason"),
    [(requests.ConnectionError("refused"), "refused"), ({"Id": "abc123"}, "'State'")],
)
def test_container_that_the_engine_does_not_describe_has_a_reason(open_engine, monkeypatch, found, reason):
    def inspect(name):
        if isinstance(found, Exception):
            raise found
        return found

    monkeypatch.setattr(open_engine(42), "inspect_container", inspect)
    meter = open_container_meter("web")
    assert isinstance(meter, NoMeter)
    assert meter.reason == f"the Docker engine does not describe the container web: {reason}"


def test_unknown_container_has_a_reason(open_engine):
    open_engine(42)
    meter = open_container_meter("other")
    assert isinstance(meter, NoMeter)
    assert meter.reason == "the Docker engine does not describe the container other: no other"


@pytest.mark.parametrize("order", [1, -1])
def test_own_quota_is_found_after_other_lines(tmp_path, order):
    """Version 1 gives nanoseconds. A path holds a colon; one line has no files, another is of other controllers."""
    lines = ["0::/a:b", "3:memory:/a:b", "4:cpuacct:/a:b", "5:cpu:/a:b"]
    _write(tmp_path / "proc" / "self", cgroup="\n".join(lines[::order]))
    _write(tmp_path / "fs" / "cpu" / "a:b", cpu__stat="some other text\n\nthrottled_time 3000000000\n")
    _write(tmp_path / "fs" / "memory" / "a:b", cpu__stat="throttled_time 1\n")
    assert read_throttled(proc=tmp_path / "proc", root=tmp_path / "fs") == 3.0
    # Its own group comes before the one that is mounted.
    (tmp_path / "fs" / "cpu" / "cpu.stat").write_text("throttled_time 7000000000\n")
    assert read_throttled(proc=tmp_path / "proc", root=tmp_path / "fs") == 3.0
