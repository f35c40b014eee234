"""Judge what a fault did to a model, by the account of all requests and by the times of a latency probe."""

from dataclasses import dataclass
from enum import StrEnum

from lab.clients.request_log import Account
from lab.experiments.faults.fault import Fault, FaultInterval
from lab.experiments.faults.probe_reader import ProbeReport, show

# A model that has not recovered by then counts as not recovered. The load continues until then.
RECOVERY_TIMEOUT = 4.0


class Verdict(StrEnum):
    HELD = "held"
    DEGRADED = "degraded"  # no request is lost, but recovery took longer than allowed
    FAILED = "failed"
    UNKNOWN = "unknown"  # no account, or an empty one: never a pass


@dataclass(frozen=True, slots=True)
class Score:
    """One cell of the scorecard.

    Args:
        seed: Repeats the same requests and the same moment of injection.
        moment: Seconds from the first answers to the injection.
        is_control: The fault was not injected.
        exit_code: Exit code of a model that ended, by the fault or by itself, if it is known.
        recovery: Seconds to the first answer of a model that was ended, from the kill or else from its start; None for
            other faults.
        account: The sums over all requests; None if the request log returned none.
        interval: When the fault was injected and healed.
        probe_report: Times of the latency probe; None for a model that serves one client at a time.
        expected: Why the catalogue declares that this model fails; empty if it does not.
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
        """Whether the model held, or failed as the catalogue declares."""
        if self.expected:
            return self.verdict is Verdict.FAILED
        return self.verdict in (Verdict.HELD, Verdict.DEGRADED)


def judge(
    fault: Fault, account: Account | None, exit_code: int | None, ended: int | None = None
) -> tuple[Verdict, str]:
    """Judge the account of a fault, without regard to time.

    Args:
        exit_code: Exit code of a model that the fault ended.
        ended: Exit code of a model that ended although the fault leaves it running.
    """
    if ended is not None:
        return (
            Verdict.FAILED,
            f"it ended with exit code {ended}, which this fault does not cause, and was restarted",
        )
    if account is None:
        return Verdict.UNKNOWN, "the request log returned no account"
    if account.wrong:
        wrong = ", ".join(f"{count} {what}" for what, count in sorted(account.wrong.items()))
        return Verdict.FAILED, f"wrong replies: {wrong}"
    if not account.served or not account.answered:
        return Verdict.UNKNOWN, "no client was served before the fault"
    if not fault.keeps_connections:
        return (
            Verdict.HELD,
            f"{account.answered} answered once and in order, {account.unanswered} known to be unanswered",
        )
    if account.lost:
        return Verdict.FAILED, f"{account.lost} accepted requests were never answered"
    if fault.must_exit_cleanly and exit_code != 0:
        return Verdict.FAILED, f"it ended with exit code {exit_code}: a client was cut off"
    return Verdict.HELD, f"{account.answered} answered once and in order, no accepted request lost"


def judge_times(
    probe_report: ProbeReport | None, allowed: float, *, lasted: float, silence: float
) -> tuple[Verdict, str]:
    """Judge how long a fault delayed other clients of a model that has lost no request.

    Args:
        probe_report: None for a model that serves one client at a time. Then `silence` decides.
        allowed: Seconds after healing within which the model must have recovered.
        lasted: Seconds from the start of the injection to the end of healing; 0 if the fault ends connections.
        silence: Longest time in seconds in which the clients of the request log got no reply.
    """
    if probe_report is None:
        seen = f"it serves no further client; those of the request log waited {show(silence)} at most"
        if lasted and silence > lasted + allowed:
            return Verdict.DEGRADED, f"{seen}, more than the fault's {show(lasted)} and the allowed {show(allowed)}"
        return Verdict.HELD, seen
    if probe_report.detect is None:
        return Verdict.HELD, str(probe_report)
    if probe_report.recover is None:
        return Verdict.DEGRADED, f"{probe_report} within {RECOVERY_TIMEOUT:g} s"
    if probe_report.recover > allowed:
        return Verdict.DEGRADED, f"{probe_report}, more than the allowed {show(allowed)}"
    return Verdict.HELD, str(probe_report)
