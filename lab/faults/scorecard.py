"""Model by fault: what became of the requests that were under way, and a verdict.

While the ledger (`lab.ledger`) keeps an account of every request, a fault is applied at a moment that the seed chooses,
and mended again. Then the account is judged by what that fault allows.
"""

import contextlib
import random
import tempfile
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from enum import StrEnum
from pathlib import Path

from lab.backends import Backend, Instrument
from lab.errors import LabError
from lab.faults import Fault
from lab.faults.drain import drain
from lab.faults.kill import kill
from lab.faults.nothing import nothing
from lab.ledger import Account

FAULTS: dict[str, Fault] = {"nothing": nothing, "drain": drain, "kill": kill}

# From a new start to the first answer: of a process; and of a container, which is given a network first.
RECOVERY_SECONDS = {"process": 1.0, "docker": 2.0}

_CONNECTIONS = 8
_MOMENT = (0.1, 0.6)  # seconds after the ledger has begun
_LEDGER_SECONDS = 60.0
_PAUSE = 0.005


class Verdict(StrEnum):
    """What the account says."""

    HELD = "held"
    DEGRADED = "degraded"  # as it should be, and not within the time
    FAILED = "failed"
    UNKNOWN = "unknown"  # there is no account, or nothing in it: never a pass


@dataclass(frozen=True, slots=True)
class Score:
    """One cell of the card.

    Args:
        seed: applies the same fault at the same moment to the same requests again.
        moment: seconds from the first answers to the fault.
        exit_code: of a model that ended by itself.
        recovery: seconds from the start of the mending to the first answer; None where there was nothing to mend.
        account: of all requests; None if there is none.
    """

    model: str
    fault: str
    verdict: Verdict
    reason: str
    seed: int
    moment: float
    exit_code: int | None = None
    recovery: float | None = None
    account: Account | None = None

    def as_json(self) -> dict[str, object]:
        """For a report, and for a script."""
        return asdict(self)


def judge(fault: str, account: Account | None, exit_code: int | None) -> tuple[Verdict, str]:
    """What an account means under a fault; how long it took is not asked here."""
    if account is None:
        return Verdict.UNKNOWN, "the ledger gave no account"
    if account.wrong:
        wrong = ", ".join(f"{count} {what}" for what, count in sorted(account.wrong.items()))
        return Verdict.FAILED, f"replies that nobody was owed: {wrong}"
    if not account.served or not account.answered:
        return Verdict.UNKNOWN, "nobody was served before the fault"
    if fault == "kill":
        return Verdict.HELD, f"{account.answered} answered once and in order, {account.unanswered} known as unanswered"
    if account.lost:
        return Verdict.FAILED, f"{account.lost} requests that were accepted were never answered"
    if fault == "drain" and exit_code != 0:
        return Verdict.FAILED, f"it ended with exit code {exit_code}: somebody was cut off"
    return Verdict.HELD, f"{account.answered} answered once and in order, none of those that were accepted lost"


def apply(backend: Backend, model: str, fault: str, seed: int) -> Score:
    """Apply one fault to one model that runs, and mend it.

    Raises:
        NotHealedError: it could not be mended.
        LabError: it could not be tried.
    """
    listeners = backend.targets()
    address = next(
        (item.address for item in listeners if (item.model, item.service, item.transport) == (model, "command", "tcp")),
        None,
    )
    if address is None:
        raise LabError(f"{model} does not speak command over tcp, which the ledger is kept in")
    moment = random.Random(f"{seed}-{model}-{fault}").uniform(*_MOMENT)  # noqa: S311 - a moment is no secret
    with tempfile.TemporaryDirectory(prefix="ledger-") as directory:
        log = Path(directory) / "log"
        arguments = [
            address,
            "--connections",
            str(_CONNECTIONS),
            "--seed",
            str(seed),
            "--seconds",
            str(_LEDGER_SECONDS),
        ]
        with backend.start_service("ledger", arguments, log=log) as ledger:
            _wait_for(ledger, "begun")
            time.sleep(moment)
            _tell(ledger, "mark")
            _wait_for(ledger, "marked")
            with FAULTS[fault](backend, model) as exit_code:
                _tell(ledger, "end")
                ledger.process.wait(2 * _LEDGER_SECONDS)
                begin = time.monotonic()
            recovery = None if fault == "nothing" else time.monotonic() - begin
            account = _read_account(ledger)
    verdict, reason = judge(fault, account, exit_code)
    allowed = RECOVERY_SECONDS[backend.name]
    if verdict is Verdict.HELD and recovery is not None and recovery > allowed:
        verdict, reason = Verdict.DEGRADED, f"{reason}; the next answer came after {recovery:.1f} s, not {allowed:g}"
    return Score(model, fault, verdict, reason, seed, moment, exit_code, recovery, account)


def apply_all(backend: Backend, models: Sequence[str], faults: Sequence[str], seed: int) -> list[Score]:
    """Every fault on every model, one after the other."""
    return [apply(backend, model, fault, seed) for model in models for fault in faults]


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
