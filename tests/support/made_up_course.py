"""A course of made-up counts, whose clock a test sets."""

from collections import Counter

from lab.load.messages import Usage
from loadtests.course import SECONDS, Course, Point
from loadtests.sockets.recorder import Recorder, Series, Tally

PING, SLEEP = Series("prefork", "ping"), Series("prefork", "sleep_20ms")
OPEN = Series("selector_loop", "ping", "tcp", "open")


def make_tally(requests: int, times: list[float], failed: int = 0, intended: list[float] | None = None) -> Tally:
    """`requests` right replies; times in seconds."""
    tally = Tally(answered=len(times), requests=requests, failures=Counter({"reset": failed} if failed else {}))
    tally.service.record(times)
    tally.intended.record(intended or [])
    return tally


class CourseLab:
    """A recorder, a clock and usages that a test sets."""

    def __init__(self, kept: int | None = SECONDS) -> None:
        self.recorder = Recorder()
        self.at = 100.0
        self.usages: list[Usage] = []
        self.course = Course(
            self.recorder, lambda: self.usages, kept=kept, clock=lambda: self.at, now=lambda: 1_000_000.1234 + self.at
        )

    def second(self, *usages: Usage, **added: tuple[Series, Tally]) -> dict[str, Point]:
        """A second passes, in which tallies are added; return the new points."""
        self.at += 1.0
        self.usages = list(usages)
        for series, tally in added.values():
            self.recorder.add(series, tally, users=3, in_flight=1)
        self.course.sample()
        samples = self.course.since(0)
        return {model: Point(**point) for model, point in samples[-1]["models"].items()} if samples else {}
