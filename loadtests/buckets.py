"""How finely response times are kept."""

from math import floor, log10


def bucket_three_digits(milliseconds: float) -> float:
    """Round a response time to three significant digits: 0.05234 ms becomes 0.0523, 1234 ms becomes 1230.

    Locust's own buckets are whole milliseconds below 100 ms, in which a socket server's whole life is one bucket. Three
    digits keep 0.5 % everywhere at 900 buckets for each power of ten, so a run fills a few thousand at most.
    """
    if milliseconds <= 0:
        return 0.0
    return round(milliseconds, 2 - floor(log10(milliseconds)))
