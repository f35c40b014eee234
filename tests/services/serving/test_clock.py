"""The clock of HTTP: its dates are those of another implementation."""

import random
import time
from email.utils import formatdate

from services.serving.clock import CLOCK, show_date


def test_date_is_that_of_the_standard_library() -> None:
    generator = random.Random(7)
    for second in (0, 951_782_400, 1_709_164_800, 4_102_444_799, *(generator.randrange(2**33) for _ in range(2000))):
        assert show_date(second) == formatdate(second, usegmt=True)


def test_date_is_now() -> None:
    before = int(time.time())
    date = CLOCK.date()
    assert date in {formatdate(second, usegmt=True).encode() for second in range(before, int(time.time()) + 1)}
