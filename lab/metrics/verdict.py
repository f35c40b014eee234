"""What limited a measurement. Pure functions over the CPU accounts of both sides and Little's law.

A rate says nothing about a server until it is known that the server was what limited it. Both sides' CPU tells; where
neither was busy, they waited (for a timer, or for each other). Little's law (users in flight = rate x mean response
time) catches what the CPU does not show: a generator that lost time between requests, or counts that do not belong
together.
"""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from enum import StrEnum

from loadtests.sockets.exchange import failure_kind

# Of what a side could use. Not 1: a busy process loses some per cent to interrupts, to the accounts' ticks and to a
# hypervisor.
_BUSY = 0.9

# Of the rate that was asked for: less than this is not what was asked for.
_REACHED = 0.99

# How far rate x response time may be from the users.
_LITTLE = 0.15

# Of the time: a side that its CPU quota holds back for longer than this is limited by the quota.
_THROTTLED = 0.05

# Of all exchanges: more than this failed is no load that was served.
_FAILED = 0.01

# Cores' worth of CPU that processes of neither side used: from here on a reader should know.
_SHARED = 0.5

# Reasons of loadtests/sockets/failures.py, which cannot be imported here: it is the generator's. The server did reply,
# and what it said was not what was asked for. One such reply is enough: a server that is wrong has no speed.
WRONG_REPLIES = frozenset(
    {
        "wrong bytes",
        "error reply",
        "more than was asked for",
        "short reply: closed in the middle",
        "the codec raised an error",
    }
)

# Users that see nothing else wait for a turn, as clients of a server that serves one at a time do.
_TIME_OUTS = frozenset({"time-out: no reply", "time-out: no connection"})

# Of what was due in an open loop: more than this sent late, by a generator that was busy, is not what was asked for.
_LATE = 0.05


class Bound(StrEnum):
    """The limit of a measurement."""

    WRONG = "wrong"
    DISTURBED = "disturbed"
    HELD = "held"
    SERVER = "server-bound"
    GENERATOR = "generator-bound"
    MACHINE = "machine-bound"
    WAITING = "waiting"
    STARVED = "starved"
    FAILED = "failed"
    INCONSISTENT = "inconsistent"
    UNKNOWN = "unknown"


@dataclass(frozen=True, slots=True)
class Verdict:
    """What limited a measurement, and the sentence that says why."""

    bound: Bound
    reason: str

    @property
    def is_lower_bound(self) -> bool:
        """Whether the server could have answered more than was measured: the rate is then printed as `>=`."""
        return self.bound in (Bound.GENERATOR, Bound.MACHINE)

    @property
    def is_failure(self) -> bool:
        """Whether the server did not do what it was asked: wrong replies, or too many without one."""
        return self.bound in (Bound.WRONG, Bound.FAILED)


@dataclass(frozen=True, slots=True)
class Accounts:
    """What a verdict is given on. None wherever it could not be measured.

    Args:
        users: connections; in a closed loop each has always one exchange in flight.
        starved: of these, how many got no reply in the whole window.
        exchanges_per_second: those that have a response time.
        mean_seconds: their mean response time.
        answered: how many came back right.
        server_cores: cores' worth of CPU that the server used.
        server_allotted: cores that it can use at most: one for a process under one GIL.
        generator_cores: cores' worth of CPU that the generator used; it can use one for each of its processes.
        machine_cores: cores' worth of CPU that everything on the machine used together.
        cores: what the machine has.
        generators: processes of the generator.
        asked: of an open loop, exchanges that were due; None of a closed one.
        dropped: of these, those that could not be sent in time.
        rests: of a closed loop, whether connections rest between exchanges, and are then not in flight.
        late: of an open loop, exchanges that were sent after their time.
        server_throttled, generator_throttled: for which part of the time a CPU quota held that side back.
        failures: exchanges that did not come back right, by reason.
        warm_up_failures: the same of the warm-up.
        disturbances: what happened to the measurement itself, so that its figures mean nothing.
        server_unknown: why the server's CPU could not be read; empty if nothing is known about that either.
    """

    users: float
    starved: int
    exchanges_per_second: float
    mean_seconds: float | None
    answered: int
    server_cores: float | None
    server_allotted: int | None
    generator_cores: float | None
    machine_cores: float | None
    cores: int | None
    generators: int = 1
    asked: int | None = None
    dropped: int = 0
    rests: bool = False
    late: int = 0
    server_throttled: float | None = None
    generator_throttled: float | None = None
    failures: Mapping[str, int] = field(default_factory=dict)
    warm_up_failures: Mapping[str, int] = field(default_factory=dict)
    disturbances: tuple[str, ...] = ()
    server_unknown: str = ""


def exit_code(verdicts: Iterable[Verdict], *, allow_failures: bool = False) -> int:
    """The exit code that measurements come to: 2 one was disturbed, 1 a server failed, 0 neither.

    Args:
        allow_failures: a server that fails is what was to be seen.
    """
    found = list(verdicts)
    if any(verdict.bound is Bound.DISTURBED for verdict in found):
        return 2
    return int(not allow_failures and any(verdict.is_failure for verdict in found))


def show_failures(failures: Mapping[str, int]) -> str:
    """How many failed, and of what."""
    return "; ".join(f"{count} × {reason}" for reason, count in sorted(failures.items())) or "0"  # noqa: RUF001


def find_failure(answered: int, failures: Mapping[str, int], warm_up: Mapping[str, int]) -> Verdict | None:
    """The verdict on a server that did not do what it was asked; None on one that did.

    Args:
        answered: exchanges that came back right.
        failures: those that did not, by reason.
        warm_up: the same of the warm-up, where only a wrong reply counts.
    """
    for found, where in ((failures, ""), (warm_up, " in the warm-up")):
        if wrong := {reason: count for reason, count in found.items() if failure_kind(reason) in WRONG_REPLIES}:
            count = sum(wrong.values())
            replies = "reply" if count == 1 else "replies"
            return Verdict(Bound.WRONG, f"{count} wrong {replies}{where}: {show_failures(wrong)}")
    failed = sum(failures.values())
    said = f": {show_failures(failures)}" if failures else ""
    if not answered:
        return Verdict(Bound.FAILED, f"not one correct reply in the whole window{said}")
    if failed > _FAILED * (answered + failed):
        return Verdict(Bound.FAILED, f"{failed / (answered + failed):.1%} of all exchanges failed{said}")
    return None


def in_flight(accounts: Accounts) -> float | None:
    """Little's law: how many exchanges were under way on average, from rate and response time."""
    return None if accounts.mean_seconds is None else accounts.exchanges_per_second * accounts.mean_seconds


def is_consistent(users: float, flight: float, *, rests: bool = False) -> bool:
    """Whether so many in flight can come from so many users.

    One user may be outside an exchange at any time: the generator is one thread, and it is busy with one of them. Where
    they rest between exchanges, any number may be.
    """
    return (0 if rests else (users - 1) * (1 - _LITTLE)) <= flight <= users * (1 + _LITTLE)


def judge(accounts: Accounts) -> Verdict:
    """Give the verdict, with what a reader should know beside it."""
    verdict = _find_bound(accounts)
    return Verdict(verdict.bound, "; ".join([verdict.reason, *_list_remarks(accounts, verdict.bound)]))


def _list_remarks(accounts: Accounts, bound: Bound) -> Iterator[str]:
    if accounts.server_unknown:
        yield f"nothing is known of the server's process: {accounts.server_unknown}"
    others = _count_others(accounts)
    if others is not None and others >= _SHARED and bound is not Bound.MACHINE:
        yield f"other processes used {others:.2f} cores meanwhile"


def _count_others(accounts: Accounts) -> float | None:
    """Cores' worth of CPU that neither side used; None if one of the accounts is missing."""
    machine, server, generator = accounts.machine_cores, accounts.server_cores, accounts.generator_cores
    if machine is None or server is None or generator is None:
        return None
    return max(machine - server - generator, 0.0)


def _find_bound(accounts: Accounts) -> Verdict:
    """The first that applies, from what spoils a measurement to what merely limits it."""
    failure = find_failure(accounts.answered, accounts.failures, accounts.warm_up_failures)
    if failure and failure.bound is Bound.WRONG:
        return failure
    if accounts.disturbances:
        return Verdict(Bound.DISTURBED, "; ".join(accounts.disturbances))
    if failure:
        return failure
    is_open = accounts.asked is not None
    if accounts.starved and not is_open:
        unserved = f"{accounts.starved} of {accounts.users:.0f} users got no reply in the whole window"
        if refused := {
            reason: count for reason, count in accounts.failures.items() if failure_kind(reason) not in _TIME_OUTS
        }:
            return Verdict(Bound.FAILED, f"{unserved}: {show_failures(refused)}")
        return Verdict(Bound.STARVED, f"{unserved}: they waited for a turn")
    flight = in_flight(accounts)
    if flight is None:
        return Verdict(Bound.UNKNOWN, "no response times")
    # Before the law: what a generator that stands still has counted need not obey it.
    if (accounts.generator_throttled or 0.0) >= _THROTTLED:
        return Verdict(
            Bound.GENERATOR, f"its CPU quota held the generator back for {accounts.generator_throttled:.0%} of the time"
        )
    if not is_open and not is_consistent(accounts.users, flight, rests=accounts.rests):
        return Verdict(
            Bound.INCONSISTENT,
            f"rate x response time says {flight:.1f} in flight, and there were {accounts.users:.0f} users",
        )
    reached = late = 0.0
    if accounts.asked:
        # Not more than was asked: what was waiting when the measurement began makes up for nothing that was dropped.
        reached = min(accounts.answered, accounts.asked - accounts.dropped) / accounts.asked
        late = accounts.late / accounts.asked
    sent_late = f", {late:.1%} of it sent late" if late else ""
    generator_is_busy = (accounts.generator_cores or 0.0) >= _BUSY * accounts.generators
    if reached >= _REACHED and not (late > _LATE and generator_is_busy):
        return Verdict(Bound.HELD, f"{reached:.1%} of the rate that was asked for was answered{sent_late}")
    server, allotted, generator = accounts.server_cores, accounts.server_allotted, accounts.generator_cores
    if server is None or allotted is None or generator is None:
        side = "generator" if generator is None else "server"
        return Verdict(Bound.UNKNOWN, f"the {side}'s CPU could not be read, so nothing says what the limit was")
    of = "a core" if allotted == 1 else f"{allotted} cores"
    if (accounts.server_throttled or 0.0) >= _THROTTLED:
        return Verdict(
            Bound.SERVER, f"its CPU quota held the server back for {accounts.server_throttled:.0%} of the time"
        )
    if server >= _BUSY * allotted:
        return Verdict(Bound.SERVER, f"the server used {server / allotted:.0%} of {of}, all that it can")
    if generator_is_busy:
        own = "its core" if accounts.generators == 1 else f"its {accounts.generators} cores"
        return Verdict(
            Bound.GENERATOR,
            f"the generator used {generator / accounts.generators:.0%} of {own}, "
            f"the server {server / allotted:.0%} of {of}{sent_late}",
        )
    machine, cores = accounts.machine_cores, accounts.cores
    if machine is not None and cores is not None and machine >= _BUSY * cores:
        others = _count_others(accounts)
        return Verdict(
            Bound.MACHINE,
            f"all {cores} cores were busy: server {server:.2f}, generator {generator:.2f}, all else {others:.2f}",
        )
    return Verdict(
        Bound.WAITING,
        f"nobody was busy: the server used {server / allotted:.0%} of {of}, "
        f"the generator {generator / accounts.generators:.0%} of its own",
    )
