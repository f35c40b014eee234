"""Judge what a fault did to a model: the account of every request, and the times of another client."""

from dataclasses import asdict, dataclass
from enum import StrEnum

from lab.clients.request_log import Account
from lab.experiments.faults.fault import (
    FaultInterval,
)
from lab.experiments.faults.probe_reader import ProbeReport, show
from lab.experiments.faults.registry import FAULTS

# From the kill, or from the mending, to the first answer: of a process; of a container, which is given a network first.
RECOVERY_SECONDS = {"process": 1.0, "docker": 2.0}


# Who has not recovered until then is said not to have; the ledger goes on all the while.
_MOST_SECONDS = 4.0


class Verdict(StrEnum):
    """What the account says."""

    HELD = "held"
    DEGRADED = "degraded"  # nothing is lost, and others waited longer than they may
    FAILED = "failed"
    UNKNOWN = "unknown"  # there is no account, or nothing in it: never a pass


@dataclass(frozen=True, slots=True)
class Score:
    """One cell of the card.

    Args:
        seed: applies the same fault at the same moment to the same requests again.
        moment: seconds from the first answers to the fault.
        is_twin: the harmful step was left out.
        exit_code: of a model that ended, by the fault or by itself, where it is known.
        recovery: seconds to the first answer of a model that was ended: from the kill, or else from its start; None of
            others.
        around: what another client's PING took; None where nobody else is served beside the ledger.
        account: of all requests; None if there is none.
        stamp: when it was.
        expected: why the catalogue says that it fails; empty if it does not.
    """

    model: str
    fault: str
    verdict: Verdict
    reason: str
    seed: int
    moment: float
    is_control: bool = False
    exit_code: int | None = None
    recovery: float | None = None
    account: Account | None = None
    interval: FaultInterval | None = None
    probe_report: ProbeReport | None = None
    expected: str = ""

    @property
    def is_fine(self) -> bool:
        """Whether it is as it should be: it held, or it failed where the catalogue says so."""
        if self.expected:
            return self.verdict is Verdict.FAILED
        return self.verdict in (Verdict.HELD, Verdict.DEGRADED)

    def as_json(self) -> dict[str, object]:
        """For a report, and for a script."""
        return asdict(self)


def judge(fault: str, account: Account | None, exit_code: int | None, ended: int | None = None) -> tuple[Verdict, str]:
    """What an account means under a fault; how long it took is not asked here.

    Args:
        exit_code: of a model that the fault ended.
        ended: exit code of a model that ended although the fault leaves it running.
    """
    if ended is not None:
        return (
            Verdict.FAILED,
            f"it ended with exit code {ended}, which this fault does not ask for, and was started again",
        )
    if account is None:
        return Verdict.UNKNOWN, "the ledger gave no account"
    if account.wrong:
        wrong = ", ".join(f"{count} {what}" for what, count in sorted(account.wrong.items()))
        return Verdict.FAILED, f"replies that nobody was owed: {wrong}"
    if not account.served or not account.answered:
        return Verdict.UNKNOWN, "nobody was served before the fault"
    if not FAULTS[fault].keeps:
        return Verdict.HELD, f"{account.answered} answered once and in order, {account.unanswered} known as unanswered"
    if account.lost:
        return Verdict.FAILED, f"{account.lost} requests that were accepted were never answered"
    if fault == "drain" and exit_code != 0:
        return Verdict.FAILED, f"it ended with exit code {exit_code}: somebody was cut off"
    return Verdict.HELD, f"{account.answered} answered once and in order, none of those that were accepted lost"


def judge_times(
    probe_report: ProbeReport | None, allowed: float, *, lasted: float, silence: float
) -> tuple[Verdict, str]:
    """What a fault meant to others, of a model that has lost nothing.

    Args:
        around: what a witness saw; None of a model that serves nobody beside the ledger. Then the ledger's own clients
            are looked at.
        allowed: seconds from the mending, within which all has to be as before.
        lasted: seconds, from the first step of breaking to the last of mending; 0 where connections end with it.
        silence: seconds, the longest that the ledger's clients got no reply.
    """
    if probe_report is None:
        seen = f"nobody else is served beside the ledger, whose own clients waited {show(silence)} at most"
        if lasted and silence > lasted + allowed:
            return Verdict.DEGRADED, f"{seen}, and not only {show(lasted)}, as it lasted, and {show(allowed)}"
        return Verdict.HELD, seen
    if probe_report.detect is None:
        return Verdict.HELD, str(probe_report)
    if probe_report.recover is None:
        return Verdict.DEGRADED, f"{probe_report} within {_MOST_SECONDS:g} s"
    if probe_report.recover > allowed:
        return Verdict.DEGRADED, f"{probe_report}, and not within {show(allowed)}"
    return Verdict.HELD, str(probe_report)
