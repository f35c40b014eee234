"""How a measurement combines the parts of several generators and the figures of both sides; each figure is unique."""

import inspect
import json
import re
import threading
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import psutil
import pytest

from lab.base.errors import LabError
from lab.load.cores import Pinning
from lab.load.exports import list_course, render_files
from lab.load.generator import PersistentGenerator
from lab.load.measure import (
    MeteredServer,
    MeteredServers,
    Readings,
    TimedSample,
    _combine,
    _count_other_connections,
    _parse,
    _watch,
    measure,
    measure_together,
)
from lab.load.measurement import Measurement, encode_targets
from lab.load.presets import PRESETS, find_preset
from lab.metrics.sample import NoMeter, Sample
from lab.metrics.server_use import ServerUse
from lab.metrics.verdict import CoreUse, Limit, Verdict, find_limit
from lab.servers.backend import Completed
from lab.servers.catalogue import Catalogue, Listener
from lab.servers.processes import Processes
from loadtests.contract import LoadResult
from loadtests.parts import CoreTime, Group, Part, Pulse, combine, find_disturbances, read_cores
from loadtests.sockets.histogram import Histogram
from loadtests.sockets.recorder import Series, Tally
from services.protocol import Transport
from tests.support.fakes import UnusedBackend
from tests.support.made_up import MEASUREMENT
from tests.support.scripts import run_checks
from tests.support.waiting import wait_until

CATALOGUE = Catalogue.load()
MODEL = CATALOGUE["prefork"]


def make_tally(first: int) -> Tally:
    """Return a part with ten consecutive counts from `first`; its times are at least 1 ms."""
    service, intended = Histogram(), Histogram()
    service.record([first / 1000, 0.003])
    intended.record([first / 500, 0.004, 0.005])
    names = ("answered", "requests", "asked", "late", "dropped", "lost", "duplicates", "reordered", "user_seconds")
    counts = dict(zip(names, range(first, first + len(names)), strict=True))
    return Tally(failures=Counter({"connection reset": first}), service=service, intended=intended, **counts)


def make_group(first: int, *, loop: str = "open", model: str = "prefork") -> Group:
    series = Series(model, "pipeline", "tls", loop)
    return Group(series, 16, make_tally(first), first + 20, first + 30, {"wrong bytes": first + 40})


def make_part(first: int, **changes: Any) -> Part:
    part = Part(seconds=2.0, cpu=first / 10, throttled=first / 100, stalled=0.0, groups=(make_group(first),))
    return replace(part, **changes)


def test_part_survives_a_message() -> None:
    sent = make_part(1)
    assert Part.decode(json.loads(json.dumps(sent.encode()))) == sent


def test_parts_of_two_workers_are_added() -> None:
    parts = [make_part(1, seconds=1.9), make_part(100, seconds=2.1)]
    (found,) = combine(parts, (CoreTime(0.5, 0.12345), CoreTime(1.5, 0.0)), expected=2)
    # Each count is that of the first worker, from 1, and of the second, from 100.
    assert found == LoadResult(
        model="prefork",
        transport="tls",
        # 9 and 108 seconds of users in a window of 2.
        users=58.5,
        depth=16,
        seconds=2.0,
        answered=101,
        asked=105,
        late=107,
        dropped=109,
        lost=111,
        duplicates=113,
        reordered=115,
        failures={"connection reset": 101},
        service=Histogram.from_pairs([(1000.7, 1), (3001.5, 2), (100_000.0, 1)]),
        intended=Histogram.from_pairs([(2001.5, 1), (4003.1, 2), (5001.5, 2), (200_000.0, 1)]),
        starved=141,
        generators=2,
        # Seconds in a window of 2.
        generator_cores=5.05,
        machine_cores=1.0,
        core_use=(0.75, 0.25),
        core_steal=(0.062, 0.0),
        generator_throttled=0.5,
        cores=psutil.cpu_count(),
        versions=found.versions,
        answered_in_all=161,
        warm_up_failures={"wrong bytes": 181},
        disturbances=(),
    )
    # (1 + 3 + 100 + 3) / 4 ms.
    assert (found.service.mean_us, found.service.min_us, found.service.max_us) == (26_750.0, 1000.0, 100_000.0)
    assert sorted(found.versions) == ["gevent", "locust", "python"]


def test_closed_loop_has_no_requested_rate() -> None:
    (found,) = combine([make_part(1, groups=(make_group(1, loop="closed"),), throttled=None)], (), expected=1)
    assert (found.asked, found.intended, found.machine_cores, found.generator_throttled) == (None, None, None, None)
    assert (found.generators, found.core_use, found.core_steal) == (1, (), ())


def test_models_of_one_run_have_separate_results() -> None:
    groups = (make_group(5, model="prefork"), make_group(7, model="asyncio_streams"))
    parts = [make_part(1, groups=groups), make_part(2, groups=groups[:1])]
    courses = {"prefork": ((1.0, 2.0),), "asyncio_streams": ((1.0, 3.0),)}
    found = combine(parts, (), expected=2, began=7.5, read_course=lambda model: courses[model])
    assert [(item.began, item.course) for item in found] == [(7.5, courses[item.model]) for item in found]
    assert [(item.model, item.answered, item.generators) for item in found] == [
        ("asyncio_streams", 7, 2),
        ("prefork", 10, 2),
    ]


@pytest.mark.parametrize(
    ("changes", "expected", "said"),
    [
        ([{}, {}], 2, []),
        ([{}], 1, []),
        ([{}], 2, ["1 of 2 load generators did not take part in the whole window"]),
        ([{}], 4, ["3 of 4 load generators did not take part in the whole window"]),
        (
            [{}, {"stalled": None}],
            2,
            [
                "1 of 2 load generators did not take part in the whole window",
                "1 load generator joined during the window",
            ],
        ),
        ([{}, {"stalled": None}, {"stalled": None}], 1, ["2 load generators joined during the window"]),
        ([{"stalled": 0.79}], 1, []),
        ([{"stalled": 0.8}], 1, ["a load generator did not run for 0.8 s: it was stopped, or had no core"]),
        ([{}, {"stalled": 1.04}], 2, ["a load generator did not run for 1.0 s: it was stopped, or had no core"]),
        # The cause was its quota, not a stopped process.
        ([{"stalled": 1.0, "throttled": 0.6}], 1, []),
        (
            [{"stalled": 1.0, "throttled": None}],
            1,
            ["a load generator did not run for 1.0 s: it was stopped, or had no core"],
        ),
        ([{"seconds": 2.0}, {"seconds": 1.25}], 2, []),
        ([{"seconds": 0.8}, {"seconds": 0.0}], 2, ["the windows of the load generators differ: 0.0 s to 0.8 s"]),
        ([{"seconds": 2.0}, {"seconds": 1.125}], 2, ["the windows of the load generators differ: 1.1 s to 2.0 s"]),
        ([], 1, ["1 of 1 load generators did not take part in the whole window"]),
    ],
)
def test_disturbances_of_generators_are_reported(changes, expected, said) -> None:
    parts = [make_part(1, **{"throttled": 0.0} | each) for each in changes]
    assert list(find_disturbances(parts, expected)) == said
    for found in combine(parts, (), expected=expected):
        assert found.disturbances == tuple(said)
        # A part without a begin has no rate.
        assert found.generators == sum(part.stalled is not None for part in parts)


def test_pulse_measures_the_time_that_a_process_did_not_get() -> None:
    now, cpu = iter([10.0, 10.1, 10.9, 11.0, 12.5, 12.6]), iter([3.0, 3.0, 3.7, 3.7, 3.9, 3.9])
    pulse = Pulse(lambda: next(now), lambda: next(cpu))
    # Seconds beyond the beat of 0.1: none; 0.8 - 0.7 - 0.1 = 0; none; 1.5 - 0.2 - 0.1 = 1.2; none.
    for longest in (0.0, 0.0, 0.0, 1.2, 1.2):
        pulse.beat()
        assert pulse.longest == pytest.approx(longest, abs=1e-9)


def test_idle_time_of_a_core_is_without_work(monkeypatch) -> None:
    """It includes the time in which a core without work waits for a disk: "iowait" in proc(5)."""
    cores = [SimpleNamespace(user=1, system=2, idle=64.5, iowait=128, steal=32), SimpleNamespace(user=1, idle=3)]

    def read(*, percpu):
        return cores if percpu else None

    monkeypatch.setattr(psutil, "cpu_times", read)
    assert read_cores() == (CoreTime(192.5, 32), CoreTime(3, 0.0))
    assert CoreTime(192.5, 32.0) - CoreTime(190.0, 31.0) == CoreTime(2.5, 1.0)

    def fail(*, percpu):
        raise OSError

    monkeypatch.setattr(psutil, "cpu_times", fail)
    assert read_cores() == ()


def test_core_is_never_idle_for_longer_than_the_window() -> None:
    """The clocks of both are not read at the same moment."""
    (found,) = combine([make_part(1, seconds=2.0)], (CoreTime(2.1, 0.0), CoreTime(0.12345, 0.0)), expected=1)
    # 1 - 0.061725.
    assert (found.core_use, found.machine_cores) == ((0.0, 0.938), 0.938275)


def test_cores_of_this_machine_are_read() -> None:
    found = read_cores()
    assert len(found) == psutil.cpu_count()
    assert all(core.idle > 0 for core in found)


# 600 exchanges of 16 requests in a window of 3 s, 1000 with the warm-up of 2 s; no two figures are equal.
RESULT = LoadResult(
    model="prefork",
    transport="tls",
    users=8.4,
    depth=16,
    seconds=3.0,
    answered=600,
    failures={"connection reset": 1},
    service=Histogram.from_json(
        {"pairs": [(2001.5, 500), (9000.0, 160)], "mean_us": 2500.0, "min_us": 100.0, "max_us": 9000.0}
    ),
    intended=Histogram.from_pairs([(3001.5, 400), (9500.0, 260)]),
    asked=660,
    late=61,
    dropped=62,
    lost=63,
    duplicates=64,
    reordered=65,
    starved=3,
    generators=2,
    generator_cores=0.5,
    generator_throttled=0.01,
    machine_cores=1.4,
    core_use=(0.1, 0.2, 0.3, 0.4),
    core_steal=(0.01, 0.02, 0.03, 0.04),
    cores=8,
    versions={"locust": "2"},
    began=1002.125,
    course=((1.0, 3100.0, 2001.5, 9000.0, 0.0, 8), (2.0, 3300.0, None, None, 0.5, 8)),
    answered_in_all=1000,
    warm_up_failures={"connection refused": 9},
)
BEFORE = Sample(
    cpu_seconds=10.0,
    memory_bytes=900,
    processes=9,
    threads=90,
    user_seconds=7.0,
    system_seconds=3.0,
    peak_bytes=7000,
    throttled_seconds=1.0,
    switches=50,
)
AFTER = Sample(
    cpu_seconds=12.0,
    memory_bytes=300,
    processes=3,
    threads=30,
    user_seconds=8.4,
    system_seconds=3.6,
    peak_bytes=8000,
    throttled_seconds=1.2,
    switches=8050,
)
SEEN = [
    TimedSample(0.25, Sample(cpu_seconds=10.5, memory_bytes=500, processes=5, threads=40, peak_bytes=7500), 20),
    TimedSample(0.5004, Sample(cpu_seconds=11.0, memory_bytes=400, processes=6, threads=50), None),
    TimedSample(0.75, Sample(), 12),
]


def put_together(
    *,
    before: Sample = BEFORE,
    after: Sample = AFTER,
    seen: Sequence[TimedSample] = SEEN,
    unknown: str = "",
    other_connections: int = 0,
    **changes: Any,
) -> Measurement:
    readings = Readings(before, after, seen, 2.0, 1000.0, unknown, other_connections)
    result = replace(RESULT, **changes)
    return _combine("process", find_preset("closed_ping"), MODEL, result, readings, Pinning((1, 2, 3), (0,)))


def test_measurement_has_every_figure() -> None:
    found = put_together()
    assert (found.model, found.users, found.answered, found.rate) == ("prefork", 8, 600, 3200.0)
    assert (found.family, found.summary) == (MODEL.family, MODEL.summary)
    assert (found.backend, found.workload) == ("process", "closed_ping")
    assert found.load == RESULT
    assert found.percentile(0.5) == 3001.5
    expected = {
        # 2.0 s for 1000 exchanges of 16 requests.
        "cpu_us": 125.0,
        "user_us": 87.5,
        "system_us": 37.5,
        "switches": 0.5,
        # 125 us for each of 600 x 16 requests, in 3 s.
        "cores": 0.4,
        "allotted": 3,
        # The highest reading under load, which is neither the first nor the last.
        "memory_bytes": 500,
        "processes": 6,
        "threads": 50,
        "descriptors": 20,
        "peak_bytes": 8000,
        # 0.2 s of 5, the warm-up too.
        "throttled": 0.04,
        "series": ((0.25, 10.5, 500, 5, 40, 20), (0.5, 11.0, 400, 6, 50, None), (0.75, *[None] * 4, 12)),
        # The load started at 1000.
        "window_begin": 2.125,
        "unknown": "",
    }
    assert expected.keys() == set(ServerUse.__dataclass_fields__)
    for name, value in expected.items():
        assert getattr(found.server, name) == (pytest.approx(value) if isinstance(value, float) else value), name


@pytest.fixture
def judged(monkeypatch: pytest.MonkeyPatch) -> list[tuple[LoadResult, ServerUse, bool, CoreUse | None]]:
    """Return the list to which each call of `find_limit` adds its arguments."""
    given: list[tuple[LoadResult, ServerUse, bool, CoreUse | None]] = []

    def find(load: LoadResult, server: ServerUse, *, rests: bool, own: CoreUse | None) -> Verdict:
        given.append((load, server, rests, own))
        return find_limit(load, server, rests=rests, own=own)

    monkeypatch.setattr("lab.load.measure.find_limit", find)
    return given


def test_verdict_gets_the_figures_of_both_sides(judged) -> None:
    found = put_together(disturbances=("stopped",), unknown="docker-proxy", other_connections=5)
    said = "the server had 5 connections of other clients before or after the load"
    assert found.load == replace(RESULT, disturbances=("stopped", said))
    assert found.server.unknown == "docker-proxy"
    # The servers are pinned to cores 1 to 3.
    assert judged == [(found.load, found.server, False, CoreUse((0.2, 0.3, 0.4), (0.1,), (0.02, 0.03, 0.04), (0.01,)))]


def test_verdict_knows_whether_users_rest(judged) -> None:
    resting = PRESETS["closed_think"]
    assert resting.workload.rests
    _combine("process", resting, MODEL, RESULT, Readings(BEFORE, AFTER, SEEN, 2.0, 1000.0), None)
    ((_, server, rests, own),) = judged
    assert rests
    # Not pinned: all cores of the machine.
    assert (server.allotted, own) == (8, None)


def test_closed_loop_has_no_separate_service_time() -> None:
    found = replace(RESULT, intended=None, asked=None, service=Histogram())
    assert found.times is found.service
    assert (found.asked_rate, found.rate_ratio, found.ratio(5), found.in_flight) == (None, None, None, None)


@pytest.mark.parametrize(
    ("before", "after"),
    [
        (Sample(), AFTER),
        (BEFORE, Sample()),
        # Another process at the same address, or children that are not reaped.
        (AFTER, BEFORE),
        # Replies cost CPU time.
        (BEFORE, replace(BEFORE, memory_bytes=1)),
    ],
)
def test_decreasing_cpu_time_is_unknown(before, after) -> None:
    found = put_together(before=before, after=after)
    assert found.server.cpu_us is None
    assert found.server.cores is None


def test_no_user_time_or_no_system_time_is_known() -> None:
    found = put_together(after=replace(AFTER, user_seconds=BEFORE.user_seconds))
    assert (found.server.user_us, found.server.cpu_us) == (0.0, 125.0)
    found = put_together(after=replace(AFTER, system_seconds=BEFORE.system_seconds))
    assert (found.server.system_us, found.server.cpu_us) == (0.0, 125.0)


@pytest.mark.parametrize(("before", "after", "share"), [(0.0, 1.2, 0.24), (0.0, 0.0, 0.0), (None, 1.2, None)])
def test_server_that_was_not_throttled_before_is_known(before: float | None, after: float, share: float | None) -> None:
    """A new group begins at 0. Its load took 5 s: 2 of warm-up, and the window of 3."""
    found = put_together(
        before=replace(BEFORE, throttled_seconds=before), after=replace(AFTER, throttled_seconds=after)
    )
    assert found.server.throttled == (None if share is None else pytest.approx(share))


def test_disturbances_are_kept() -> None:
    assert put_together(disturbances=("a",)).load.disturbances == ("a",)


def test_renamed_measurement_is_otherwise_the_same() -> None:
    found = put_together()
    renamed = found.rename("control-prefork")
    assert (renamed.model, found.model) == ("control-prefork", "prefork")
    assert renamed.rename("prefork") == found


def test_results_that_began_at_other_times_are_equal() -> None:
    """The clock of a boot is not stored, so a result that was read again has none."""
    assert replace(RESULT, began=5.0) == RESULT
    assert replace(RESULT, generators=RESULT.generators + 1) != RESULT


def test_measurement_defaults_are_empty() -> None:
    found = LoadResult("a", "tcp", 1.0, 1, 1.0, 5, {}, Histogram())
    assert (found.late, found.dropped, found.lost, found.duplicates, found.reordered) == (0, 0, 0, 0, 0)
    assert (found.starved, found.generators, found.answered_in_all) == (0, 1, 0)


def test_throttled_time_without_readings_is_unknown() -> None:
    assert put_together(before=replace(BEFORE, throttled_seconds=None)).server.throttled is None
    assert put_together(after=replace(AFTER, throttled_seconds=None)).server.throttled is None


def test_cost_without_replies_is_unknown() -> None:
    found = put_together(answered=0, answered_in_all=0, service=Histogram(), intended=Histogram())
    assert (found.server.cpu_us, found.server.switches, found.rate) == (None, None, 0.0)
    assert found.percentile(0.5) is None
    assert found.verdict.bound is Limit.FAILED


def test_figures_without_readings_are_unknown() -> None:
    found = put_together(seen=[], after=Sample())
    assert (
        found.server.memory_bytes,
        found.server.threads,
        found.server.processes,
        found.server.peak_bytes,
        found.server.descriptors,
    ) == (None,) * 5


def test_derived_figures() -> None:
    found = replace(RESULT, failures={"wrong bytes": 150, "connection reset": 50})
    # 600 x 16 in 3 s, of 3520 a second that were asked for; 61 of 660 exchanges.
    assert (found.rate, found.asked_rate) == (3200.0, 3520.0)
    assert found.rate_ratio == pytest.approx(0.909090909)
    assert found.ratio(found.late) == pytest.approx(0.092424242)
    assert found.failed == 200
    assert found.failure_ratio == 0.25
    # 63 of the 600 x 16 that were answered, and themselves.
    assert found.loss_ratio == pytest.approx(63 / 9663)
    # 660 with a time in 3 s, of 2.5 ms each.
    assert found.in_flight == pytest.approx(0.55)
    nothing = replace(found, answered=0, failures={}, lost=0)
    assert (nothing.failure_ratio, nothing.loss_ratio) == (None, None)


def test_result_survives_its_line() -> None:
    found = [replace(RESULT, disturbances=("a", "b")), replace(RESULT, intended=None, asked=None)]
    assert LoadResult.find_all("\n".join(["noise", found[0].encode(), f"\r[=> ] {found[1].encode()}"])) == found


@pytest.mark.parametrize("text", ["{broken", '{"model": "a"}', "[]", "7", RESULT.encode()[:-5]])
def test_damaged_result_is_skipped(text: str) -> None:
    assert LoadResult.find_all(f"LOAD-RESULT {text}\n{RESULT.encode()}") == [RESULT]


# As the version before `LoadResult` has written it.
OLDER = {
    "model": "a",
    "family": "coroutine",
    "summary": "one line",
    "backend": "docker",
    "workload": "open_steady",
    "users": 8,
    "depth": 16,
    "seconds": 3.0,
    "answered": 600,
    "failures": {"connection reset": 1},
    "histogram": [[3001.5, 400], [9500.0, 260]],
    "service": [[2001.5, 500], [9000.0, 160]],
    "mean_us": 2500.0,
    "min_us": 100.0,
    "max_us": 9000.0,
    "starved": 3,
    "in_flight": 0.55,
    "server_cpu_us": 125.0,
    "server_cores": 0.4,
    "generator_cores": 0.5,
    "machine_cores": 1.4,
    "cores": 8,
    "memory_bytes": 500,
    "threads": 50,
    "versions": {"locust": "2"},
    "verdict": {"bound": "held", "reason": "99% was answered"},
    "asked_rate": 3520.0,
    "late": 61,
    "series": [[0.25, 10.5, 500, 5, 40, 20]],
}


def test_measurement_is_parsed_from_its_json() -> None:
    found = replace(put_together(disturbances=("a", "b")), verdict=Verdict(Limit.GENERATOR, "it was"))
    data = json.loads(json.dumps(found.as_json()))
    # The time of the clock is no longer needed.
    assert Measurement.from_json(data | {"from a later version": 1}) == replace(
        found, load=replace(found.load, began=None)
    )
    assert data["rate"] == 3200.0
    assert data["rate_is_lower_bound"] is True
    assert (data["p50_us"], data["p99_us"], data["service_p50_us"], data["service_p90_us"]) == (
        3001.5,
        9500,
        2001.5,
        9000,
    )
    closed = put_together(intended=None, asked=None)
    data = json.loads(json.dumps(closed.as_json()))
    assert (data["service"], data["service_p50_us"], data["p50_us"]) == (None, 2001.5, 2001.5)
    assert Measurement.from_json(data) == replace(closed, load=replace(closed.load, began=None))
    with pytest.raises(KeyError):
        Measurement.from_json({})


def test_measurement_of_an_older_version_is_read() -> None:
    found = Measurement.from_json(OLDER)
    assert {name: value for name, value in json.loads(json.dumps(found.as_json())).items() if name in OLDER} == OLDER
    assert (found.load.asked, found.load.transport, found.load.disturbances) == (660, "tcp", ())
    assert found.server == ServerUse(
        cpu_us=125.0, cores=0.4, memory_bytes=500, threads=50, series=((0.25, 10.5, 500, 5, 40, 20),)
    )


def test_some_presets_have_random_arrivals_and_others_even_ones() -> None:
    assert {item.spec.arrivals for item in PRESETS.values() if item.spec.is_open} == {"even", "random"}


def test_unknown_preset_is_refused() -> None:
    assert find_preset("custom_protocol").workload.name == "custom_protocol"
    with pytest.raises(LabError, match="unknown preset 'nonsense': choose one of closed_"):
        find_preset("nonsense")


def test_targets_are_grouped_by_model() -> None:
    listeners = [Listener("a", "echo", "tcp", "tcp://h:1"), Listener("b", "echo", "udp", "udp://h:2")]
    listeners.append(Listener("a", "command", "tcp", "tcp://h:3"))
    found = json.loads(encode_targets(listeners))
    assert [(row["model"], [item["address"] for item in row["listeners"]]) for row in found] == [
        ("a", ["tcp://h:1", "tcp://h:3"]),
        ("b", ["udp://h:2"]),
    ]


def test_results_are_found_anywhere_in_a_line() -> None:
    one, other = replace(RESULT, model="a"), replace(RESULT, model="b")
    lines = f"{one.encode()}\nnoise\r[=> ] {other.encode()}\nLOAD-RESULT {{broken\n"
    assert _parse(Completed([], 0, lines, ""), ["a", "b"]) == {"a": one, "b": other}
    with pytest.raises(LabError) as caught:
        _parse(Completed([], 3, "one\n\ntwo\nthree\n", "four\n"), ["a", "b"])
    assert str(caught.value) == (
        "the load generator gave no result for a, b (exit code 3); its output ends with: two / three / four"
    )
    with pytest.raises(LabError, match=r"no result for b \(exit code 0\); its output ends with: LOAD-RESULT"):
        _parse(Completed([], 0, one.encode(), ""), ["a", "b"])
    with pytest.raises(LabError, match="its output ends with: nothing"):
        _parse(Completed([], 0, "", ""), ["a"])
    # A result has hundreds of kilobytes, and the error of one step stands in a table.
    with pytest.raises(LabError, match=r"LOAD-RESULT .{280,290}… / canceled$"):
        _parse(Completed([], 130, f"{one.encode()}{' ' * 9000}|", "canceled"), ["a", "b"])


class Backend(UnusedBackend):
    """A lab of one model, whose generator returns given results."""

    meter_class: Callable[[], Any] = staticmethod(lambda: NoMeter("prefork is not there"))

    def __init__(self) -> None:
        self.result = replace(RESULT, depth=1)
        self.asked: list[tuple[list[str], dict[str, str]]] = []
        self.timeout = 0.0

    def targets(self) -> list[Listener]:
        return [Listener("prefork", "command", "tcp", "tcp://127.0.0.1:1")]

    def meter(self, model: str) -> Any:
        return self.meter_class()

    def run_service(self, service, arguments, *, environ, capture, timeout):
        self.asked.append((arguments, environ))
        self.timeout = timeout
        return Completed(arguments, 0, f"{self.result.encode()}\n", "")


def test_generator_prints_results_that_the_lab_parses() -> None:
    backend = Backend()
    found = measure(
        backend,
        MODEL,
        find_preset("open_poisson").change(users=3, duration=1.5, warm_up=0.25, timeout=0.75),
        codec=Path("codec.py"),
        pinning=Pinning((1,), (0, 2)),
    )
    ((arguments, environ),) = backend.asked
    text = " ".join(arguments)
    assert text.startswith("--headless --only-summary --loglevel ERROR --models prefork ")
    assert text.endswith("--shape-time 1.5 --timeout 0.75 --window 1.5 --warm-up 0.25")
    assert environ["LAB_CODEC"] == str(Path("codec.py").resolve())
    assert environ["LAB_GENERATOR_CORES"] == "0,2"
    assert environ["LAB_LIFELINE"] == "stdin"
    assert environ["LAB_TARGETS"] == encode_targets(backend.targets())
    # A minute in addition to the load.
    assert backend.timeout == 61.75
    assert found.server.allotted == 1
    assert found.backend == backend.name
    assert found.server.unknown == "prefork is not there"
    assert found.verdict.reason.endswith("the server's process could not be measured: prefork is not there")


def test_load_gets_all_options(monkeypatch) -> None:
    backend = Backend()
    measure(
        backend, MODEL, find_preset("open_steady").change(users=1, duration=1.0, rate=77.0, transport=Transport.TLS)
    )
    text = " ".join(backend.asked[0][0])
    assert "--rate 77.0 " in text
    assert "--transport tls " in text
    assert text.endswith("--shape-time 1.0 --timeout 5.0 --window 1.0 --warm-up 0.5")
    backend = Backend()
    measure_together(backend, [MODEL], find_preset("closed_echo_1k").change(users=1, duration=1.0, payload=99))
    text = " ".join(backend.asked[0][0])
    assert "--payload 99 " in text
    assert text.endswith("--shape-time 1.0 --timeout 5.0 --window 1.0 --warm-up 0.5")
    names = [name for name in inspect.signature(measure_together).parameters if name != "models"]
    given: dict[str, Any] = {name: object() for name in names}
    got = []

    def measure_all(*places: object, **named: object) -> list[Measurement]:
        got.append((places, named))
        return [MEASUREMENT]

    monkeypatch.setattr("lab.load.measure.measure_together", measure_all)
    assert measure(model=MODEL, **given) is MEASUREMENT
    places = (given.pop("backend"), [MODEL], given.pop("load"))
    assert got == [(places, given)]


def test_models_of_one_load_have_their_own_figures(monkeypatch) -> None:
    """Two servers under the same load, of which one needs twice as much CPU and memory."""
    models = CATALOGUE.select(["prefork", "plain_socket"])
    sizes = {"prefork": 2, "plain_socket": 1}

    class Growing:
        pid = None

        def __init__(self, size: int) -> None:
            self.size, self.looks, self.counts = size, 0, 0

        def read(self) -> Sample:
            self.looks += 1
            return Sample(cpu_seconds=self.size * min(self.looks, 2), memory_bytes=self.size * 4096)

        def count_descriptors(self) -> int:
            self.counts += 1
            return self.size

    meters = {name: Growing(size) for name, size in sizes.items()}

    class Both(Backend):
        def targets(self) -> list[Listener]:
            return [Listener(name, "command", "tcp", f"tcp://{name}:1") for name in sizes]

        def meter(self, model: str) -> Any:
            return meters[model]

        def run_service(self, service, arguments, **options):
            self.asked.append((arguments, options["environ"]))
            wait_until(lambda: all(meter.counts for meter in meters.values()))
            lines = [replace(RESULT, model=name, users=sizes[name]).encode() for name in sizes]
            return Completed(arguments, 0, "\n".join(lines), "")

    def count(addresses, pid):
        # Another client is connected to one of the two.
        return sum(address.host == "plain_socket" for address in addresses)

    monkeypatch.setattr("lab.load.measure.count_connections", count)
    monkeypatch.setattr("lab.load.measure._SAMPLE_SECONDS", 0.001)
    backend = Both()
    found = measure_together(backend, models, find_preset("closed_ping").change(users=2, duration=1.0))
    ((arguments, environ),) = backend.asked
    assert " ".join(arguments).startswith(
        "--headless --only-summary --loglevel ERROR --models plain_socket prefork --users 4 "
    )
    assert environ["LAB_TARGETS"] == encode_targets(backend.targets()[::-1])
    # One second, or two, for 16,000 requests.
    assert [(item.model, item.users, item.server.cpu_us, item.server.memory_bytes) for item in found] == [
        ("plain_socket", 1, 62.5, 4096),
        ("prefork", 2, 125.0, 8192),
    ]
    assert [(item.family, item.server.descriptors, len(item.load.disturbances)) for item in found] == [
        (model.family, sizes[model.name], int(model.name == "plain_socket")) for model in models
    ]


class Standing:
    """A persistent generator; its load lasts until the meter was read three times."""

    def __init__(self, meter: "CountingMeter") -> None:
        self._meter = meter
        self.given: dict[str, Any] = {}
        self.threads: list[str] = []

    def run(self, arguments, **given):
        self.given = given
        wait_until(lambda: self._meter.looks >= 3)
        self.threads = [thread.name for thread in threading.enumerate()]
        return Completed(arguments, 0, f"{RESULT.encode()}\n", "")


class CountingMeter:
    """Ten megabytes and one descriptor more with each reading."""

    pid = None
    looks = 0

    def read(self) -> Sample:
        return Sample(memory_bytes=10_000_000 * self.looks, cpu_seconds=float(self.looks))

    def count_descriptors(self) -> int:
        self.looks += 1
        return self.looks


def test_server_is_read_during_the_load(monkeypatch, pauses: list[float]) -> None:
    meter = CountingMeter()
    backend = Backend()
    monkeypatch.setattr(backend, "meter_class", lambda: meter)
    generator, began = Standing(meter), time.monotonic()
    persistent = cast(PersistentGenerator, generator)
    found = measure(
        backend, MODEL, find_preset("closed_ping").change(users=1, duration=2.0, warm_up=0.5), generator=persistent
    )
    took = time.monotonic() - began
    assert generator.given["timeout"] == 62.5
    assert generator.given["expected"] == 2.5
    assert set(generator.given["environ"]) == {"LAB_TARGETS"}
    assert "meter" in generator.threads
    assert "meter" not in [thread.name for thread in threading.enumerate()]
    assert [row[2:3] + row[5:] for row in found.server.series[:3]] == [(0, 1), (10_000_000, 2), (20_000_000, 3)]
    times = [row[0] for row in found.server.series if row[0] is not None]
    assert len(times) == len(found.server.series)
    assert times == sorted(times)
    assert 0 < times[0] <= times[-1] <= took
    assert found.server.descriptors == len(found.server.series)
    # One before each reading: without, the readings would take a core of the server's machine.
    assert pauses == [0.25] * (meter.looks + 1)


def test_reading_that_has_begun_is_waited_for(monkeypatch) -> None:
    """The last one blocks until the thread of the readings is joined."""
    is_joined, has_begun = threading.Event(), threading.Event()

    class Thread(threading.Thread):
        def join(self, timeout: float | None = None) -> None:
            is_joined.set()
            super().join(timeout)

    class Slow(NoMeter):
        def read(self) -> Sample:
            if threading.current_thread().name == "meter":
                has_begun.set()
                is_joined.wait(10)
            return Sample(memory_bytes=4096)

    class Quick(Backend):
        def run(self, arguments, **given):
            wait_until(has_begun.is_set)
            return Completed(arguments, 0, f"{RESULT.encode()}\n", "")

    backend = Backend()
    monkeypatch.setattr(backend, "meter_class", Slow)
    monkeypatch.setattr(threading, "Thread", Thread)
    spec = find_preset("closed_ping").change(users=1, duration=2.0, warm_up=0.5)
    found = measure(backend, MODEL, spec, generator=cast(PersistentGenerator, Quick()))
    assert [row[2] for row in found.server.series] == [4096]


def test_server_is_looked_up_once_and_again_after_a_restart(monkeypatch) -> None:
    backend = Backend()

    class Fake(NoMeter):
        sample = Sample(cpu_seconds=1.0)

        def read(self) -> Sample:
            return self.sample

    asked: list[int] = []
    meters: list[Fake] = []

    def open_fake() -> Fake:
        meters.append(Fake())
        return meters[-1]

    targets = backend.targets

    def list_targets() -> list[Listener]:
        asked.append(1)
        return targets()

    monkeypatch.setattr(backend, "targets", list_targets)
    monkeypatch.setattr(backend, "meter_class", open_fake)
    servers = MeteredServers(backend)
    first = servers.open(["prefork"])["prefork"]
    assert servers.open(["prefork"])["prefork"] is first
    assert (len(asked), len(meters)) == (1, 1)
    assert first == MeteredServer(tuple(targets()), meters[0])
    meters[0].sample = Sample()
    assert servers.open(["prefork"])["prefork"].meter is meters[1]
    assert (len(asked), len(meters)) == (2, 2)


def test_shape_is_measured_without_a_warm_up() -> None:
    backend = Backend()
    shaped = next(item for item in PRESETS.values() if item.spec.shape != "steady")
    measure(backend, MODEL, find_preset(shaped.name).change(users=1, duration=2.0, warm_up=1.0))
    assert " ".join(backend.asked[0][0]).endswith("--window 2.0 --warm-up 0.0")
    assert backend.timeout == 62.0


@pytest.mark.parametrize(("name", "share"), [("closed_ping", 0.12), ("closed_ramp", 0.2)])
def test_times_of_the_server_are_those_of_its_load(monkeypatch, name, share) -> None:
    """A quota stopped it for 0.6 s: of 2 s of warm-up, which a shape has not, and a window of 3."""

    class Stopped(NoMeter):
        looks = 0

        def read(self) -> Sample:
            self.looks += 1
            return Sample(throttled_seconds=0.6 * (self.looks > 1))

    backend = Backend()
    monkeypatch.setattr(backend, "meter_class", Stopped)
    monkeypatch.setattr("lab.load.measure.time", SimpleNamespace(monotonic=lambda: 1000.0))
    found = measure(backend, MODEL, find_preset(name).change(users=1, duration=3.0, warm_up=2.0))
    assert found.server.throttled == pytest.approx(share)
    # The load began at 1000, and its window at 1002.125.
    assert found.server.window_begin == 2.125


def test_servers_that_are_open_already_are_used() -> None:
    """As `lab bench` does, which opens their meters once."""

    class Open(MeteredServers):
        def __init__(self) -> None:
            super().__init__(UnusedBackend())

        def open(self, names: Sequence[str]) -> dict[str, MeteredServer]:
            asked.append(list(names))
            return {"prefork": MeteredServer((listener,), NoMeter("none"))}

    asked: list[list[str]] = []
    listener = Listener("prefork", "command", "tcp", "tcp://127.0.0.1:9")
    backend = Backend()
    measure_together(backend, [MODEL], find_preset("closed_ping").change(users=1, duration=1.0), servers=Open())
    assert asked == [["prefork"]]
    assert backend.asked[0][1]["LAB_TARGETS"] == encode_targets([listener])


def test_server_is_measured_at_all_its_addresses() -> None:
    class Several(Backend):
        def targets(self) -> list[Listener]:
            return [*super().targets(), Listener("other", "echo", "tcp", "tcp://127.0.0.1:2"), listener]

    listener = Listener("prefork", "echo", "udp", "udp://127.0.0.1:3")
    found = MeteredServers(Several()).open(["prefork"])["prefork"]
    assert found.listeners == (*Backend().targets(), listener)


def test_meters_are_read_no_more_after_a_failed_load() -> None:
    """The thread would keep the lab from ending."""
    with pytest.raises(ZeroDivisionError), _watch({}, 0.0):
        raise ZeroDivisionError
    assert "meter" not in {thread.name for thread in threading.enumerate()}


def test_model_that_does_not_run_is_named() -> None:
    with pytest.raises(LabError, match="asyncio_streams is not running; start it with: lab up asyncio_streams"):
        MeteredServers(Backend()).open(["asyncio_streams"])


def test_meter_of_a_missing_model_says_why() -> None:
    meter = Processes("t-missing", CATALOGUE).meter("prefork")
    assert isinstance(meter, NoMeter)
    assert meter.reason == "prefork is not running: `lab up prefork`"


def test_connections_of_other_clients_are_a_disturbance(monkeypatch) -> None:
    looked = iter([0, 2])
    monkeypatch.setattr("lab.load.measure.count_connections", lambda addresses, pid: next(looked))
    found = measure(Backend(), MODEL, find_preset("closed_ping").change(users=3, duration=1.0))
    assert found.verdict.bound is Limit.DISTURBED
    assert "2 connections of other clients" in found.verdict.reason
    looked = iter([3, 0])
    assert (
        "3 connections"
        in measure(Backend(), MODEL, find_preset("closed_ping").change(users=3, duration=1.0)).verdict.reason
    )
    looked = iter([0, 0])
    assert measure(Backend(), MODEL, find_preset("closed_ping").change(users=3, duration=1.0)).load.disturbances == ()


@pytest.mark.parametrize(("name", "pid"), [("docker", 7), ("process", None)])
def test_connections_of_a_container_are_counted_in_its_network_namespace(monkeypatch, name, pid) -> None:
    given = []

    def count(found, pid):
        given.append((list(found), pid))
        return 4

    monkeypatch.setattr("lab.load.measure.count_connections", count)
    backend, meter = Backend(), SimpleNamespace(pid=7)
    backend.name = name
    server = MeteredServer(
        (Listener("a", "echo", "tcp", "tcp://a:9000"), Listener("a", "echo", "tls", "tls://a:9001")), meter
    )
    assert _count_other_connections(backend, {"a": server}) == {"a": 4}
    assert [([str(item) for item in found], where) for found, where in given] == [
        (["tcp://a:9000", "tls://a:9001"], pid)
    ]


def test_window_counts_from_its_begin_to_its_end() -> None:
    """In a separate process: loadtests/window.py imports Locust, which patches the process."""
    run_checks("tests/loadtests/window_checks.py")


# The course as CSV.


def test_course_has_a_row_per_second_with_the_use_of_the_server() -> None:
    # The window began at 2.0 of the readings: its first second ends after the one at 2.9, its second one after 3.9.
    series = (
        (1.9, 10.0, 400, 1, 2, 3),
        (2.9, 10.5, 500, 5, 40, 20),
        (3.1, 99.0, 1, 1, 1, 1),
        (3.9, 11.0, 600, 6, 50, None),
    )
    found = put_together()
    found = replace(found, server=replace(found.server, series=series, window_begin=2.0))
    header, first, second, *rest = render_files(found)["-course.csv"].splitlines()
    assert header == (
        "seconds,rate,p50_us,p99_us,failures,connections,cpu_cores,memory_bytes,processes,threads,descriptors"
    )
    # Without a row before, the cores are unknown; then 0.5 s in 1 s.
    assert first == "1.0,3100.0,2001.5,9000.0,0.0,8,,500,5,40,20"
    assert second == "2.0,3300.0,,,0.5,8,0.5,600,6,50,"
    assert rest == []


def test_use_of_the_server_is_empty_where_it_was_not_read() -> None:
    found = put_together()
    unread = replace(found, server=replace(found.server, series=(), window_begin=2.0))
    assert [row[6:] for row in list_course(unread)] == [(None,) * 5] * 2
    no_clock = replace(found, server=replace(found.server, window_begin=None))
    assert [row[6:] for row in list_course(no_clock)] == [(None,) * 5] * 2
    # The same reading twice says nothing of the second between.
    once = replace(found, server=replace(found.server, series=((0.5, 1.0, 7, 1, 1, 1),), window_begin=2.0))
    assert [row[6:8] for row in list_course(once)] == [(None, 7)] * 2


def test_cores_of_a_second_are_the_mean_since_the_row_before() -> None:
    """The window began at 0.25 of the readings, and the first of these with the server."""
    course = tuple((second, *RESULT.course[0][1:]) for second in (0.5, 1.75, 2.75, 3.75, 4.75))
    series = ((0.0, 1.0), (2.0, 1.5), (3.0, 2.5), (4.0, None), (5.0, 3.0))
    found = put_together(course=course)
    found = replace(found, server=replace(found.server, series=series, window_begin=0.25))
    # 0.5 s of CPU in two seconds; then one in one. A reading at the very end of a second belongs to it.
    assert [row[len(course[0])] for row in list_course(found)] == [None, 0.25, 1.0, None, None]


def test_short_window_has_no_course() -> None:
    found = put_together(course=())
    assert set(render_files(found)) == {".json", "-service.hgrm", "-intended.hgrm"}


def test_each_kind_of_times_has_its_file() -> None:
    service, intended = Histogram(), Histogram()
    service.record([0.001] * 3)
    intended.record([0.002] * 5)
    found = put_together(service=service, intended=intended)
    ends = {name: text.split("#[Max")[1].split("]")[0] for name, text in render_files(found).items() if "hgrm" in name}
    assert {name: re.findall(r"[0-9.]+", text) for name, text in ends.items()} == {
        "-service.hgrm": ["1.0000", "3"],
        "-intended.hgrm": ["2.0000", "5"],
    }
