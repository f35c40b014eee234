"""Model by fault: what became of the requests that were under way, and a verdict.

While the ledger (`lab.clients.request_log`) keeps an account of every request, a fault is applied at a moment that the
seed chooses, and mended again. Then the account is judged by what that fault allows, and so is how long another
client's PING was late (`lab.experiments.faults.probe_reader`).
"""

import contextlib
import random
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

from lab.base.errors import LabError, NotReadyError
from lab.clients.request_log import Account
from lab.experiments.faults.fault import (
    CannotApplyError,
    EndedError,
    Fault,
    NoSuchPartError,
    NotHealedError,
    find_address,
    find_exit_code,
    injected,
)
from lab.experiments.faults.judge import _MOST_SECONDS, RECOVERY_SECONDS, Score, Verdict, judge, judge_times
from lab.experiments.faults.kinds.crowd import CROWD, judge_cost, read_ping
from lab.experiments.faults.kinds.kill import KILL
from lab.experiments.faults.kinds.nothing import NOTHING
from lab.experiments.faults.probe_reader import ProbeReader, open_probe
from lab.experiments.faults.registry import FAULTS
from lab.servers.backend import Backend, Instrument

_CONNECTIONS = 8
_MOMENT = (0.1, 0.6)  # seconds after the ledger has begun
_LEDGER_SECONDS = 60.0
_PAUSE = 0.005
_AFTER = 0.2


def open_optional_probe(backend: Backend, model: str) -> contextlib.AbstractContextManager[ProbeReader | None]:
    """A witness for all faults of a model; none where it would take the place of those whom it looks at."""
    if "overlap" in backend.catalogue[model].limits:
        return contextlib.nullcontext()
    return open_probe(backend, model)


def apply(
    backend: Backend, model: str, fault: str, seed: int, *, probe: ProbeReader | None = None, control: bool = False
) -> Score | None:
    """Apply one fault to one model that runs, and mend it.

    Args:
        watch: who looks on.
        twin: leave out what breaks.

    Returns:
        None where the model has nothing that this fault could break.

    Raises:
        NotHealedError: it could not be mended.
        LabError: it could not be tried.
    """
    chosen = FAULTS[fault]
    moment = random.Random(f"{seed}-{model}-{fault}").uniform(*_MOMENT)  # noqa: S311 - a moment is no secret
    limits = backend.catalogue[model].limits
    expected = next((limits[name] for name in chosen.needs if name in limits), "")
    try:
        found = _measure(backend, model, chosen, seed, moment, probe, control=control)
    except NoSuchPartError:
        return None
    except CannotApplyError as error:
        return Score(model, fault, Verdict.UNKNOWN, str(error), seed, moment, control)
    except NotHealedError:
        raise
    except LabError as error:
        if (reason := _start_again(backend, model, error)) is None:
            raise
        return Score(model, fault, Verdict.FAILED, reason, seed, moment, control)
    # What is declared is that others wait, and not that it ends.
    return replace(found, expected="" if control or (found.interval and found.interval.ended is not None) else expected)


def _start_again(backend: Backend, model: str, error: LabError) -> str | None:
    """Start a model again that ended, or hangs; returns what is to be said of it, or None if it does neither."""
    if isinstance(error, EndedError):
        return f"{error}; it was started again"
    code = find_exit_code(backend, model)
    if code is None and not isinstance(error, NotReadyError):
        return None
    try:
        backend.restart(model)
    except NotReadyError as why:
        raise NotHealedError(f"{why}\nstill broken: {model} is down; by hand: `lab up {model}`") from error
    return f"{'it hung' if code is None else f'it ended with exit code {code}'}, and was started again: {error}"


def _measure(
    backend: Backend, model: str, fault: Fault, seed: int, moment: float, probe: ProbeReader | None, *, control: bool
) -> Score:
    address = find_address(backend, model)
    if fault is CROWD:
        quiet = read_ping(backend, address)
        with injected(fault, backend, model, control=control) as interval:
            crowded = read_ping(backend, address)
        held, reason = judge_cost(quiet, crowded)
        if interval.ended is not None:
            held, reason = judge(fault.name, None, None, interval.ended)
        return Score(model, fault.name, Verdict(held), reason, seed, moment, control, interval.ended, interval=interval)
    with tempfile.TemporaryDirectory(prefix="ledger-") as directory:
        arguments = [
            "python",
            "-m",
            "lab.clients.request_log",
            address,
            "--connections",
            str(_CONNECTIONS),
            "--seed",
            str(seed),
            "--seconds",
            f"{_LEDGER_SECONDS}",
        ]
        with backend.start(arguments, log=Path(directory) / "log") as ledger:
            _wait_for(ledger, "begun")
            if probe:
                probe.wait_quiet()
            time.sleep(moment)
            _tell(ledger, "mark")
            _wait_for(ledger, "marked")
            # What ends a model has done so when it comes back; what does not may need long before it begins.
            if probe and not fault.hold:
                probe.mark("injected")
            with injected(fault, backend, model, control=control) as interval:
                if probe and fault.hold:
                    probe.mark("injected")
                time.sleep(fault.hold)
                healing = time.monotonic()
            probe_report = None
            if probe:
                probe.mark("healed")
                probe_report = probe.wait_recovered(_MOST_SECONDS)
            elif fault.hold:
                time.sleep(_AFTER)  # some more of it, and the account has to come out
            _tell(ledger, "end")
            ledger.process.wait(2 * _LEDGER_SECONDS)
            if fault.hold:
                backend.wait_ready(model)
                recovery = None
            else:
                assert interval.end_seconds is not None  # noqa: S101 - the block has ended
                since = interval.begin_seconds if fault is KILL else healing
                recovery = None if fault is NOTHING or control else interval.end_seconds - since
            account = _read_account(ledger)
    verdict, reason = judge(NOTHING.name if control else fault.name, account, interval.exit_code, interval.ended)
    allowed = RECOVERY_SECONDS[backend.name]
    if verdict is Verdict.HELD:
        lasted = (interval.end_seconds or 0.0) - interval.begin_seconds if fault.hold else 0.0
        verdict, others = judge_times(probe_report, allowed, lasted=lasted, silence=account.silence if account else 0.0)
        reason = f"{reason}; {others}"
        if recovery is not None and recovery > allowed:
            verdict, reason = (
                Verdict.DEGRADED,
                f"{reason}; the next answer came after {recovery:.1f} s, not {allowed:g}",
            )
    return Score(
        model,
        fault.name,
        verdict,
        reason,
        seed,
        moment,
        control,
        interval.exit_code if interval.ended is None else interval.ended,
        recovery,
        account,
        interval,
        probe_report,
    )


def apply_all(
    backend: Backend, models: Sequence[str], faults: Sequence[str], seed: int, *, control: bool = False
) -> Iterator[Score]:
    """Every fault on every model, one after the other."""
    for model in models:
        with open_optional_probe(backend, model) as probe:
            for fault in faults:
                if (score := apply(backend, model, fault, seed, probe=probe, control=control)) is not None:
                    yield score


def _tell(ledger: Instrument, word: str) -> None:
    assert ledger.process.stdin is not None  # noqa: S101 - start_service opens it
    with contextlib.suppress(BrokenPipeError):  # all of its connections have ended, and so has it
        ledger.process.stdin.write(f"{word}\n".encode())
        ledger.process.stdin.flush()


def _wait_for(ledger: Instrument, word: str) -> None:
    """Wait until the ledger says so.

    Raises:
        LabError: it ended before, with what it has written.
    """
    deadline = time.monotonic() + _LEDGER_SECONDS
    while word not in ledger.output().split():
        if ledger.process.poll() is not None or time.monotonic() > deadline:
            raise LabError(f"the ledger never said {word!r}; it wrote: {ledger.output().strip() or '(nothing)'}")
        time.sleep(_PAUSE)


def _read_account(ledger: Instrument) -> Account | None:
    lines = ledger.output().strip().splitlines()
    try:
        return Account.from_json(lines[-1])
    except (IndexError, ValueError, TypeError):
        return None
