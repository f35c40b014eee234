"""What the system calls of a thread mean: for the second row of its lane, if strace was attached."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from itertools import pairwise

from lab.experiments.xray.recording import SystemCall


class Activity(StrEnum):
    """What a thread does in the kernel, or that it is not there. The words are those of the legend."""

    WAIT = "epoll_wait, poll, select"
    ACCEPT = "accept"
    RECEIVE = "recv, read"
    SEND = "send, write"
    LOCK = "futex"
    SLEEP = "nanosleep"
    OTHER = "another system call"
    RUN = "between two calls: it runs, or waits for a core"


_NAMES = {
    Activity.WAIT: "epoll_wait epoll_pwait epoll_pwait2 poll ppoll select pselect6 restart_syscall",
    Activity.ACCEPT: "accept accept4",
    Activity.RECEIVE: "recvfrom recvmsg read readv pread64",
    Activity.SEND: "sendto sendmsg write writev sendfile",
    Activity.LOCK: "futex",
    Activity.SLEEP: "nanosleep clock_nanosleep",
}
ACTIVITIES: Mapping[str, Activity] = {name: activity for activity, names in _NAMES.items() for name in names.split()}


@dataclass(frozen=True, slots=True)
class Stretch:
    """A system call, or the time between two."""

    start: int
    end: int
    activity: Activity
    name: str = ""


def list_stretches(calls: Sequence[SystemCall]) -> Iterator[Stretch]:
    """Give the calls of a thread and what is between them. Before the first and after the last nothing is known."""
    for call, following in pairwise(calls):
        yield _describe(call)
        if following.start > call.end:
            yield Stretch(call.end, following.start, Activity.RUN)
    if calls:
        yield _describe(calls[-1])


def _describe(call: SystemCall) -> Stretch:
    return Stretch(call.start, call.end, ACTIVITIES.get(call.name, Activity.OTHER), call.name)


def sum_up(stretches: Sequence[Stretch]) -> list[tuple[str, int, int]]:
    """Return the calls by name, each with how often it was made and how long it took, the longest first."""
    found: dict[str, tuple[int, int]] = {}
    for stretch in stretches:
        if stretch.name:
            number, took = found.get(stretch.name, (0, 0))
            found[stretch.name] = number + 1, took + stretch.end - stretch.start
    return sorted(((name, *totals) for name, totals in found.items()), key=lambda each: -each[2])
