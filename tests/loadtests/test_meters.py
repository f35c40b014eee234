"""Meters: on real processes, and on files laid out as the kernel does."""

import subprocess
import sys

import pytest

from lab.meters import CgroupMeter, NoMeter, ProcessMeter, Sample, StatsMeter, open_process_meter

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
        assert child.stdout.readline() == b"done\n"
        return child

    yield start
    for child in children:
        child.communicate()


@pytest.mark.parametrize("program", [_BURN, _FORK], ids=["own", "reaped-child"])
def test_process_cpu_is_what_it_burned(run, program):
    child = run(program.format(seconds=0.5))
    sample = ProcessMeter(child.pid).read()
    # Accounts in ticks of 10 ms, and Python's start on top.
    assert 0.45 <= sample.cpu_seconds <= 1.5
    assert sample.memory_bytes > 2**20
    assert sample.processes == 1
    assert sample.threads == 1
    # The three standard ones.
    assert ProcessMeter(child.pid).count_descriptors() == 3


def test_process_that_has_gone_is_not_zero(run):
    child = run(_BURN.format(seconds=0))
    meter = open_process_meter(child.pid)
    child.communicate()
    assert meter.read() == Sample()
    assert meter.count_descriptors() is None
    assert open_process_meter(child.pid).read() == Sample()


def test_nothing_is_known_to_the_no_op():
    assert NoMeter().read() == Sample(None, None, None, None)
    assert NoMeter().count_descriptors() is None


def _write(folder, **files):
    folder.mkdir(parents=True)
    for name, text in files.items():
        (folder / name.replace("__", ".")).write_text(text)


def test_cgroup_version_2(tmp_path):
    _write(tmp_path / "proc" / "42", cgroup="0::/system.slice/docker-abc123.scope\n")
    _write(
        tmp_path / "fs" / "system.slice" / "docker-abc123.scope",
        cpu__stat="usage_usec 1500000\nuser_usec 1\n",
        memory__current="5000\n",
        memory__stat="anon 1\ninactive_file 1000\n",
        cgroup__procs="1\n7\n",
        pids__current="9\n",
    )
    meter = CgroupMeter.find(42, "abc123", proc=tmp_path / "proc", root=tmp_path / "fs")
    assert meter.read() == Sample(1.5, 4000, 2, 9)
    # Of the two processes one has ended meanwhile.
    assert meter.count_descriptors() is None
    _write(tmp_path / "proc" / "7" / "fd", **{"0": "", "1": "", "2": "", "3": ""})
    assert meter.count_descriptors() == 4


def test_cgroup_version_1(tmp_path):
    lines = [
        f"{n}:{name}:/docker/abc123" for n, name in enumerate(("cpu,cpuacct", "memory", "pids", "name=systemd"), 2)
    ]
    _write(tmp_path / "proc" / "42", cgroup="\n".join([*lines, "0::/"]))
    _write(tmp_path / "fs" / "cpuacct" / "docker" / "abc123", cpuacct__usage="1500000000\n", cgroup__procs="1\n7\n")
    _write(
        tmp_path / "fs" / "memory" / "docker" / "abc123",
        memory__usage_in_bytes="5000\n",
        memory__stat="cache 1\ntotal_inactive_file 1000\n",
    )
    _write(tmp_path / "fs" / "pids" / "docker" / "abc123", pids__current="9\n")
    meter = CgroupMeter.find(42, "abc123", proc=tmp_path / "proc", root=tmp_path / "fs")
    assert meter.read() == Sample(1.5, 4000, 2, 9)


def test_cgroup_of_somebody_else_is_not_read(tmp_path):
    """With an engine on another machine, the pid is that of a stranger here."""
    _write(tmp_path / "proc" / "42", cgroup="0::/user.slice\n")
    assert CgroupMeter.find(42, "abc123", proc=tmp_path / "proc", root=tmp_path / "fs") is None
    assert CgroupMeter.find(43, "abc123", proc=tmp_path / "proc", root=tmp_path / "fs") is None


def test_cgroup_files_that_are_missing_are_none(tmp_path):
    _write(tmp_path / "proc" / "42", cgroup="0::/abc123\n")
    _write(tmp_path / "fs" / "abc123", cpu__stat="usage_usec 1500000\n")
    meter = CgroupMeter.find(42, "abc123", proc=tmp_path / "proc", root=tmp_path / "fs")
    assert meter.read() == Sample(1.5, None, None, None)


def test_engine_stats():
    answer = {
        "cpu_stats": {"cpu_usage": {"total_usage": 1_500_000_000}},
        "memory_stats": {"usage": 5000, "stats": {"inactive_file": 1000}},
        "pids_stats": {"current": 9},
    }
    assert StatsMeter(lambda: answer).read() == Sample(1.5, 4000, None, 9)
    # What a stopped container gets.
    assert StatsMeter(lambda: {"cpu_stats": {"cpu_usage": {"total_usage": 0}}, "memory_stats": {}}).read() == Sample()


def test_readings_only_rise(run):
    child = run(_BURN.format(seconds=0.05))
    meter = ProcessMeter(child.pid)
    readings = [meter.read().cpu_seconds for _ in range(5)]
    assert readings == sorted(readings)
