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
    applied,
    find_address,
    find_exit_code,
)
from lab.experiments.faults.judge import _MOST_SECONDS, RECOVERY_SECONDS, Score, Verdict, judge, judge_times
from lab.experiments.faults.kinds.crowd import CROWD, judge_cost, read_ping
from lab.experiments.faults.kinds.kill import KILL
from lab.experiments.faults.kinds.nothing import NOTHING
from lab.experiments.faults.probe_reader import Watch, open_watch
from lab.experiments.faults.registry import FAULTS
from lab.servers.backend import Backend, Instrument

_CONNECTIONS = 8
_MOMENT = (0.1, 0.6)  # seconds after the ledger has begun
_LEDGER_SECONDS = 60.0
_PAUSE = 0.005
_AFTER = 0.2


def open_watches(backend: Backend, model: str) -> contextlib.AbstractContextManager[Watch | None]:
    """A witness for all faults of a model; none where it would take the place of those whom it looks at."""
    if "overlap" in backend.catalogue[model].limits:
        return contextlib.nullcontext()
    return open_watch(backend, model)


def apply(
    backend: Backend, model: str, fault: str, seed: int, *, watch: Watch | None = None, twin: bool = False
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
        found = _measure(backend, model, chosen, seed, moment, watch, twin=twin)
    except NoSuchPartError:
        return None
    except CannotApplyError as error:
        return Score(model, fault, Verdict.UNKNOWN, str(error), seed, moment, twin)
    except NotHealedError:
        raise
    except LabError as error:
        if (reason := _start_again(backend, model, error)) is None:
            raise
        return Score(model, fault, Verdict.FAILED, reason, seed, moment, twin)
    # What is declared is that others wait, and not that it ends.
    return replace(found, expected="" if twin or (found.stamp and found.stamp.ended is not None) else expected)


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
    backend: Backend, model: str, fault: Fault, seed: int, moment: float, watch: Watch | None, *, twin: bool
) -> Score:
    address = find_address(backend, model)
    if fault is CROWD:
        quiet = read_ping(backend, address)
        with applied(fault, backend, model, twin=twin) as stamp:
            crowded = read_ping(backend, address)
        held, reason = judge_cost(quiet, crowded)
        if stamp.ended is not None:
            held, reason = judge(fault.name, None, None, stamp.ended)
        return Score(model, fault.name, Verdict(held), reason, seed, moment, twin, stamp.ended, stamp=stamp)
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
            if watch:
                watch.wait_quiet()
            time.sleep(moment)
            _tell(ledger, "mark")
            _wait_for(ledger, "marked")
            # What ends a model has done so when it comes back; what does not may need long before it begins.
            if watch and not fault.hold:
                watch.mark("broken")
            with applied(fault, backend, model, twin=twin) as stamp:
                if watch and fault.hold:
                    watch.mark("broken")
                time.sleep(fault.hold)
                healing = time.monotonic()
            around = None
            if watch:
                watch.mark("mended")
                around = watch.wait_recovered(_MOST_SECONDS)
            elif fault.hold:
                time.sleep(_AFTER)  # some more of it, and the account has to come out
            _tell(ledger, "end")
            ledger.process.wait(2 * _LEDGER_SECONDS)
            if fault.hold:
                backend.wait_ready(model)
                recovery = None
            else:
                assert stamp.end_seconds is not None  # noqa: S101 - the block has ended
                since = stamp.begin_seconds if fault is KILL else healing
                recovery = None if fault is NOTHING or twin else stamp.end_seconds - since
            account = _read_account(ledger)
    verdict, reason = judge(NOTHING.name if twin else fault.name, account, stamp.exit_code, stamp.ended)
    allowed = RECOVERY_SECONDS[backend.name]
    if verdict is Verdict.HELD:
        lasted = (stamp.end_seconds or 0.0) - stamp.begin_seconds if fault.hold else 0.0
        verdict, others = judge_times(around, allowed, lasted=lasted, silence=account.silence if account else 0.0)
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
        twin,
        stamp.exit_code if stamp.ended is None else stamp.ended,
        recovery,
        account,
        stamp,
        around,
    )


def apply_all(
    backend: Backend, models: Sequence[str], faults: Sequence[str], seed: int, *, twin: bool = False
) -> Iterator[Score]:
    """Every fault on every model, one after the other."""
    for model in models:
        with open_watches(backend, model) as watch:
            for fault in faults:
                if (score := apply(backend, model, fault, seed, watch=watch, twin=twin)) is not None:
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
