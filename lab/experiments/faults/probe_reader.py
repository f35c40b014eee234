"""Read the times of a latency probe before, during and after a fault.

`lab.clients.latency_probe` sends a PING every 20 ms in addition to the load, and logs how long each took. The log is
read while it is written, so that waiting for a model to recover ends as soon as it has.
"""

import statistics
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

from lab.base.errors import LabError
from lab.clients.latency_probe import TIMEOUT, Mark, Marked, Ping
from lab.experiments.faults.fault import find_address
from lab.servers.backend import Loadable
from lab.servers.helper import Helper

LATE_FACTOR = 5.0  # a PING is late above this multiple of the quiet p99
_RECOVERED_AFTER = 10  # consecutive PINGs that are not late
_MIN_QUIET_PINGS = 10  # for a p99
_QUIET_TIMEOUT = 5.0  # then the fault is injected with fewer
_MARK_TIMEOUT = 30.0
_POLL_SECONDS = 0.02


@dataclass(frozen=True, slots=True)
class ProbeReport:
    """Times of a latency probe around a fault. A PING is late if it failed or took more than 5 times the quiet p99.

    Args:
        quiet_p99: Seconds, before the fault; None if no PING was answered.
        detect: Seconds from the injection to the first late PING; None if none was late.
        recover: Seconds from healing to the first of 10 consecutive PINGs that were not late; None if there were none.
        slowest: Seconds, of all answered PINGs since the injection; None if none was answered.
        failed: Number of PINGs without an answer within half a second since the injection.
        lasted: Seconds from the injection to healing.
        seconds: Rows of [second since the injection, p50 and p99 in seconds or None, number of failed PINGs].
    """

    quiet_p99: float | None
    detect: float | None
    recover: float | None
    slowest: float | None
    failed: int
    lasted: float
    seconds: tuple[tuple[int, float | None, float | None, int], ...]

    def __str__(self) -> str:
        if self.quiet_p99 is None:
            return "no PING of the probe was answered before the fault, so there is nothing to compare with"
        if self.detect is None:
            return f"no PING took more than {LATE_FACTOR:g} times the quiet p99 ({show(self.quiet_p99)})"
        failed = f", {self.failed} failed" if self.failed else ""
        recovery = "not recovered" if self.recover is None else f"recovered {show(self.recover)} after healing"
        return f"PING late after {show(self.detect)}, slowest {show(self.slowest)}{failed}, {recovery}"


def show(seconds: float | None) -> str:
    """Format a duration in milliseconds or seconds; None as a dash."""
    return "-" if seconds is None else f"{1000 * seconds:.3g} ms" if seconds < 1 else f"{seconds:.2f} s"


class ProbeReader:
    """Reads the log of a running latency probe.

    Args:
        probe: `lab.clients.latency_probe`, started with a log.
    """

    def __init__(self, probe: Helper) -> None:
        self._probe = probe
        self._pings: list[Ping] = []
        self._marks: dict[str, float] = {}
        self._baseline: list[float] = []

    def wait_quiet(self) -> None:
        """Wait until enough PINGs were answered for a p99 before the fault; for 5 seconds at most.

        Raises:
            LabError: The probe has ended.
        """
        self.mark("quiet")
        deadline = time.monotonic() + _QUIET_TIMEOUT
        while len(self._baseline) + len(self._since("quiet")) < _MIN_QUIET_PINGS and time.monotonic() < deadline:
            time.sleep(_POLL_SECONDS)
            self._advance()

    def mark(self, word: str) -> None:
        """Record the time of this moment in the probe's log. A word that is used again means the later moment.

        Raises:
            LabError: The probe has ended, or did not confirm.
        """
        self._probe.tell(Mark(word))
        self._marks[word] = self._probe.wait_for(Marked, _MARK_TIMEOUT).at
        # A report after the mark has all PINGs before it.
        self._advance()

    def wait_recovered(self, seconds: float) -> ProbeReport:
        """Wait until the model has recovered, for `seconds` at most; return the report since the mark `quiet`.

        Raises:
            LabError: The probe has ended.
        """
        deadline = time.monotonic() + seconds
        self._advance()
        while (found := self.report()).recover is None and time.monotonic() < deadline:
            time.sleep(_POLL_SECONDS)
            self._advance()
        # The quiet PINGs before this fault also count as baseline for the next.
        injected = self._marks["injected"]
        self._baseline += _quiet(self._since("quiet"), injected)
        return found

    def report(self) -> ProbeReport:
        """Return the report until now, around the marks `injected` and `healed`."""
        return make_report(self._since("quiet"), self._marks["injected"], self._marks["healed"], self._baseline)

    def _since(self, word: str) -> list[Ping]:
        return [ping for ping in self._pings if ping.at >= self._marks[word]]

    def _advance(self) -> None:
        if self._probe.process.poll() is not None:
            raise LabError(f"{self._probe.name} ended with {self._probe.describe_end()}")
        self._pings += self._probe.take(Ping)


@contextmanager
def open_probe(backend: Loadable, model: str) -> Iterator[ProbeReader]:
    """Run a latency probe against a running model for the duration of a block.

    Raises:
        LabError: The model does not serve `command` over TCP.
    """
    command = ["python", "-m", "lab.clients.latency_probe", find_address(backend, model)]
    with backend.helpers.start("the latency probe", command) as probe:
        yield ProbeReader(probe)


def make_report(pings: Sequence[Ping], injected: float, healed: float, baseline: Sequence[float] = ()) -> ProbeReport:
    """Compute the report of a fault from the PINGs around it, in the order in which they were sent.

    Args:
        injected, healed: On the clock of the PINGs.
        baseline: Durations of earlier quiet PINGs.
    """
    quiet = [*baseline, *_quiet(pings, injected)]
    rows: dict[int, list[float | None]] = {}
    for ping in pings:
        rows.setdefault(int((ping.at - injected) // 1), []).append(ping.took)
    seconds = tuple((number, *_summarize(took)) for number, took in sorted(rows.items()))
    # Including those that were under way at the injection.
    hit = [
        (ping.at, ping.took) for ping in pings if ping.at + (TIMEOUT if ping.took is None else ping.took) >= injected
    ]
    slowest = max((took for _, took in hit if took is not None), default=None)
    failed = sum(took is None for _, took in hit)
    if not quiet:
        return ProbeReport(None, None, None, slowest, failed, healed - injected, seconds)
    p99 = _quantile(quiet, 99)
    limit = LATE_FACTOR * p99
    # A PING is detected as late when the limit passes, before its answer arrives or its timeout expires.
    late = [max(0.0, when + limit - injected) for when, took in hit if took is None or took > limit]
    after = [(ping.at, ping.took is not None and ping.took <= limit) for ping in pings if ping.at >= healed]
    good = (
        after[number][0] - healed
        for number in range(len(after) - _RECOVERED_AFTER + 1)
        if all(fine for _, fine in after[number : number + _RECOVERED_AFTER])
    )
    return ProbeReport(p99, min(late, default=None), next(good, None), slowest, failed, healed - injected, seconds)


def _quiet(pings: Sequence[Ping], injected: float) -> list[float]:
    """Return the seconds of the PINGs that were answered before the injection."""
    return [ping.took for ping in pings if ping.took is not None and ping.at + ping.took < injected]


def _summarize(took: Sequence[float | None]) -> tuple[float | None, float | None, int]:
    good = [each for each in took if each is not None]
    failed = len(took) - len(good)
    return (_quantile(good, 50), _quantile(good, 99), failed) if good else (None, None, failed)


def _quantile(values: Sequence[float], percent: int) -> float:
    return statistics.quantiles(values, n=100, method="inclusive")[percent - 1] if len(values) > 1 else values[0]
