"""The percentiles that charts of response times show."""

from lab.report.charts.lines import SHARES
from loadtests.sockets.histogram import Histogram, percentiles


def read_shares(times: Histogram) -> dict[float, float | None]:
    """Return the microseconds within which each share of `SHARES` ended; None without a time."""
    return dict(zip(SHARES, percentiles(times.pairs(), SHARES), strict=True))
