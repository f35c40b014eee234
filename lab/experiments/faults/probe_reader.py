"""What another client sees of a fault: what a PING took before it, while it was there, and after it was mended.

`lab.clients.latency_probe` sends one every 20 ms, whatever else is asked of the model, and writes down what each took.
This reads it, while it is written: so whoever waits for a model to recover waits no longer than it takes.
"""

import json
import statistics
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from lab.base.errors import LabError
from lab.clients.latency_probe import TIMEOUT
from lab.experiments.faults.fault import find_address
from lab.servers.backend import Backend, Instrument

BAND = 5.0  # times the quiet p99: beyond it, somebody notices
_SETTLED = 10  # so many in turn within the band, and it is over
_ENOUGH = 10  # so many are the least that a p99 is taken of
_QUIET_SECONDS = 5.0  # who has not answered so many until then is looked at without
_PATIENCE = 30.0
_PAUSE = 0.02

Ping = tuple[float, float | None]


@dataclass(frozen=True, slots=True)
class ProbeReport:
    """What a witness saw.

    Args:
        quiet_p99: seconds, before the fault; None if nothing was answered.
        detect: seconds from the break to the first PING that failed, or was out of the band; None if none was.
        recover: seconds from the mending to the first of several in turn within the band; None if there were none.
        slowest: seconds, of all from the break to the end that were answered; None if none was.
        failed: how many were not, or not within half a second.
        lasted: seconds from the break to the mending.
        seconds: rows of [second since the break, p50 and p99 in seconds or None, how many failed].
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
            return "no PING beside it was answered before the fault, so nobody saw how long it was"
        if self.detect is None:
            return f"no PING beside it took more than {BAND:g} times the quiet p99 ({show(self.quiet_p99)})"
        failed = f", {self.failed} failed" if self.failed else ""
        back = "not as before again" if self.recover is None else f"as before {show(self.recover)} after the mending"
        return f"PING beside it: late after {show(self.detect)}, at most {show(self.slowest)}{failed}, {back}"


def show(seconds: float | None) -> str:
    """Milliseconds, or a dash."""
    return "-" if seconds is None else f"{1000 * seconds:.3g} ms" if seconds < 1 else f"{seconds:.2f} s"


class ProbeReader:
    """A witness that runs.

    Args:
        witness: `lab.clients.latency_probe`, started with a log.
    """

    def __init__(self, probe: Instrument) -> None:
        self._witness = probe
        self._read = 0
        self._pings: list[Ping] = []
        self._marks: dict[str, float] = {}
        self._quiet: list[float] = []
        self._number = 0

    def wait_quiet(self) -> None:
        """See that it has been served often enough to know what is usual.

        Raises:
            LabError: it has ended.
        """
        self.mark("quiet")
        deadline = time.monotonic() + _QUIET_SECONDS
        while len(self._quiet) + len(self._since("quiet")) < _ENOUGH and time.monotonic() < deadline:
            time.sleep(_PAUSE)
            self._advance()

    def mark(self, word: str) -> None:
        """Have it remember this moment; a word that comes again means the later one.

        Raises:
            LabError: it has ended.
        """
        self._number += 1
        name = f"{word} {self._number}"
        stdin, deadline = self._witness.process.stdin, time.monotonic() + _PATIENCE
        try:
            assert stdin is not None  # noqa: S101 - for mypy: an instrument is opened with one
            stdin.write(f"{name}\n".encode())
            stdin.flush()
        except BrokenPipeError:
            self._fail()
        while name not in self._marks:
            if time.monotonic() > deadline:
                self._fail()
            time.sleep(_PAUSE / 10)
            self._advance()
        self._marks[word] = self._marks.pop(name)

    def wait_recovered(self, seconds: float) -> ProbeReport:
        """What was seen around the marks `broken` and `mended`, since `quiet`; waits until it is over, or so long.

        Raises:
            LabError: it has ended.
        """
        deadline = time.monotonic() + seconds
        self._advance()
        while (found := self.look()).recover is None and time.monotonic() < deadline:
            time.sleep(_PAUSE)
            self._advance()
        # What was usual before this fault is what is usual before the next.
        broken = self._marks["injected"]
        self._quiet += [took for when, took in self._since("quiet") if took is not None and when + took < broken]
        return found

    def look(self) -> ProbeReport:
        """What has been seen until now around the marks `broken` and `mended`, since `quiet`."""
        return look(self._since("quiet"), self._marks["injected"], self._marks["healed"], self._quiet)

    def _since(self, word: str) -> list[Ping]:
        return [ping for ping in self._pings if ping[0] >= self._marks[word]]

    def _advance(self) -> None:
        log = self._witness.log
        assert log is not None  # noqa: S101 - for mypy: it is started with one
        with log.open("rb") as file:
            file.seek(self._read)
            *lines, _ = file.read().split(b"\n")
        for line in lines:
            self._read += len(line) + 1
            try:
                found = json.loads(line)
            except ValueError:
                self._fail()
            if isinstance(found, dict):
                self._marks[found["mark"]] = found["at"]
            else:
                self._pings.append((found[0], found[1]))
        if self._witness.process.poll() is not None:
            self._fail()

    def _fail(self) -> None:
        raise LabError(f"the witness has ended: {self._witness.output().strip()[-300:]}")


@contextmanager
def open_probe(backend: Backend, model: str) -> Iterator[ProbeReader]:
    """Have a witness look at a model that runs, for the time of a block.

    Raises:
        LabError: the model does not speak what it asks.
    """
    with tempfile.TemporaryDirectory(prefix="witness-") as directory:
        command = ["python", "-m", "lab.clients.latency_probe", find_address(backend, model)]
        with backend.start(command, log=Path(directory, "log")) as probe:
            yield ProbeReader(probe)


def look(pings: Sequence[Ping], broken: float, healed: float, usual: Sequence[float] = ()) -> ProbeReport:
    """What pings mean around a fault.

    Args:
        pings: when each was sent, and what it took, or None if it failed; in seconds.
        broken, mended: on the same clock.
        usual: what others took before, when nothing was broken either.
    """
    quiet = [*usual, *(took for when, took in pings if took is not None and when + took < broken)]
    rows: dict[int, list[float | None]] = {}
    for when, took in pings:
        rows.setdefault(int((when - broken) // 1), []).append(took)
    seconds = tuple((number, *_summarize(took)) for number, took in sorted(rows.items()))
    # Those that were under way when it broke as well.
    hit = [(when, took) for when, took in pings if when + (TIMEOUT if took is None else took) >= broken]
    slowest = max((took for _, took in hit if took is not None), default=None)
    failed = sum(took is None for _, took in hit)
    if not quiet:
        return ProbeReport(None, None, None, slowest, failed, healed - broken, seconds)
    p99 = _quantile(quiet, 99)
    limit = BAND * p99
    # It is known that one is late when it is, and not only when it has come, or has been given up.
    late = [max(0.0, when + limit - broken) for when, took in hit if took is None or took > limit]
    after = [(when, took is not None and took <= limit) for when, took in pings if when >= healed]
    good = (
        after[number][0] - healed
        for number in range(len(after) - _SETTLED + 1)
        if all(fine for _, fine in after[number : number + _SETTLED])
    )
    return ProbeReport(p99, min(late, default=None), next(good, None), slowest, failed, healed - broken, seconds)


def _summarize(took: Sequence[float | None]) -> tuple[float | None, float | None, int]:
    good = [each for each in took if each is not None]
    failed = len(took) - len(good)
    return (_quantile(good, 50), _quantile(good, 99), failed) if good else (None, None, failed)


def _quantile(values: Sequence[float], percent: int) -> float:
    return statistics.quantiles(values, n=100, method="inclusive")[percent - 1] if len(values) > 1 else values[0]
