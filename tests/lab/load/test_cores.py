"""Pinning, read back from the kernel."""

import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import psutil
import pytest

from lab.base.environ import ENV_GENERATOR_CORES
from lab.base.errors import LabError
from lab.base.units import encode_cores
from lab.load.cores import Pinning, allotted_cores, find_core_use, pin_generator, pin_servers, split_cores
from lab.load.measure import measure
from lab.load.presets import find_preset
from lab.metrics.verdict import CoreUse
from lab.servers.affinity import _list_threads, pin_process
from lab.servers.catalogue import Catalogue
from loadtests.contract import LoadResult
from loadtests.sockets.histogram import Histogram
from tests.support.waiting import wait_until


def test_generator_gets_one_core_and_the_servers_all_others():
    assert split_cores([5, 2, 3]) == Pinning(servers=(3, 5), generator=(2,))
    assert split_cores([4]) is None
    assert split_cores([4, 3]) == Pinning(servers=(4,), generator=(3,))
    assert str(Pinning((1, 2), (0,))) == "servers on cores 1,2, load generator on core 0"


def test_only_a_declared_model_may_use_every_core():
    allotted = {model.name: allotted_cores(model, 8) for model in Catalogue.load().models}
    assert allotted["socketserver_forking"] == allotted["prefork"] == allotted["asyncio_prefork"] == 8
    assert allotted["socketserver_threading"] == allotted["asyncio_streams"] == 1


def test_core_use_is_that_of_the_cores_of_each_side():
    pinning = Pinning(servers=(1, 3), generator=(0,))

    def find(pinning, *use):
        load = LoadResult("m", "tcp", 1.0, 1, 1.0, 1, {}, Histogram(), core_use=use, core_steal=(0.0, 0.01, 0.0, 0.02))
        return find_core_use(pinning, load)

    assert find(pinning, 0.1, 0.2, 0.3, 0.4) == CoreUse((0.2, 0.4), (0.1,), (0.01, 0.02), (0.0,))
    # Nothing is known, or not of all: cores that are offline shift the numbers.
    assert find(pinning) is None
    assert find(pinning, 0.1, 0.2, 0.3) is None
    assert find(Pinning(servers=(0, 1), generator=(3,)), 0.1, 0.2, 0.3) is None


def test_allotted_cores_are_those_it_is_pinned_to():
    catalogue = Catalogue.load()
    pinning = Pinning(servers=(1, 2, 3), generator=(0,))
    assert [allotted_cores(catalogue[name], 8, pinning) for name in ("prefork", "asyncio_streams")] == [3, 1]
    assert allotted_cores(catalogue["prefork"], None) is None


def test_server_and_its_threads_stay_on_their_cores(open_model):
    model = open_model("thread_pool")
    core = max(os.sched_getaffinity(0))
    pin_servers(model, ["thread_pool"], Pinning((core,), (core,)))
    tasks = Path(f"/proc/{model.process.pid}/task")
    # The server prints its address before its threads start; each inherits the cores of its creator.
    wait_until(lambda: len(list(tasks.iterdir())) > 1)
    cores = {thread.name: os.sched_getaffinity(int(thread.name)) for thread in tasks.iterdir()}
    assert set(map(frozenset, cores.values())) == {frozenset({core})}


def test_threads_that_start_while_a_server_is_pinned_are_found(monkeypatch):
    """Threads that end meanwhile are no error, and no other thread is left out."""
    looks = iter([[11, 12], [11, 12, 13], [11, 13]])
    pinned = []

    def pin(thread, cores):
        pinned.append((thread, cores))
        if thread == 12:
            raise ProcessLookupError

    monkeypatch.setattr("lab.servers.affinity._list_threads", lambda processes: next(looks))
    monkeypatch.setattr(os, "sched_setaffinity", pin)
    pin_process(os.getpid(), (1, 2))
    assert sorted(pinned) == [(11, (1, 2)), (12, (1, 2)), (13, (1, 2))]


def test_all_servers_are_pinned_to_the_cores_of_the_servers():
    asked = []
    servers = SimpleNamespace(pin=lambda model, cores: asked.append((model, cores)))
    pin_servers(servers, ["prefork", "plain_socket"], Pinning((1, 2), (0,)))
    assert asked == [("prefork", (1, 2)), ("plain_socket", (1, 2))]


def test_missing_core_is_a_one_line_error(backend):
    with pytest.raises(LabError, match=r"asyncio_streams cannot be pinned to core 1000"):
        pin_servers(backend, ["asyncio_streams"], Pinning((1000,), (0,)))


def test_generator_is_pinned_to_the_cores_of_its_environment():
    core = max(os.sched_getaffinity(0))
    code = (
        "import os; from lab.load.cores import pin_generator; pin_generator(os.environ); print(os.sched_getaffinity(0))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], env={**os.environ, ENV_GENERATOR_CORES: str(core)}, capture_output=True
    )
    assert done.stdout.decode().strip() == str({core})
    with pytest.raises(ValueError, match="invalid literal"):
        pin_generator({ENV_GENERATOR_CORES: "all"})
    pin_generator({})
    assert encode_cores([0, 2]) == "0,2"


def test_measurement_keeps_the_readings_of_the_meters(open_model, generator):
    servers, model = open_model("thread_pool"), Catalogue.load()["thread_pool"]
    # Ticks of 10 ms divide the CPU time in two: of few requests, as on a busy machine, one part may seem to shrink.
    for _ in range(3):
        found = measure(servers, model, find_preset("closed_ping").change(users=2, duration=1.0), generator=generator)
        if found.server.system_us is not None:
            break
    assert found.answered
    assert found.server.allotted == 1
    assert found.server.user_us is not None
    assert found.server.system_us is not None
    assert found.server.user_us + found.server.system_us == pytest.approx(found.server.cpu_us)
    # At least two connections, two workers and a listener.
    assert found.server.descriptors is not None
    assert found.server.descriptors >= 5
    assert found.server.switches is not None
    assert found.server.memory_bytes is not None
    times = [row[0] for row in found.server.series if row[0] is not None]
    memory = [row[2] for row in found.server.series if row[2] is not None]
    assert len(times) == len(memory) == len(found.server.series)
    assert times == sorted(times)
    assert max(memory) <= found.server.memory_bytes
    assert type(found).from_json(found.as_json()) == found


def test_ended_process_is_a_one_line_error():
    child = subprocess.Popen([sys.executable, "-c", ""])
    child.wait()
    with pytest.raises(LabError, match=rf"^the process {child.pid} cannot be pinned to core 1: "):
        pin_process(child.pid, (1,))


def test_threads_are_those_of_all_living_processes():
    child = subprocess.Popen([sys.executable, "-c", ""])
    child.wait()
    processes: Any = [SimpleNamespace(pid=pid) for pid in (child.pid, os.getpid())]
    own = {int(thread.name) for thread in Path("/proc/self/task").iterdir()}
    assert set(_list_threads(processes)) == own


def test_children_of_a_server_are_pinned_as_well(monkeypatch):
    listed = []
    below = {True: ["child", "grandchild"], False: ["child"]}
    root = SimpleNamespace(children=lambda *, recursive=False: below[recursive])
    monkeypatch.setattr(psutil, "Process", {5: root}.get)

    def list_threads(processes):
        listed.append([*processes])
        return []

    monkeypatch.setattr("lab.servers.affinity._list_threads", list_threads)
    pin_process(5, (1,))
    assert listed == [[root, "child", "grandchild"]]


def test_default_cores_are_those_that_this_process_may_use(monkeypatch):
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: {7, 4, 5} if pid == 0 else {0, 1})
    assert split_cores() == Pinning(servers=(5, 7), generator=(4,))
    asked = []
    monkeypatch.setattr(os, "sched_setaffinity", lambda pid, cores: asked.append((pid, cores)))
    pin_generator({ENV_GENERATOR_CORES: "0,12"})
    assert asked == [(0, {0, 12})]
