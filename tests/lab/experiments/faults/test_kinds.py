"""Each fault's exact signal, limit or rule, and that healing undoes exactly that."""

import json
import os
import resource
import signal
import subprocess
import sys
from collections.abc import Iterator
from io import StringIO
from types import SimpleNamespace
from typing import Any

import psutil
import pytest

from lab.base.errors import LabError
from lab.experiments.faults.fault import CannotApplyError, Injection, NotApplicableError
from lab.experiments.faults.kinds import (
    drain,
    kill,
    limits,
    network,
    nothing,
    pause,
    pressure,
    slow_clients,
    starve,
    worker,
)
from lab.experiments.faults.process_scripts import KILL_WORKER, LIMIT, PROCESS_TREE, UNLIMIT
from lab.experiments.faults.registry import FAULTS
from tests.support.fakes import FakeBackend
from tests.support.waiting import wait_until

MODEL = "asyncio_streams"
MIB = 2**20
FILES = {
    "nothing": nothing,
    "drain": drain,
    "kill": kill,
    "worker": worker,
    "pause": pause,
    **dict.fromkeys(("disconnect", "blackhole", "loss", "latency", "jitter", "bandwidth"), network),
    "starve": starve,
    "memory": limits,
    "pressure": pressure,
    "descriptors": limits,
    "slow-clients": slow_clients,
}


def prepare(backend: FakeBackend, fault: str) -> Injection:
    return FAULTS[fault].prepare(backend, MODEL)


@pytest.fixture
def process() -> FakeBackend:
    return FakeBackend()


@pytest.fixture
def container() -> FakeBackend:
    return FakeBackend(name="docker")


def test_registry_has_sixteen_faults() -> None:
    assert list(FAULTS) == [
        *("nothing", "drain", "kill", "worker", "pause", "disconnect", "blackhole", "loss", "latency", "jitter"),
        *("bandwidth", "starve", "memory", "pressure", "descriptors", "slow-clients"),
    ]
    # As their modules define them.
    faults = {name: getattr(module, name.upper().replace("-", "_")) for name, module in FILES.items()}
    assert list(faults) == list(FAULTS)
    assert all(name == fault.name for name, fault in faults.items())
    # Seconds between injection and healing. The others end the model, or do nothing.
    assert {name: fault.hold for name, fault in faults.items() if fault.hold} == {
        "worker": 0.3,
        "slow-clients": 1.0,
        **dict.fromkeys(("pause", "disconnect", "blackhole", "loss", "latency", "jitter", "bandwidth"), 0.5),
        **dict.fromkeys(("starve", "memory", "pressure", "descriptors"), 0.5),
    }
    assert {name: fault.needs for name, fault in faults.items() if fault.needs} == {
        "slow-clients": ("overlap", "slow-clients", "thousand")
    }
    assert {name for name, fault in faults.items() if not fault.keeps_connections} == {"kill", "worker", "disconnect"}


@pytest.mark.parametrize(
    ("fault", "broken", "healed"),
    [
        ("pause", [("pause", MODEL)], [("unpause", MODEL)]),
        ("starve", [("limit_cpu", MODEL, 0.05)], [("limit_cpu", MODEL, None)]),
        ("kill", [("kill", MODEL, signal.SIGKILL)], [("restart", MODEL)]),
        ("drain", [("stop", MODEL)], [("restart", MODEL)]),
        ("nothing", [], []),
    ],
)
def test_injection_and_healing_call_the_backend(
    process: FakeBackend, fault: str, broken: list[tuple[Any, ...]], healed: list[tuple[Any, ...]]
) -> None:
    process.stop_code = 3
    injection = prepare(process, fault)
    assert process.done == []
    assert injection.inject() == (3 if fault == "drain" else None)
    assert process.done == broken
    process.done.clear()
    injection.heal()
    assert process.done == healed


@pytest.mark.parametrize("fault", ["drain", "kill"])
def test_healing_without_injection_restarts_nothing(process: FakeBackend, fault: str) -> None:
    prepare(process, fault).heal()
    assert process.done == []


def test_worker_is_killed_and_not_healed_by_the_lab(process: FakeBackend) -> None:
    process.printed = {"run_beside": "4\n"}
    injection = prepare(process, "worker")
    injection.inject()
    injection.heal()
    assert process.done == [("run_beside", MODEL, KILL_WORKER, "kill")]
    process.printed = {"run_beside": "0\n"}
    with pytest.raises(NotApplicableError, match=f"{MODEL} has no worker processes"):
        injection.inject()


@pytest.mark.parametrize(
    ("fault", "which", "more"), [("descriptors", "RLIMIT_NOFILE", "1"), ("memory", "RLIMIT_AS", str(4 * MIB))]
)
def test_limits_are_lowered_and_restored(process: FakeBackend, fault: str, which: str, more: str) -> None:
    process.printed = {"run_beside": "[[11, 1024, 4096], [12, 99, 4096]]"}
    injection = prepare(process, fault)
    # -1: only read.
    assert process.done == [("run_beside", MODEL, LIMIT, which, "-1")]
    process.done.clear()
    injection.inject()
    assert process.done == [("run_beside", MODEL, LIMIT, which, more)]
    process.done.clear()
    injection.heal()
    assert process.done == [("run_beside", MODEL, UNLIMIT, which, "1024")]
    process.printed = {"run_beside": "[]"}
    with pytest.raises(LabError, match=f"{MODEL} has no running process"):
        prepare(process, fault)


@pytest.mark.parametrize(
    ("fault", "why"),
    [
        ("disconnect", "a network to be disconnected from"),
        ("pressure", "its own memory limit"),
        *((fault, "its own network namespace") for fault in ("blackhole", "loss", "latency", "jitter", "bandwidth")),
    ],
)
def test_container_fault_is_not_supported_for_processes(process: FakeBackend, fault: str, why: str) -> None:
    with pytest.raises(CannotApplyError, match=f"only a container has {why}"):
        prepare(process, fault)
    assert process.done == []


def test_disconnect_is_healed_by_connect(container: FakeBackend) -> None:
    injection = prepare(container, "disconnect")
    assert container.done == []
    injection.inject()
    injection.heal()
    assert container.done == [("disconnect", MODEL), ("connect", MODEL)]


CLEARED = "add table inet lab_fault; delete table inet lab_fault;"


@pytest.mark.parametrize(
    ("fault", "rule"), [("blackhole", "counter drop"), ("loss", "numgen random mod 100 < 10 counter drop")]
)
def test_packets_are_dropped_by_one_rule_that_is_removed(container: FakeBackend, fault: str, rule: str) -> None:
    injection = prepare(container, fault)
    # The test of the kernel: in a chain without a hook, removed by the same command.
    assert container.done == [
        (
            *("run_in_network", MODEL, "nft"),
            f"{CLEARED} add table inet lab_fault; add chain inet lab_fault in; "
            f"add rule inet lab_fault in iifname != lo {rule}; delete table inet lab_fault",
        )
    ]
    container.done.clear()
    injection.inject()
    assert container.done == [
        (
            *("run_in_network", MODEL, "nft"),
            f"{CLEARED} add table inet lab_fault; "
            "add chain inet lab_fault in { type filter hook input priority 0; }; "
            f"add rule inet lab_fault in iifname != lo {rule}",
        )
    ]
    container.done.clear()
    injection.heal()
    assert container.done == [("run_in_network", MODEL, "nft", CLEARED)]


@pytest.mark.parametrize(
    ("fault", "discipline"),
    [
        ("latency", ["netem", "delay", "100ms"]),
        ("jitter", ["netem", "delay", "50ms", "40ms"]),
        ("bandwidth", ["tbf", "rate", "1mbit", "burst", "32kbit", "latency", "400ms"]),
    ],
)
def test_discipline_is_tested_on_loopback_applied_and_removed(
    container: FakeBackend, fault: str, discipline: list[str]
) -> None:
    container.printed = {"ls": "lo\neth3\n"}
    injection = prepare(container, fault)
    tried = ("run_in_network", MODEL, "tc", "qdisc", "replace", "dev", "lo", "root", *discipline)
    assert container.done == [
        tried,
        ("run_in_network", MODEL, "tc", "qdisc", "del", "dev", "lo", "root"),
        ("run_in_network", MODEL, "ls", "/sys/class/net"),
    ]
    container.done.clear()
    injection.inject()
    assert container.done == [("run_in_network", MODEL, "tc", "qdisc", "replace", "dev", "eth3", "root", *discipline)]
    container.done.clear()
    injection.heal()
    clear = f"tc qdisc del dev eth3 root 2>&1; ! tc qdisc show dev eth3 | grep {discipline[0]}"
    assert container.done == [("run_in_network", MODEL, "sh", "-c", clear)]


# Written out: a list of the module's own would change with it.
@pytest.mark.parametrize(
    "said", ["qdisc kind is unknown", "not supported", "No such file or directory", "Unknown qdisc"]
)
@pytest.mark.parametrize("fault", ["blackhole", "loss", "latency", "jitter", "bandwidth"])
def test_unsupported_kernel_feature_differs_from_an_error(container: FakeBackend, fault: str, said: str) -> None:
    def lack() -> None:
        raise LabError(f"Error: {said}.")

    container.fails = {"run_in_network": lack}
    with pytest.raises(CannotApplyError, match=rf"this kernel does not support `(nft|tc) .*`: Error: {said}\."):
        prepare(container, fault)

    def fail() -> None:
        raise LabError("no such container")

    container.fails = {"run_in_network": fail}
    with pytest.raises(LabError, match="no such container") as found:
        prepare(container, fault)
    assert not isinstance(found.value, CannotApplyError)


def test_pressure_leaves_eight_mebibytes(container: FakeBackend, monkeypatch: pytest.MonkeyPatch) -> None:
    used: list[int | None] = [30 * MIB, None]
    meter = SimpleNamespace(read=lambda: SimpleNamespace(memory_bytes=used.pop(0)))
    monkeypatch.setattr(container, "meter", lambda model: meter)
    injection = prepare(container, "pressure")
    injection.inject()
    injection.heal()
    assert container.done == [
        ("memory_limit", MODEL),
        # No swap.
        ("limit_memory", MODEL, 38 * MIB, 38 * MIB),
        ("limit_memory", MODEL, 512 * MIB, 768 * MIB),
    ]
    assert injection.broken == f"{MODEL} has a memory limit of 38 MiB"
    with pytest.raises(CannotApplyError, match="does not report how much memory"):
        prepare(container, "pressure")


def test_slow_clients_stay_until_healed(process: FakeBackend) -> None:
    injection = prepare(process, "slow-clients")
    assert process.done == []
    injection.inject()
    assert process.done == [("start", "python", "-m", "lab.clients.slow_clients")]
    assert process.helpers_started[0][1][-1] == f"tcp://{MODEL}:6379"
    injection.heal()
    assert process.done[1:] == [("close", "lab.clients.slow_clients")]


@pytest.mark.parametrize("fault", FAULTS)
def test_injection_says_what_is_broken_and_how_to_heal_it_by_hand(
    container: FakeBackend, fault: str, monkeypatch: Any
) -> None:
    container.printed = {"run_beside": "[[1, 2, 3]]", "ls": "lo eth0"}
    meter = SimpleNamespace(read=lambda: SimpleNamespace(memory_bytes=MIB))
    monkeypatch.setattr(container, "meter", lambda model: meter)
    injection = prepare(container, fault)
    if fault != "nothing":
        assert MODEL in injection.broken
        assert injection.by_hand.startswith("`")
        assert "`lab " in injection.by_hand


STATS = {
    1: "1 (docker-init) S 0 1",
    7: "7 (python) S 1 7",
    8: "8 (odd) Z 1 (name) S 7 7",  # a name may have brackets and spaces
    9: "9 (ended) Z 7 7",
    10: "10 (python) R 8 7",
    11: "11 (python) S 10 7",
    20: "20 (another) S 0 20",
}


@pytest.mark.parametrize(
    ("top", "tree"), [(1, [7, 8, 10, 11]), (7, [7, 8, 10, 11]), (8, [8, 10, 11]), (11, [11]), (20, [20])]
)
def test_tree_has_all_descendants_but_zombies_and_the_init_of_a_container(
    monkeypatch: pytest.MonkeyPatch, top: int, tree: list[int]
) -> None:
    # 30 ends before it is read.
    monkeypatch.setattr(os, "listdir", lambda folder: [*map(str, STATS), "30", "self", "net"])
    monkeypatch.setattr(sys, "argv", ["-c", str(top)])

    def read(path: str, errors: str) -> StringIO:
        assert errors == "replace"
        number = int(path.removeprefix("/proc/").removesuffix("/stat"))
        if number not in STATS:
            raise FileNotFoundError(path)
        return StringIO(STATS[number])

    names: dict[str, Any] = {"open": read}
    exec(PROCESS_TREE, names)  # noqa: S102 - our own script
    assert names["tree"] == tree


# The scripts run on a tree of three processes: a parent and its two children. The kernel cuts the parent's name at 15
# bytes, which leaves half a letter: PR_SET_NAME, prctl(2). What each holds changes until its program and libraries are
# loaded, so the children have answered before they are named.
PARENT = """
import ctypes, os, subprocess
ctypes.CDLL(None).prctl(15, "обработчик".encode())
children = [subprocess.Popen(["cat"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, bufsize=0) for _ in range(2)]
for child in children:
    child.stdin.write(b".")
    child.stdout.read(1)
print(*[child.pid for child in children], flush=True)
os.read(0, 1)
for child in children:
    child.kill()
"""


@pytest.fixture
def parent() -> Iterator[subprocess.Popen[str]]:
    command = [sys.executable, "-c", PARENT]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        yield process
        assert process.stdin is not None
        process.stdin.close()


def run_script(script: str, *arguments: object) -> str:
    command = [sys.executable, "-c", script, *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout


def read_children(parent: subprocess.Popen[str]) -> list[int]:
    assert parent.stdout is not None
    return [int(word) for word in parent.stdout.readline().split()]


def test_one_worker_is_killed_by_signal_9_and_the_others_are_not(parent: subprocess.Popen[str]) -> None:
    children = read_children(parent)
    assert run_script(KILL_WORKER, parent.pid) == "2\n"  # only counted
    assert [psutil.pid_exists(child) for child in children] == [True, True]
    statuses = {child: psutil.Process(child).status() for child in children}
    assert psutil.STATUS_ZOMBIE not in statuses.values()
    assert run_script(KILL_WORKER, parent.pid, "kill") == "2\n"

    def find_dead() -> list[int]:
        return [child for child in children if psutil.Process(child).status() == psutil.STATUS_ZOMBIE]

    wait_until(lambda: len(find_dead()) == 1)
    # /proc: the last field but none of stat is the exit code as `wait` gives it: signal 9.
    (dead,) = find_dead()
    with open(f"/proc/{dead}/stat") as file:  # noqa: PTH123 - not a path of ours
        assert int(file.read().rpartition(")")[2].split()[-1]) == signal.SIGKILL
    assert parent.poll() is None
    # A zombie does not count.
    assert run_script(KILL_WORKER, parent.pid) == "1\n"


def test_process_without_children_has_no_worker() -> None:
    with subprocess.Popen(["sleep", "600"]) as alone:
        assert run_script(KILL_WORKER, alone.pid, "kill") == "0\n"
        assert alone.poll() is None
        alone.kill()


@pytest.mark.parametrize("name", ["RLIMIT_NOFILE", "RLIMIT_AS"])
def test_limit_of_each_process_is_its_use_plus_a_margin(parent: subprocess.Popen[str], name: str) -> None:
    tree = [parent.pid, *read_children(parent)]
    which = getattr(resource, name)
    for pid in tree:  # a soft limit that differs from the hard one, which has to stay
        hard = resource.prlimit(pid, which)[1]
        resource.prlimit(pid, which, (512 if name == "RLIMIT_NOFILE" else 2**40, hard))
    before = {pid: resource.prlimit(pid, which) for pid in tree}
    assert json.loads(run_script(LIMIT, parent.pid, name, -1)) == [[pid, *before[pid]] for pid in tree]
    assert {pid: resource.prlimit(pid, which) for pid in tree} == before
    more = 1 if name == "RLIMIT_NOFILE" else 4 * MIB
    assert json.loads(run_script(LIMIT, parent.pid, name, more)) == [[pid, *before[pid]] for pid in tree]
    for pid in tree:
        used = psutil.Process(pid).num_fds() if name == "RLIMIT_NOFILE" else psutil.Process(pid).memory_info().vms
        assert resource.prlimit(pid, which) == (used + more, before[pid][1])
    run_script(UNLIMIT, parent.pid, name, before[parent.pid][0])
    assert {pid: resource.prlimit(pid, which) for pid in tree} == before
