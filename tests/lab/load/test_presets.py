"""Presets: what each asks for, how options change it, and what has no preset."""

import pytest

from lab.base.errors import LabError
from lab.load.exports import describe_changes
from lab.load.presets import PRESETS, Preset, combine, find_preset
from lab.load.workloads import CUSTOM_PROTOCOL, WORKLOADS
from loadtests.contract import LoadSpec
from services.protocol import Transport


@pytest.mark.parametrize(
    ("name", "users", "rate", "seconds", "shape", "arrivals"),
    [
        ("closed_session", 16, 1000, 5, "steady", "even"),
        ("closed_latency", 1, 1000, 5, "steady", "even"),
        ("closed_ramp", 64, 1000, 20, "ramp", "even"),
        ("closed_steps", 64, 1000, 20, "steps", "even"),
        ("closed_spike", 64, 1000, 20, "spike", "even"),
        ("closed_soak", 16, 1000, 600, "steady", "even"),
        ("open_steady", 64, 1000, 5, "steady", "even"),
        ("open_poisson", 64, 1000, 5, "steady", "random"),
        ("open_ramp", 64, 10_000, 20, "ramp", "even"),
        ("open_steps", 64, 10_000, 20, "steps", "even"),
        ("open_spike", 64, 10_000, 20, "spike", "even"),
        ("open_soak", 64, 1000, 600, "steady", "even"),
        ("open_session", 64, 1000, 5, "steady", "even"),
        ("open_churn", 64, 200, 5, "steady", "even"),
        ("open_echo_1k", 64, 1000, 5, "steady", "even"),
        ("open_echo_64k", 64, 200, 5, "steady", "even"),
        ("open_pipeline_16", 64, 1000, 5, "steady", "even"),
        ("open_download", 64, 50, 5, "steady", "even"),
        ("open_sleep_20ms", 64, 200, 5, "steady", "even"),
        ("open_burn", 64, 200, 5, "steady", "even"),
        ("open_idle_connections", 64, 1000, 5, "steady", "even"),
        ("open_mixed", 64, 200, 5, "steady", "random"),
        ("open_http_ping", 64, 1000, 5, "steady", "even"),
        ("open_http_echo_1k", 64, 1000, 5, "steady", "even"),
        ("open_http_sleep", 64, 200, 5, "steady", "even"),
        ("open_http_churn", 64, 200, 5, "steady", "even"),
        ("open_http_mixed", 64, 200, 5, "steady", "random"),
        ("open_ws_echo", 64, 1000, 5, "steady", "even"),
        ("open_datagrams", 64, 1000, 5, "steady", "even"),
        ("custom_protocol", 16, 1000, 5, "steady", "even"),
    ],
)
def test_preset_asks_for_these_figures(
    name: str, users: int, rate: float, seconds: float, shape: str, arrivals: str
) -> None:
    preset = find_preset(name)
    spec = preset.spec
    assert (spec.users, spec.rate, spec.window, spec.shape_time) == (users, rate, seconds, seconds)
    assert (spec.shape, spec.arrivals, spec.loop) == (shape, arrivals, "open" if name.startswith("open_") else "closed")
    assert (preset.name, preset.duration) == (name, seconds)
    assert preset.workload.name == spec.workload


def test_default_comes_first_and_only_datagrams_use_udp() -> None:
    assert next(iter(PRESETS)) == "closed_session"
    udp = [name for name, preset in PRESETS.items() if preset.spec.transport is not Transport.TCP]
    assert udp == ["closed_datagrams", "open_datagrams"]
    closed = [preset.spec for name, preset in PRESETS.items() if name.startswith("closed_")]
    assert {(spec.users, spec.window) for spec in closed} == {(16, 5.0), (1, 5.0), (64, 20.0), (16, 600.0)}


def test_preset_has_a_summary_of_its_own_or_that_of_its_workload() -> None:
    assert PRESETS["closed_session"].summary == WORKLOADS["session"].summary
    assert PRESETS["closed_latency"].summary == "one PING at a time on one connection: the bare round trip"
    assert PRESETS["open_steady"].summary == "PING at a constant rate"


def test_unknown_preset_is_refused() -> None:
    with pytest.raises(LabError, match=r"^unknown preset 'closed_nothing': choose one of closed_session, "):
        find_preset("closed_nothing")


def test_custom_protocol_is_its_own_workload() -> None:
    found = find_preset("custom_protocol")
    assert (found.workload, found.summary) == (CUSTOM_PROTOCOL, CUSTOM_PROTOCOL.summary)


def test_load_without_a_window_has_no_duration() -> None:
    assert Preset("mine", "", LoadSpec(window=None)).duration == 0.0


def test_options_change_a_preset() -> None:
    preset = find_preset("open_churn")
    changed = preset.change(
        users=3, rate=7.5, duration=2.0, transport=Transport.TLS, payload=9, warm_up=0.0, timeout=0.25
    )
    assert changed.name == "open_churn"
    assert changed.spec == LoadSpec(
        users=3,
        workload="churn",
        transport=Transport.TLS,
        loop="open",
        rate=7.5,
        payload=9,
        shape_time=2.0,
        timeout=0.25,
        window=2.0,
        warm_up=0.0,
    )
    assert [each.change() for each in PRESETS.values()] == list(PRESETS.values())
    # Times of a load that is not one of the presets' own.
    assert find_preset("closed_ping").change(warm_up=None).spec.warm_up == 0.5


def test_closed_loop_has_no_rate() -> None:
    with pytest.raises(LabError, match=r"^--rate goes with an open loop, and closed_ping is a closed one$"):
        find_preset("closed_ping").change(rate=1.0)


@pytest.mark.parametrize(
    ("workload", "loop", "shape", "arrivals", "name"),
    [
        ("ping", None, None, None, "closed_ping"),
        ("ping", "open", None, None, "open_steady"),
        ("ping", "open", None, "random", "open_poisson"),
        ("ping", "open", "ramp", None, "open_ramp"),
        ("ping", "closed", "spike", None, "closed_spike"),
        ("ping", "open", "ramp", "random", "open_ping_ramp_random"),
        ("burn", None, "steps", None, "closed_burn_steps"),
        ("mixed", "open", None, None, "open_mixed"),
        ("mixed", "open", None, "even", "open_mixed_even"),
        # A script has a closed loop.
        ("slow_reader", None, None, None, "closed_slow_reader"),
    ],
)
def test_parts_are_combined(
    workload: str, loop: str | None, shape: str | None, arrivals: str | None, name: str
) -> None:
    found = combine(workload, loop=loop, shape=shape, arrivals=arrivals)
    assert (found.name, found.spec.workload, found.spec.loop) == (name, workload, loop or "closed")
    assert found.spec.shape == (shape or "steady")
    assert arrivals in (None, found.spec.arrivals)
    if name in PRESETS:
        assert found == PRESETS[name]


def test_what_is_not_given_is_that_of_the_first_preset() -> None:
    found = combine("mixed", loop="open", shape="ramp", arrivals=None)
    assert (found.spec.arrivals, found.spec.shape, found.spec.rate) == ("random", "ramp", 200.0)
    # Without a preset of this workload and loop: that of all open loops.
    assert "open_throughput" not in PRESETS
    made = combine("throughput", loop="open", shape=None, arrivals=None)
    assert (made.name, made.spec.rate, made.spec.users, made.spec.window) == ("open_throughput", 1000.0, 64, 5.0)
    assert (made.spec.workload, made.summary) == ("throughput", WORKLOADS["throughput"].summary)


def test_impossible_combination_is_refused() -> None:
    with pytest.raises(LabError, match=r"^--arrivals goes with an open loop: add --loop open$"):
        combine("ping", loop=None, shape=None, arrivals="random")
    with pytest.raises(LabError, match=r"^slow_reader is a script, and has no open loop$"):
        combine("slow_reader", loop="open", shape=None, arrivals=None)


def test_name_of_a_file_says_what_differs_from_the_preset() -> None:
    preset = find_preset("open_churn")
    assert describe_changes(preset, preset, workers=0) == ""
    changed = preset.change(users=3, rate=7.5, duration=2.5, transport=Transport.TLS, payload=9)
    assert describe_changes(changed, preset, workers=2) == "-tls-3users-7.5rps-9bytes-2.5s-2workers"
    assert describe_changes(preset.change(users=3), preset, workers=0) == "-3users"
