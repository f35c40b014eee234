"""Find what limited a measurement: pure functions over the CPU time of both sides and Little's law.

A rate describes a server only if the server was the limit. The CPU time of both sides shows that; if neither was busy,
they waited, for a timer or for each other. Little's law (requests in flight = rate x mean response time) catches errors
that CPU time does not show: a generator that lost time between requests, or counts that do not belong together.
"""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from enum import StrEnum

from lab.metrics.server_use import ServerUse
from loadtests.contract import LoadResult
from loadtests.sockets.exchange import failure_kind

# The share of the available CPU from which a side counts as busy. Not 1: a busy process loses some per cent to
# interrupts, to clock ticks and to a hypervisor.
_BUSY = 0.9

# The largest share of a full core that may have gone to interrupts, a hypervisor and other processes if the side
# that is pinned to it is still to count as the limit.
_TAKEN = 0.1

# The share of the requested rate from which the rate counts as held.
_REACHED = 0.99

# The largest relative difference between rate x response time and the number of users.
_LITTLE = 0.15

# The share of the time from which a CPU quota counts as the limit.
_THROTTLED = 0.05

# The largest share of failed exchanges at which a load counts as served.
_FAILED = 0.01

# Cores used by other processes from which the reader is told.
_SHARED = 0.5

# The share of all cores that a hypervisor gave to others, from which the reader is told.
STOLEN = 0.05

# Reasons of loadtests/sockets/failures.py for a reply that is wrong. One is enough: the speed of a server that answers
# wrongly means nothing.
WRONG_REPLIES = frozenset(
    {
        "wrong bytes",
        "error reply",
        "more than was asked for",
        "short reply: closed in the middle",
        "the codec raised an error",
    }
)

# Users with no other failures wait for a turn, like the clients of a server that serves one at a time.
_TIME_OUTS = frozenset({"time-out: no reply", "time-out: no connection"})

# The largest share of an open loop's exchanges that a busy generator may send late.
_LATE = 0.05


class Limit(StrEnum):
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
class CoreUse:
    """The cores that each side is pinned to. Interrupts, a hypervisor and other processes take some of their time.

    Args:
        server, generator: the share of the time for which each core was busy, with whatever.
        server_stolen, generator_stolen: the part of that share that a hypervisor gave to others.
    """

    server: tuple[float, ...]
    generator: tuple[float, ...]
    server_stolen: tuple[float, ...]
    generator_stolen: tuple[float, ...]


@dataclass(frozen=True, slots=True)
class Verdict:
    """What limited a measurement, and why."""

    bound: Limit
    reason: str

    @property
    def is_lower_bound(self) -> bool:
        """Whether the server could have answered more: the rate is then printed with `>=`."""
        return self.bound in (Limit.GENERATOR, Limit.MACHINE)

    @property
    def is_failure(self) -> bool:
        """Whether the server gave wrong replies, or too few."""
        return self.bound in (Limit.WRONG, Limit.FAILED)


def exit_code(verdicts: Iterable[Verdict], *, allow_failures: bool = False) -> int:
    """Return the exit code for measurements: 2 if one was disturbed, 1 if a server failed, else 0.

    Args:
        allow_failures: return 0 instead of 1.
    """
    found = list(verdicts)
    if any(verdict.bound is Limit.DISTURBED for verdict in found):
        return 2
    return int(not allow_failures and any(verdict.is_failure for verdict in found))


def show_failures(failures: Mapping[str, int]) -> str:
    """Return the failures with their reasons as text."""
    return "; ".join(f"{count} × {reason}" for reason, count in sorted(failures.items())) or "0"  # noqa: RUF001


def find_failure(answered: int, failures: Mapping[str, int], warm_up: Mapping[str, int]) -> Verdict | None:
    """Return the verdict on a server that gave wrong replies or too few; None if it did neither.

    Args:
        answered: correct replies.
        failures: failed exchanges by reason.
        warm_up: failed exchanges of the warm-up by reason; only wrong replies count.
    """
    for found, where in ((failures, ""), (warm_up, " in the warm-up")):
        if wrong := {reason: count for reason, count in found.items() if failure_kind(reason) in WRONG_REPLIES}:
            count = sum(wrong.values())
            replies = "reply" if count == 1 else "replies"
            return Verdict(Limit.WRONG, f"{count} wrong {replies}{where}: {show_failures(wrong)}")
    failed = sum(failures.values())
    said = f": {show_failures(failures)}" if failures else ""
    if not answered:
        return Verdict(Limit.FAILED, f"not one correct reply in the whole window{said}")
    if failed > _FAILED * (answered + failed):
        return Verdict(Limit.FAILED, f"{failed / (answered + failed):.1%} of all exchanges failed{said}")
    return None


def is_consistent(users: float, flight: float, *, rests: bool = False) -> bool:
    """Return whether this number of users can have this number of exchanges in flight.

    One user may be outside an exchange at any time: the generator is one thread, and it is busy with one of them. If
    users rest between exchanges, any number of them may be.
    """
    return (0 if rests else (users - 1) * (1 - _LITTLE)) <= flight <= users * (1 + _LITTLE)


def find_limit(load: LoadResult, server: ServerUse, *, rests: bool, own: CoreUse | None = None) -> Verdict:
    """Return the verdict, with remarks that a reader should know.

    Args:
        rests: whether connections of a closed loop pause between exchanges, and are then not in flight.
        own: of the cores that both sides are pinned to; None if they are not, or it is unknown.
    """
    verdict = _choose_limit(load, server, rests=rests, own=own)
    return Verdict(verdict.bound, "; ".join([verdict.reason, *_list_remarks(load, server, verdict.bound)]))


def _list_remarks(load: LoadResult, server: ServerUse, bound: Limit) -> Iterator[str]:
    if server.unknown:
        yield f"the server's process could not be measured: {server.unknown}"
    others = _count_others(load, server)
    if others is not None and others >= _SHARED and bound is not Limit.MACHINE:
        yield f"other processes used {others:.2f} cores meanwhile"
    if (load.stolen_ratio or 0.0) >= STOLEN:
        yield f"a hypervisor gave {sum(load.core_steal):.2f} of {len(load.core_steal)} cores to others"


def _count_others(load: LoadResult, server: ServerUse) -> float | None:
    """Return the cores used by neither side; None if one of the inputs is missing."""
    machine, used, generator = load.machine_cores, server.cores, load.generator_cores
    if machine is None or used is None or generator is None:
        return None
    return max(machine - used - generator, 0.0)


def _choose_limit(load: LoadResult, server: ServerUse, *, rests: bool, own: CoreUse | None) -> Verdict:
    """Return the first verdict that applies: what invalidates a measurement comes before what limits it."""
    failure = find_failure(load.answered, load.failures, load.warm_up_failures)
    if failure and failure.bound is Limit.WRONG:
        return failure
    if load.disturbances:
        return Verdict(Limit.DISTURBED, "; ".join(load.disturbances))
    if failure:
        return failure
    is_open = load.asked is not None
    if load.starved and not is_open:
        unserved = f"{load.starved} of {load.users:.0f} users got no reply in the whole window"
        if refused := {
            reason: count for reason, count in load.failures.items() if failure_kind(reason) not in _TIME_OUTS
        }:
            return Verdict(Limit.FAILED, f"{unserved}: {show_failures(refused)}")
        return Verdict(Limit.STARVED, f"{unserved}: they waited for a turn")
    flight = load.in_flight
    if flight is None:
        return Verdict(Limit.UNKNOWN, "no response times")
    # Before Little's law: a generator that is stopped need not obey it.
    if (load.generator_throttled or 0.0) >= _THROTTLED:
        return Verdict(
            Limit.GENERATOR, f"the generator's CPU quota stopped it for {load.generator_throttled:.0%} of the time"
        )
    if not is_open and not is_consistent(load.users, flight, rests=rests):
        return Verdict(
            Limit.INCONSISTENT,
            f"rate x response time says {flight:.1f} in flight, and there were {load.users:.0f} users",
        )
    reached = late = 0.0
    if load.asked:
        # At most what was asked: replies from the queue before the window do not make up for dropped exchanges.
        reached = min(load.answered, load.asked - load.dropped) / load.asked
        late = load.late / load.asked
    sent_late = f", {late:.1%} of it sent late" if late else ""
    generator_is_busy = (load.generator_cores or 0.0) >= _BUSY * load.generators
    if reached >= _REACHED and not (late > _LATE and generator_is_busy):
        return Verdict(Limit.HELD, f"{reached:.1%} of the requested rate was answered{sent_late}")
    used, allotted, generator = server.cores, server.allotted, load.generator_cores
    if used is None or allotted is None or generator is None:
        side = "generator" if generator is None else "server"
        return Verdict(Limit.UNKNOWN, f"the {side}'s CPU time could not be read, so the limit is unknown")
    of = "a core" if allotted == 1 else f"{allotted} cores"
    if (server.throttled or 0.0) >= _THROTTLED:
        return Verdict(Limit.SERVER, f"the server's CPU quota stopped it for {server.throttled:.0%} of the time")
    if used >= _BUSY * allotted:
        return Verdict(Limit.SERVER, f"the server used {used / allotted:.0%} of {of}, all that it can use")
    if generator_is_busy:
        its = "its core" if load.generators == 1 else f"its {load.generators} cores"
        return Verdict(
            Limit.GENERATOR,
            f"the generator used {generator / load.generators:.0%} of {its}, "
            f"the server {used / allotted:.0%} of {of}{sent_late}",
        )
    if own and (full := _find_full_cores(used, allotted, generator, load.generators, own)):
        return full
    machine, cores = load.machine_cores, load.cores
    if machine is not None and cores is not None and machine >= _BUSY * cores:
        others = _count_others(load, server)
        return Verdict(
            Limit.MACHINE,
            f"all {cores} cores were busy: server {used:.2f}, generator {generator:.2f}, others {others:.2f}",
        )
    return Verdict(
        Limit.WAITING,
        f"neither side was busy: the server used {used / allotted:.0%} of {of}, "
        f"the generator {generator / load.generators:.0%} of its own",
    )


def _find_full_cores(used: float, allotted: int, generator: float, generators: int, own: CoreUse) -> Verdict | None:
    """Return the verdict if the cores of a side were full, although it did not get all of their time.

    Args:
        used, allotted: the server's cores, as in `ServerUse`.
        generator, generators: those of the load generator.
    """
    sides = (
        ("server", Limit.SERVER, used, allotted, own.server, own.generator_stolen),
        ("generator", Limit.GENERATOR, generator, generators, own.generator, own.server_stolen),
    )
    limits = []
    for side, bound, got, can_use, cores, withheld in sides:
        # A server of one thread that may choose among three cores leaves two of them idle.
        if can_use != len(cores):
            continue
        busy = sum(cores) / can_use
        share = got / can_use
        were, of = ("core was", "it") if can_use == 1 else (f"{can_use} cores were", "them")
        if busy >= _BUSY:
            taken = max(busy - share, 0.0)
            reason = f"the {side}'s own {were} busy: the {side} used {share:.0%} of {of}, others {taken:.0%}"
            limits.append(Verdict(bound if taken <= _TAKEN else Limit.MACHINE, reason))
        # While a hypervisor withholds the cores of one side, the other has nothing to do.
        elif busy + (lost := sum(withheld) / len(withheld)) >= _BUSY:
            reason = f"the {side}'s own {were} busy for {busy:.0%} of the time, and a hypervisor took {lost:.0%} "
            reason += "from the other side"
            limits.append(Verdict(Limit.MACHINE, reason))
    # A side that got nearly all comes before one from which others took more.
    return min(limits, key=lambda found: found.bound is Limit.MACHINE, default=None)
