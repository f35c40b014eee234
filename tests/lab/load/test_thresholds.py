"""Conditions of a load test: the figure that each reads, and the refusal of constant conditions."""

import math

import pytest

from lab.base.errors import LabError
from lab.experiments.advise.ranking import read_slo
from lab.load.thresholds import Threshold

# Of 20,000 exchanges 45% took 100 µs, 54.5% more 1.5007 ms, and the last half per cent 52.3 ms. From their sending they
# took 500 µs at most. make_measurement answers them in 2 s. 10,000/s were asked, at one request an exchange: of 20,000
# that were due, 400 were late (2%) and 20 dropped (0.1%).
FIGURES = {
    "histogram": ((100.0, 9_000), (1_500.7, 10_900), (52_300.0, 100)),
    "service": ((90.0, 9_000), (500.0, 11_000)),
    "max_us": 52_300.0,
    "asked_rate": 10_000.0,
    "late": 400,
    "dropped": 20,
}


@pytest.mark.parametrize(
    ("text", "tripped"),
    [
        ("p45 > 0.1ms", False),  # 9,000 of 20,000 is the last of the first
        ("p45.01 > 0.1ms", True),
        ("p50 > 1ms", True),
        ("p50 > 1500.7us", False),
        ("p50 >= 1500.7 us", True),
        ("p95 > 1499us", True),
        ("p95 > 1501us", False),
        ("p99>1499us", True),
        ("p99>52299us", False),
        ("p99 > 1400µs", True),
        ("p99 > 1400μs", True),
        ("p99.5 > 1.501ms", False),  # 19,900 of 20,000
        ("p99.51 > 1.5ms", True),
        ("p99.9 >= 52.3ms", True),
        ("p99.9 < 52.3ms", False),
        ("p99.9 <= 52.3ms", True),
        ("p100 > 52299us", True),
        ("max > 0.06s", False),
        ("max > 0.05s", True),
        ("service.p99 > 1ms", False),
        ("service.p99 > 100us", True),
        ("service.p45 > 90us", False),
        ("service.p95 < 500us", False),
        ("rate < 10k", False),
        ("rate < 10k/s", False),
        ("rate < 10000", False),
        ("rate < 10000/s", False),
        ("rate <= 10k/s", True),
        ("rate < 10001", True),
        ("rate < 10001/s", True),
        ("rate > 0", True),
        ("rate < 99%", False),
        ("rate < 100%", False),
        ("rate >= 100%", True),
        ("late > 399", True),
        ("late > 400", False),
        ("late > 1.9%", True),
        ("late > 2%", False),
        ("dropped > 19", True),
        ("dropped >= 20", True),
        ("dropped > 20", False),
        ("dropped > 0.09%", True),
        ("dropped > 0.1%", False),
    ],
)
def test_condition_compares_the_named_figure(text, tripped, make_measurement):
    assert Threshold.parse(text).is_tripped_by(make_measurement(**FIGURES)) is tripped


@pytest.mark.parametrize(
    ("text", "tripped"),
    [
        # 94 of 20,094 exchanges: 0.468%.
        ("failures > 10", True),
        ("failures > 93", True),
        ("failures >= 94", True),
        ("failures > 94", False),
        ("failures > 0.46%", True),
        ("failures > 0.47%", False),
        ("failures > 0%", True),
        # 60 of 20,060 datagrams: 0.299%.
        ("lost > 59", True),
        ("lost > 60", False),
        ("lost > 0.29%", True),
        ("lost > 0.3%", False),
    ],
)
def test_failures_without_a_unit_are_a_count_and_with_percent_a_share(text, tripped, make_measurement):
    found = make_measurement(failures={"time-out": 90, "refused": 4}, lost=60)
    assert Threshold.parse(text).is_tripped_by(found) is tripped


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("failures >= 0", "cannot be false: it is never below 0"),
        ("failures < 0", "cannot be true: it is never below 0"),
        ("lost >= 0%", "cannot be false"),
        ("late < 0%", "cannot be true"),
        ("failures > 100%", "cannot be true: a share is at most 100%"),
        ("failures >= 101%", "cannot be true: a share is at most 100%"),
        ("dropped <= 100%", "cannot be false: a share is at most 100%"),
        ("late < 250%", "cannot be false"),
        ("rate < 0", "cannot be true: it is never below 0"),
        ("rate >= 0k", "cannot be false"),
        ("rate > 100%", "cannot be true: at most all requests can be answered"),
        ("rate < 100.1%", "cannot be false: at most all requests can be answered"),
        ("p99 > 0ms", "cannot be false: each exchange takes some time"),
        ("p95 <= 0us", "cannot be true: each exchange takes some time"),
        ("service.p50 >= 0s", "cannot be false"),
        ("max < 0ms", "cannot be true"),
        ("p99 > " + "9" * 400 + "ms", "cannot be true: no number is that large"),
        ("rate < " + "9" * 400, "cannot be false"),
    ],
)
def test_constant_condition_is_refused(text, said):
    with pytest.raises(LabError) as caught:
        Threshold.parse(text)
    assert said in str(caught.value)
    assert str(caught.value).startswith(f"--fail-if {text!r}: it cannot be ")


@pytest.mark.parametrize("text", ["failures > 0", "failures < 1", "failures >= 100%", "rate > 0", "rate >= 100%"])
def test_condition_that_can_be_true_and_false_is_accepted(text):
    assert Threshold.parse(text).text == text


@pytest.mark.parametrize(
    ("text", "names"),
    [
        ("", "p99 > 5ms"),
        ("p99", "p99 > 5ms"),
        ("p0 > 5ms", "known: p50 or any other percentile"),
        ("p101 > 5ms", "known: p50"),
        ("service.p100.1 > 5ms", "known: p50"),
        ("p > 5ms", "known: p50"),
        ("latency > 5ms", "'latency' is not measured"),
        ("p99 > 5", "p99 takes us, µs, ms, s, m, h, as in 'p99 > 5ms'"),
        ("p99 > 5 parsecs", "takes us"),
        ("p99 > 5%", "takes us"),
        ("max < 5", "takes us, µs, ms, s, m, h, as in 'max < 5ms'"),
        ("rate < 5ms", "rate takes no unit, /s, k, k/s, %, as in 'rate < 10k'"),
        ("failures > 1k", "failures takes no unit, %, as in 'failures > 10'"),
        ("failures > 0.1", "a count of failures, which is whole; a share takes %, as in 'failures > 0.1%'"),
        ("dropped < 1.5", "which is whole"),
        ("p99 == 5ms", "p99 > 5ms"),
        ("p99 > -5ms", "p99 > 5ms"),
        ("p99 > 1.2.3ms", "p99 > 5ms"),
    ],
)
def test_invalid_condition_is_quoted_in_one_line(text, names):
    with pytest.raises(LabError) as caught:
        Threshold.parse(text)
    assert names in str(caught.value)
    assert str(caught.value).startswith(f"--fail-if {text!r}: ")
    assert "\n" not in str(caught.value)


def test_invalid_condition_names_its_option():
    with pytest.raises(LabError, match=r"^--slo 'p99 < 0ms': it cannot be true"):
        Threshold.parse("p99 < 0ms", option="--slo")


@pytest.mark.parametrize(
    "text",
    [
        *("p99 > 5s", "p99 < 5s", "p12.5 > 5s", "service.p50 > 5s", "max > 1s"),
        *("failures > 50%", "failures > 10", "failures < 10", "lost > 50%", "lost > 10"),
        *("late > 50%", "late > 10", "dropped > 10", "dropped < 10%"),
        *("rate < 1%", "rate > 99%"),
    ],
)
def test_unmeasured_figure_never_passes(text, make_measurement):
    nothing = make_measurement(answered=0, histogram=(), mean_us=None, min_us=None, max_us=None)
    assert Threshold.parse(text).is_tripped_by(nothing)


def test_nan_never_passes(make_measurement):
    assert Threshold.parse("rate < 1").is_tripped_by(make_measurement(seconds=math.nan))


@pytest.mark.parametrize(
    ("text", "load", "said"),
    [
        ("late > 0", {}, "needs an open loop"),
        ("dropped > 1%", {}, "needs an open loop"),
        ("rate < 99%", {}, "needs an open loop"),
        ("rate < 99", {}, None),
        ("rate < 99%", {"open_loop": True}, None),
        ("lost > 1%", {"open_loop": True}, "needs datagrams"),
        ("lost > 1", {"datagrams": True}, None),
        # 2 s, plus a fifth until the time-out is found.
        ("p99 > 2.3s", {"timeout": 2.0}, None),
        ("p99 > 2.4s", {"timeout": 2.0}, "it cannot be true: an exchange has failed after 2 s (--timeout)"),
        ("p99 <= 2.4s", {"timeout": 2.0}, "it cannot be false: an exchange has failed after 2 s (--timeout)"),
        ("max > 9s", {"timeout": 2.0}, "it cannot be true"),
        # From when it was due, a request may wait for its connection without limit.
        ("p99 > 9s", {"timeout": 2.0, "open_loop": True}, None),
        ("service.p99 > 9s", {"timeout": 2.0, "open_loop": True}, "it cannot be true"),
        ("max > 9s", {"timeout": 2.0, "open_loop": True}, "it cannot be true"),
        ("rate < 500", {"rate": 500.0, "open_loop": True}, None),
        ("rate < 501", {"rate": 500.0, "open_loop": True}, "it cannot be false: at most 500 requests/s are sent"),
        ("rate > 0.5k", {"rate": 500.0, "open_loop": True}, "it cannot be true: at most 500 requests/s are sent"),
        ("failures > 600", {"rate": 500.0, "timeout": 2.0, "open_loop": True}, None),
        # A count is no time, however long a time that number would be.
        ("failures > 9000000", {"timeout": 2.0}, None),
    ],
)
def test_condition_that_does_not_fit_the_load_is_refused(text, load, said):
    reason = Threshold.parse(text).find_misfit(**{"open_loop": False, "datagrams": False} | load)
    assert reason is None if said is None else said in str(reason)


@pytest.mark.parametrize(
    ("text", "share"),
    [("p95 < 5ms", 0.95), ("p99.9 < 5ms", 0.999), ("p7 < 5ms", 0.07), ("service.p99 < 5ms", None), ("max < 5s", None)],
)
def test_condition_on_a_percentile_has_its_share(text, share):
    assert Threshold.parse(text).share == share


def test_slo_is_a_percentile_below_a_time():
    assert read_slo("p95 <= 20ms") == (0.95, 0.02)
    for text in ("p100 < 20ms", "max < 20ms", "p95 > 20ms", "rate < 10k"):
        with pytest.raises(LabError, match="is not an upper limit of a percentile"):
            read_slo(text)
