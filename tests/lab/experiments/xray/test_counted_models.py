"""What a request costs models that run: the same numbers as `strace -c`."""

import json
from collections.abc import Iterator
from uuid import uuid4

import pytest

from lab.base.errors import LabError
from lab.experiments.xray import exchanges
from lab.experiments.xray.count import measure
from lab.experiments.xray.record import find_address
from lab.experiments.xray.scenes import SCENES
from lab.experiments.xray.strace import traced
from lab.report.xray_costs import list_rows
from lab.servers.catalogue import Catalogue
from lab.servers.processes import Processes
from lab.servers.runtime import runtime_directory

# One that blocks, one that polls, and one with many processes.
MODELS = ("plain_socket", "selector_loop", "prefork")
PINGS = 300

# They share a lab.
IN_ONE_WORKER = pytest.mark.xdist_group("xray-count")


@pytest.fixture(scope="module")
def lab() -> Iterator[Processes]:
    backend = Processes(f"test-{uuid4().hex[:8]}", Catalogue.load())
    try:
        backend.up(MODELS)
        yield backend
    finally:
        backend.down()


def count_by_summary(lab: Processes, model: str, count: int) -> int:
    """Return the calls of PINGs on one connection, as `strace -c` sums them up."""
    address = find_address(lab, model, SCENES["sleep"])
    request = {"legs": [["PING", address.host, address.port]], "count": count}
    with traced(lab, model, ("-f", "-c", "-S", "calls", "-U", "calls,name")) as log:
        assert lab.helpers.run(["python", "-m", exchanges.__name__, json.dumps(request)], capture=True).returncode == 0
    (total,) = [line for line in log.lines if line.split()[-1:] == ["total"]]
    return int(total.split()[0])


@IN_ONE_WORKER
@pytest.mark.parametrize("model", MODELS)
def test_counts_equal_those_of_strace_c_and_repeat(lab: Processes, model: str) -> None:
    folder = str(runtime_directory(lab.project) / "xray")
    first, second = ({cost.exchange: cost for cost in measure(lab, model, folder, rounds=1)[0]} for _ in range(2))
    assert list(first) == ["PING", "echo 1 KiB", "echo 64 KiB"]
    # How many pieces 64 KiB arrive in depends on who gets a core when; their bytes do not.
    for exchange in ("PING", "echo 1 KiB"):
        assert first[exchange].all_calls
        assert second[exchange].all_calls == pytest.approx(first[exchange].all_calls, rel=0.01)
    assert first["PING"].copied == 13
    assert first["echo 1 KiB"].copied == 2048
    assert first["echo 64 KiB"].copied == 2 * 65_536
    # The difference of two lengths is without what a connection costs.
    calls = [count_by_summary(lab, model, count) for count in (PINGS, 2 * PINGS)]
    assert first["PING"].all_calls == pytest.approx((calls[1] - calls[0]) / PINGS, rel=0.01)


@IN_ONE_WORKER
def test_missing_strace_is_said_and_the_rest_counted(lab: Processes, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("lab.experiments.xray.strace.shutil.which", lambda name: None)
    costs, missing = measure(lab, "plain_socket", str(runtime_directory(lab.project) / "xray"), count=5, rounds=1)
    assert missing == {"plain_socket": "system calls: strace is not installed: apt-get install strace"}
    assert all(cost.calls is None and cost.switches is not None for cost in costs)
    assert [row[2:4] for row in list_rows(costs)] == [["–", "–"]] * 3  # noqa: RUF001


@IN_ONE_WORKER
def test_process_that_may_not_be_traced_is_said(lab: Processes) -> None:
    """As one of another user: here a process that is traced already."""
    refused = pytest.raises(LabError, match="Operation not permitted")
    with traced(lab, "plain_socket"), refused, traced(lab, "plain_socket"):
        pass
