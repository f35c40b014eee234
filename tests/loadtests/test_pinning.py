"""Cores of their own: read back from the kernel."""

import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from lab.catalogue import Catalogue
from lab.errors import LabError
from lab.measurement import measure
from lab.pinning import VARIABLE, Pinning, encode_cores, pin_generator, pin_servers, split_cores
from tests.support.waiting import wait_until


def test_the_generator_gets_one_core_and_servers_all_others():
    assert split_cores([5, 2, 3]) == Pinning(servers=(3, 5), generator=(2,))
    assert split_cores([4]) is None
    assert split_cores([4, 3]) == Pinning(servers=(4,), generator=(3,))
    assert str(Pinning((1, 2), (0,))) == "servers on cores 1,2, load generator on core 0"


def test_a_server_and_its_threads_stay_on_their_cores(open_model):
    model = open_model("thread_pool")
    core = max(os.sched_getaffinity(0))
    pin_servers(model, ["thread_pool"], Pinning((core,), (core,)))
    tasks = Path(f"/proc/{model.pid('thread_pool')}/task")
    # It says where it listens before its threads are there; each has the cores of the one that starts it.
    wait_until(lambda: len(list(tasks.iterdir())) > 1)
    cores = {thread.name: os.sched_getaffinity(int(thread.name)) for thread in tasks.iterdir()}
    assert set(map(frozenset, cores.values())) == {frozenset({core})}


def test_threads_that_start_while_a_server_is_pinned_are_found(monkeypatch):
    """Ended ones are no error, and none is left out."""
    looks = iter([[11, 12], [11, 12, 13], [11, 13]])
    pinned = []

    def pin(thread, cores):
        pinned.append((thread, cores))
        if thread == 12:
            raise ProcessLookupError

    monkeypatch.setattr("lab.pinning._list_threads", lambda processes: next(looks))
    monkeypatch.setattr(os, "sched_setaffinity", pin)
    pin_servers(SimpleNamespace(name="process", pid=lambda model: os.getpid()), ["m"], Pinning((1, 2), (0,)))
    assert sorted(pinned) == [(11, (1, 2)), (12, (1, 2)), (13, (1, 2))]


def test_what_cannot_be_had_is_one_line(open_model):
    with pytest.raises(LabError, match=r"plain_socket cannot be kept to core 1000"):
        pin_servers(open_model("plain_socket"), ["plain_socket"], Pinning((1000,), (0,)))


def test_the_generator_goes_where_it_is_told():
    core = max(os.sched_getaffinity(0))
    code = "import os; from lab.pinning import pin_generator; pin_generator(os.environ); print(os.sched_getaffinity(0))"
    done = subprocess.run([sys.executable, "-c", code], env={**os.environ, VARIABLE: str(core)}, capture_output=True)
    assert done.stdout.decode().strip() == str({core})
    with pytest.raises(ValueError, match="invalid literal"):
        pin_generator({VARIABLE: "all"})
    pin_generator({})
    assert encode_cores([0, 2]) == "0,2"


def test_a_measurement_keeps_what_the_meters_saw(open_model):
    found = measure(open_model("thread_pool"), Catalogue.load()["thread_pool"], "closed_ping", users=2, seconds=1.0)
    assert found.answered
    assert found.allotted == 1
    assert found.server_user_us is not None
    assert found.server_system_us is not None
    assert found.server_user_us + found.server_system_us == pytest.approx(found.server_cpu_us)
    # Two connections, two workers and a listener at the least.
    assert found.descriptors >= 5
    assert found.switches is not None
    assert [row[0] for row in found.series] == sorted(row[0] for row in found.series)
    assert max(row[2] for row in found.series) <= found.memory_bytes
    assert type(found).from_json(found.as_json()) == found
