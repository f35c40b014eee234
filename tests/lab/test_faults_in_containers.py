"""Faults that need a container: each does what its name says, and is mended."""

import json
import os
import signal
from collections.abc import Callable, Iterator
from contextlib import suppress

import docker
import pytest

from lab.backends import find_stamps
from lab.backends.containers import Containers
from lab.catalogue import Catalogue
from lab.errors import LabError
from lab.faults import CannotApplyError, applied
from lab.faults.scorecard import FAULTS

pytestmark = [pytest.mark.docker, pytest.mark.xdist_group("docker")]

MODEL = "asyncio_streams"


@pytest.fixture(scope="module")
def lab() -> Iterator[Containers]:
    backend = Containers(f"faults-{os.getpid()}", Catalogue.load())
    try:
        backend.up([MODEL])
        yield backend
    finally:
        backend.down()
        assert not find_stamps(backend.project).exists()


def ask(lab: Containers) -> bool:
    """Whether a PING is answered within a second."""
    command = ["python", "-m", "lab.crowd", f"tcp://{MODEL}:6379", "--ping", "2", "--timeout", "1"]
    return lab.run(command, capture=True).returncode == 0


def dropped(lab: Containers) -> int:
    """How many packets the rule of a fault has dropped; -1 where there is none."""
    found = json.loads(lab.run_in_network(MODEL, ["nft", "-j", "list", "ruleset"]))["nftables"]
    # Docker's own rules, for its DNS, have counters too.
    rules = [item["rule"] for item in found if item.get("rule", {}).get("table") == "lab_fault"]
    counters = [part["counter"]["packets"] for rule in rules for part in rule["expr"] if "counter" in part]
    return counters[0] if counters else -1


def inspect(lab: Containers, engine: docker.DockerClient) -> dict[str, object]:
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


def test_what_needs_more_than_its_memory_is_ended_and_started_again(
    lab: Containers, engine: docker.DockerClient
) -> None:
    before = inspect(lab, engine)
    with applied(FAULTS["pressure"], lab, MODEL, twin=True):
        assert inspect(lab, engine) == before
    with applied(FAULTS["pressure"], lab, MODEL):
        found = inspect(lab, engine)
        assert 8 * 2**20 < found["memory"] == found["swap"] < before["memory"]
        assert ask(lab)
        # More than it may have: as `docker exec` does it, in the model's own control group.
        greedy = ["python3", "-c", "bytearray(64 << 20)"]
        assert engine.containers.get(lab.container_name(MODEL)).exec_run(greedy).exit_code == 137
        # Of the two the kernel may have ended both.
        with suppress(LabError):
            lab.kill(MODEL, signal.SIGKILL)
        assert not ask(lab)
    assert inspect(lab, engine) == before
    assert ask(lab)


@pytest.mark.parametrize("fault", BROKEN)
def test_the_engine_says_that_it_is_broken_and_mended(lab: Containers, engine: docker.DockerClient, fault: str) -> None:
    with applied(FAULTS[fault], lab, MODEL, twin=True):
        assert not BROKEN[fault](inspect(lab, engine))
    with applied(FAULTS[fault], lab, MODEL):
        assert BROKEN[fault](inspect(lab, engine))
        assert ask(lab) == (fault == "starve")
    assert not BROKEN[fault](inspect(lab, engine))
    assert ask(lab)


def test_a_blackhole_drops_packets_and_lets_them_through_again(lab: Containers) -> None:
    with applied(FAULTS["blackhole"], lab, MODEL, twin=True):
        assert (ask(lab), dropped(lab)) == (True, -1)
    with applied(FAULTS["blackhole"], lab, MODEL):
        assert not ask(lab)
        assert dropped(lab) > 0
    assert (ask(lab), dropped(lab)) == (True, -1)


@pytest.mark.parametrize(("fault", "discipline"), [("latency", "netem"), ("jitter", "netem"), ("bandwidth", "tbf")])
def test_a_discipline_is_there_or_the_fault_is_unknown(lab: Containers, fault: str, discipline: str) -> None:
    try:
        with applied(FAULTS[fault], lab, MODEL):
            assert discipline in lab.run_in_network(MODEL, ["tc", "qdisc", "show"])
            assert ask(lab)
    except CannotApplyError as error:
        assert "kernel" in str(error)  # noqa: PT017 - either is right, and which it is depends on the machine
    assert discipline not in lab.run_in_network(MODEL, ["tc", "qdisc", "show"])
