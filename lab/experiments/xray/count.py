"""Count what a request costs a server in the kernel: system calls, context switches, bytes copied.

Strategy: the same exchange some hundred times on one connection, one after the other. System calls are counted from the
log of strace: those between the times at which the client began and ended. Tracing adds context switches, so these are
counted in a run of their own, without it.
"""

import json
import re
import statistics
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lab.base.errors import LabError, last_line
from lab.experiments.xray import exchanges, switches
from lab.experiments.xray.exchanges import EXCHANGES, SETTLE
from lab.experiments.xray.strace import Call, parse_log, traced
from lab.servers.backend import Backend
from services.protocol import Address

COUNT, ROUNDS = 200, 3
_TIMEOUT = 120.0
# On a busy machine, the one that looks at the threads may begin after the first exchange.
_TRIES = 3
_AFTER = int(SETTLE / 2 * 1e9)

# Calls that copy bytes between the kernel and the process, and return how many.
_RECEIVING = re.compile(r"^(p?readv?2?(64)?|recv(from|msg))$")
_SENDING = re.compile(r"^(p?writev?2?(64)?|send(to|msg)|sendfile(64)?)$")


@dataclass(frozen=True, slots=True)
class Cost:
    """What one request costs, medians of some rounds.

    Args:
        exchange: a key of `EXCHANGES`.
        calls: system calls by name; None if they could not be counted.
        switches: context switches of the server; None if unknown.
        copied: bytes between kernel and process, in both directions.
    """

    model: str
    exchange: str
    calls: Mapping[str, float] | None
    switches: float | None
    copied: float | None

    @property
    def all_calls(self) -> float | None:
        """System calls of all names."""
        return None if self.calls is None else sum(self.calls.values())

    def as_json(self) -> dict[str, Any]:
        """Return the object that `--json` prints."""
        return {
            "model": self.model,
            "exchange": self.exchange,
            "system_calls": self.all_calls,
            "by_name": self.calls,
            "context_switches": self.switches,
            "bytes_copied": self.copied,
        }


def count_calls(calls: Sequence[Call], begin: int, end: int, requests: int) -> tuple[dict[str, float], float]:
    """Return the calls by name, and the bytes copied, for each request of a leg.

    Args:
        calls: those of a thread in their order, as `parse_log` gives them.
        begin, end: by CLOCK_REALTIME, in nanoseconds.
    """
    inside = [call for call, time in _list_times(calls) if begin <= time <= end + _AFTER]
    names = Counter(call.name for call in inside)
    copied = sum(max(0, call.result) for call in inside if _RECEIVING.match(call.name) or _SENDING.match(call.name))
    return {name: number / requests for name, number in names.most_common()}, copied / requests


def _list_times(calls: Sequence[Call]) -> Iterator[tuple[Call, int]]:
    """Give the calls that have returned, each with the time at which it counts.

    Many wait for the client, so it is when a call has returned: what the server does after its last reply belongs to
    it, and the wait for one more request returns later. On a busy machine strace itself waits for a core. Where this is
    between its two looks at the clock, a call seems to return too early; so it has returned when the thread's next one
    begins. One that sends counts when it begins: the client may have the bytes long before.
    """
    next_start: dict[int, int] = {}
    for call in reversed(calls):
        if call.end is not None:
            yield call, call.start if _SENDING.match(call.name) else next_start.get(call.thread, call.end)
        next_start[call.thread] = call.start


def count_switches(looks: Sequence[tuple[int, Mapping[str, int]]], begin: int, end: int, requests: int) -> float | None:
    """Return the context switches for each request: those of threads that were there before and after."""
    before = [seen for time, seen in looks if time <= begin]
    after = [seen for time, seen in looks if time >= end]
    if not before or not after:
        return None
    both = before[-1].keys() & after[0].keys()
    return sum(after[0][thread] - before[-1][thread] for thread in both) / requests


def measure(
    backend: Backend, model: str, folder: str, *, count: int = COUNT, rounds: int = ROUNDS
) -> tuple[list[Cost], dict[str, str]]:
    """Return what each exchange costs a model that is up, and by model what could not be counted.

    Args:
        folder: one that the model can read and the clients can write.
        count: exchanges of a leg.

    Raises:
        LabError: the model cannot be reached.
    """
    places = {
        listener.service: Address.parse(str(listener.address))
        for listener in backend.targets()
        if (listener.model, listener.transport) == (model, "tcp")
    }
    names = [name for name, (service, _, _) in EXCHANGES.items() if service in places]
    legs = []
    for name in names * rounds:
        address = places[EXCHANGES[name][0]]
        legs.append([name, address.host, address.port])
    missing = {}
    quiet = _run_with_switches(backend, model, folder, legs, count)
    try:
        with traced(backend, model) as trace:
            played = _run(backend, {"legs": legs, "count": count})
        calls = list(parse_log(trace.lines))
    except LabError as error:
        missing[model] = f"system calls: {error}"
        played, calls = [], []
    return list(_make_costs(model, names, quiet, played, calls)), missing


def _run(backend: Backend, request: Mapping[str, Any]) -> list[dict[str, Any]]:
    done = backend.helpers.run(
        ["python", "-m", exchanges.__name__, json.dumps(request)], capture=True, timeout=_TIMEOUT
    )
    try:
        found = json.loads(done.stdout)
    except ValueError:
        raise LabError(f"the exchanges failed: {last_line(done.stderr, 'no output')}") from None
    if "error" in found:
        raise LabError(f"the exchanges failed: {found['error']}")
    legs: list[dict[str, Any]] = found["legs"]
    return legs


def _run_with_switches(
    backend: Backend, model: str, folder: str, legs: Sequence[Sequence[object]], count: int
) -> list[dict[str, Any]]:
    """Run the legs without strace; give each its `switches`."""
    done = f"{folder}/counted"
    source = Path(switches.__file__).read_text(encoding="utf-8")
    for _ in range(_TRIES):
        _remove(backend, done)
        with ThreadPoolExecutor(max_workers=1) as pool:
            watching = pool.submit(backend.faults.run_beside, model, source, [done])
            played = _run(backend, {"legs": legs, "count": count, "done": done})
            looks = [(time, seen) for time, seen in json.loads(watching.result())]
        for leg in played:
            leg["switches"] = count_switches(looks, leg["begin"][1], leg["end"][1], leg["count"])
        if all(leg["switches"] is not None for leg in played):
            break
    return played


def _remove(backend: Backend, path: str) -> None:
    script = f"import pathlib; p = pathlib.Path({path!r}); p.parent.mkdir(parents=True, exist_ok=True); "
    backend.helpers.run(["python", "-c", script + "p.unlink(missing_ok=True)"], capture=True, timeout=_TIMEOUT)


def _make_costs(
    model: str,
    names: Sequence[str],
    quiet: Sequence[Mapping[str, Any]],
    played: Sequence[Mapping[str, Any]],
    calls: Sequence[Call],
) -> Iterator[Cost]:
    for name in names:
        seen = [leg["switches"] for leg in quiet if leg["name"] == name and leg["switches"] is not None]
        traced_legs = [
            count_calls(calls, leg["begin"][0], leg["end"][0], leg["count"]) for leg in played if leg["name"] == name
        ]
        by_name: dict[str, float] | None = None
        if traced_legs:
            found = dict.fromkeys(call for leg, _ in traced_legs for call in leg)
            medians = {call: statistics.median(leg.get(call, 0.0) for leg, _ in traced_legs) for call in found}
            by_name = {call: value for call, value in medians.items() if value}
        yield Cost(
            model=model,
            exchange=name,
            calls=by_name,
            switches=statistics.median(seen) if seen else None,
            copied=statistics.median(copied for _, copied in traced_legs) if traced_legs else None,
        )
