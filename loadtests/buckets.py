"""The resolution of response times in Locust's statistics."""

from math import floor, log10


def bucket_three_digits(milliseconds: float) -> float:
    """Round a response time to three significant digits: 0.05234 ms becomes 0.0523, 1234 ms becomes 1230.

    Locust's own buckets are whole milliseconds below 100 ms: most replies of a socket server would share one. Three
    digits keep an error of at most 0.5 % with 900 buckets per power of ten, so a run fills at most a few thousand.
    """
    if milliseconds <= 0:
        return 0.0
    return round(milliseconds, 2 - floor(log10(milliseconds)))
