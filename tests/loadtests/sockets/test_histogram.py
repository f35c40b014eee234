"""The histogram compared with exact arithmetic: an error of at most one per thousand, and no time is lost."""

import io
import random

import pytest

from loadtests.sockets.histogram import TICKS, Histogram, percentile, percentiles


def make(*seconds):
    found = Histogram()
    found.record(seconds)
    return found


@pytest.mark.parametrize("seconds", [0.0000001, 0.0000523, 0.001234567, 0.12345678, 1.0, 59.999, 3600.0])
def test_time_is_kept_within_one_per_thousand(seconds):
    found = make(seconds)
    assert found.percentile(0.5) == pytest.approx(seconds * 1e6, rel=0.001)
    assert found.percentile(0.5) <= found.max_us


def test_percentiles_equal_those_of_the_sorted_list():
    chance = random.Random(1)
    times = [chance.lognormvariate(-9, 1.5) for _ in range(20_000)]
    found = make(*times)
    times.sort()
    for share in (0.5, 0.9, 0.99, 0.999, 1.0):
        exact = times[max(round(share * len(times)) - 1, 0)]
        assert found.percentile(share) == pytest.approx(exact * 1e6, rel=0.001)
    assert found.mean_us == pytest.approx(sum(times) / len(times) * 1e6, abs=0.1)
    assert found.total == len(times)


@pytest.mark.parametrize(
    ("share", "value"), [(0.0, 10.0), (0.5, 10.0), (0.51, 20.0), (0.98, 20.0), (0.99, 30.0), (1.0, 30.0)]
)
def test_percentile_is_nearest_rank(share, value):
    assert percentile([(10.0, 50), (20.0, 48), (30.0, 2)], share) == value


def test_percentile_of_an_empty_histogram_is_none():
    assert percentile([], 0.5) is None


def test_percentiles_are_nearest_ranks() -> None:
    times = [(10.0, 1), (20.0, 2), (30.0, 1)]
    # Of four: the first is a quarter, the third three quarters.
    assert percentiles(times, [0.25, 0.26, 0.75, 0.76, 1.0]) == [10.0, 20.0, 20.0, 30.0, 30.0]
    assert percentiles([], [0.5, 0.9]) == [None, None]


def test_percentile_is_not_missed_by_a_rank_of_rounding():
    # 0.07 x 100 is 7.000000000000001.
    assert percentile([(1.0, 7), (2.0, 93)], 0.07) == 1.0


def test_empty_histogram_has_no_figures():
    found = make()
    assert found.percentile(0.99) is found.mean_us is found.min_us is found.max_us is None
    assert found.pairs() == []


def test_merged_histogram_equals_one_recording():
    chance = random.Random(2)
    parts = [[chance.expovariate(1000) for _ in range(500)] for _ in range(4)]
    merged = Histogram()
    for part in parts:
        merged.merge(Histogram.decode(make(*part).encode()))
    whole = make(*(value for part in parts for value in part))
    assert merged.counts == whole.counts
    assert merged.encode()[:3] == whole.encode()[:3]
    merged.merge(Histogram())
    assert merged.encode()[:3] == whole.encode()[:3]


def test_histograms_of_other_times_or_counts_are_not_equal():
    assert make(0.001, 0.002) == make(0.002, 0.001)
    assert make(0.001) != make(0.002)
    assert make(0.001) != make(0.001, 0.001)
    assert make() != []


def test_decoded_histogram_has_all_figures():
    found = Histogram.decode(make(0.001, 0.001, 0.004).encode())
    assert (found.total, found.mean_us, found.min_us, found.max_us) == (3, 2000.0, 1000.0, 4000.0)


def test_histogram_has_few_entries():
    chance = random.Random(3)
    found = make(*(chance.uniform(0, 10) for _ in range(200_000)))
    # 1024 for each doubling above the first 2048 ticks.
    assert len(found.counts) <= 2048 + 1024 * (10 * TICKS).bit_length()


def test_hgrm_contains_the_distribution():
    found = make(*(n / 1000 for n in range(1, 1001)))
    file = io.StringIO()
    found.write_hgrm(file)
    lines = file.getvalue().splitlines()
    assert lines[0].split() == ["Value", "Percentile", "TotalCount", "1/(1-Percentile)"]
    rows = [line.split() for line in lines[2:] if not line.startswith("#")]
    values, shares, seen = ([float(row[column]) for row in rows] for column in range(3))
    assert values == sorted(values)
    assert shares == sorted(shares)
    assert (shares[-1], seen[-1]) == (1.0, 1000)
    for value, share in zip(values, shares, strict=True):
        assert value == pytest.approx(share * 1000, rel=0.001)
    # Five steps in each half of what is left.
    assert sum(0.5 <= share < 0.75 for share in shares) == 5
    assert "Total count    =         1000]" in lines[-2]


def test_hgrm_text_is_exact():
    """1 ms twice, 3 ms and 7 ms: a mean of 3, and a deviation of sqrt((2 * 2**2 + 0 + 4**2) / 4) = 2.449."""
    file = io.StringIO()
    make(0.001, 0.001, 0.003, 0.007).write_hgrm(file)
    # A time is shown as the end of its step, but none above what occurred; the largest has 17 bits of ticks.
    assert file.getvalue().splitlines() == [
        "       Value     Percentile TotalCount 1/(1-Percentile)",
        "",
        "      1.0007 0.500000000000          2           2.00",
        "      3.0015 0.750000000000          3           4.00",
        "      7.0000 1.000000000000          4            inf",
        "#[Mean    =       3.0000, StdDeviation   =       2.4492]",
        "#[Max     =       7.0000, Total count    =            4]",
        "#[Buckets =           17, SubBuckets     =         2048]",
    ]


def test_histogram_is_restored_from_pairs():
    pairs = [(1000.7, 2), (3001.5, 1), (7000.0, 1)]
    found = Histogram.from_pairs(pairs)
    assert found.pairs() == pairs
    assert found.total == 4
    # 2 * 10007 + 30015 + 70000 ticks.
    assert found.ticks == 120_029
    assert (found.min_us, found.mean_us, found.max_us) == (1000.7, 3000.7, 7000.0)
    # In the step of the first.
    assert Histogram.from_pairs([*pairs, (1000.6, 5)]).pairs()[0] == (1000.7, 7)


def test_short_times_are_exact_to_a_tick():
    found = Histogram()
    found.record([100 / TICKS, 1000 / TICKS])
    assert found.pairs() == [(10.0, 1), (100.0, 1)]
    # A third of (1 + 1 + 2) ms, to a tenth of a microsecond.
    assert make(0.001, 0.001, 0.002).mean_us == 1333.3


def test_hgrm_of_an_empty_histogram_has_no_rows():
    file = io.StringIO()
    make().write_hgrm(file)
    assert file.getvalue().splitlines()[2:] == [
        "#[Mean    =       0.0000, StdDeviation   =       0.0000]",
        "#[Max     =       0.0000, Total count    =            0]",
        "#[Buckets =            0, SubBuckets     =         2048]",
    ]
    assert [line for line in file.getvalue().splitlines()[2:] if not line.startswith("#")] == []
