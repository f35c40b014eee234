"""Faults that need a container: each has its effect, and is healed."""

import json
import os
import re
import signal
from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import Any

import docker
import pytest

from lab.base.errors import LabError
from lab.cli.commands.faults import exit_code
from lab.cli.context import COULD_NOT_RUN
from lab.experiments.faults.fault import injected
from lab.experiments.faults.judge import Verdict
from lab.experiments.faults.process_scripts import KILL_WORKER, LIMIT
from lab.experiments.faults.registry import FAULTS
from lab.experiments.faults.scorecard import apply
from lab.servers.catalogue import Catalogue
from lab.servers.docker.containers import Containers
from lab.servers.runtime import find_stamps
from tests.support.waiting import wait_until

pytestmark = [pytest.mark.docker, pytest.mark.xdist_group("containers")]

MODEL, WITH_WORKERS = "asyncio_streams", "prefork"


@pytest.fixture(scope="module")
def lab() -> Iterator[Containers]:
    backend = Containers(f"faults-{os.getpid()}", Catalogue.load())
    try:
        backend.up([MODEL, WITH_WORKERS])
        yield backend
    finally:
        backend.down()
        assert not find_stamps(backend.project).exists()


def ask(lab: Containers, host: str = MODEL) -> bool:
    """Return whether a PING is answered within a second.

    Args:
        host: its address, where its name may be unknown: Docker's DNS then takes ten seconds to say so.
    """
    command = ["python", "-m", "lab.clients.slow_clients", f"tcp://{host}:6379", "--ping", "2", "--timeout", "1"]
    return lab.helpers.run(command, capture=True).returncode == 0


def find_address(lab: Containers, engine: docker.DockerClient) -> str:
    container = engine.containers.get(lab.container_name(MODEL))
    (network,) = container.attrs["NetworkSettings"]["Networks"].values()
    return str(network["IPAddress"])


def dropped(lab: Containers) -> int:
    """Return how many packets the rule of a fault has dropped; -1 without a rule."""
    found = json.loads(lab.faults.run_in_network(MODEL, ["nft", "-j", "list", "ruleset"]))["nftables"]
    # Docker's own rules, for its DNS, have counters too.
    rules = [item["rule"] for item in found if item.get("rule", {}).get("table") == "lab_fault"]
    counters = [part["counter"]["packets"] for rule in rules for part in rule["expr"] if "counter" in part]
    return counters[0] if counters else -1


def inspect(lab: Containers, engine: docker.DockerClient) -> dict[str, Any]:
    container = engine.containers.get(lab.container_name(MODEL))
    return {
        "paused": container.attrs["State"]["Paused"],
        "quota": container.attrs["HostConfig"]["CpuQuota"],
        "memory": container.attrs["HostConfig"]["Memory"],
        "swap": container.attrs["HostConfig"]["MemorySwap"],
        "connected": list(container.attrs["NetworkSettings"]["Networks"]),
    }


BROKEN: dict[str, Callable[[dict[str, object]], bool]] = {
    "pause": lambda found: bool(found["paused"]),
    "starve": lambda found: found["quota"] == 5000,
    "disconnect": lambda found: found["connected"] == [],
}


def test_pressure_kills_what_exceeds_the_memory_limit(lab: Containers, engine: docker.DockerClient) -> None:
    before, address = inspect(lab, engine), find_address(lab, engine)
    with injected(FAULTS["pressure"], lab, MODEL, control=True):
        assert inspect(lab, engine) == before
    with injected(FAULTS["pressure"], lab, MODEL):
        found = inspect(lab, engine)
        assert 8 * 2**20 < found["memory"] == found["swap"] < before["memory"]
        assert ask(lab)
        # Exceed the limit with `docker exec`, which runs in the model's control group.
        greedy = ["python3", "-c", "bytearray(64 << 20)"]
        assert engine.containers.get(lab.container_name(MODEL)).exec_run(greedy).exit_code == 137
        # The kernel may have killed both processes.
        with suppress(LabError):
            lab.faults.kill(MODEL, signal.SIGKILL)
        assert not ask(lab, address)
    assert inspect(lab, engine) == before
    assert ask(lab)


@pytest.mark.parametrize("fault", BROKEN)
def test_engine_shows_the_fault_and_its_healing(lab: Containers, engine: docker.DockerClient, fault: str) -> None:
    with injected(FAULTS[fault], lab, MODEL, control=True):
        assert not BROKEN[fault](inspect(lab, engine))
    address = find_address(lab, engine)
    with injected(FAULTS[fault], lab, MODEL):
        assert BROKEN[fault](inspect(lab, engine))
        assert ask(lab, address) == (fault == "starve")
    assert not BROKEN[fault](inspect(lab, engine))
    assert ask(lab)


def test_blackhole_drops_packets_until_healed(lab: Containers) -> None:
    with injected(FAULTS["blackhole"], lab, MODEL, control=True):
        assert (ask(lab), dropped(lab)) == (True, -1)
    with injected(FAULTS["blackhole"], lab, MODEL):
        assert not ask(lab)
        assert dropped(lab) > 0
    assert (ask(lab), dropped(lab)) == (True, -1)


def test_loss_drops_packets_until_healed(lab: Containers) -> None:
    with injected(FAULTS["loss"], lab, MODEL, control=True):
        assert (ask(lab), dropped(lab)) == (True, -1)
    with injected(FAULTS["loss"], lab, MODEL):
        rules = lab.faults.run_in_network(MODEL, ["nft", "list", "table", "inet", "lab_fault"])
        assert 'iifname != "lo" numgen random mod 100 < 10 counter' in rules
        assert dropped(lab) == 0
        # Thirty probes of a dozen packets each; the chance that none is dropped is negligible.
        assert any(dropped(lab) > 0 for _ in range(30) if ask(lab) in (True, False))
    assert (ask(lab), dropped(lab)) == (True, -1)


def has_discipline(lab: Containers, discipline: list[str]) -> bool:
    """Return whether this kernel supports a discipline, without the code of the fault."""
    try:
        lab.faults.run_in_network(MODEL, ["tc", "qdisc", "add", "dev", "lo", "root", *discipline])
    except LabError as error:
        assert "kind is unknown" in str(error)  # noqa: PT017 - any other error is one of this test
        return False
    lab.faults.run_in_network(MODEL, ["tc", "qdisc", "del", "dev", "lo", "root"])
    return True


@pytest.mark.parametrize(
    ("fault", "discipline", "shown"),
    [
        ("latency", ["netem", "delay", "1ms"], r"qdisc netem \w+: dev eth\d root .* delay 100ms"),
        ("jitter", ["netem", "delay", "1ms"], r"qdisc netem \w+: dev eth\d root .* delay 50ms +40ms"),
        (
            "bandwidth",
            ["tbf", "rate", "9mbit", "burst", "32kbit", "latency", "1ms"],
            r"qdisc tbf \w+: dev eth\d root .* rate 1Mbit burst 4Kb lat 400ms",
        ),
    ],
)
def test_discipline_shapes_packets_or_is_unsupported(
    lab: Containers, fault: str, discipline: list[str], shown: str
) -> None:
    if not has_discipline(lab, discipline):
        # Its commands are tested in tests/lab/experiments/faults/test_kinds.py.
        found = apply(lab, MODEL, fault, seed=1)
        assert found is not None
        assert (found.verdict, found.reason[:20]) == (Verdict.UNKNOWN, "this kernel does not")
        assert exit_code([found]) == COULD_NOT_RUN
        return
    with injected(FAULTS[fault], lab, MODEL, control=True):
        assert not re.search(shown, show_disciplines(lab))
    with injected(FAULTS[fault], lab, MODEL):
        assert re.search(shown, show_disciplines(lab))
        assert ask(lab)
        assert " 0 pkt" not in show_disciplines(lab).partition(f"qdisc {discipline[0]}")[2].splitlines()[1]
    assert discipline[0] not in show_disciplines(lab)
    assert ask(lab)


def show_disciplines(lab: Containers) -> str:
    return lab.faults.run_in_network(MODEL, ["tc", "-s", "qdisc", "show"])


def state_of(lab: Containers, model: str = MODEL) -> tuple[str, int | None]:
    state = next(item for item in lab.state() if item.model == model)
    return state.state, state.exit_code


@pytest.mark.parametrize(("fault", "code"), [("kill", 137), ("drain", 0)])
def test_container_ends_by_the_signal_of_the_fault(lab: Containers, fault: str, code: int) -> None:
    with injected(FAULTS[fault], lab, MODEL, control=True):
        assert state_of(lab) == ("running", None)
    with injected(FAULTS[fault], lab, MODEL):
        assert state_of(lab) == ("exited", code)
    assert state_of(lab) == ("running", None)
    assert ask(lab)


def test_worker_is_killed_by_signal_9(lab: Containers) -> None:
    workers = int(lab.faults.run_beside(WITH_WORKERS, KILL_WORKER))
    assert workers > 1
    with injected(FAULTS["worker"], lab, WITH_WORKERS, control=True):
        assert "by signal 9" not in lab.logs(WITH_WORKERS)
    with injected(FAULTS["worker"], lab, WITH_WORKERS):
        wait_until(lambda: lab.logs(WITH_WORKERS).count("by signal 9") == 1)
    wait_until(lambda: int(lab.faults.run_beside(WITH_WORKERS, KILL_WORKER)) == workers)
    assert state_of(lab, WITH_WORKERS) == ("running", None)


@pytest.mark.parametrize("name", ["memory", "descriptors"])
def test_limits_apply_to_processes_in_the_container(lab: Containers, name: str) -> None:
    which = {"memory": "RLIMIT_AS", "descriptors": "RLIMIT_NOFILE"}[name]

    def read_limits() -> list[list[int]]:
        found: list[list[int]] = json.loads(lab.faults.run_beside(MODEL, LIMIT, [which, "-1"]))
        return [limits for _, *limits in found]

    before = read_limits()
    with injected(FAULTS[name], lab, MODEL, control=True):
        assert read_limits() == before
    with injected(FAULTS[name], lab, MODEL):
        assert all(0 < soft < 2**40 for soft, _ in read_limits())
        assert read_limits() != before
        assert [hard for _, hard in read_limits()] == [hard for _, hard in before]
    assert read_limits() == before


@pytest.mark.parametrize("fault", ["starve", "blackhole", "disconnect"])
def test_container_that_ends_under_a_fault_is_restarted_and_healed(
    lab: Containers, engine: docker.DockerClient, fault: str
) -> None:
    before = inspect(lab, engine)
    with injected(FAULTS[fault], lab, MODEL) as interval:
        lab.faults.kill(MODEL, signal.SIGKILL)
        wait_until(lambda: state_of(lab) == ("exited", 137))
    assert interval.ended == 137
    assert inspect(lab, engine) == before
    assert (ask(lab), dropped(lab)) == (True, -1)
